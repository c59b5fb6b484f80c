"""One variant living through a world: a real installation on one side, simulated people on the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from encoder.data.dataset import Dataset
from encoder.data.world import DAY, rows
from streams.contract.cloudevents import Record
from streams.contract.errors import Unavailable
from streams.contract.events import PushTarget
from streams.contract.topics import (
    LISTENS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    TOPICS,
    Naming,
    Topic,
)
from streams.kafka.clients import admin, consumer, hand_over, producer
from streams.kafka.topic_admin import create_topics
from streams.models.publish import publish
from streams.operations.campaigns import current
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment
from streams.testbed.simulation import world_records
from streams.testbed.simulation.life import Life
from streams.testbed.simulation.push_variants import PushVariant, environment
from streams.testbed.simulation.scenario import Scenario
from streams.testbed.simulation.simulation_figures import Figures, Pushes, measure
from streams.testbed.simulation.world_records import Compressed

# A push is answered at the next turn, three simulated hours later at most.
TURNS_A_DAY = 8
_PARTITIONS = 2
_PATIENCE_S = 60.0

_PUSH = msgspec.json.Decoder(PushTarget)

Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all arms of a seed share: the world before the launch is the same, so one model serves them."""

    scenario: Scenario
    data: Dataset
    model: Path


def organic(scenario: Scenario, warm_at: int, tick: Tick) -> Figures:
    """The world without pushes. Nothing comes back into it, so that no installation is needed."""
    life = Life(scenario)
    turns = scenario.days * TURNS_A_DAY
    for turn in range(turns):
        life.live(*_span(scenario, turn))
        tick(turn + 1, turns)
    return measure(life, Pushes(), warm_at, 0.0, {})


