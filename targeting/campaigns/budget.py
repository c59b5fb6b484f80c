"""This partition's share of a budget."""

from __future__ import annotations

# The rest is kept for users who come near the song later.
AT_ONCE = 0.7
# Of this much the answers so far cannot take anything away.
GUARANTEED = 0.2


def at_once(budget: int, part: float = AT_ONCE) -> int:
    """How much of a budget is spent on the request itself; of a budget of one, the one."""
    return min(budget, int(budget * part + 0.5))


def share(pushes: int, number: int, partitions: int, song_hash: int) -> int:
    """This partition's share: the shares of all partitions sum to ``pushes`` and differ by one at most.

    The remainder goes to consecutive partitions, starting at another one for each song, so that no
    partition's users get more songs than others.
    """
    base, remainder = divmod(pushes, partitions)
    return base + ((number - song_hash) % partitions < remainder)
