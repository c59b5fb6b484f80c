"""What is remembered of songs, how it is restored, and the means to write it: shared by all that serve a song."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from confluent_kafka import Message

from streams.contract.cloudevents import Timestamp, append_time, pack
from streams.contract.errors import BadRecord, KeyMismatch, Refused, Undecodable, broken_state
from streams.contract.internal_events import CampaignReport
from streams.contract.topics import CAMPAIGNS, SONGS_LEDGER, SONGS_REPORTS, Naming, Topic
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.skipped_records import Skipped
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import Clock
from streams.runtime.metrics import SongsMetrics
from streams.runtime.settings import KafkaSettings, SongsSettings
from streams.runtime.tracing import Tracing
from streams.songs import song_record
from streams.songs.campaign_view import campaign
from streams.songs.messages import SOURCE
from streams.songs.model_swap import LiveMatcher
from streams.songs.producer import AwaitedProducer, Sent
from streams.songs.song_record import Song, report_key

_reports = msgspec.json.Decoder(CampaignReport)
_encoder = msgspec.json.Encoder()

Entries = dict[bytes, bytes]
"""Record key -> newest value, of one partition."""

_LOST = "a song is then one that was never uploaded, until its next upload"


class CompactedCache:
    """A compacted topic in memory: the entries of each partition that this worker serves, loaded when first asked for.

    Faust's own tables cannot serve here: they write to the partition of the *current* event, and in a batch taken
    unacknowledged there is no current event.

    Writing is the caller's: send the record, wait for the acknowledgement, then set it in the entries.

    Args:
        topic: full name of the compacted topic.
        check: raises BadRecord for an entry (key, value) that cannot be used.
        skipped: is told of such entries, which are then missing; None: nothing may be missing, so they are refused.
        without: partition -> offsets of records that are left out, because an operator said so.
        opened: called with a partition and its entries once they are read and before anybody has them, on another
            thread; may take entries out, and refuse.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        clock: Clock,
        check: Callable[[bytes, bytes], None],
        skipped: Skipped | None = None,
        without: Mapping[int, Collection[int]] = MappingProxyType({}),
        opened: Callable[[int, Entries], None] | None = None,
    ) -> None:
        self.topic = topic
        self._kafka = kafka
        self._clock = clock
        self._check = check
        self._skipped = skipped
        self._without = without
        self._opened = opened
        self._partitions: dict[int, asyncio.Future[Entries]] = {}
        self._begun: dict[int, _PartitionRead] = {}

    def begin(self, number: int) -> None:
        """Read a partition before it is ours, so that only its tail is left to read when it is. Blocks.

        Raises:
            Unavailable: the broker does not answer.
        """
        reading = self._new(number)
        reading.go_on(self._without.get(number, ()))
        self._begun[number] = reading

    def drop_begun(self) -> None:
        """Release what was read of partitions that did not come to this worker."""
        while self._begun:
            with suppress(KeyError):
                self._begun.popitem()[1].snapshot.close()

    async def partition(self, number: int) -> Entries:
        """The entries of one partition.

        Raises:
            Unavailable: the broker does not answer.
            Refused: an entry cannot be used and must not be missing; the message names its place and the way out. Or
                ``opened`` refuses.
        """
        if number not in self._partitions:
            # On a thread: heartbeats of the group must go on while a long topic is read. Callers meanwhile wait
            # for the same read: entries set in one copy would be missing in another.
            self._partitions[number] = asyncio.ensure_future(asyncio.to_thread(self._read, number))
        return await asyncio.shield(self._partitions[number])

    def forget(self) -> None:
        """After a rebalance: what another worker wrote meanwhile must be read again."""
        self._partitions.clear()

    def _new(self, number: int) -> _PartitionRead:
        return _PartitionRead(Snapshot(self._kafka, [self.topic], self._clock, number))

    def _read(self, number: int) -> Entries:
        reading = self._begun.pop(number, None) or self._new(number)
        try:
            reading.go_on(self._without.get(number, ()))
        finally:
            reading.snapshot.close()
        standing = reading.standing
        entries: Entries = {}
        bad: list[tuple[Message, BadRecord]] = []
        for key, message in standing.items():
            value = message.value() or b""
            try:
                self._check(key, value)
            except BadRecord as error:
                bad.append((message, error.without_frames()))
            else:
                entries[key] = value
        if bad and self._skipped is None:
            places = [(number, message.offset() or 0, str(why)) for message, why in bad]
            raise Refused(broken_state(self.topic, places, "songs.skip_ledger_records", self._without, _LOST))
        for message, why in bad:
            if self._skipped is not None:
                self._skipped.add(message, why)
        if self._opened:
            self._opened(number, entries)
        return entries


