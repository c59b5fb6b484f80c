"""Whether this machine's clock is right, as records show it."""

from __future__ import annotations

import pytest

from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import ManualClock
from streams.runtime.health import Condition

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("seconds", "right"), [(-1e6, True), (299, True), (300, True), (301, False), (1e6, False)])
def test_a_clock_is_doubted_that_is_more_than_five_minutes_before_a_record_was_appended(
    seconds: float, right: bool
) -> None:
    clock, condition = ManualClock(NOW), Condition("not known yet")
    broker_clock = BrokerClock(clock, condition)
    assert broker_clock.agrees()
    broker_clock.show((2, int((NOW + seconds) * 1000)))
    # An older record afterwards takes nothing back.
    broker_clock.show((2, int((NOW - 1000) * 1000)))
    assert (broker_clock.agrees(), condition.reason is None) == (right, right)
    clock.advance(max(0.0, seconds))
    assert broker_clock.agrees()
    assert condition.reason is None


@pytest.mark.parametrize("stamp", [(1, 4_000_000_000_000), (0, -1)], ids=["far ahead", "none"])
def test_what_a_producer_stamped_raises_no_doubt(stamp: tuple[int, int]) -> None:
    broker_clock = BrokerClock(ManualClock(NOW), Condition("not known yet"))
    broker_clock.show(stamp)
    assert broker_clock.agrees()
