"""Compares this machine's clock with the broker's, which stamps records as it appends them.

A wrong clock must not decide caps, quiet hours or the ends of campaigns. A worker that sees records from its own
future waits, consuming nothing, until its clock is set.
"""

from __future__ import annotations

import math

import structlog

from streams.contract.cloudevents import Timestamp
from streams.contract.event_time import LOG_APPEND_TIME, MAX_AHEAD_SECONDS
from streams.runtime.clock import Clock
from streams.runtime.health import Condition

_log = structlog.get_logger(__name__)


class BrokerClock:
    """The broker's clock, as far as records have shown it.

    Args:
        condition: holds while this machine's clock does not lag behind.
    """

    def __init__(self, clock: Clock, condition: Condition) -> None:
        self._clock = clock
        self._condition = condition
        self._shown = -math.inf
        condition.holds()

    def show(self, timestamp: Timestamp) -> None:
        """Note a record's append time; a timestamp set by a producer is ignored."""
        kind, milliseconds = timestamp
        if kind == LOG_APPEND_TIME:
            self._shown = max(self._shown, milliseconds / 1000)

    def agrees(self) -> bool:
        """Whether no record was appended later than this machine's clock shows, within the tolerated difference."""
        behind = self._shown - self._clock.now()
        if behind > MAX_AHEAD_SECONDS:
            reason = (
                f"this machine's clock is {behind:.0f} s behind the broker's: nothing is consumed until it is set "
                "right (NTP); if it is right, the broker's is wrong"
            )
            if self._condition.reason is None:
                _log.error("clock differs from the broker's", reason=reason)
            self._condition.fails(reason)
            return False
        if self._condition.reason is not None:
            _log.info("clock agrees with the broker's again")
            self._condition.holds()
        return True
