"""How does the songs process start, follow the live model, and end?"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import faust
import structlog
from prometheus_client import CollectorRegistry

from encoder.serving import Encoder
from streams.clock import SystemClock
from streams.errors import Refused
from streams.events import LiveModel
from streams.exits import RESTART, leave
from streams.live import LiveView, Space
from streams.metrics import SongsMetrics
from streams.observe import Heartbeat, ObserveServer, Readiness
from streams.settings import Settings
from streams.songs.app import SongsRole, add_agents, faust_app
from streams.songs.kept import Kept
from streams.songs.matcher import Matcher
from streams.topics import SONGS_LEDGER, SONGS_REPORTS

# The loop beats every second; a stall of this length means it is stuck, not busy.
_LOOP_SILENCE_S = 30.0
_FOLLOW_S = 0.5

_log = structlog.get_logger(__name__)


class LiveMatcher:
    """The matcher of the live model, rebuilt beside the old one whenever the model or its warm songs change."""

    def __init__(self, view: LiveView, metrics: SongsMetrics) -> None:
        self._view = view
        self._metrics = metrics
        self._model: LiveModel | None = None
        self._encoder: Encoder | None = None
        self._built = -1
        self._matcher: Matcher | None = None

    def __call__(self) -> Matcher:
        if self._matcher is None:
            raise Refused("no model is live: `coldstart publish` makes one live")
        return self._matcher

    def wait(self) -> None:
        """Block until a model is live; uploads wait in their topic meanwhile."""
        self._refresh()
        while self._matcher is None:
            self._view.poll(_FOLLOW_S)
            self._refresh()

    def follow(self) -> None:
        """Keep up with the topics for good. For a thread of its own."""
        try:
            while True:
                if self._view.poll(_FOLLOW_S):
                    self._refresh()
        except Exception:  # noqa: BLE001 - the process ends, whatever it was
            _log.exception("cannot follow the live model")
            leave(RESTART, "the live model cannot be followed")

    def _refresh(self) -> None:
        model, warm = self._view.model, self._view.warm()
        if model is None or warm is None or self._view.version == self._built:
            return
        if model != self._model or self._encoder is None:
            self._encoder = load_encoder(model)
        self._matcher = Matcher.build(self._encoder, warm)
        self._built = self._view.version
        self._show(model, warm)
        self._model = model

    def _show(self, model: LiveModel, warm: Space) -> None:
        if self._model is not None and self._model.space != model.space:
            self._metrics.model_space.labels(self._model.space).set(0)
        self._metrics.model_space.labels(model.space).set(1)
        self._metrics.warm_songs.set(len(warm.ids))
        _log.info("matcher built", space=model.space, warm_songs=len(warm.ids))


def load_encoder(model: LiveModel) -> Encoder:
    """The encoder that ``models`` names.

    Raises:
        Refused: the URI is not of a kind this worker reads, or the artifact there is another one.
    """
    parts = urlsplit(model.uri)
    if parts.scheme != "file":
        raise Refused(f"model {model.name}: {model.uri!r} is not a file:// address that every worker can read")
    encoder = Encoder.load(Path(url2pathname(parts.path)))
    if encoder.space != model.space:
        raise Refused(f"model {model.name}: {model.uri} holds space {encoder.space!r}, published was {model.space!r}")
    return encoder


def run(settings: Settings) -> None:
    """Serve until SIGTERM. Does not return before.

    Raises:
        Refused, Unavailable: the process cannot start; the message says why.
    """
    clock = SystemClock()
    naming = settings.topics.naming()
    registry, readiness = CollectorRegistry(), Readiness()
    metrics = SongsMetrics(registry)
    heartbeat = Heartbeat(clock, _LOOP_SILENCE_S)
    model_live = readiness.condition("model", "no model is live: `coldstart publish` makes one live")
    assigned = readiness.condition("assigned", "no partitions assigned yet")
    with ObserveServer(
        settings.songs.http_host, settings.songs.http_port, registry, readiness, {"loop": heartbeat}
    ) as server:
        _log.info("observe", url=server.url)
        live = LiveMatcher(LiveView(settings.kafka, naming, clock), metrics)
        live.wait()
        model_live.holds()
        threading.Thread(target=live.follow, name="follow-live-model", daemon=True).start()

        app = faust_app(settings.kafka, settings.topics, settings.songs, naming)
        add_agents(app, SongsRole(
            naming, settings.songs, metrics, clock, live,
            Kept(settings.kafka, naming.name(SONGS_LEDGER), clock),
            Kept(settings.kafka, naming.name(SONGS_REPORTS), clock),
        ))  # fmt: skip

        async def beat() -> None:
            heartbeat.beat()

        async def on_assigned(_: object, assigned_partitions: object, **__: object) -> None:
            _log.info("assigned", partitions=str(assigned_partitions))
            assigned.holds()

        app.timer(interval=1.0)(beat)
        app.on_partitions_assigned.connect(on_assigned, weak=False)
        loop = asyncio.new_event_loop()
        worker = faust.Worker(
            app, loop=loop, override_logging=False, redirect_stdouts=False, quiet=True,
            loglevel=settings.log.level,
        )  # fmt: skip
        # It paints on the terminal; the log says the same.
        worker.spinner = None
        app.on_before_shutdown.connect(lambda *_, **__: _deadline(settings.songs.shutdown_s), weak=False)
        worker.execute_from_commandline()


def _deadline(seconds: float) -> None:
    """One deadline for the whole way out: past it the process ends, and nothing half-done is committed."""
    timer = threading.Timer(seconds, leave, (RESTART, f"shutdown took longer than {seconds:g} s"))
    timer.daemon = True
    timer.start()
