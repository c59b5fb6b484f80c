"""The audience worker over several lives: what it commits is what it finds again."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import NewTopic
from installation import PATIENCE_S, Installation
from prometheus_client import CollectorRegistry

from streams.audience.restore import Beside, read_changelog, state_records
from streams.audience.store import Stores
from streams.audience.worker import Worker
from streams.broker import EmbeddedKafka
from streams.clients import admin
from streams.clock import SystemClock
from streams.envelope import pack
from streams.events import Listen, UserPreferences
from streams.live import LiveView
from streams.metrics import AudienceMetrics
from streams.observe import Heartbeat, Readiness
from streams.provision import create_topics
from streams.settings import Audience, Kafka
from streams.topics import AUDIENCE_STATE, LISTENS, MATCH_REQUESTS, PREFERENCES, Naming
from targeting.partition import Config, Partition
from targeting.policy import Policy
from targeting.songs import Songs

CLOCK = SystemClock()
# No folder can be made in it: the state lives in memory and in the changelog.
NO_DISK = Path(os.devnull)


class Life:
    """One worker in this process, from start to close."""

    def __init__(self, here: Installation, folder: Path = NO_DISK) -> None:
        self.registry = CollectorRegistry()
        self.view = LiveView(here.kafka, here.naming, CLOCK)
        self.states: list[Partition] = []
        songs, partitions = Songs(), here.naming.audience_partitions

        def new_partition(number: int) -> Partition:
            self.states.append(Partition(number, partitions, songs, Config(policy=Policy())))
            return self.states[-1]

        self.worker = Worker(
            here.kafka, here.naming, Audience(), CLOCK, AudienceMetrics(self.registry), self.view, songs,
            new_partition, Stores(folder, "test", CLOCK), 0, Heartbeat(CLOCK, 60),
            Readiness().condition("restored", "not yet"),
        )  # fmt: skip

    def until(self, done: Callable[[], bool]) -> None:
        deadline = CLOCK.monotonic() + PATIENCE_S
        while not done():
            assert CLOCK.monotonic() < deadline
            self.worker.round()

    def digest(self) -> str:
        return self.states[-1].digest()

    def end(self) -> None:
        self.worker.close()
        self.view.close()


@pytest.fixture
def here(kafka: EmbeddedKafka, prefix: str) -> Installation:
    """One partition; records of preferences and of the state can be deleted, as compaction may delete them."""
    naming = Naming(prefix, 1, 1)
    reach = Kafka(bootstrap_servers=kafka.bootstrap_servers)
    client = admin(reach)
    both = {"cleanup.policy": "compact,delete"}
    erasable = [NewTopic(naming.name(topic), 1, 1, config=both) for topic in (PREFERENCES, AUDIENCE_STATE)]
    for future in client.create_topics(erasable).values():
        future.result(PATIENCE_S)
    create_topics(client, naming, 1)
    return Installation(reach, naming)


def listen(here: Installation, number: int) -> None:
    now = CLOCK.now()
    event = Listen(
        listen_id=f"l-{number}", user_id="u", song_id=f"s-{number}", played_at=datetime.fromtimestamp(now, UTC),
        source="organic",
    )  # fmt: skip
    here.send(LISTENS, pack(event, ce_type=Listen.TYPES[0], id=event.listen_id, source="test", time=now))


def prefer(here: Installation) -> None:
    now = CLOCK.now()
    event = UserPreferences(user_id="u", opted_in=False, updated_at=datetime.fromtimestamp(now, UTC))
    here.send(PREFERENCES, pack(event, ce_type=UserPreferences.TYPES[0], id="p", source="test", time=now))


def committed(here: Installation) -> dict[str, int]:
    return {t.name: here.committed("audience", t, 0) for t in (LISTENS, MATCH_REQUESTS, PREFERENCES)}


def stated(here: Installation) -> dict[str, int]:
    """What the changelog says of the inputs."""
    beside = Beside()
    list(state_records(read_changelog(here.kafka, here.naming, 0, CLOCK, lambda *_: None), beside))
    at = beside.positions
    return {"listens": at.listens, "match-requests": at.commands, "preferences": at.preferences}


def test_group_and_changelog_agree_though_preferences_are_gone_when_they_are_read_again(here: Installation) -> None:
    prefer(here)
    listen(here, 0)
    first = Life(here)
    first.until(lambda: committed(here)["preferences"] == 1 and committed(here)["listens"] == 1)
    first.end()
    client = admin(here.kafka)
    for future in client.delete_records([TopicPartition(here.naming.name(PREFERENCES), 0, 1)]).values():
        future.result(PATIENCE_S)

    for life, number in enumerate((1, 2)):
        listen(here, number)
        worker = Life(here)
        worker.until(lambda end=life + 2: committed(here)["listens"] == end)  # type: ignore[misc]
        worker.end()
        known = {name: offset for name, offset in committed(here).items() if offset >= 0}
        assert known == {name: offset for name, offset in stated(here).items() if offset >= 0}
        assert known == {"listens": life + 2, "preferences": 1}


def test_a_worker_comes_back_from_the_changelog_and_from_its_disk_to_the_same_state(
    here: Installation, tmp_path: Path
) -> None:
    first = Life(here, tmp_path)
    for number in range(5):
        listen(here, number)
    first.until(lambda: committed(here)["listens"] == 5)
    told = first.digest()
    first.end()

    from_changelog = Life(here)
    from_changelog.until(lambda: bool(from_changelog.states))
    assert from_changelog.digest() == told
    from_changelog.end()

    # Now the disk alone has the state.
    client, place = admin(here.kafka), TopicPartition(here.naming.name(AUDIENCE_STATE), 0)
    (future,) = client.delete_records([TopicPartition(place.topic, 0, OFFSET_END)]).values()
    future.result(PATIENCE_S)
    from_disk = Life(here, tmp_path)
    from_disk.until(lambda: bool(from_disk.states))
    assert from_disk.digest() == told
    from_disk.end()
