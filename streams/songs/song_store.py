"""What uploads, reports and reconciliation share: songs, reports, and the means to write them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from streams.contract.cloudevents import pack
from streams.contract.errors import KeyMismatch, Undecodable
from streams.contract.internal_events import CampaignReport
from streams.contract.topics import CAMPAIGNS, SONGS_LEDGER, SONGS_REPORTS, Naming
from streams.kafka.skipped_records import Skipped
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import Clock
from streams.runtime.metrics import SongsMetrics
from streams.runtime.settings import SongsSettings
from streams.songs import song_record
from streams.songs.campaign_view import campaign
from streams.songs.compacted_cache import CompactedCache
from streams.songs.messages import SOURCE
from streams.songs.model_swap import LiveMatcher
from streams.songs.producer import AwaitedProducer, Sent
from streams.songs.song_record import Song

_reports = msgspec.json.Decoder(CampaignReport)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class SongStore:
    """What the agents share.

    Attributes:
        live: gives the model in use at the time of the call.
        ledger, reports: what is remembered of songs and of partitions' accounts.
        skipped: records of cached topics that wait for their dead letters.
        bursts: judges how many records of uploads and reports are bad.
        broker_clock: tells whether this machine's clock may decide anything.
        turn: who decides by the ledger and changes it holds this until the change is acknowledged. Without it an end
            could be decided by reports of a revision that is being replaced.
    """

    naming: Naming
    settings: SongsSettings
    metrics: SongsMetrics
    clock: Clock
    live: LiveMatcher
    producer: AwaitedProducer
    ledger: CompactedCache
    reports: CompactedCache
    skipped: Skipped
    bursts: BadBursts
    broker_clock: BrokerClock
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def song(self, partition: int, song_id: str) -> Song | None:
        """A song's entry."""
        return song_record.read((await self.ledger.partition(partition)).get(song_id.encode()))

    async def remember(self, songs: Sequence[tuple[int, str, Song | None]]) -> None:
        """Write entries (partition, song_id, entry; None forgets), acknowledged."""
        await self.producer.keep(
            SONGS_LEDGER,
            self.ledger,
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
        await self.producer.keep(
            SONGS_REPORTS,
            self.reports,
            [(partition, key, _encoder.encode(report) if report else None) for partition, key, report in reports],
        )

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
    # When it was appended it was judged already.
    report.check("", math.inf)
    if report_key(report.song_id, report.partition) != key:
        raise KeyMismatch(f"key: {key!r} is not that of {report.song_id!r} in partition {report.partition}")


def report_key(song_id: str, partition: int) -> bytes:
    """The key of a partition's report."""
    # Ids may hold any character, so the number stands first.
    return f"{partition} {song_id}".encode()
