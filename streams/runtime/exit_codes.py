"""The codes with which a role ends, and what its supervisor should do.

| code | meaning | supervisor |
|---|---|---|
| 0 | stopped cleanly on request | leave it stopped |
| 1 | an unexpected error: its traceback is in the log | restart it, and report the error |
| 2 | refused: settings or partitions are wrong, or the slot is taken | leave it stopped until that is changed |
| 65 | stopped: no source sent good records; all are dead letters | leave it stopped; resume by `--resume-with-bad` |
| 75 | must restart: Kafka is out of reach, or a transaction is not committed | restart it |
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

OK = 0
UNEXPECTED = 1
"""Python's own exit code for an uncaught exception."""
REFUSED = 2
BAD_INPUT = 65
"""EX_DATAERR of sysexits.h."""
RESTART = 75
"""EX_TEMPFAIL of sysexits.h."""


def leave(code: int, why: str) -> NoReturn:
    """End the process at once, without cleaning up: no library gets the chance to commit half-done work."""
    # A verb that logs nothing starts without it; a role has it.
    import structlog

    structlog.get_logger(__name__).error("leaving", code=code, why=why)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
