"""Clocks."""

from __future__ import annotations

import time

import pytest

from streams.runtime.clock import Clock, ManualClock, SystemClock


def test_manual_clock_moves_both_times_only_when_told() -> None:
    clock = ManualClock(wall=1000.0)
    seen: Clock = clock
    assert (seen.now(), seen.monotonic()) == (1000.0, 0.0)
    clock.advance(2.5)
    assert (seen.now(), seen.monotonic()) == (1002.5, 2.5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_system_clock_is_the_machine_s() -> None:
    clock: Clock = SystemClock()
    before = time.time(), time.monotonic()
    assert before[0] <= clock.now()
    assert before[1] <= clock.monotonic()
