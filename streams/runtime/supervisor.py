"""Runs a role as a child process, and starts it again when it ends."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from streams.contract.errors import BadBurst, Refused
from streams.runtime.clock import Clock, SystemClock
from streams.runtime.exit_codes import BAD_INPUT, OK, REFUSED

_PR_SET_PDEATHSIG = 1
_STOP_S = 25.0
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
    """

    def __init__(
        self,
        name: str,
        args: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._restarts: list[float] = []
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

    def readiness(self) -> dict[str, str]:
        """Why it is not ready, by condition; empty when it is."""
        try:
            try:
                with urlopen(f"{self.url}/readyz", timeout=5) as answer:
                    body, headers = answer.read(), answer.headers
            except HTTPError as error:
                body, headers = error.read(), error.headers
        except (URLError, OSError):
            return {"process": "starting"}
        pid = headers.get("Process-Id")
        if pid != str(self.pid):
            # The worker exits by itself if it cannot have the port.
            return {"process": f"another server answers at {self.url}" + (f" (pid {pid})" if pid else "")}
        conditions: dict[str, str] = json.loads(body)["conditions"]
        return {name: reason for name, reason in conditions.items() if reason != "ok"}

    def watch(self) -> str | None:
        """Restart it if it exited, unless it was asked to or its exit code says that a restart does not help.

        Returns:
            How it ended, if it was just restarted.

        Raises:
            Refused: it exited for a reason that a restart does not fix, or too often; the message names its log.
            BadBurst: it stopped at a burst of bad records, and stays down until someone resumes it.
        """
        code = self._process.poll()
        if code is None:
            return None
        if code == BAD_INPUT:
            raise BadBurst(
                f"{self.name} stopped at bad records; its log {self._log} ends with:\n{self._last_lines(1)[0]}"
            )
        if code in (OK, REFUSED):
            tail = "\n".join(self._last_lines(5))
            raise Refused(f"{self.name} ended with code {code}; its log {self._log} ends with:\n{tail}")
        now = self._clock.monotonic()
        recent = [at for at in self._restarts if now - at < _RESTARTS_WITHIN_S]
        if len(recent) == _MOST_RESTARTS:
            raise Refused(f"{self.name} ended {len(recent) + 1} times within a minute; see its log {self._log}")
        # At once, then after 1, 2, 4 and 8 seconds: what it needs may come back meanwhile.
        if recent and now - recent[-1] < 2 ** (len(recent) - 1):
            return None
        last = self._last_lines(1) if code > 0 else []
        self._restarts = [*recent, now]
        self._process = self._start()
        how = f"ended with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        return ": ".join([how, *last])

    @property
    def restarts(self) -> int:
        """How often it was started again within the last minute."""
        now = self._clock.monotonic()
        return sum(now - at < _RESTARTS_WITHIN_S for at in self._restarts)

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to finish anything."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when its own deadline has passed."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def _last_lines(self, count: int) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()[-count:]

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
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
