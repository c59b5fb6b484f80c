"""GC and allocator tuning for the worker."""

from __future__ import annotations

import ctypes
import gc


def tune_gc() -> None:
    """Let Python look for cycles a thousand times less often, in the whole process.

    A batch is a hundred thousand small objects that die together, none of them in a cycle. At the default a
    collection runs for every 700 of them and walks through those that live: more than half of what decoding listens
    took (measured).
    """
    gc.set_threshold(500_000, 10, 10)


def trim_malloc() -> None:
    """Return what a restore left free to the system; where the C library cannot, nothing happens.

    A restore passes gigabytes of records through small buffers, and glibc keeps what is free between those that live.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
