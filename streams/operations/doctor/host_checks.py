"""This machine: room and speed of the disk, memory."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from streams.operations.doctor.finding import Diagnosis, Patient, error, warning
from streams.runtime.metrics import free_bytes

_GIB: Final = 1 << 30
_LEAST_BYTES: Final = _GIB // 4
_FEW_BYTES: Final = 2 * _GIB
_WRITES: Final = 20
_WRITE_BYTES: Final = 4096
_SLOW_S: Final = 0.05
_PATIENCE_S: Final = 8.0
_KILLED: Final = re.compile(r"Killed process (\d+) \(([^)]*)\)")
# Of the kernel's log.
_RECENT_S: Final = 3600.0


def disk_room(patient: Patient) -> Iterator[Diagnosis]:
    """What is left where workers keep their state."""
    folder = patient.settings.paths.cache
    left = free_bytes(folder)
    if left < _FEW_BYTES:
        found, state = (error, "full disk") if left < _LEAST_BYTES else (warning, "disk")
        yield found(
            f"{state}: {left / (1 << 20):,.0f} MiB left at {folder} (paths.cache)",
            "make room, or give paths.cache a larger disk; without one a worker restores from its changelog at every "
            "start",
        )


def disk_speed(patient: Patient) -> Iterator[Diagnosis]:
    """How long a small write takes until it is on the disk."""
    cache = patient.settings.paths.cache
    folder = next(each for each in (cache, *cache.parents) if each.exists())
    times: list[float] = []
    deadline = time.monotonic() + _PATIENCE_S
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            while len(times) < _WRITES and time.monotonic() < deadline:
                began = time.monotonic()
                file.write(os.urandom(_WRITE_BYTES))
                os.fsync(file.fileno())
                times.append(time.monotonic() - began)
    except OSError as problem:
        yield error(f"disk: {folder} cannot be written ({problem.strerror})", "fix it, or set paths.cache to another")
        return
    typical = statistics.median(times)
    if typical > _SLOW_S:
        yield warning(
            f"slow disk: {_WRITE_BYTES} bytes take {typical * 1000:,.0f} ms until they are on the disk at {folder}",
            "look for what else writes there (iostat -x), for a limit on writes, or for a failing disk (smartctl)",
        )


def memory(patient: Patient) -> Iterator[Diagnosis]:
    """Processes that the kernel ended for memory, and whether the state on disk could be restored."""
    for pid, name, age_s in _killed():
        yield error(
            f"no memory: the kernel ended process {pid} ({name}) {age_s / 60:.0f} minutes ago for want of memory",
            "raise its limit, or give each worker fewer partitions by starting more of them",
        )
    state = patient.settings.paths.state
    on_disk = sum(file.stat().st_size for file in state.rglob("*") if file.is_file()) if state.is_dir() else 0
    available = _available()
    if on_disk > available:
        yield error(
            f"no memory for a restore: the state takes {on_disk / (1 << 20):,.0f} MiB on disk at {state}, and more in "
            f"memory, where {available / (1 << 20):,.0f} MiB are available",
            "give the machine or its container more memory, or start more workers elsewhere",
        )


def _available() -> float:
    """Bytes that may still be used, by this machine and by the limit of this process's group."""
    left = float(psutil.virtual_memory().available)
    for limit, usage in _limits():
        # There is no such group, or no limit ("max").
        with suppress(OSError, ValueError):
            left = min(left, float(limit.read_text()) - float(usage.read_text()))
    return max(0.0, left)


def _limits() -> Iterator[tuple[Path, Path]]:
    """Where limit and use of memory stand, of this process's control group, and of the whole as a container sees it."""
    base = Path("/sys/fs/cgroup")
    one, two = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")
    places = [(base / "memory", one), (base, two)]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                places.append((base / path.lstrip("/"), two))
            elif "memory" in controllers.split(","):
                places.append((base / "memory" / path.lstrip("/"), one))
    for place, (limit, usage) in places:
        yield place / limit, place / usage


def _killed() -> Iterator[tuple[int, str, float]]:
    """Pid, name and seconds ago of processes that the kernel ended, as far as its log may be read."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    up = time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        while True:
            try:
                line = os.read(log, 8192).decode("utf-8", "replace")
            except BrokenPipeError:
                # Overwritten while it was read: go on with the next.
                continue
            except OSError:
                return
            if killed := _KILLED.search(line):
                age_s = up - int(line.split(",")[2]) / 1e6
                if age_s < _RECENT_S:
                    yield int(killed[1]), killed[2], age_s
    finally:
        os.close(log)
