"""What a role tells at /status."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from streams.runtime.clock import ManualClock
from streams.runtime.dead_letter_log import DeadLetterLog
from streams.runtime.health import Heartbeat, ObserveServer, Readiness
from streams.runtime.held_partitions import HeldPartitions
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.status import RoleStatus


class Role:
    def __init__(self) -> None:
        self.clock, self.registry, self.held = ManualClock(), CollectorRegistry(), HeldPartitions()
        self.metrics = AudienceMetrics(self.registry)
        self.readiness, self.heartbeat = Readiness(), Heartbeat(self.clock, 60)
        self.letters = DeadLetterLog(self.metrics.dead_letters, self.clock)
        self.status = RoleStatus(
            "audience", "t.", self.clock, self.metrics, self.readiness, self.heartbeat, self.letters, self.held, 3
        )


@pytest.fixture
def role() -> Role:
    return Role()


def test_status_is_json_whatever_the_role_is_in_the_middle_of(role: Role) -> None:
    role.readiness.condition("restored", "restoring partition 1").fails("restoring partition 1: 5 of 9 records")
    role.readiness.condition("kafka", "not asked yet").holds()
    role.readiness.note("skipped", "2 records")
    role.held.set(1, "restoring", records=5, records_total=9, seconds_left=0.5)
    role.held.set(0, "serving")
    role.held.set(2, "waiting")
    role.held.release(2)
    role.metrics.lag_records.labels("t.listens", "0").set(7)
    role.metrics.lag_seconds.labels("t.listens", "0").set(float("nan"))
    role.heartbeat.beat()
    role.clock.advance(2.5)
    role.letters.note("audience.listens", "InvalidField", "plays: 0")
    role.status.model = lambda: {"space": "s1"}
    with (
        ObserveServer("127.0.0.1", 0, role.registry, role.readiness, status=role.status.document) as server,
        urlopen(f"{server.url}/status", timeout=10) as answer,
    ):
        told = json.load(answer, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (told["role"], told["prefix"], told["slot"]) == ("audience", "t.", 3)
    assert (told["uptime_s"], told["last_poll_s"], told["ready"]) == (2.5, 2.5, False)
    assert told["conditions"] == {"restored": "restoring partition 1: 5 of 9 records", "kafka": "ok"}
    assert told["notes"] == {"skipped": "2 records"}
    assert told["model"] == {"space": "s1"}
    assert told["partitions"] == [
        {"partition": 0, "state": "serving"},
        {"partition": 1, "state": "restoring", "records": 5, "records_total": 9, "seconds_left": 0.5},
    ]
    assert told["lag"] == [{"topic": "t.listens", "partition": 0, "records": 7, "seconds": None}]
    (letter,) = told["dead_letters"]
    assert (letter["stage"], letter["error"], letter["records"]) == ("audience.listens", "InvalidField", 1)
    assert letter["latest"] == "plays: 0"


def test_what_is_not_known_yet_is_null(role: Role) -> None:
    told = role.status.document()
    assert (told["model"], told["last_poll_s"], told["partitions"], told["lag"]) == (None, None, [], [])
    assert told["ready"] is True
    assert ":" in told["instance"]
