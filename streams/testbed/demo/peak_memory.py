"""The most memory that the processes of a demo took."""

from __future__ import annotations

import os
import threading

import psutil

from streams.runtime.supervisor import RoleProcess


class PeakMemory:
    """Peak resident size of this process and its children, by name, and of all together."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {"total": 0.0}
        self._names: dict[int, str] = {os.getpid(): "demo"}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def watch(self, workers: list[RoleProcess]) -> None:
        self._names |= {worker.pid: worker.name for worker in workers}

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0.0
            for process in (me, *me.children(recursive=True)):
                try:
                    size = process.memory_info().rss / 2**20
                    name = self._names.get(process.pid) or process.name()
                except psutil.NoSuchProcess:
                    continue
                total += size
                self.peaks[name] = max(self.peaks.get(name, 0.0), size)
            self.peaks["total"] = max(self.peaks["total"], total)
