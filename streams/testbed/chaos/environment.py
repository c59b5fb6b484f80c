"""A small whole installation: topics, a model, listens, and workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoder import artifact
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from streams.contract.cloudevents import Record
from streams.contract.errors import Unavailable
from streams.contract.events import SongUpload
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    LISTENS,
    MATCH_REQUESTS,
    PUSH_TARGETS,
    SONG_UPLOADS,
    Naming,
    Topic,
)
from streams.kafka.clients import admin, hand_over, producer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.consumer_lag import measure
from streams.kafka.topic_admin import create_topics
from streams.models.publish import publish
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings, Settings
from streams.runtime.settings_sources import load_settings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.demo.dataset_events import history, upload_event, upload_record

# Restoring, re-joining and a broker's return together take less.
PATIENCE_S = 120.0

# Reports follow a commit within a second, their merging within half of one: when nothing moved for this long, and no
# group is behind, nothing is on its way.
_STILL_S = 4.0


@dataclass
class Environment:
    """A published model, listens in their topic, songs to upload, and the workers started so far.

    Attributes:
        songs: uploads made of a generated world, none without content.
        users: who listens in it.
        warm: what they listen to: the ids of the songs that the models know.
        environment: of the workers: where Kafka is, and what they are to do.
        folder: logs, state and models.
        models: artifacts of one world, each a space of its own; the first is published.
        patience_s: for what must come; restoring, re-joining and a broker's return together take less than the default.
        ended: each worker that was started again: when (monotonic seconds), its name, and how it had ended.
        gone: users who asked to be forgotten and never come back: of them nothing may be left.
    """

    kafka: KafkaSettings
    naming: Naming
    songs: list[SongUpload]
    users: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    models: Sequence[Path] = ()
    warm: Sequence[str] = ("warm",)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: list[RoleProcess] = field(default_factory=list)
    patience_s: float = PATIENCE_S
    ended: list[tuple[float, str, str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset(range(self.naming.audience_partitions))

    @property
    def present(self) -> list[str]:
        """The users who may listen."""
        return [user for user in self.users if user not in self.gone]

    @property
    def state(self) -> Path:
        """What the audience workers keep on disk."""
        return self.folder / "cache" / "state"

    @property
    def audience(self) -> list[RoleProcess]:
        """The audience workers."""
        return [worker for worker in self.workers if worker.name.startswith("audience")]

    @property
    def settings(self) -> Settings:
        """What the workers run with."""
        return load_settings(None, self.overrides)

    def log(self, name: str) -> Path:
        """Of the worker of that name."""
        return self.folder / f"{name}.log"

    def publish(self, number: int) -> None:
        """Make a model live; the workers may serve meanwhile."""
        publish(self.models[number], self.kafka, self.naming, SystemClock())

    def start(self, name: str, *args: str) -> RoleProcess:
        worker = RoleProcess(name, args, self.environment, self.log(name))
        self.workers.append(worker)
        return worker

    def watch(self) -> None:
        """Start again what ended. Raises Refused when that does not help."""
        for worker in self.workers:
            if how := worker.watch():
                self.ended.append((time.monotonic(), worker.name, how))

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def send(
        self, topic: Topic, records: Sequence[Record], pause_s: float = 0.0, each: Callable[[int], None] | None = None
    ) -> None:
        """Send records and wait for all acknowledgements.

        Args:
            pause_s: between two records.
            each: called with the number of each record handed over.

        Raises:
            Unavailable: not all were acknowledged in time.
        """
        sender, due = producer(self.kafka), time.monotonic()
        for number, record in enumerate(records):
            hand_over(sender, self.naming.name(topic), record)
            due += pause_s
            # An acknowledgement ends the wait early, so that one poll is none.
            while (left := due - time.monotonic()) > 0:
                sender.poll(left)
            if each:
                each(number)
        unsent = sender.flush(PATIENCE_S)
        if unsent:
            raise Unavailable(f"{self.naming.name(topic)}: {unsent} records were not acknowledged in {PATIENCE_S:g} s")

    def upload(
        self, songs: Sequence[SongUpload], pause_s: float = 0.0, each: Callable[[int], None] | None = None
    ) -> None:
        self.send(SONG_UPLOADS, [upload_record(song, time.time()) for song in songs], pause_s, each)

    def wait_until_ready(self) -> None:
        self.wait_until(
            lambda: not any(worker.readiness() for worker in self.workers),
            lambda: f"not ready: { {worker.name: worker.readiness() for worker in self.workers} }",
        )

    def wait_until_answered(self, answered: Callable[[str], Collection[int]], song_ids: Sequence[str]) -> None:
        """Wait until every partition has answered for every song."""
        self.wait_until(
            lambda: all(self.partitions <= set(answered(song)) for song in song_ids),
            lambda: f"unanswered: {[song for song in song_ids if not self.partitions <= set(answered(song))]}",
        )

    def wait_until_still(self) -> None:
        """Wait until nothing is on its way any more: no group is behind, and no output moves."""
        clock, names = SystemClock(), [self.naming.name(t) for t in _OUTPUTS]
        outputs = Snapshot(self.kafka, names, clock)
        last: dict[str, dict[int, int]] = {}
        since = clock.monotonic()

        def still() -> bool:
            nonlocal last, since, outputs
            try:
                now = {name: outputs.ends(name) for name in names}
            except Unavailable:
                # A client of librdkafka may find no way back to a broker that answers all others.
                outputs.close()
                outputs = Snapshot(self.kafka, names, clock)
                return False
            if now != last or any(lag.records for lag in measure(self.kafka, self.naming, clock)):
                last, since = now, clock.monotonic()
            return clock.monotonic() - since > _STILL_S

        try:
            self.wait_until(still, lambda: f"still on its way: {measure(self.kafka, self.naming, clock)}")
        finally:
            outputs.close()

    def wait(self, seconds: float) -> None:
        """Let time pass, starting again what ends meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.watch()
            time.sleep(0.05)

    def wait_until(self, done: Callable[[], bool], what: Callable[[], str]) -> None:
        """Wait for something that must come, starting again what ends meanwhile.

        Raises:
            Unavailable: it did not come; ``what`` says what is missing.
        """
        deadline = time.monotonic() + self.patience_s
        while not done():
            if time.monotonic() > deadline:
                raise Unavailable(what())
            self.watch()
            time.sleep(0.05)