def pushed(
    arm: PushVariant,
    prepared: Prepared,
    kafka: KafkaSettings,
    prefix: str,
    folder: Path,
    day_s: float,
    warm_at: int,
    tick: Tick,
) -> Figures:
    """The world with an arm's pushes, through real workers on a broker.

    Raises:
        Unavailable, Refused: a worker cannot start or go on, or a record was not acknowledged.
    """
    scenario, life = prepared.scenario, Life(prepared.scenario)
    naming = Naming(prefix, _PARTITIONS, _PARTITIONS)
    client = admin(kafka)
    create_topics(client, naming, 1)
    publish(prepared.model, kafka, naming, SystemClock())
    settings = environment(arm, scenario, day_s) | {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": prefix,
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": str(_PARTITIONS),
        "COLDSTART_TOPICS__SONGS_PARTITIONS": str(_PARTITIONS),
        "COLDSTART_PATHS__CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    folder.mkdir(parents=True, exist_ok=True)
    stage = Environment(kafka, naming, [], prepared.data.user_ids, settings, folder)
    driver = _Driver(stage, prepared, life, day_s)
    try:
        driver.tell_the_past()
        stage.start("songs", "songs")
        stage.start("audience", "audience")
        stage.wait_until_ready()
        driver.wait_until_heard(len(life.past))
        driver.launch()
        turns = scenario.days * TURNS_A_DAY
        for turn in range(turns):
            driver.turn(turn)
            tick(turn + 1, turns)
        reported = driver.reported()
    finally:
        stage.stop()
        driver.close()
        for future in client.delete_topics([naming.name(topic) for topic in TOPICS], operation_timeout=30).values():
            future.result(30)
    return measure(life, driver.pushes, warm_at, driver.behind_s, reported)


class _Driver:
    """The players, the push system and the account service of one world."""

    def __init__(self, stage: Environment, prepared: Prepared, life: Life, day_s: float) -> None:
        self.pushes = Pushes()
        self.behind_s = 0.0
        self._stage = stage
        self._prepared = prepared
        self._life = life
        self._day_s = day_s
        self._clock = Compressed(life.scenario, time.time(), day_s)
        self._sender: Producer = producer(stage.kafka)
        name = stage.naming.name(PUSH_TARGETS)
        self._reader: Consumer = consumer(stage.kafka, f"{stage.naming.prefix}players")
        self._reader.assign([TopicPartition(name, p, OFFSET_BEGINNING) for p in range(_PARTITIONS)])
        self._waiting: list[PushTarget] = []

    def tell_the_past(self) -> None:
        self._send(LISTENS, world_records.listens(self._life.past, self._clock))
        self._flush()

    def wait_until_heard(self, listens: int) -> None:
        """Wait until the audience has committed so many listens."""
        group: Consumer = consumer(self._stage.kafka, f"{self._stage.naming.prefix}audience")
        wanted = [TopicPartition(self._stage.naming.name(LISTENS), p) for p in range(_PARTITIONS)]

        def heard() -> int:
            return sum(max(0, each.offset) for each in group.committed(wanted, timeout=10))

        try:
            self._stage.wait_until(lambda: heard() >= listens, lambda: f"{heard():,} of {listens:,} listens consumed")
        finally:
            group.close()

    def launch(self) -> None:
        """Simulated time begins now. Stamps go on where those of the past ended."""
        self._clock = Compressed(self._life.scenario, time.time(), self._day_s)

    def turn(self, number: int) -> None:
        """A span of the world: uploads, what people do by themselves, then their answers to what was pushed by then."""
        scenario, life, clock = self._life.scenario, self._life, self._clock
        start, end = _span(scenario, number)
        due = (scenario.uploaded >= start) & (scenario.uploaded < end)
        for song, at in zip(scenario.new_songs[due].tolist(), scenario.uploaded[due].tolist(), strict=True):
            self._send(SONG_UPLOADS, [world_records.upload(self._prepared.data, song, clock, at)])
        self._send(LISTENS, world_records.listens(life.live(start, end), clock))
        over = clock.due(end)
        while True:
            left = over - time.time()
            self._receive(max(0.0, min(left, 0.1)))
            if left <= 0:
                break
        self.behind_s = max(self.behind_s, time.time() - over)
        self._answer(end)
        self._stage.watch()

    def reported(self) -> dict[str, int]:
        """The campaigns' counts, added up, once they have caught up with what the driver knows."""
        self._flush()
        names = ("pushed", "held_out", "opened", "listened", "collected", "held_out_listened", "distinct_listeners")

        def counts() -> dict[str, int]:
            found = current(self._stage.kafka, self._stage.naming, SystemClock()).values()
            return {name: sum(getattr(each.counts, name) for each in found) for name in names}

        deadline, said = time.monotonic() + 5.0, counts()
        while said["pushed"] < self.pushes.sent and time.monotonic() < deadline:
            self._receive(0.2)
            said = counts()
        return said

    def close(self) -> None:
        self._reader.close()

    def _receive(self, timeout: float) -> None:
        for message in self._reader.consume(1000, timeout):
            if message.error() is None:
                self._waiting.append(_PUSH.decode(message.value() or b""))

    def _answer(self, at: float) -> None:
        now = time.time()
        due = [push for push in self._waiting if push.not_before.timestamp() <= now]
        self._waiting = [push for push in self._waiting if push.not_before.timestamp() > now]
        if not due:
            return
        # In an order of their own: which of two came first is the network's chance.
        due.sort(key=lambda push: push.push_id)
        users, songs = rows([push.user_id for push in due]), rows([push.song_id for push in due])
        answers = self._life.answer(users, songs, at)
        self._count(due, answers.failed, answers.opened, answers.listened, int(answers.listens.collected.sum()))
        led = [push.push_id for push, does in zip(due, answers.listened.tolist(), strict=True) if does]
        self._send(PUSH_OUTCOMES, world_records.outcomes(due, answers, now))
        self._send(LISTENS, world_records.listens(answers.listens, self._clock, led))
        self._send(PREFERENCES, world_records.opt_outs(answers, now))

    def _count(
        self,
        due: list[PushTarget],
        failed: np.ndarray[tuple[int], np.dtype[np.bool_]],
        opened: np.ndarray[tuple[int], np.dtype[np.bool_]],
        listened: np.ndarray[tuple[int], np.dtype[np.bool_]],
        collected: int,
    ) -> None:
        live, said = np.array([push.tier == "live" for push in due]), self.pushes
        said.sent += len(due)
        said.live += int(live.sum())
        said.failed += int(failed.sum())
        said.opened += int(opened.sum())
        said.listened += int(listened.sum())
        said.live_listened += int((live & listened).sum())
        said.collected += collected

    def _send(self, topic: Topic, out: Iterable[Record]) -> None:
        name = self._stage.naming.name(topic)
        for record in out:
            hand_over(self._sender, name, record)

    def _flush(self) -> None:
        left = self._sender.flush(_PATIENCE_S)
        if left:
            raise Unavailable(f"{left} records were not acknowledged in {_PATIENCE_S:g} s")


def _span(scenario: Scenario, turn: int) -> tuple[float, float]:
    return scenario.launch + turn * DAY / TURNS_A_DAY, scenario.launch + (turn + 1) * DAY / TURNS_A_DAY
