"""A topic that is deleted, or a broker that is away: the roles say so by name, once, and not thousands of times."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.contract.topics import MATCH_REQUESTS, PUSH_TARGETS, SONGS_LEDGER, Topic
from streams.kafka.clients import admin
from streams.runtime.exit_codes import RESTART
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.follow import Follower

PATIENCE_S = 180.0

# What a fault may lead to in a role's log: a few lines of each client's, not one every millisecond.
LINES = 60


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedKafka]:
    """One of its own: it is stopped."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture
def stage(broker: EmbeddedKafka, prefix: str, tmp_path: Path, world: Path) -> Iterator[Environment]:
    reach = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    stage = set_up(reach, prefix, tmp_path, partitions=2, users=150, songs=600, world=world)
    yield stage
    stage.stop()


def serving(stage: Environment) -> tuple[RoleProcess, RoleProcess]:
    """Both roles, once an upload is answered."""
    songs, audience = stage.start("songs", "songs"), stage.start("audience", "audience", "--slot", "0")
    stage.wait_until_ready()
    follower = Follower(stage.kafka, stage.naming)
    stage.upload(stage.songs[:1])
    stage.wait_until_answered(follower.answered, [stage.songs[0].song_id])
    follower.close()
    return songs, audience


def lines(stage: Environment, name: str) -> list[str]:
    return stage.log(name).read_text(encoding="utf-8").splitlines()


def delete(stage: Environment, topic: Topic) -> str:
    name, client = stage.naming.name(topic), admin(stage.kafka)
    client.delete_topics([name])[name].result(PATIENCE_S)
    return name


def until_ended(worker: RoleProcess) -> str:
    """What it says when it has ended; meanwhile it was not ready, and named the same."""
    shown: set[str] = set()

    def over() -> bool:
        shown.add(worker.readiness().get("kafka", ""))
        return worker.exit_code() is not None

    wait(over, worker)
    assert worker.exit_code() == RESTART
    return "\n".join([worker.end(), *shown])


def wait(done: Callable[[], bool], *workers: RoleProcess) -> None:
    """Without starting anything again."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, [(worker.name, worker.readiness()) for worker in workers]
        time.sleep(0.05)


@pytest.mark.parametrize("topic", [MATCH_REQUESTS, PUSH_TARGETS], ids=lambda topic: str(topic.name))
def test_a_role_whose_topic_is_deleted_is_not_ready_and_ends_with_its_name(stage: Environment, topic: Topic) -> None:
    songs, audience = serving(stage)
    before = {worker.name: len(lines(stage, worker.name)) for worker in (songs, audience)}
    name = delete(stage, topic)
    stage.upload(stage.songs[1:4])
    for worker in (songs, audience) if topic is MATCH_REQUESTS else (audience,):
        said = until_ended(worker)
        assert re.search(rf"ended with code 75: .*{re.escape(name)}", said), said
        assert f"topic {name}: deleted while it was in use" in said
        assert len(lines(stage, worker.name)) - before[worker.name] < LINES


def test_a_role_without_a_topic_that_it_needs_does_not_start_and_names_it(stage: Environment) -> None:
    name = delete(stage, SONGS_LEDGER)
    songs = stage.start("songs", "songs")
    said = until_ended(songs)
    assert f"topic {name}: does not exist; `coldstart topics create` creates it" in said


def test_a_broker_that_is_away_is_a_few_lines_of_each_role(stage: Environment, broker: EmbeddedKafka) -> None:
    workers = serving(stage)
    before = {worker.name: len(lines(stage, worker.name)) for worker in workers}
    broker.kill()
    try:
        away = re.compile(r"no broker answers since \d\d:\d\d:\d\d UTC \(([2-9]\d|\d{3,}) s\)")

        def gone() -> bool:
            # In the middle of a batch it may end, to be started again.
            return all(
                worker.exit_code() == RESTART or away.fullmatch(worker.readiness().get("kafka", ""))
                for worker in workers
            )

        wait(gone, *workers)
        for worker in workers:
            new = lines(stage, worker.name)[before[worker.name] :]
            assert len(new) < LINES, "\n".join(new)
            assert sum("no broker answers" in line for line in new) == 1
    finally:
        broker.restart()