_OUTPUTS = (MATCH_REQUESTS, PUSH_TARGETS, CAMPAIGN_REPORTS, CAMPAIGNS)


def set_up(
    kafka: KafkaSettings,
    prefix: str,
    folder: Path,
    partitions: int = 4,
    users: int = 400,
    songs: int = 600,
    models: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    world: Path | None = None,
) -> Environment:
    """Topics, models of a generated world, and its listens; no workers yet.

    Args:
        settings: {section: {key: value}}, what the workers are to be told besides.
        world: where the generated world and the models are kept; made if they are not there. Default: ``folder``.
    """
    naming = Naming(prefix, partitions, 2)
    create_topics(admin(kafka), naming, int((settings or {}).get("topics", {}).get("replication_factor", 1)))
    world = world or folder
    if not (world / "data").exists():
        generate(World(users=users, songs=songs, seed=3, history=40.0), world / "data")
    dataset = read_dataset(world / "data")
    parts = split(dataset, 0)
    for number, path in enumerate(_artifacts(world, models)):
        if path.exists():
            continue
        # Torch is loaded only where something is trained.
        from encoder import train as training

        # One epoch: what is tested here does not depend on who is pushed.
        config = training.TrainingConfig(seed=number, epochs=1)
        artifact.save(training.train(dataset, parts.warm, config, rare_rows=parts.rare), path)
    stage = installed(kafka, naming, folder, models, settings, world)
    stage.publish(0)
    stage.send(LISTENS, list(history(dataset, parts, time.time())))
    return stage


def installed(
    kafka: KafkaSettings,
    naming: Naming,
    folder: Path,
    models: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    world: Path | None = None,
) -> Environment:
    """What :func:`set_up` left, whoever called it: nothing is created or sent. Arguments as there."""
    world = world or folder
    dataset = read_dataset(world / "data")
    parts = split(dataset, 0)
    sections: dict[str, dict[str, Any]] = {
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "topics": {
            "prefix": naming.prefix,
            "audience_partitions": naming.audience_partitions,
            "songs_partitions": naming.songs_partitions,
        },
        "paths": {"cache": str(folder / "cache")},
        # The broker takes no less; a killed songs worker is missed for this long.
        "songs": {"session_timeout_s": 6},
    }
    for section, values in (settings or {}).items():
        sections[section] = {**sections.get(section, {}), **values}
    environment = {
        f"COLDSTART_{section}__{key}".upper(): str(value)
        for section, values in sections.items()
        for key, value in values.items()
    }
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    uploads = [upload_event(dataset, int(row), 100) for row in parts.cold]
    return Environment(
        kafka,
        naming,
        [song for song in uploads if song.features or song.tags or song.genres or song.artist_ids],
        dataset.user_ids,
        environment,
        folder,
        models=_artifacts(world, models),
        overrides=sections,
        warm=[dataset.song_ids[int(row)] for row in parts.warm],
    )


def _artifacts(world: Path, models: int) -> list[Path]:
    return [world / ("model" if number == 0 else f"model-{number}") for number in range(models)]
