"""Starts the songs process, follows the live model, and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import structlog
from faust.types import TP
from prometheus_client import CollectorRegistry

from streams.contract.errors import Refused
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    MATCH_REQUESTS,
    MODELS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    WARM_SONGS,
)
from streams.kafka.access import check_topics
from streams.kafka.clients import admin
from streams.kafka.lag_monitor import LagMonitor
from streams.kafka.reachability import Reachability
from streams.kafka.skipped_records import Skipped
from streams.kafka.topic_admin import check_times
from streams.models.registry import LiveView, model_status
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import SystemClock
from streams.runtime.dead_letter_log import DeadLetterLog
from streams.runtime.exit_codes import RESTART, leave
from streams.runtime.health import Heartbeat, ObserveServer, Readiness
from streams.runtime.held_partitions import HeldPartitions
from streams.runtime.metrics import SongsMetrics, free_bytes
from streams.runtime.settings import Settings
from streams.runtime.status import RoleStatus
from streams.runtime.tracing_choice import tracing_of
from streams.songs.agents import add_agents, faust_app
from streams.songs.burials import is_note
from streams.songs.input_topics import InputTopics, group_of, is_id
from streams.songs.model_swap import LiveMatcher
from streams.songs.producer import AwaitedProducer
from streams.songs.prompt_faust import PromptWorker
from streams.songs.song_record import check
from streams.songs.song_store import CompactedCache, SongStore, check_report
from targeting.index.choice import IndexKind, MissingIndexError, resolved

# The loop beats every second; a stall of this length means it is stuck, not busy.
_LOOP_SILENCE_S = 30.0

# Partitions that are read before they are assigned, and clients that read at once.
_BEGUN = 16
_AT_ONCE = 8

NEEDED = (
    SONG_UPLOADS,
    CAMPAIGN_REPORTS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    MATCH_REQUESTS,
    CAMPAIGNS,
    WARM_SONGS,
    MODELS,
    DEAD_LETTERS,
)
"""The topics without which the role cannot serve."""

_log = structlog.get_logger(__name__)


def run(settings: Settings, resume: bool = False) -> None:
    """Serve until SIGTERM.

    Args:
        resume: whether a burst of bad records is gone through (:mod:`streams.runtime.bad_record_burst`).

    Raises:
        Refused, Unavailable: the process cannot start; the message says why.
    """
    clock = SystemClock()
    naming = settings.topics.naming()
    registry = CollectorRegistry()
    metrics = SongsMetrics(registry)
    metrics.disk_free_bytes.set_function(lambda: free_bytes(settings.paths.cache))
    readiness = Readiness(metrics.condition)
    heartbeat = Heartbeat(clock, _LOOP_SILENCE_S)
    model_live = readiness.condition("model", "no model is live: `coldstart publish` makes one live")
    inputs = [naming.name(topic) for topic in (SONG_UPLOADS, CAMPAIGN_REPORTS)]
    needed = [naming.name(topic) for topic in NEEDED]
    reachable = Reachability(settings.kafka, readiness.condition("kafka", "not asked yet"), clock, inputs, needed)
    assigned = readiness.condition("assigned", "no partitions assigned yet")
    letters, held = DeadLetterLog(metrics.dead_letters, clock), HeldPartitions()
    status = RoleStatus("songs", naming.prefix, clock, metrics, readiness, heartbeat, letters, held)
    tracing = tracing_of(settings.tracing, "songs")
    with ObserveServer(
        settings.songs.http_host, settings.songs.http_port, registry, readiness, {"loop": heartbeat}, status.document
    ) as server:
        _log.info("serving HTTP", url=server.url)
        reachable.start()
        client = admin(settings.kafka)
        check_topics(client, settings.kafka, naming, NEEDED)
        check_times(client, naming, [SONG_UPLOADS, CAMPAIGN_REPORTS])
        skipped = Skipped(metrics.skipped_records, readiness, bury=True)
        kind = _index(settings.songs.index)
        _log.info("index of warm songs", kind=kind.value)
        metrics.warm_index.labels(kind.value).set(1)
        view = LiveView(settings.kafka, naming, clock, skipped)
        live = LiveMatcher(view, metrics, clock, settings.songs.swap_both_s, kind)
        status.model = lambda: model_status(view.model, None)
        song_records = CompactedCache(
            settings.kafka, naming.name(SONGS_LEDGER), clock, _check_song, without=settings.songs.left_out(),
            opened=InputTopics(settings.kafka, naming, metrics),
        )  # fmt: skip
        reports = CompactedCache(settings.kafka, naming.name(SONGS_REPORTS), clock, _check_report, skipped)
        # Beside the model, and before others leave their partitions to this worker.
        with ThreadPoolExecutor(_AT_ONCE, "begin") as pool:
            numbers = range(min(naming.songs_partitions, _BEGUN))
            begun = [pool.submit(cache.begin, number) for number in numbers for cache in (song_records, reports)]
            live.wait()
        for each in begun:
            each.result()
        status.model = lambda: model_status(view.model, live().space)
        model_live.holds()
        threading.Thread(target=live.follow, name="follow-live-model", daemon=True).start()

        app = faust_app(settings.kafka, settings.topics, settings.songs, naming, settings.paths.cache / "faust")
        lag = LagMonitor(settings.kafka, group_of(naming), metrics, clock).start()
        add_agents(app, SongStore(
            naming, settings.songs, metrics, clock, live, AwaitedProducer(app, naming, letters),
            song_records, reports, skipped,
            BadBursts(
                settings.songs.stop_at_bad_share, settings.songs.stop_at_bad_of, "songs.stop_at_bad_share", clock,
                resume, metrics.bad_bursts, readiness,
            ),
            BrokerClock(clock, readiness.condition("clock", "not known yet")),
            tracing,
        ), lag)  # fmt: skip

        async def beat() -> None:
            heartbeat.beat()

        async def on_assigned(_: object, assigned_partitions: Collection[TP], **__: object) -> None:
            _log.info("partitions assigned", partitions=str(assigned_partitions))
            held.serve(sorted({each.partition for each in assigned_partitions}))
            assigned.holds()

        app.timer(interval=1.0)(beat)
        app.on_partitions_assigned.connect(on_assigned, weak=False)
        loop = asyncio.new_event_loop()
        worker = PromptWorker(
            app, loop=loop, override_logging=False, redirect_stdouts=False, quiet=True,
            loglevel=settings.log.level,
        )  # fmt: skip
        # It draws on the terminal; the log has the same information.
        worker.spinner = None
        app.on_before_shutdown.connect(lambda *_, **__: tracing.close(), weak=False)
        app.on_before_shutdown.connect(lambda *_, **__: _deadline(settings.songs.shutdown_s), weak=False)
        worker.execute_from_commandline()


def _index(name: str) -> IndexKind:
    """The kind of index that serves, by the setting.

    Raises:
        Refused: it is not installed here.
    """
    try:
        return resolved(IndexKind(name))
    except MissingIndexError as error:
        raise Refused(f"songs.index = {name}: {error}") from None


def _check_song(key: bytes, value: bytes) -> None:
    if not is_id(key):
        check(key, value)


def _check_report(key: bytes, value: bytes) -> None:
    if not is_note(key, value):
        check_report(key, value)


def _deadline(seconds: float) -> None:
    """One deadline for the whole shutdown: past it the process ends, and nothing half-done is committed."""
    timer = threading.Timer(seconds, leave, (RESTART, f"shutdown took longer than {seconds:g} s"))
    timer.daemon = True
    timer.start()
