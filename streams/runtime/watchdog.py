"""Ends the process when a batch hangs.

After a broker restart ``send_offsets_to_transaction`` can block forever despite its timeout (measured), and a loop of
our own that does not end would hold a worker as well. No code on the blocked thread can help, so another thread
watches the clock.
"""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from streams.runtime.clock import Clock
from streams.runtime.exit_codes import RESTART, leave


class Watchdog:
    """Ends the process when a guarded section takes longer than ``limit_s``."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def guard(self) -> Iterator[None]:
        self._since = self._clock.monotonic()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        # A tenth of the limit, so that it is at most that late.
        while not self._closed.wait(self._limit_s / 10):
            since = self._since
            if since is not None and self._clock.monotonic() - since > self._limit_s:
                # The log shows where it hangs.
                faulthandler.dump_traceback()
                leave(RESTART, f"a batch hangs for more than {self._limit_s:g} s")
