"""A member of the group that restores for long lets others in; one whose joining is not answered tries again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from installation import Installation
from lying_network import Api, LyingNetwork
from planted_bugs import plant
from town import CLOCK, USERS, Service, Town

from streams.audience.changelog_reader import read_changelog
from streams.audience.local_store import Entry
from streams.contract.topics import Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import set_up


@pytest.mark.parametrize("slow", [0, 1])
def test_somebody_joins_in_the_middle_of_a_restore(
    kafka: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    here = Installation(kafka, Naming(prefix, 2, 2))
    create_topics(admin(here.kafka), here.naming, 1)
    town = Town(here)
    town.listen(10 * USERS)
    first, second = Service(here, here.kafka, 0), Service(here, here.kafka, 1)
    first.until(town.everything_read)
    first.stop()

    begun, over = threading.Event(), threading.Event()

    def slowly(
        kafka: KafkaSettings,
        naming: Naming,
        partition: int,
        clock: Any,
        keep_alive: Callable[[int, int], None],
        *rest: Any,
    ) -> Iterator[Entry]:
        yield from read_changelog(kafka, naming, partition, clock, keep_alive, *rest)
        while threading.current_thread() is thread and partition == slow and not over.is_set():
            begun.set()
            keep_alive(0, 1)
            over.wait(0.05)

    def rounds() -> None:
        first.until(lambda: over.is_set() and len(first.restored) == 1)

    monkeypatch.setattr("streams.audience.restore.read_changelog", slowly)
    thread = threading.Thread(target=rounds, daemon=True)
    thread.start()
    assert begun.wait(30)
    try:
        second.until(lambda: bool(second.restored))
        assert len(second.restored) == 1
    finally:
        over.set()
    thread.join(30)
    assert sorted(first.restored + second.restored) == [0, 1]

    town.ask()
    deadline = CLOCK.monotonic() + 30
    while not town.everything_read() and CLOCK.monotonic() < deadline:
        first.round()
        second.round()
    assert town.judge(first.digests | second.digests) == USERS
    assert first.ends == second.ends == []
    for each in (first, second):
        each.stop()
    town.close()


def test_a_member_whose_joining_is_not_answered_asks_again_within_seconds(kafka: KafkaSettings, prefix: str) -> None:
    # librdkafka waits for that answer for max.poll.interval.ms, by default five minutes.
    here = Installation(kafka, Naming(prefix, 1, 1))
    create_topics(admin(here.kafka), here.naming, 1)
    with LyingNetwork(kafka.bootstrap_servers) as net:
        town, service = Town(here), Service(here, net, watchdog_s=2)
        town.listen(USERS)
        fault = net.lie("no answer", Api.JOIN_GROUP)
        service.until(town.everything_read)
        assert fault.struck.is_set()
        assert service.ends == []
        service.stop()
        town.close()


DIES = """        if gone and Path("{marker}").exists():
            Path("{marker}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
"""
LINE = '        _log.info("partitions changed", new=new, gone=gone'


def test_no_partition_stays_without_a_worker_when_one_ends_in_the_middle_of_a_rebalance(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    """A static member that is back within its session gets the first half's assignment; nobody asks for the second."""
    marker, source, folder = tmp_path / "dies", tmp_path / "source", tmp_path / "stage"
    worker = "streams/audience/worker.py"
    imports = "from __future__ import annotations\n"
    edits = [
        (worker, LINE, DIES.format(marker=marker) + LINE),
        (worker, imports, imports + "import os, signal\nfrom pathlib import Path\n"),
    ]
    plant(Path(__file__).parents[2], edits, source)
    folder.mkdir()
    here = set_up(kafka, prefix, folder)
    here.environment |= {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}
    try:
        here.start("audience-0", "audience", "--slot", "0")
        here.wait_until_ready()
        marker.touch()
        here.start("audience-1", "audience", "--slot", "1")
        here.wait_until(lambda: not marker.exists(), lambda: "no worker lost a partition")
        # A worker without partitions is not ready.
        here.wait_until_ready()
        assert "rejoining the group" in here.log("audience-0").read_text() + here.log("audience-1").read_text()
    finally:
        here.stop()
