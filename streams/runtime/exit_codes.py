"""The codes with which a role ends, and what its supervisor should do.

| code | meaning | supervisor |
|---|---|---|
| 0 | asked to stop, and stopped clean | leave it |
| 1 | an error that nobody expected: its traceback is in the log | start it again, and report it |
| 2 | refused: settings or partitions are wrong, or the slot is taken | leave it; a person must change something |
| 65 | stopped: nobody's records were good any more; all are buried | leave it until a person says `--resume-with-bad` |
| 75 | must restart: Kafka is out of reach, or what was begun is not committed | start it again |
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import structlog

OK = 0
UNEXPECTED = 1
"""What Python ends with where nobody catches an exception."""
REFUSED = 2
BAD_INPUT = 65
"""EX_DATAERR of sysexits.h."""
RESTART = 75
"""EX_TEMPFAIL of sysexits.h."""

_log = structlog.get_logger(__name__)


def leave(code: int, why: str) -> NoReturn:
    """End the process at once, without cleaning up: no library gets the chance to commit half-done work."""
    _log.error("leaving", code=code, why=why)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