@dataclass(slots=True)
class _PartitionRead:
    """A partition as far as it was read: the newest record of each key."""

    snapshot: Snapshot
    standing: dict[bytes, Message] = field(default_factory=dict)

    def go_on(self, without: Collection[int]) -> None:
        """To the end as it is now, leaving these offsets out."""
        for message in self.snapshot.read_to_end():
            if message.offset() in without:
                continue
            if message.value() is None:
                self.standing.pop(message.key() or b"", None)
            else:
                self.standing[message.key() or b""] = message


@dataclass(frozen=True, slots=True)
class SongStore:
    """What the agents share.

    Attributes:
        live: gives the model in use at the time of the call.
        song_records, reports: what is remembered of songs and of partitions' accounts.
        skipped: records of cached topics that wait for their dead letters.
        bursts: judges how many records of uploads and reports are bad.
        broker_clock: tells whether this machine's clock may decide anything.
        tracing: makes a hop of each upload.
        turn: held while deciding by a song record and until the change is acknowledged. Without it, reports of a
            revision that is being replaced could end a campaign.
    """

    naming: Naming
    settings: SongsSettings
    metrics: SongsMetrics
    clock: Clock
    live: LiveMatcher
    producer: AwaitedProducer
    song_records: CompactedCache
    reports: CompactedCache
    skipped: Skipped
    bursts: BadBursts
    broker_clock: BrokerClock
    tracing: Tracing = field(default_factory=Tracing)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def song(self, partition: int, song_id: str) -> Song | None:
        """A song's entry."""
        return song_record.read((await self.song_records.partition(partition)).get(song_id.encode()))

    async def remember(self, songs: Sequence[tuple[int, str, Song | None]]) -> None:
        """Write entries (partition, song_id, entry; None forgets), acknowledged."""
        await self.keep(
            SONGS_LEDGER,
            self.song_records,
            [(partition, id.encode(), song_record.write(song) if song else None) for partition, id, song in songs],
        )

    async def report(self, partition: int, key: bytes) -> CampaignReport | None:
        """The newest report under a key of the store."""
        value = (await self.reports.partition(partition)).get(key)
        return None if value is None else _reports.decode(value)

    async def reports_of(self, partition: int, song_id: str) -> dict[bytes, CampaignReport]:
        """The newest report of every audience partition that sent one, by its key in the store."""
        store = await self.reports.partition(partition)
        keys = [report_key(song_id, number) for number in range(self.naming.audience_partitions)]
        return {key: _reports.decode(store[key]) for key in keys if key in store}

    async def keep_reports(self, reports: Sequence[tuple[int, bytes, CampaignReport | None]]) -> None:
        """Write newest reports (partition, key, report; None forgets), acknowledged."""
        await self.keep(
            SONGS_REPORTS,
            self.reports,
            [(partition, key, _encoder.encode(report) if report else None) for partition, key, report in reports],
        )

    async def keep(
        self, topic: Topic, cache: CompactedCache, entries: Iterable[tuple[int, bytes, bytes | None]]
    ) -> None:
        """Remember entries (partition, key, value; None forgets): first in the topic, then here."""
        entries = list(entries)
        await asyncio.gather(
            *[await self.producer.put(topic, key, value, partition) for partition, key, value in entries]
        )
        for partition, key, value in entries:
            here = await cache.partition(partition)
            if value is None:
                here.pop(key, None)
            else:
                here[key] = value

    async def show(self, song_id: str, song: Song, reports: Sequence[CampaignReport]) -> Sent:
        """Hand over the song's view."""
        id = f"{song_id}/{song.revision}/{max((report.version for report in reports), default=0)}"
        record = pack(campaign(song_id, song, reports), id=id, source=SOURCE, time=self.clock.now())
        return await self.producer.send(CAMPAIGNS, record)


def check_report(key: bytes, value: bytes) -> None:
    """Whether an entry of ``songs-reports`` can be used.

    Raises:
        BadRecord: it cannot.
    """
    try:
        report = _reports.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Undecodable(f"no report: {error}") from None
    # Its times were checked when it was appended.
    report.check("", math.inf)
    if report_key(report.song_id, report.partition) != key:
        raise KeyMismatch(f"key: {key!r} is not that of {report.song_id!r} in partition {report.partition}")


def timestamp(message: Any) -> Timestamp:
    """A record's that Faust brought, as confluent-kafka would tell it."""
    # aiokafka numbers the kinds from 0.
    return message.timestamp_type + 1, round(message.timestamp * 1000)


def appended(message: Any, now: float) -> float:
    """When the broker appended a record that Faust brought, Unix seconds; see
    :func:`streams.contract.cloudevents.append_time`.
    """
    return append_time(timestamp(message), now)
