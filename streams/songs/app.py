"""Which agents read which topics, and when is an event done?

Faust commits past a failed send, and ``take`` acknowledges even when the agent's body raises. So batches are
taken unacknowledged (``noack_take``), every send is awaited, and only then is the batch acknowledged; a failed
send ends the process through :func:`streams.exits.leave`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import faust
import msgspec
import structlog

from encoder.content import SongContent
from streams.clock import Clock
from streams.dead_letters import Origin, dead_letter
from streams.envelope import Received, Record, pack, unpack
from streams.errors import BadRecord
from streams.events import Campaign, CampaignReport, MatchRequest, SongUpload
from streams.exits import RESTART, leave
from streams.metrics import SongsMetrics
from streams.settings import Kafka, Songs, Topics
from streams.songs.intake import Novelty, Served, content_of, novelty
from streams.songs.kept import Kept
from streams.songs.matcher import Matched, Matcher
from streams.songs.merging import kept, merge, newer
from streams.topics import (
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    MATCH_REQUESTS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    Naming,
    Topic,
)

SOURCE = "coldstart/songs"

# Reports of one song come from every partition within moments; waiting for them makes one campaign of many.
_REPORTS_WAIT_S = 0.1
_REPORTS_BATCH = 1000

_ENCODER = msgspec.json.Encoder()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SongsRole:
    """The parts that the agents share. ``matcher`` gives the live one at the time of the call; ``ledger`` and
    ``reports`` are what is remembered of uploads and of partitions' accounts."""

    naming: Naming
    settings: Songs
    metrics: SongsMetrics
    clock: Clock
    matcher: Callable[[], Matcher]
    ledger: Kept
    reports: Kept


def faust_app(kafka: Kafka, topics: Topics, settings: Songs, naming: Naming) -> Any:
    """The Faust application without agents; its id is its consumer group's name."""
    return faust.App(
        f"{naming.prefix}songs",
        broker=kafka.faust_brokers(),
        broker_credentials=kafka.faust_credentials(),
        # Faust's exactly_once loses and doubles events on a rebalance (measured); ours are idempotent instead.
        processing_guarantee="at_least_once",
        topic_partitions=naming.songs_partitions,
        topic_replication_factor=topics.replication_factor,
        # Every topic is created from the one table; a missing one must show.
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=settings.commit_interval_s,
        consumer_auto_offset_reset="earliest",
        # Without it a stream's stop waits for its whole buffer.
        stream_wait_empty=False,
        web_enabled=False,
    )


def add_agents(app: Any, role: SongsRole) -> None:
    """Give the application its two agents: uploads become requests, reports become campaigns."""
    topics = _FaustTopics(app, role.naming)

    async def serve_uploads(stream: Any) -> None:
        async for events in stream.noack_take(role.settings.batch_uploads, role.settings.batch_wait_ms / 1000):
            await _or_leave(_serve_uploads(role, topics, events))
            for event in events:
                await stream.ack(event)

    async def merge_reports(stream: Any) -> None:
        async for events in stream.noack_take(_REPORTS_BATCH, _REPORTS_WAIT_S):
            await _or_leave(_merge_reports(role, topics, events))
            for event in events:
                await stream.ack(event)

    async def forget(*_: object, **__: object) -> None:
        role.ledger.forget()
        role.reports.forget()

    app.agent(topics.get(SONG_UPLOADS), name="serve-uploads")(serve_uploads)
    app.agent(topics.get(CAMPAIGN_REPORTS), name="merge-reports")(merge_reports)
    app.on_partitions_revoked.connect(forget, weak=False)


