"""The audience worker over several lives: what it commits is what it finds again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic
from conftest import PATIENCE_S, Installation
from prometheus_client import CollectorRegistry

from streams.audience.restore import Beside, read_changelog
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
from streams.topics import LISTENS, MATCH_REQUESTS, PREFERENCES, Naming
from targeting.partition import Config, Partition
from targeting.policy import Policy
from targeting.songs import Songs

CLOCK = SystemClock()


class Life:
    """One worker in this process, from start to close."""

    def __init__(self, here: Installation) -> None:
        self.registry = CollectorRegistry()
        self.view = LiveView(here.kafka, here.naming, CLOCK)
        songs, partitions = Songs(), here.naming.audience_partitions
        self.worker = Worker(
            here.kafka, here.naming, Audience(), CLOCK, AudienceMetrics(self.registry), self.view, songs,
            lambda number: Partition(number, partitions, songs, Config(policy=Policy())), 0, Heartbeat(CLOCK, 60),
            Readiness().condition("restored", "not yet"),
        )  # fmt: skip

    def until(self, done: Callable[[], bool]) -> None:
        deadline = CLOCK.monotonic() + PATIENCE_S
        while not done():
            assert CLOCK.monotonic() < deadline
            self.worker.round()

    def end(self) -> None:
        self.worker.close()
        self.view.close()


@pytest.fixture
def here(kafka: EmbeddedKafka, prefix: str) -> Installation:
    """One partition; records of preferences can be deleted, as compaction may delete them."""
    naming = Naming(prefix, 1, 1)
    reach = Kafka(bootstrap_servers=kafka.bootstrap_servers)
    client = admin(reach)
    preferences = NewTopic(naming.name(PREFERENCES), 1, 1, config={"cleanup.policy": "compact,delete"})
    for future in client.create_topics([preferences]).values():
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
    list(read_changelog(here.kafka, here.naming, 0, CLOCK, lambda *_: None, beside))
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
