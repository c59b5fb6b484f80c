"""Plays a script through a broker and a real worker.

A step at a time: its records are sent, and the next step's once the worker has committed all of them. The worker is the
audience role's own; its clock shows event time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter

from encoder.data.history import History
from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.local_store import LocalStores
from streams.audience.main import changelog_identity
from streams.audience.worker import Worker
from streams.audience.worker_context import WorkerContext
from streams.contract.cloudevents import Record
from streams.contract.errors import Refused, Unavailable
from streams.contract.events import PushTarget
from streams.contract.topics import MODELS, PUSH_TARGETS, TOPICS, WARM_SONGS, Naming, Topic
from streams.kafka.clients import admin, hand_over, producer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.topic_admin import create_topics
from streams.models.registry import LiveView
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import SystemClock
from streams.runtime.health import Heartbeat, Readiness
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from streams.testbed.backtest import replay_records
from streams.testbed.backtest.replay import Pushed
from streams.testbed.backtest.script import Grown, Listened, ModelSwapped, Script, Step
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition

# Without a record taken for so long, something is stuck.
_PATIENCE_S = 60.0

_PUSH = msgspec.json.Decoder(PushTarget)

Tell = Callable[[int, int], None]
"""Progress: called with (done, of)."""


@dataclass(slots=True)
class _EventTime:
    """What is decided is decided in event time; this machine's clock says how long anything takes."""

    wall: float

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return time.monotonic()


class Player:
    """Sends a script step by step; the next one once the worker has committed all of it.

    Attributes:
        cuts: the steps of which the worker made several batches, and how large each was.
        batches: how many there were in all.
    """

    def __init__(
        self, script: Script, history: History, config: TargetingConfig, audience: AudienceSettings, kafka:
        KafkaSettings, naming: Naming,
        folder: Path,
    ) -> None:  # fmt: skip
        self.cuts: dict[int, list[int]] = {}
        self.batches = 0
        self.songs = songs = Catalogue()
        self._script, self._history, self._naming = script, history, naming
        self._clock, real = _EventTime(script.start), SystemClock()
        self._sender = producer(kafka)
        self._view = LiveView(kafka, naming, real)
        self._states: list[Partition] = []
        readiness, self._metrics = Readiness(), AudienceMetrics(CollectorRegistry())

        def new_partition(number: int) -> Partition:
            self._states.append(Partition(number, 1, songs, config))
            return self._states[-1]

        # The records of the past are not from this machine's future: its own clock is held against the broker's.
        settings = audience.model_copy(update={"objective": "answers", "skip_state_records": ""})
        self._worker = Worker(
            WorkerContext(kafka, naming, settings, self._clock, self._metrics, Heartbeat(real, _PATIENCE_S)),
            0,
            CatalogueSync(self._view, songs, settings.objective),
            new_partition,
            LocalStores(folder, changelog_identity(kafka, naming), real),
            readiness.condition("restored", "not assigned yet"),
            broker_clock=BrokerClock(real, readiness.condition("clock", "not known yet")),
        )

    def play(self, tell: Tell) -> None:
        steps = self._script.steps
        for number, step in enumerate(steps):
            self._clock.wall = step.now
            self._follow(step)
            topic, batch = replay_records.inputs(step, self._history)
            self._send(topic, batch)
            counts = self._metrics.listens_applied if isinstance(step, Listened) else self._metrics.requests_served
            sizes = self._take(counts, len(batch))
            self.batches += len(sizes)
            if len(sizes) > 1:
                self.cuts[number] = sizes
            if number % 10 == 0:
                tell(number, len(steps))
        tell(len(steps), len(steps))

    def digest(self) -> str:
        """Of the state that the worker holds."""
        return self._states[-1].digest()

    def close(self) -> None:
        self._worker.close()
        self._view.close()

    def _follow(self, step: Step) -> None:
        """Have the worker know the songs that the step makes warm, and its model in use."""
        songs = replay_records.warm(step)
        self._send(WARM_SONGS, songs)
        if isinstance(step, ModelSwapped):
            model = replay_records.model(step)
            self._send(MODELS, [replay_records.packed(model, step.now)])
            self._rounds(
                lambda: self._view.model == model and self.songs.space == step.space and self.songs.coming is None,
                f"the worker does not take over model {step.space}",
            )
        elif isinstance(step, Grown) and songs:
            # What the view has after a round, the worker took over in it.
            self._rounds(lambda: self._warm(step.song_id), f"the worker does not see the warm song {step.song_id}")

    def _warm(self, song_id: str) -> bool:
        space = self._view.warm()
        return space is not None and song_id in space

    def _rounds(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise Unavailable(f"{otherwise} within {_PATIENCE_S:g} s")
            self._worker.round()

    def _take(self, counter: Counter, count: int) -> list[int]:
        """Rounds until so many records more are counted; how many each batch had."""
        sizes: list[int] = []
        before = _count(counter)
        while (taken := sum(sizes)) < count:
            self._rounds(
                lambda: bool(_count(self._metrics.dead_letters)) or _count(counter) > before + taken,
                f"the worker took {taken:,} of {count:,} records of a step, and no more",
            )
            if bad := _count(self._metrics.dead_letters):
                raise Refused(f"the worker refused {bad:,} records: an id in the data is longer than 128 characters")
            sizes.append(_count(counter) - before - taken)
        return sizes

    def _send(self, topic: Topic, some: Iterable[Record]) -> None:
        name = self._naming.name(topic)
        for record in some:
            hand_over(self._sender, name, record)
        if left := self._sender.flush(_PATIENCE_S):
            raise Unavailable(f"{left} records were not acknowledged in {_PATIENCE_S:g} s")


@contextmanager
def logged(file: Path) -> Iterator[None]:
    """What is logged goes to a file, one JSON object a line."""
    former = structlog.get_config()
    with file.open("w", encoding="utf-8") as out:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(default=str),
            ],
            logger_factory=structlog.WriteLoggerFactory(out),
        )
        try:
            yield
        finally:
            structlog.configure(**former)


@contextmanager
def installation(kafka: KafkaSettings) -> Iterator[Naming]:
    """Topics of one partition under a name of their own, for as long as they are needed."""
    naming, client = Naming(f"backtest-{uuid4().hex[:8]}.", 1, 1), admin(kafka)
    create_topics(client, naming, 1)
    try:
        yield naming
    finally:
        for future in client.delete_topics([naming.name(topic) for topic in TOPICS], operation_timeout=30).values():
            future.result(30)


def pushes(kafka: KafkaSettings, naming: Naming) -> Iterator[Pushed]:
    """All pushes of the installation, in order."""
    snapshot = Snapshot(kafka, [naming.name(PUSH_TARGETS)], SystemClock())
    try:
        for message in snapshot.read_to_end():
            yield replay_records.pushed(_PUSH.decode(message.value() or b""))
    finally:
        snapshot.close()


def _count(counter: Counter) -> int:
    """What a counter has counted, whatever its labels."""
    return int(sum(each.value for of in counter.collect() for each in of.samples if each.name.endswith("_total")))
