"""Runs a role as a child process, and starts it again when it ends."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from itertools import takewhile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from streams.contract.errors import BadBurst, Refused
from streams.runtime.clock import Clock, SystemClock
from streams.runtime.exit_codes import BAD_INPUT, OK, REFUSED

_PR_SET_PDEATHSIG = 1
# A role's own deadline after SIGTERM, `shutdown_s`, by default, and what ending takes beside it.
_STOP_S = 25.0
# One look must not hold up the looks at other workers for long.
_ANSWER_S = 2.0
_ANSWER_BYTES = 1_048_576
_TAIL_BYTES = 65_536
# A worker that exits this often within a minute will not recover by another restart.
_MOST_RESTARTS = 5
_RESTARTS_WITHIN_S = 60.0


class RoleProcess:
    """One worker as a child process: ``python -m streams worker ...``.

    Args:
        args: of ``coldstart worker``.
        environment: added to this process's own.
        log: where its JSON lines go; appended to.
        port: of /metrics, /livez and /readyz; 0 takes a free one.
        stop_s: from SIGTERM to SIGKILL.
    """

    def __init__(
        self,
        name: str,
        args: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        port: int = 0,
        clock: Clock | None = None,
        stop_s: float = _STOP_S,
    ) -> None:
        self.name = name
        self._stop_s = stop_s
        self._restarts: list[float] = []
        self._started_at = self._alive_at = 0.0
        # Where this process's lines begin.
        self._log_from = 0
        self._log = log
        self._port = port or _free_port()
        self._clock = clock or SystemClock()
        self._environment = {**os.environ, **environment}
        self._command = [sys.executable, "-m", "streams", "worker", *args, "--http-port", str(self._port)]
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """Of /metrics, /livez and /readyz."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def started_at(self) -> float:
        """When this process began, monotonic seconds."""
        return self._started_at

    @property
    def answered(self) -> bool:
        """Whether this process has ever answered that it lives."""
        return self._alive_at > self._started_at

    @property
    def silent_s(self) -> float:
        """Seconds since this process began, or since :meth:`readiness` last found it alive."""
        return self._clock.monotonic() - self._alive_at

    def readiness(self) -> dict[str, str]:
        """Why it is not ready, by condition; empty when it is."""
        found = self._ask("readyz")
        if found is None:
            silent = f"no answer for {self.silent_s:.0f} s"
            return {"process": silent if self.answered else "starting"}
        pid, conditions = found
        if pid != str(self.pid):
            # The worker exits by itself if it cannot have the port.
            return {"process": f"another server answers at {self.url}" + (f" (pid {pid})" if pid else "")}
        alive = self._ask("livez")
        if alive and not any(reason != "ok" for reason in alive[1].values()):
            # Of a process that began in this very moment, too.
            self._alive_at = max(self._clock.monotonic(), math.nextafter(self._started_at, math.inf))
        return {name: reason for name, reason in conditions.items() if reason != "ok"}

    def _ask(self, what: str) -> tuple[str | None, dict[str, str]] | None:
        """Who answers, and the conditions that it shows; None: nobody does. Conditions of a stranger are not read."""
        try:
            try:
                answer = urlopen(f"{self.url}/{what}", timeout=_ANSWER_S)
            except HTTPError as error:
                answer = error
            with answer:
                pid = answer.headers.get("Process-Id")
                if pid != str(self.pid):
                    return pid, {}
                conditions: dict[str, str] = json.loads(answer.read(_ANSWER_BYTES))["conditions"]
                return pid, conditions
        except (OSError, HTTPException, ValueError):
            return None

    def exit_code(self) -> int | None:
        """Negative: the signal that killed it; None while it runs."""
        return self._process.poll()

    def end(self) -> str:
        """How it ended, with the reason that its log gives."""
        code = self._process.wait()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        reason = self._reason() if code else ""
        return f"ended with code {code}" + (f": {reason}" if reason else "")

    def start_again(self) -> None:
        """After it ended: a new process in its place."""
        self._process = self._start()

    def watch(self) -> str | None:
        """Restart it if it exited, unless it was asked to or its exit code says that a restart does not help.

        Returns:
            How it ended, if it was just restarted.

        Raises:
            Refused: it exited for a reason that a restart does not fix, or too often; the message names its log.
            BadBurst: it stopped at a burst of bad records, and stays down until someone resumes it.
        """
        code = self.exit_code()
        if code is None:
            return None
        if code == BAD_INPUT:
            raise BadBurst(f"{self.name} stopped at bad records; its log {self._log} ends with:\n{self._reason()}")
        if code in (OK, REFUSED):
            raise Refused(f"{self.name} ended with code {code}; its log {self._log} ends with:\n{self._reason()}")
        now = self._clock.monotonic()
        recent = [at for at in self._restarts if now - at < _RESTARTS_WITHIN_S]
        if len(recent) == _MOST_RESTARTS:
            raise Refused(f"{self.name} ended {len(recent) + 1} times within a minute; see its log {self._log}")
        # At once, then after 1, 2, 4 and 8 seconds: what it needs may come back meanwhile.
        if recent and now - recent[-1] < 2 ** (len(recent) - 1):
            return None
        how = self.end()
        self._restarts = [*recent, now]
        self.start_again()
        return how

    @property
    def restarts(self) -> int:
        """How often it was started again within the last minute."""
        now = self._clock.monotonic()
        return sum(now - at < _RESTARTS_WITHIN_S for at in self._restarts)

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to finish anything."""
        self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when its own deadline has passed."""
        self.ask_to_stop()
        try:
            self._process.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def _reason(self) -> str:
        """Why it ended: what its last line says, or its last lines that are no JSON, five at most."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-5:]
        with suppress(ValueError, KeyError, TypeError, IndexError):
            return str(json.loads(lines[-1])["why"])
        words = list(takewhile(lambda line: not line.startswith("{"), reversed(lines)))
        return "\n".join(reversed(words or lines[-1:]))

    def _start(self) -> subprocess.Popen[bytes]:
        self._started_at = self._alive_at = self._clock.monotonic()
        with self._log.open("ab") as log:
            self._log_from = log.seek(0, os.SEEK_END)
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )


def _die_with_parent() -> None:
    """In the child: get SIGTERM when the parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
