"""One small HTTP server per role: /metrics, /livez, /readyz, /status."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

from streams.contract.errors import Refused
from streams.runtime.clock import Clock


class Condition:
    """One thing that must hold before a role is ready. It starts out failing."""

    def __init__(self, reason: str) -> None:
        self._reason: str | None = reason

    @property
    def reason(self) -> str | None:
        """Why it does not hold; None when it does."""
        return self._reason

    def holds(self) -> None:
        self._reason = None

    def fails(self, reason: str) -> None:
        self._reason = reason


class Readiness:
    """The named conditions of a role: ready is when all of them hold.

    Args:
        gauge: labelled by condition, shows 1 while it holds.

    >>> readiness = Readiness()
    >>> model = readiness.condition("model", "no model is live yet")
    >>> readiness.ready
    False
    >>> model.holds()
    >>> readiness.ready
    True
    """

    def __init__(self, gauge: Gauge | None = None) -> None:
        self._gauge = gauge
        self._conditions: dict[str, Condition] = {}
        self._notes: dict[str, str] = {}

    def note(self, name: str, text: str | None) -> None:
        """Show a note in ``/readyz`` without making the role unready; None removes it."""
        if text is None:
            self._notes.pop(name, None)
        else:
            self._notes[name] = text

    def notes(self) -> dict[str, str]:
        return dict(self._notes)

    def condition(self, name: str, reason: str) -> Condition:
        """Add a condition that fails for ``reason`` so far. Raises ValueError when the name is taken."""
        if name in self._conditions:
            raise ValueError(f"condition {name!r} exists already")
        condition = self._conditions[name] = Condition(reason)
        if self._gauge is not None:
            # Asked for at each scrape.
            self._gauge.labels(name).set_function(lambda: float(condition.reason is None))
        return condition

    @property
    def ready(self) -> bool:
        return not self.reasons()

    def reasons(self) -> dict[str, str]:
        """Name -> why, of the conditions that fail."""
        named = ((name, condition.reason) for name, condition in list(self._conditions.items()))
        return {name: reason for name, reason in named if reason is not None}

    def names(self) -> list[str]:
        return list(self._conditions)


@dataclass(slots=True)
class Heartbeat:
    """A loop's heartbeat: it beats every round, and counts as dead after ``limit_s`` of silence."""

    clock: Clock
    limit_s: float
    _last: float | None = None

    def beat(self) -> None:
        self._last = self.clock.monotonic()

    def age(self) -> float | None:
        """Seconds since the last beat; None before the first."""
        return None if self._last is None else self.clock.monotonic() - self._last

    def silence(self) -> str | None:
        """What is wrong; None while the loop beats, and before its first beat."""
        silent = self.age()
        if silent is None or silent <= self.limit_s:
            return None
        return f"no round for {silent:.0f} s, at most {self.limit_s:g}"


class ObserveServer:
    """Serves one role's metrics and health until closed, from its own thread.

    ``/metrics`` is Prometheus text. ``/livez`` and ``/readyz`` answer 200 or 503 and JSON that names every reason.
    ``/status`` is JSON, and 200 whatever it says.

    Args:
        status: what ``/status`` answers.

    Raises:
        Refused: the port is taken, or the host is not this machine's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        readiness: Readiness,
        heartbeats: dict[str, Heartbeat] | None = None,
        status: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        try:
            self._server = _Server((host, port), registry, readiness, heartbeats or {}, status)
        except (OSError, OverflowError) as error:
            raise Refused(
                f"cannot serve /metrics on {host}:{port} ({error}): choose another http_port, or 0 for a free one"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="observe", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        readiness: Readiness,
        heartbeats: dict[str, Heartbeat],
        status: Callable[[], Mapping[str, object]],
    ) -> None:
        super().__init__(address, _Handler)
        self.registry = registry
        self.readiness = readiness
        self.heartbeats = heartbeats
        self.status = status

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that did not wait for its answer, as a scrape that timed out, is no news.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # A client that connects and sends nothing must not hold its thread forever.
    timeout = 10

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, encode(self.server.registry))
            case "/livez":
                silences = {name: beat.silence() for name, beat in self.server.heartbeats.items()}
                self._health(silences)
            case "/readyz":
                readiness = self.server.readiness
                failing = readiness.reasons()
                self._health({name: failing.get(name) for name in readiness.names()}, readiness.notes())
            case "/status":
                self._answer(HTTPStatus.OK, "application/json", json.dumps(self.server.status()).encode() + b"\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /livez, /readyz or /status\n")

    def _health(self, reasons: dict[str, str | None], notes: dict[str, str] | None = None) -> None:
        ok = not any(reasons.values())
        body: dict[str, object] = {"ok": ok, "conditions": {name: reason or "ok" for name, reason in reasons.items()}}
        if notes:
            body["notes"] = notes
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        # Lets the supervisor check that its own process answers, and no other.
        self.send_header("Process-Id", str(os.getpid()))
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every second and are not worth logging."""
