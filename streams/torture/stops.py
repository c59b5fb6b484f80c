"""Did a role end by itself although nothing that it needs was broken?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streams.torture.promises import broken

# Longer than the longest fault lasts, and than a client may take to notice.
_EXCUSED_S = 60.0


def judge(ended: Sequence[tuple[float, str, str]], excuses: Sequence[float]) -> Iterator[str]:
    """Every end that no fault explains, in words.

    Args:
        ended: each worker that was started again: when, its name, and how it ended.
        excuses: when faults struck that take away what a worker needs: the broker, or the disk.
    """
    for at, name, how in ended:
        by_itself = how.startswith("ended with code")
        if by_itself and not any(struck <= at <= struck + _EXCUSED_S for struck in excuses):
            yield broken("stopped", f"{name} {how}")
