"""The state of a group on a partition, judged over a window of samples.

The rules are those of Burrow (LinkedIn), which judges by what offsets and lag do and needs no threshold: a busy group
may be a million records behind and well, another ten records behind and dead. Burrow sees when offsets are committed;
from outside only the offsets are seen, and who is in the group. So STOPPED here means that nobody is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise


class PartitionState(StrEnum):
    """From the mildest to the worst."""

    OK = "OK"
    WARN = "WARN"
    REWOUND = "REWOUND"
    STALLED = "STALLED"
    STOPPED = "STOPPED"

    @property
    def meaning(self) -> str:
        """What was seen over the window, and what it asks for."""
        return _MEANINGS[self]

    @property
    def exit_code(self) -> int:
        """Of ``coldstart lag``, when no partition is worse. 1 and 2 are taken: an error, and a refused setting."""
        return _EXIT_CODES[self]


_MEANINGS = {
    PartitionState.OK: "nothing waits, or the group catches up",
    PartitionState.WARN: "the offset moves, but lag does not shrink: add workers, or see what slows them",
    PartitionState.REWOUND: "the committed offset went back: somebody moved the group, and it reads again",
    PartitionState.STALLED: "records wait, a member has the partition, its offset does not move: see its /readyz",
    PartitionState.STOPPED: "records wait, and no member of the group has the partition: start a worker",
}
_EXIT_CODES = {
    PartitionState.OK: 0,
    PartitionState.WARN: 3,
    PartitionState.REWOUND: 4,
    PartitionState.STALLED: 5,
    PartitionState.STOPPED: 6,
}


@dataclass(frozen=True, slots=True)
class LagSample:
    """One partition at one time, as :class:`streams.kafka.consumer_lag.Lag` has it."""

    committed: int | None
    records: int
    served: bool


def judge(samples: Sequence[LagSample]) -> PartitionState | None:
    """The state at the last sample; None while too little is known: one sample, and records wait.

    Args:
        samples: in order of time, at least one.
    """
    last = samples[-1]
    if last.records == 0:
        return PartitionState.OK
    if len(samples) == 1:
        return None
    # No commit yet is before every offset.
    offsets = [-1 if each.committed is None else each.committed for each in samples]
    moved = len({*offsets}) > 1
    if not moved and not any(each.served for each in samples):
        return PartitionState.STOPPED
    if any(later < earlier for earlier, later in pairwise(offsets)):
        return PartitionState.REWOUND
    if any(each.records == 0 for each in samples):
        return PartitionState.OK
    if not moved:
        return PartitionState.STALLED
    if all(later.records >= earlier.records for earlier, later in pairwise(samples)):
        return PartitionState.WARN
    return PartitionState.OK


def worst(states: Sequence[PartitionState | None]) -> PartitionState:
    """The worst of them; OK where nothing is known."""
    order = list(PartitionState)
    return max((state for state in states if state is not None), key=order.index, default=PartitionState.OK)
