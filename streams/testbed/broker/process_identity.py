"""Tells our broker's process from another that got its pid."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

# psutil derives a start time from the boot time, which moves with the clock.
_CLOCK_SLACK_S = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A broker that was started, as remembered in ``broker.json`` of its folder.

    Attributes:
        started_at: Unix seconds.
        port: of clients, on 127.0.0.1.
    """

    pid: int
    started_at: float
    port: int
    controller_port: int

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What was remembered, whether it still runs or not; None when nothing readable was."""
        try:
            return cls(**json.loads(_file(folder).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, folder: Path) -> None:
        _file(folder).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def forget(folder: Path) -> None:
        _file(folder).unlink(missing_ok=True)

    def process(self, folder: Path) -> psutil.Process | None:
        """The running broker; None when it is gone, also when its pid is now somebody else's."""
        try:
            process = psutil.Process(self.pid)
            same = (
                abs(process.create_time() - self.started_at) < _CLOCK_SLACK_S
                and str(folder / "server.properties") in process.cmdline()
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return None
        return process if same else None


def _file(folder: Path) -> Path:
    return folder / "broker.json"


def end(process: psutil.Process, patience_s: float) -> None:
    """Ask a process to stop, and make it after ``patience_s``."""
    try:
        process.terminate()
        process.wait(patience_s)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(patience_s)
    except psutil.NoSuchProcess:
        return
