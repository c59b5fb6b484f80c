"""Ends a role that is told to stop before it serves.

In a container a role is PID 1, for which the kernel ignores every signal without a handler: until the role's own is
there, SIGTERM would do nothing, and a songs worker may wait for a model for days. A question to the broker is finished
first, or given up after `kafka.request_timeout_s`.
"""

from __future__ import annotations

import os
import signal

from streams.runtime.exit_codes import OK


def stop_until_serving() -> None:
    """End with code 0 at SIGTERM or SIGINT: nothing has been begun. The role replaces this when it serves."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(OK))
