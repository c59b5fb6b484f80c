"""Finds roles that ended by themselves although nothing that they need was broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streams.runtime.exit_codes import RESTART
from streams.testbed.chaos.promises import Judged

BY_ITSELF = "ended with code"
"""How the words on a worker that nobody killed begin."""

# The code of a role that misses what it needs; an exception that nobody expected ends with another, whatever is broken.
_RESTART = f"{BY_ITSELF} {RESTART}"

# Longer than the longest fault lasts, and than a client may take to notice.
_EXCUSED_S = 60.0


def judge(ended: Sequence[tuple[float, str, str]], excuses: Sequence[float], running: int = 0) -> Iterator[Judged]:
    """Every end, and whether a fault explains it.

    Args:
        ended: each worker that was started again: when, its name, and how it ended.
        excuses: when faults struck that take away what a worker needs: the broker, or the disk.
        running: how many workers ran to the end.
    """
    yield from (("stopped", None) for _ in range(running))
    for at, name, how in ended:
        excused = how.startswith(_RESTART) and any(struck <= at <= struck + _EXCUSED_S for struck in excuses)
        yield "stopped", f"{name} {how}" if how.startswith(BY_ITSELF) and not excused else None
