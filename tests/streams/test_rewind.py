"""A whole installation goes back and reads again: nobody is pushed twice, and the state is the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.events import PushTarget
from streams.contract.topics import LISTENS, PUSH_TARGETS
from streams.kafka.compacted_topic import Snapshot
from streams.operations.state_digest import digest
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def served(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Ten songs found their listeners, and both roles are stopped."""
    reach = kafka
    limits = {"audience": {"session_timeout_s": 6, "cap_pushes": 100, "artist_cap_pushes": 100}}
    served = set_up(reach, "test-rewind.", tmp_path_factory.mktemp("rewind"), settings=limits)
    serve(served, upload=10)
    yield served
    served.stop()


def serve(here: Environment, upload: int = 0) -> None:
    """Both roles run until nothing is on its way, and stop."""
    here.workers.clear()
    here.start("songs", "songs")
    here.start("audience", "audience", "--slot", "0")
    here.wait_until_ready()
    here.upload(here.songs[:upload])
    here.wait_until_still()
    here.stop()


def pushes(here: Environment) -> Counter[tuple[str, str]]:
    """How often each push is there, by its id and its user."""
    snapshot = Snapshot(here.kafka, [here.naming.name(PUSH_TARGETS)], CLOCK)
    try:
        events = [msgspec.json.decode(each.value() or b"", type=PushTarget) for each in snapshot.read_to_end()]
    finally:
        snapshot.close()
    return Counter((event.push_id, event.user_id) for event in events)


def digests(here: Environment) -> list[str]:
    def new(number: int) -> Partition:
        return Partition(number, here.naming.audience_partitions, Catalogue(), TargetingConfig())

    found = [digest(here.kafka, here.naming, partition, CLOCK, new) for partition in sorted(here.partitions)]
    return [each.digest for each in found if each is not None]


def verb(here: Environment, *args: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(app, list(args), env={**os.environ, **here.environment, "COLUMNS": "200"})
    return done.exit_code, done.output.splitlines()


def test_what_was_served_changes_nothing_when_it_is_read_again(served: Environment) -> None:
    sent, states = pushes(served), digests(served)
    assert set(sent.values()) == {1}
    assert len(sent) > 300
    for group in ("audience", "songs"):
        code, plan = verb(served, "rewind", group, "--to-beginning")
        assert (code, plan[-1]) == (0, "nothing was changed; add --apply")
        code, done = verb(served, "rewind", group, "--to-beginning", "--apply")
        assert (code, done) == (0, plan[:-1])
        assert not [line for line in done if "listens" in line]
    assert verb(served, "offsets", "show")[0] == 0
    serve(served)
    assert pushes(served) == sent
    assert digests(served) == states
    # Both groups are at the end again.
    assert verb(served, "offsets", "show")[0] == 0


def test_nobody_is_pushed_twice_even_where_thousands_of_listens_count_again(served: Environment) -> None:
    sent, listens = pushes(served), served.naming.name(LISTENS)
    code, refused = verb(served, "rewind", "audience", "--topic", "listens", "--to", "1d")
    assert code == 2
    assert "--recount-listens" in " ".join(refused)
    code, done = verb(served, "rewind", "audience", "--to", "1d", "--recount-listens", "--apply")
    assert code == 0
    back = sum(int(line.split("(")[1].rstrip(")").replace(",", "")) for line in done if line.startswith(listens))
    assert back < -3000
    serve(served, upload=12)
    now = pushes(served)
    assert set(now.values()) == {1}
    assert sent.keys() <= now.keys()
    # Two songs more were uploaded.
    assert len(now) > len(sent)


def test_a_group_that_somebody_is_in_is_not_moved(served: Environment) -> None:
    served.workers.clear()
    served.start("audience", "audience", "--slot", "0")
    served.wait_until_ready()
    code, said = verb(served, "rewind", "audience", "--by", "1", "--apply")
    assert code == 2
    assert "running" in " ".join(said)
    assert "stop them all" in " ".join(said)
    served.stop()
