"""A probe: answered by every partition, pushed to nobody, one campaign however many there are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from urllib.request import urlopen

import msgspec
import pytest

from streams.contract.events import Campaign, PushTarget, SongUpload
from streams.contract.topics import CAMPAIGNS, PUSH_TARGETS
from streams.kafka.compacted_topic import Snapshot
from streams.operations.probe import Probe
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import RESTART
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up


@pytest.fixture(scope="module")
def town(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    town = set_up(kafka, "test-probe.", tmp_path_factory.mktemp("probe"))
    town.start("songs", "songs")
    town.start("audience", "audience", "--slot", "0")
    town.wait_until_ready()
    yield town
    town.stop()


def command(town: Environment, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streams", "probe", "--name", "here", "--json", *args],
        env={**os.environ, **town.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_every_partition_answers_and_nobody_is_pushed(town: Environment) -> None:
    probe = Probe(town.kafka, town.naming, SystemClock(), "twice")
    # Whatever the upload itself says.
    song = msgspec.structs.replace(town.songs[0], song_id=SongUpload.PROBES + "greedy", budget=50)
    town.upload([song])
    answers = [probe.send(60) for _ in range(2)]
    probe.close()
    assert [each.missing for each in answers] == [frozenset(), frozenset()]
    assert answers[1].revision > answers[0].revision
    snapshot = Snapshot(town.kafka, [town.naming.name(CAMPAIGNS), town.naming.name(PUSH_TARGETS)], SystemClock())
    try:
        messages = list(snapshot.read_to_end())
    finally:
        snapshot.close()
    pushed = [
        msgspec.json.decode(message.value() or b"", type=PushTarget)
        for message in messages
        if message.topic() == town.naming.name(PUSH_TARGETS)
    ]
    assert not [push for push in pushed if push.song_id.startswith(SongUpload.PROBES)]
    (last,) = {
        message.key(): msgspec.json.decode(message.value() or b"", type=Campaign)
        for message in messages
        if message.key() == answers[0].song_id.encode()
    }.values()
    assert (last.revision, last.status, last.end_reason, last.counts.pushed) == (
        answers[1].revision, "ended", "budget", 0,
    )  # fmt: skip


def test_the_verb_tells_the_round_trip_and_goes_on_as_a_metric(town: Environment) -> None:
    once = command(town, "--patience", "60")
    out, errors = once.communicate(timeout=120)
    assert once.returncode == 0, errors
    assert json.loads(out)["answered"] is True
    on = command(town, "--patience", "60", "--every", "1", "--http-port", "0")
    assert on.stdout
    assert on.stderr
    url = on.stderr.readline().strip()
    for _ in range(2):
        assert json.loads(on.stdout.readline())["missing"] == []
    with urlopen(url, timeout=10) as answer:
        shown = answer.read().decode()
    counted = next(line for line in shown.splitlines() if line.startswith("coldstart_probe_seconds_count"))
    assert float(counted.split()[1]) >= 1
    assert 'coldstart_probes_total{outcome="answered"}' in shown
    on.send_signal(signal.SIGTERM)
    on.communicate(timeout=60)
    assert on.returncode == 0


def test_a_probe_that_is_not_answered_names_the_partitions(town: Environment) -> None:
    for worker in town.audience:
        worker.stop()
    late = command(town, "--patience", "2")
    out, errors = late.communicate(timeout=120)
    assert late.returncode == RESTART, errors
    told = json.loads(out)
    assert (told["answered"], set(told["missing"])) == (False, set(town.partitions))
