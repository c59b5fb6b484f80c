"""The Faust agents of the songs role, and when an event counts as done.

Faust commits past a failed send, and ``take`` acknowledges even when the agent's body raises. So batches are
taken unacknowledged (``noack_take``), every send is awaited, and only then is the batch acknowledged; a failed
send ends the process through :func:`streams.runtime.exit_codes.leave`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

from streams.contract.errors import BadBurst, ColdstartError, Refused
from streams.contract.topics import CAMPAIGN_REPORTS, MAX_RECORD_BYTES, SONG_UPLOADS, Naming
from streams.kafka.lag_monitor import LagMonitor
from streams.runtime.bad_record_burst import source_of
from streams.runtime.exit_codes import BAD_INPUT, REFUSED, RESTART, UNEXPECTED, leave
from streams.runtime.settings import KafkaSettings, SongsSettings, TopicSettings
from streams.songs import reports, uploads
from streams.songs.burials import bury_skipped
from streams.songs.committed_consumer import App
from streams.songs.faust_broker import broker_urls, credentials
from streams.songs.prompt_faust import NoTables
from streams.songs.reconcile import Reconciler
from streams.songs.song_store import SongStore, timestamp

# Every partition reports on a song within moments; waiting for them writes one campaign record instead of many.
_REPORTS_WAIT_S = 0.1
_REPORTS_BATCH = 1000
_RECONCILE_S = 1.0
# For so long partitions may still come whose song records were read before: a rolling restart takes less for a worker.
_BEGUN_S = 60.0
_CLOCK_S = 0.5
# An unacknowledged send ends the process, and the upload is served again. At Faust's default of 20 minutes a dead
# connection would block a partition for as long. Longer than a broker takes to restart.
_SEND_S = 30.0
_WAITING = 64

_log = structlog.get_logger(__name__)


def faust_app(
    kafka: KafkaSettings, topics: TopicSettings, settings: SongsSettings, naming: Naming, folder: Path
) -> Any:
    """The Faust application without agents; its id is its consumer group's name.

    ``folder`` is Faust's own, which it would otherwise make in the current folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"paths.cache: {folder} cannot be made ({error.strerror}); "
            "set COLDSTART_PATHS__CACHE to a folder that this user may write to"
        ) from None
    return App(
        f"{naming.prefix}songs",
        datadir=str(folder / f"{naming.prefix}songs"),
        broker=broker_urls(kafka),
        broker_credentials=credentials(kafka),
        # Faust's exactly_once loses and doubles events on a rebalance (measured); ours are idempotent instead.
        processing_guarantee="at_least_once",
        topic_partitions=naming.songs_partitions,
        topic_replication_factor=topics.replication_factor,
        # Every topic is created from one table; a missing one must be noticed.
        topic_allow_declare=False,
        topic_disable_leader=True,
        TableManager=NoTables,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=1.0,
        # Faust requires it to be no shorter than a session.
        broker_request_timeout=max(kafka.request_timeout_s, settings.session_timeout_s),
        broker_commit_interval=settings.commit_interval_s,
        consumer_auto_offset_reset="earliest",
        producer_max_request_size=MAX_RECORD_BYTES,
        producer_request_timeout=_SEND_S,
        # At most so many records, of 2 MiB at most, wait between broker and agents; the defaults are 4,096 and
        # whatever a fetch brings, which may be tens of thousands.
        broker_max_poll_records=_WAITING,
        stream_buffer_maxsize=_WAITING,
        # Otherwise a stopping stream first works through its whole buffer.
        stream_wait_empty=False,
        web_enabled=False,
    )


def add_agents(app: Any, store: SongStore, lag: LagMonitor) -> None:
    """Give the application its two agents and its reconciliation.

    Faust assigns topics with the same number of partitions together: one worker serves a song's uploads and reports.
    """
    reconciler = Reconciler(store)

    async def serve_uploads(stream: Any) -> None:
        async for events in stream.noack_take(store.settings.batch_uploads, store.settings.batch_wait_ms / 1000):
            await _right_clock(store, events)
            await _or_leave(uploads.serve(store, events))
            _count(store, events)
            for event in events:
                await stream.ack(event)
            await _stop_at_burst(app, store)

    async def merge_reports(stream: Any) -> None:
        async for events in stream.noack_take(_REPORTS_BATCH, _REPORTS_WAIT_S):
            await _right_clock(store, events)
            await _or_leave(reports.merge(store, events))
            _count(store, events)
            for event in events:
                await stream.ack(event)
            await _stop_at_burst(app, store)

    async def reconcile() -> None:
        if store.producer.letters.waiting:
            store.producer.letters.tell()
        assigned = app.assignor.assigned_actives()
        lag.watch({(each.topic, each.partition): None for each in assigned})
        if not store.broker_clock.agrees():
            return
        name = store.naming.name(SONG_UPLOADS)
        partitions = sorted(each.partition for each in assigned if each.topic == name)
        await _or_leave(reconciler.run(partitions))
        await _or_leave(bury_skipped(store, partitions))

    async def forget(*_: object, **__: object) -> None:
        store.song_records.forget()
        store.reports.forget()
        reconciler.forget()

    async def drop_begun() -> None:
        for cache in (store.song_records, store.reports):
            await asyncio.to_thread(cache.drop_begun)

    app.timer(interval=_BEGUN_S)(drop_begun)
    app.agent(store.producer.topic(SONG_UPLOADS), name="serve-uploads")(serve_uploads)
    app.agent(store.producer.topic(CAMPAIGN_REPORTS), name="merge-reports")(merge_reports)
    app.timer(interval=_RECONCILE_S)(reconcile)
    app.on_partitions_revoked.connect(forget, weak=False)


def _count(store: SongStore, events: Sequence[Any]) -> None:
    """Count a batch's good and bad records. Nothing else is buried meanwhile: each agent buries only in its turn."""
    if store.producer.letters.waiting:
        store.producer.letters.tell()
    buried = store.producer.buried()
    messages = [event.message for event in events]
    good = [each for each in messages if (each.topic, each.partition, each.offset) not in buried]
    if messages:
        sources = {source_of(list(message.headers or ())) for message in good}
        store.bursts.note(messages[0].topic, len(good), sources, list(buried.values()))


async def _stop_at_burst(app: Any, store: SongStore) -> None:
    try:
        store.bursts.judge()
    except BadBurst as burst:
        # Acknowledged records are not committed yet; without this they would get their dead letters twice.
        await app.consumer.commit()
        leave(BAD_INPUT, str(burst))


async def _right_clock(store: SongStore, events: Sequence[Any]) -> None:
    """Wait until this machine's clock shows a time at which these events can have been appended."""
    for event in events:
        store.broker_clock.show(timestamp(event.message))
    while not store.broker_clock.agrees():
        await asyncio.sleep(_CLOCK_S)


async def _or_leave(work: Awaitable[None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - the process ends, whatever it was
        # The batch is not done, and returning to Faust would acknowledge or skip it.
        code = exit_code(error)
        if code == REFUSED:
            leave(code, str(error))
        _log.exception("batch failed")
        leave(code, f"a batch could not be completed, its events stay uncommitted: {error!r}")


def exit_code(error: Exception) -> int:
    """The exit code after a failed batch: the one for a restart only if Kafka, a file or an error of this system's
    own explains it."""
    if isinstance(error, Refused):
        return REFUSED
    return RESTART if isinstance(error, (ColdstartError, KafkaError, OSError)) else UNEXPECTED
