"""A role's health over HTTP."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streams.contract.errors import Refused
from streams.runtime.clock import ManualClock
from streams.runtime.health import Heartbeat, ObserveServer, Readiness
from streams.runtime.metrics import SongsMetrics


class Role:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.readiness = Readiness()
        self.clock = ManualClock()
        self.heartbeat = Heartbeat(self.clock, limit_s=30)
        self.server = ObserveServer("127.0.0.1", 0, self.registry, self.readiness, {"loop": self.heartbeat})

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def health(self, path: str) -> tuple[int, Any]:
        status, body = self.get(path)
        return status, json.loads(body)


@pytest.fixture
def role() -> Iterator[Role]:
    role = Role()
    yield role
    role.server.close()


def test_ready_only_when_every_condition_holds_and_says_why_not(role: Role) -> None:
    model = role.readiness.condition("model", "no model is live yet")
    state = role.readiness.condition("state", "restoring")
    reasons = {"model": "no model is live yet", "state": "restoring"}
    assert role.health("/readyz") == (503, {"ok": False, "conditions": reasons})
    model.holds()
    assert role.health("/readyz")[0] == 503
    state.holds()
    assert role.health("/readyz") == (200, {"ok": True, "conditions": {"model": "ok", "state": "ok"}})
    model.fails("withdrawn")
    assert role.health("/readyz")[1]["conditions"] == {"model": "withdrawn", "state": "ok"}


def test_alive_until_a_loop_falls_silent(role: Role) -> None:
    role.clock.advance(1000)
    assert role.health("/livez")[0] == 200, "a loop that has not begun is not dead"
    role.heartbeat.beat()
    role.clock.advance(30)
    assert role.health("/livez") == (200, {"ok": True, "conditions": {"loop": "ok"}})
    role.clock.advance(1)
    status, body = role.health("/livez")
    assert status == 503
    assert body["conditions"]["loop"] == "no round for 31 s, at most 30"
    role.heartbeat.beat()
    assert role.health("/livez")[0] == 200


def test_metrics_are_the_registry(role: Role) -> None:
    SongsMetrics(role.registry).uploads_served.inc(3)
    status, body = role.get("/metrics")
    assert status == 200
    assert "coldstart_uploads_served_total 3.0" in body.splitlines()


def test_unknown_path_names_the_known_ones(role: Role) -> None:
    status, body = role.get("/")
    assert status == 404
    assert "/readyz" in body


def test_taken_port_is_refused_with_what_to_change(role: Role) -> None:
    with pytest.raises(Refused, match="http_port"):
        ObserveServer("127.0.0.1", role.server.port, CollectorRegistry(), Readiness())


def test_condition_names_are_unique() -> None:
    readiness = Readiness()
    readiness.condition("model", "no")
    with pytest.raises(ValueError, match="model"):
        readiness.condition("model", "no")


def test_metrics_show_each_condition_as_it_is_now() -> None:
    registry = CollectorRegistry()
    readiness = Readiness(SongsMetrics(registry).condition)
    model = readiness.condition("model", "no model is live yet")

    def shown() -> float | None:
        return registry.get_sample_value("coldstart_condition", {"name": "model"})

    assert shown() == 0
    model.holds()
    assert shown() == 1
    model.fails("gone")
    assert shown() == 0


def test_a_client_that_did_not_wait_for_its_answer_is_no_news(role: Role, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", role.server.port), timeout=10) as client:
            # Closed with a reset, as by a scrape that timed out.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /metrics HTTP/1.0\r\n")
    assert role.get("/livez")[0] == 200
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
    assert capfd.readouterr().err == ""