async def _or_leave(work: Awaitable[None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:  # noqa: BLE001 - the process ends, whatever it was
        # Whatever it was, the batch is not done, and returning to Faust would acknowledge or skip it.
        _log.exception("batch failed")
        leave(RESTART, "a batch could not be completed; its events stay uncommitted")


@dataclass(frozen=True, slots=True)
class _Fresh:
    """An upload that has an effect. ``timestamp`` is its record's, Unix seconds; a takedown has no content."""

    upload: Received[SongUpload]
    content: SongContent | None
    timestamp: float
    partition: int


async def _serve_uploads(role: SongsRole, topics: _FaustTopics, events: Sequence[Any]) -> None:
    metrics, now = role.metrics, role.clock.now()
    metrics.batch_records.observe(len(events))
    sends: list[Awaitable[Any]] = []
    fresh: dict[str, _Fresh] = {}
    # One for the whole batch: what fits one model need not fit the next.
    matcher = role.matcher()
    with metrics.uploads_waiting.track_inprogress():
        for event in events:
            message = event.message
            try:
                upload = unpack(SongUpload, message.key, message.value, message.headers, now)
                ends = SongUpload.taken_down(upload.type)
                content = None if ends else matcher.fitting(content_of(upload.event), metrics)
            except BadRecord as error:
                sends.append(await topics.bury(message, "songs.validate", error))
                metrics.dead_letters.labels("songs.validate", type(error).__name__).inc()
                continue
            metrics.uploads_received.labels(upload.type).inc()
            song_id = upload.event.song_id
            # Within a batch the newest revision stands for the song, as if the others had come before it.
            ledger = await role.ledger.partition(message.partition)
            same = fresh.get(song_id)
            what = novelty(upload, _served(same.upload) if same else _known(ledger.get(song_id.encode())))
            if what is Novelty.NEW:
                fresh[song_id] = _Fresh(upload, content, message.timestamp, message.partition)
            else:
                metrics.uploads_ignored.labels(what.value).inc()
        active = {song_id: each.content for song_id, each in fresh.items() if each.content is not None}
        matched: dict[str, Matched] = {}
        if active:
            found = matcher.match(list(active.values()), role.settings.neighbours, metrics)
            matched = dict(zip(active, found, strict=True))
        for song_id, each in fresh.items():
            record = _request(role, each, matched.get(song_id))
            everyone = range(role.naming.audience_partitions)
            sends += [await topics.send(MATCH_REQUESTS, record, partition) for partition in everyone]
        await asyncio.gather(*sends)
    metrics.requests_sent.inc(len(fresh) * role.naming.audience_partitions)
    # Only now: remembered before its requests were safe, an upload would be lost with the process.
    await _keep(
        topics,
        SONGS_LEDGER,
        role.ledger,
        [(each.partition, song_id.encode(), _ENCODER.encode(_served(each.upload))) for song_id, each in fresh.items()],
    )
    for each in fresh.values():
        metrics.uploads_served.inc()
        metrics.upload_to_request_seconds.observe(max(0.0, role.clock.now() - each.timestamp))


async def _keep(topics: _FaustTopics, topic: Topic, store: Kept, entries: Sequence[tuple[int, bytes, bytes]]) -> None:
    """Remember entries (partition, key, value): first in the topic, then here."""
    await asyncio.gather(
        *[await topics.send(topic, Record(key, value, []), partition) for partition, key, value in entries]
    )
    for partition, key, value in entries:
        (await store.partition(partition))[key] = value


def _known(value: bytes | None) -> Served | None:
    return None if value is None else msgspec.json.decode(value, type=Served)


def _served(upload: Received[SongUpload]) -> Served:
    return Served(upload.event.revision, upload.id)


def _request(role: SongsRole, fresh: _Fresh, matched: Matched | None) -> Record:
    """The command that every audience partition gets. Deterministic but for the model: a repeat is the same."""
    song = fresh.upload.event
    uploaded_at = datetime.fromtimestamp(fresh.timestamp, UTC)
    expires_at = song.expires_at or uploaded_at + timedelta(days=role.settings.campaign_days)
    command = MatchRequest(
        song_id=song.song_id,
        revision=song.revision,
        recording=song.recording_id or song.song_id,
        title=song.title,
        artist_ids=song.artist_ids,
        vector=matched.vector if matched else b"",
        neighbours=matched.neighbours if matched else [],
        budget=role.settings.budget if song.budget is None else song.budget,
        uploaded_at=uploaded_at,
        expires_at=expires_at,
        available_from=song.available_from,
        explicit=song.explicit,
        territories=song.territories,
    )
    ce_type = MatchRequest.TYPES[0 if matched else 1]
    return pack(command, ce_type=ce_type, id=f"{song.song_id}/{song.revision}", source=SOURCE, time=fresh.timestamp)


async def _merge_reports(role: SongsRole, topics: _FaustTopics, events: Sequence[Any]) -> None:
    now = role.clock.now()
    sends: list[Awaitable[Any]] = []
    fresh: dict[bytes, tuple[int, CampaignReport]] = {}
    for event in events:
        message = event.message
        try:
            report = unpack(CampaignReport, message.key, message.value, message.headers, now).event
        except BadRecord as error:
            sends.append(await topics.bury(message, "songs.merge", error))
            role.metrics.dead_letters.labels("songs.merge", type(error).__name__).inc()
            continue
        key = _report_key(report.song_id, report.partition)
        store = await role.reports.partition(message.partition)
        if newer(report, fresh[key][1] if key in fresh else _report(store.get(key))):
            fresh[key] = (message.partition, kept(report))
            role.metrics.reports_merged.inc()
    for song_id, partition in {(report.song_id, partition) for partition, report in fresh.values()}:
        store = await role.reports.partition(partition)
        reports = []
        for number in range(role.naming.audience_partitions):
            key = _report_key(song_id, number)
            newest = fresh[key][1] if key in fresh else _report(store.get(key))
            if newest is not None:
                reports.append(newest)
        id = f"{song_id}/{max(report.version for report in reports)}"
        record = pack(merge(reports), ce_type=Campaign.TYPES[0], id=id, source=SOURCE, time=now)
        sends.append(await topics.send(CAMPAIGNS, record))
    await asyncio.gather(*sends)
    await _keep(
        topics,
        SONGS_REPORTS,
        role.reports,
        [(partition, key, _ENCODER.encode(report)) for key, (partition, report) in fresh.items()],
    )


def _report_key(song_id: str, partition: int) -> bytes:
    # Ids may hold any character, so the number stands first.
    return f"{partition} {song_id}".encode()


def _report(value: bytes | None) -> CampaignReport | None:
    return None if value is None else msgspec.json.decode(value, type=CampaignReport)


class _FaustTopics:
    """Our topics as Faust's, moving bytes: decoding is ours, so that a bad record is ours to bury."""

    def __init__(self, app: Any, naming: Naming) -> None:
        self._app = app
        self._naming = naming
        self._topics: dict[str, Any] = {}

    def get(self, topic: Topic) -> Any:
        if topic.name not in self._topics:
            self._topics[topic.name] = self._app.topic(
                self._naming.name(topic),
                key_type=bytes,
                value_type=bytes,
                key_serializer="raw",
                value_serializer="raw",
                partitions=self._naming.partitions(topic),
            )
        return self._topics[topic.name]

    async def send(self, topic: Topic, record: Record, partition: int | None = None) -> Awaitable[Any]:
        """Hand a record to the producer; the awaitable ends when the broker acknowledged it, or raises."""
        sent: Awaitable[Any] = await self.get(topic).send(
            key=record.key, value=record.value, headers=record.headers, partition=partition, force=True
        )
        return sent

    async def bury(self, message: Any, stage: str, error: BadRecord) -> Awaitable[Any]:
        letter = dead_letter(
            Origin(
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                timestamp_ms=round(message.timestamp * 1000),
                key=message.key,
                value=message.value,
                headers=list(message.headers or ()),
            ),
            stage,
            error,
        )
        _log.warning("dead letter", stage=stage, error=type(error).__name__, reason=str(error))
        sent: Awaitable[Any] = await self.get(DEAD_LETTERS).send(
            key=letter.key, value=letter.value, headers=letter.headers, force=True
        )
        return sent
