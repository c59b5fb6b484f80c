"""A hung section ends the process; a fast one does not."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from installation import Installation
from town import USERS, Service, Town

from streams.contract.topics import Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.runtime.exit_codes import RESTART
from streams.runtime.settings import KafkaSettings
from targeting.partition.partition import Partition

PROCESS = """
import contextlib, threading
from streams.runtime.watchdog import Watchdog
from streams.runtime.clock import SystemClock
watchdog = Watchdog(SystemClock(), 0.3)
with contextlib.suppress(ValueError), watchdog.guard():
    {inside}
{after}
print("went on")
watchdog.close()
"""


def run(inside: str, after: str = "") -> subprocess.CompletedProcess[str]:
    code = PROCESS.format(inside=inside, after=after)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_hung_section_ends_the_process_with_the_code_for_a_restart() -> None:
    done = run("threading.Event().wait(50)")
    assert done.returncode == RESTART == 75
    assert "went on" not in done.stdout
    assert "more than 0.3 s" in done.stdout + done.stderr


def test_time_outside_of_sections_does_not_count_however_they_ended() -> None:
    done = run("raise ValueError", "threading.Event().wait(0.6)")
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_state_that_never_ends_with_a_batch_ends_its_worker(
    kafka: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only a broker can hold a worker: a loop of our own that did not end once held both of an installation."""
    here = Installation(kafka, Naming(prefix, 1, 1))
    create_topics(admin(here.kafka), here.naming, 1)
    town, service, ended = Town(here), Service(here, here.kafka, watchdog_s=2), threading.Event()

    def leave(code: int, why: str) -> None:
        assert (code, why) == (RESTART, "a batch hangs for more than 2 s")
        ended.set()

    monkeypatch.setattr("streams.runtime.watchdog.leave", leave)
    service.until(lambda: service.restored == [0])
    monkeypatch.setattr(Partition, "apply", lambda *_: ended.wait(30))
    town.listen(USERS)
    service.until(ended.is_set)
    service.stop()
    town.close()
