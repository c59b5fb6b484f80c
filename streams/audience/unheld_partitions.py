"""Partitions that nobody holds, because a member ended between the two halves of a rebalance.

A cooperative rebalance takes partitions away in its first half, and gives them to others in a second one, for which
the member that lost them asks. If it ends before that and is started again, it gets the first half's assignment
back without a rebalance, as a static member does, and nobody asks for the second half: some partitions stay without a
member for ever.
"""

from __future__ import annotations

from typing import Final

import structlog

from streams.contract.errors import Unavailable
from streams.kafka.group_members import group_members
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

_EVERY_S: Final = 1.0
# Longer than the pause between the halves; rejoining for nothing costs a restore.
_PATIENCE_S: Final = 5.0

_log = structlog.get_logger(__name__)


class UnheldPartitions:
    """Asked every round from this member's first assignment on, until all partitions have been seen held.

    Args:
        partitions: of the one topic that the group's members subscribe to.

    Attributes:
        seen_whole: whether every partition had a member when last asked.
    """

    def __init__(self, kafka: KafkaSettings, group: str, partitions: int, clock: Clock) -> None:
        self._kafka = kafka
        self._group = group
        self._all = frozenset(range(partitions))
        self._clock = clock
        self.seen_whole = False
        self._next = 0.0
        self._unheld: frozenset[int] = frozenset()
        self._since = 0.0

    def found(self) -> list[int]:
        """Partitions without a member, when the same ones have had none for some seconds: the caller rejoins."""
        now = self._clock.monotonic()
        if now < self._next:
            return []
        self._next = now + _EVERY_S
        unheld = self._ask()
        if unheld is None or unheld != self._unheld:
            self._unheld, self._since = unheld or frozenset(), now
        self.seen_whole = unheld == frozenset()
        if not self._unheld or now - self._since < _PATIENCE_S:
            return []
        found, self._unheld = sorted(self._unheld), frozenset()
        _log.warning("partitions without a worker since a rebalance: rejoining the group", partitions=found)
        return found

    def _ask(self) -> frozenset[int] | None:
        """Partitions without a member; None while members come and go, or no answer comes."""
        try:
            held = group_members(self._kafka, self._group).held
        except Unavailable:
            return None
        return None if held is None else self._all - held
