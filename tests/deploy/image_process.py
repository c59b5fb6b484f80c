"""A role that runs as the image would run it, by ``like_the_image.sh``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from streams.runtime.exit_codes import RESTART

SCRIPT: Final = Path(__file__).with_name("like_the_image.sh")
PATIENCE_S: Final = 120.0

T = TypeVar("T")


class ImageProcess:
    """One command in the image's surroundings.

    Args:
        installed: the environment that the image has at /opt/coldstart.
        models: a folder that it sees under its own name.
        log: where what it says goes.
    """

    def __init__(
        self, installed: Path, args: Sequence[str], variables: Mapping[str, str], log: Path, models: Path | None = None
    ) -> None:
        self.log = log
        words = [f"{name}={value}" for name, value in variables.items()]
        self._command = [str(SCRIPT), str(installed), sys.base_prefix, "tmpfs", *words, *args]
        self._models = str(models or "")
        self._outside = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            return subprocess.Popen(
                self._command,
                env={**os.environ, "MODELS": self._models},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Of PID 1 within, as seen from outside; there once the namespaces are made."""
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children")
        return int(self.wait_for(lambda: children.read_text().split())[0])

    @property
    def url(self) -> str:
        """Of /livez; there once the role says it."""
        found = self.wait_for(lambda: re.search(r'"url": "([^"]+)"', self.log.read_text()))
        return str(found[1])

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(json.load(answer)["ok"])
        except (HTTPError, URLError, OSError):
            return False

    def terminate(self, patience_s: float) -> int:
        """SIGTERM to PID 1; the code with which it ended within the time that an orchestrator gives it."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait(patience_s)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        return self._outside.wait(patience_s)

    def kill(self) -> None:
        if self._outside.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._outside.wait(PATIENCE_S)

    def wait_for(self, look: Callable[[], T | None]) -> T:
        """What ``look`` finds at last. Started again at code 75, as by an orchestrator; fails at any other end."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            code = self._outside.poll()
            if code == RESTART:
                self._outside, code = self._start(), None
            assert code is None, f"ended with {code}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return found
