"""``coldstart up`` on a real broker: what ends is started again, and the others go on."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from streams.runtime.exit_codes import OK
from streams.runtime.health import ObserveServer, Readiness
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up

PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def stage(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    reach = kafka
    return set_up(reach, "test-up.", tmp_path_factory.mktemp("up"), partitions=2, users=150, songs=600)


class Up:
    """A running ``coldstart up`` and what it printed."""

    def __init__(self, stage: Environment, logs: Path, *args: str, **more: str) -> None:
        self.logs = logs
        ports = {"COLDSTART_SONGS__HTTP_PORT": "0", "COLDSTART_AUDIENCE__HTTP_PORT": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streams", "up", "--logs", str(logs), "--silence", "15", *args],
            env=os.environ | stage.environment | ports | {"COLUMNS": "300"} | more,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(iter(self._process.stderr.readline, ""))

    def of(self, name: str) -> list[str]:
        """What was said of a worker."""
        return [line.strip() for line in self.lines if line.startswith(f"{name} ")]

    def ready(self, name: str) -> int | None:
        """The process whose readiness was said last of this worker, if it was."""
        found = re.search(r" pid (\d+)  .* ready$", (self.of(name) or [""])[-1])
        return int(found[1]) if found else None

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert self._process.poll() is None, "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.05)

    def stop(self) -> int:
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code


Starts = Callable[..., Up]


@pytest.fixture
def start(stage: Environment, tmp_path: Path) -> Iterator[Starts]:
    started: list[Up] = []

    def start(*args: str, **more: str) -> Up:
        started.append(Up(stage, tmp_path / f"logs-{len(started)}", *args, **more))
        return started[-1]

    yield start
    for up in started:
        with suppress(ProcessLookupError):
            up.stop()


def test_a_worker_that_is_stopped_killed_or_frozen_is_started_again_and_the_others_go_on(start: Starts) -> None:
    up, names = start("--audience-workers", "2"), ("songs-0", "audience-0", "audience-1")
    up.until(lambda: all(up.ready(name) for name in names))
    for name, number, said in (
        ("songs-0", signal.SIGTERM, "ended with code 0; started again"),
        ("audience-0", signal.SIGKILL, "was killed by SIGKILL; started again"),
        ("audience-1", signal.SIGSTOP, r"no answer for \d+ s: killed; started again"),
    ):
        others = {each: up.ready(each) for each in names if each != name}
        before = up.ready(name)
        assert before is not None
        os.kill(before, number)
        up.until(lambda name=name, before=before: up.ready(name) not in (None, before))  # type: ignore[misc]
        assert not psutil.pid_exists(before)
        assert any(re.fullmatch(rf"{name} +{said}", line) for line in up.of(name)), "".join(up.lines)
        for other, pid in others.items():
            assert pid is not None
            assert psutil.pid_exists(pid)
            assert up.ready(other) == pid
    assert up.stop() == OK


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_refused_worker_says_why_once_and_comes_when_it_can_while_the_others_serve(start: Starts) -> None:
    # A stranger answers on the songs worker's port that it is ready.
    port = free_port()
    with ObserveServer("127.0.0.1", port, CollectorRegistry(), Readiness()):
        up = start(COLDSTART_SONGS__HTTP_PORT=str(port))
        up.until(lambda: up.ready("audience-0") is not None)
        audience = up.ready("audience-0")
        log = up.logs / "songs-0.log"
        # Refused, and refused again after five seconds.
        up.until(lambda: log.read_text().count("cannot serve /metrics") >= 2)
    up.until(lambda: up.ready("songs-0") is not None)
    refusals = [line for line in up.of("songs-0") if "ended with code 2" in line]
    assert len(refusals) == 1
    assert f"cannot serve /metrics on 127.0.0.1:{port}" in refusals[0]
    assert up.ready("audience-0") == audience
    assert up.stop() == OK


def test_a_second_one_on_other_ports_never_looks_ready_by_the_first_ones_workers(start: Starts) -> None:
    first = start()
    first.until(lambda: first.ready("audience-0") is not None)
    holder = first.ready("audience-0")
    second = start()
    second.until(lambda: any("has this slot" in line for line in second.of("audience-0")))
    assert f"(pid {holder}) has this slot" in second.of("audience-0")[-1], "".join(first.lines)
    assert second.ready("audience-0") is None
    second.stop()
    assert not any(line.endswith(" ready") for line in second.of("audience-0"))
    assert first.stop() == OK
