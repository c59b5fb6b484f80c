"""A role knows within seconds that no broker answers, and that they are back."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from installation import Installation, recreate
from structlog.testing import capture_logs

from streams.contract.topics import LISTENS
from streams.kafka.reachability import Reachability
from streams.runtime.clock import ManualClock
from streams.runtime.health import Readiness
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka


def broker_of(kafka: EmbeddedKafka) -> psutil.Process:
    """The process that listens on the broker's port."""
    (found,) = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == kafka.port
    }
    return psutil.Process(found)


def freeze(process: psutil.Process) -> None:
    """Stop it, and return when no thread of it can answer any more: a busy machine lets them run on for a moment."""
    process.suspend()
    stats = [task / "stat" for task in Path(f"/proc/{process.pid}/task").iterdir()]
    while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in stats):
        time.sleep(0.01)


def test_a_frozen_broker_is_named_with_when_it_fell_silent() -> None:
    clock, readiness = ManualClock(wall=3600.0), Readiness()
    # Its own: nobody else's stands still meanwhile.
    with EmbeddedKafka() as kafka:
        where = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
        reachable = Reachability(where, readiness.condition("kafka", "not asked yet"), clock)
        reachable.ask()
        assert readiness.reasons() == {}
        broker = broker_of(kafka)
        freeze(broker)
        try:
            with capture_logs() as logs:
                clock.advance(3)
                reachable.ask()
                assert readiness.reasons() == {}
                for seconds in (5, 65):
                    clock.advance(seconds - (clock.now() - 3600))
                    reachable.ask()
                    assert readiness.reasons() == {"kafka": f"no broker answers since 01:00:00 UTC ({seconds} s)"}
        finally:
            broker.resume()
        with capture_logs() as returned:
            while readiness.reasons():
                reachable.ask()
            reachable.ask()
    assert [line["event"] for line in logs + returned] == ["no broker answers", "kafka answers again"]


def test_a_broker_that_is_not_there_is_named_though_it_never_was() -> None:
    clock, readiness = ManualClock(), Readiness()
    nobody = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    reachable = Reachability(nobody, readiness.condition("kafka", "not asked yet"), clock)
    clock.advance(60)
    reachable.ask()
    assert readiness.reasons() == {"kafka": "no broker answers since 00:00:00 UTC (60 s)"}


WATCH = """
import sys
from streams.runtime.clock import SystemClock
from streams.kafka.reachability import Reachability
from streams.runtime.health import Readiness
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka
_, servers, *inputs = sys.argv
reachable = Reachability(KafkaSettings(bootstrap_servers=servers), Readiness().condition("", ""), SystemClock(), inputs)
reachable.ask()
print("asked", flush=True)
sys.stdin.readline()
while True:
    reachable.ask()
"""


def test_an_input_created_anew_while_it_is_read_ends_the_process_with_its_name(here: Installation) -> None:
    name = here.naming.name(LISTENS)
    with subprocess.Popen(
        [sys.executable, "-c", WATCH, here.kafka.bootstrap_servers, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "asked\n"
        recreate(here, LISTENS)
        output, _ = watcher.communicate("go on\n", timeout=60)
    assert watcher.returncode == 2
    assert f"topic {name} was deleted and created again" in output
