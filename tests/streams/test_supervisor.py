"""A role as a child process: started again when that helps, and only then."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from streams.contract.errors import Refused
from streams.runtime.clock import ManualClock
from streams.runtime.exit_codes import REFUSED, RESTART
from streams.runtime.health import ObserveServer, Readiness
from streams.runtime.supervised_worker import SupervisedWorker
from streams.runtime.supervisor import RoleProcess

# Nobody answers here, so that a worker ends by itself with the code that asks for a restart.
NOWHERE = {"COLDSTART_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9", "COLDSTART_KAFKA__REQUEST_TIMEOUT_S": "0.1"}

Start = Callable[[dict[str, str]], RoleProcess]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def start(tmp_path: Path, clock: ManualClock) -> Iterator[Start]:
    started: list[RoleProcess] = []

    def start(environment: dict[str, str]) -> RoleProcess:
        log = tmp_path / "audience-0.log"
        started.append(RoleProcess("audience-0", ["audience"], NOWHERE | environment, log, clock=clock))
        return started[-1]

    yield start
    for process in started:
        process.stop()


def ended(process: RoleProcess) -> int:
    """Wait for its end and leave it to be found; its exit code, or the signal that killed it."""
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status


def test_a_worker_that_asks_for_it_is_started_again(start: Start, tmp_path: Path) -> None:
    process = start({})
    assert process.readiness() == {"process": "starting"}
    assert process.watch() is None
    first = process.pid
    assert ended(process) == RESTART
    how = process.watch()
    assert process.pid != first
    # Whoever watches is told why, without a look into the log.
    assert how is not None
    assert re.match(rf"ended with code {RESTART}: .*127\.0\.0\.1:9", how)
    assert "127.0.0.1:9" in (tmp_path / "audience-0.log").read_text()


def test_a_refusal_is_passed_on_with_the_end_of_the_log(start: Start, tmp_path: Path) -> None:
    process = start({"COLDSTART_AUDIENCE__WATCHDOG_S": "none"})
    ended(process)
    with pytest.raises(Refused) as caught:
        process.watch()
    said = str(caught.value)
    assert "audience-0 ended with code 2" in said
    assert str(tmp_path / "audience-0.log") in said
    assert "audience.watchdog_s = 'none'" in said


def test_a_worker_that_is_killed_again_and_again_is_given_up(start: Start, clock: ManualClock) -> None:
    process = start({})
    pids = {process.pid}
    for pause_s in (0, 1, 2, 4, 8):
        before = process.pid
        os.kill(before, signal.SIGKILL)
        assert ended(process) == signal.SIGKILL
        if pause_s:
            clock.advance(pause_s - 0.01)
            process.watch()
            assert process.pid == before
            clock.advance(0.02)
        process.watch()
        assert process.pid != before
        pids.add(process.pid)
    assert len(pids) == 6
    assert process.restarts == 5
    process.kill()
    with pytest.raises(Refused, match=r"audience-0 ended 6 times within a minute.*audience-0\.log"):
        process.watch()


def kept(start: Start, clock: ManualClock, environment: dict[str, str]) -> SupervisedWorker:
    return SupervisedWorker(start(environment), clock, silence_s=30)


def test_of_a_supervised_worker_pauses_grow_and_what_is_the_same_is_said_once(start: Start, clock: ManualClock) -> None:
    worker = kept(start, clock, {})
    said = []
    for pause_s in (0, 1, 2, 4):
        before = worker.process.pid
        assert ended(worker.process) == RESTART
        said.append(worker.look())
        if pause_s:
            clock.advance(pause_s - 0.01)
            worker.look()
            assert worker.process.pid == before
            clock.advance(0.02)
        worker.look()
        assert worker.process.pid != before
        assert worker.down is None
    assert said[0] is not None
    assert re.fullmatch(rf"ended with code {RESTART}: .*127\.0\.0\.1:9.*; started again", said[0])
    assert said[1:] == [None] * 3


def test_a_supervised_worker_that_is_refused_again_and_again_stays_down(
    start: Start, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.runtime.supervised_worker._REFUSALS", 2)
    worker = kept(start, clock, {"COLDSTART_AUDIENCE__WATCHDOG_S": "none"})
    said = []
    for pause_s in (5, 10, None):
        assert worker.down is None
        ended(worker.process)
        said.append(worker.look())
        if pause_s is not None:
            clock.advance(pause_s)
            worker.look()
    assert worker.down == REFUSED
    first, second, last = said
    assert first is not None
    assert last is not None
    assert "audience.watchdog_s = 'none'" in first
    assert second is None
    assert last.endswith("It stays down, the others go on")
    clock.advance(3600)
    assert worker.look() is None
    assert worker.process.exit_code() == REFUSED


def test_the_answer_of_another_process_on_the_port_is_not_its_own(tmp_path: Path) -> None:
    # As a second `coldstart up` meets the first one's workers, ready as they are.
    with ObserveServer("127.0.0.1", 0, CollectorRegistry(), Readiness()) as others:
        process = RoleProcess("audience-0", ["audience"], NOWHERE, tmp_path / "audience-0.log", others.port)
        assert process.readiness() == {"process": f"another server answers at {others.url} (pid {os.getpid()})"}
        assert ended(process) == REFUSED
        with pytest.raises(Refused, match=f"cannot serve /metrics on 127.0.0.1:{others.port}"):
            process.watch()
