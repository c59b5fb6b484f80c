"""Listens that were counted before, found by their ids.

A player that is not sure whether a listen arrived sends it again, soon. So a listen is a repeat if its ``listen_id`` is
in one of the :data:`WINDOW` records before it in its partition. That depends on the topic alone: after a restore the
records before the committed offset are read again, and the same listens count as repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# At a thousand listens a second and partition, ten seconds of retries; more would cost memory in every partition.
WINDOW: Final = 10_000
"""In offsets, so that what the window holds depends neither on batches nor on what was dropped."""


@dataclass(frozen=True, slots=True)
class ListensSeen:
    """What a batch of listens tells.

    Attributes:
        listens: how many there are.
        keep: the places of those that are no repeats, ascending.
        newest: the newest offset of each id.
    """

    listens: int
    keep: Sequence[int]
    newest: Mapping[str, int]


class Deduplication:
    """The ids of one partition's latest listens.

    Args:
        committed: offset from which listens count; those before it were counted in an earlier life.
        kept: the first offset that the topic still has.

    Attributes:
        start: where reading must begin so that the window before ``committed`` is known.
    """

    def __init__(self, committed: int, kept: int = 0) -> None:
        self.start = max(kept, committed - WINDOW)
        self._newest: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def look(self, ids: Sequence[str], offsets: Sequence[int]) -> ListensSeen:
        """Which of these listens, in the order of the topic, are no repeats. Nothing is remembered yet."""
        newest = dict(zip(ids, offsets, strict=True))
        if len(newest) == len(ids) and self._newest.keys().isdisjoint(newest):
            return ListensSeen(len(ids), range(len(ids)), newest)
        keep: list[int] = []
        seen: dict[str, int] = {}
        for at, (id, offset) in enumerate(zip(ids, offsets, strict=True)):
            before = seen.get(id, self._newest.get(id))
            if before is None or offset - before > WINDOW:
                keep.append(at)
            seen[id] = offset
        return ListensSeen(len(ids), keep, seen)

    def remember(self, seen: ListensSeen) -> None:
        """These listens are committed."""
        self._newest.update(seen.newest)
        if len(self._newest) > 2 * WINDOW:
            # The next listen comes after all of these.
            oldest = max(self._newest.values()) + 1 - WINDOW
            self._newest = {id: offset for id, offset in self._newest.items() if offset >= oldest}
