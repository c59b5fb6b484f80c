"""A library that repeats itself is heard once, then with a count; two things that differ are both heard."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.runtime.clock import ManualClock
from streams.runtime.repeated_lines import RepeatedLines

FOUR = ["kafka-1:9092/1", "kafka-2:9092/2", "Unable connect", "Unable connect"]


class Log:
    """A library's logger whose lines pass the limit."""

    def __init__(self, name: str = "aiokafka.consumer") -> None:
        self.clock = ManualClock()
        self.lines: list[str] = []
        self._logger = logging.Logger(name)
        handler = logging.Handler()
        handler.addFilter(RepeatedLines(self.clock))
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        self._logger.addHandler(handler)

    def say(self, text: str, *args: object) -> None:
        self._logger.warning(text, *args)


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_flood_is_one_line_then_one_with_the_count_then_one_every_ten_minutes(log: Log) -> None:
    for second in range(3600):
        for _ in range(10):
            log.say("Topic %s not found in cluster metadata, attempt %d", "t.match-requests", second)
        log.clock.advance(1)
    told = [line.partition(" (and ")[2] for line in log.lines]
    # At 0, 60, 660, 1260, 1860, 2460 and 3060 seconds.
    assert told[:3] == ["", "599 more like it)", "5,999 more like it)"]
    assert len(told) == 7


def test_what_differs_in_more_than_numbers_is_told_and_an_old_kind_is_news(log: Log) -> None:
    log.say("kafka-1:9092/1: Connect failed (after 3ms in state CONNECT)")
    log.say("kafka-1:9092/1: Connect failed (after 14ms in state CONNECT)")
    log.say("kafka-2:9092/2: Connect failed (after 3ms in state CONNECT)")
    log.say("Unable connect to node with id 1")
    log.say("Unable connect to node with id 2")
    log.clock.advance(601)
    log.say("kafka-1:9092/1: Connect failed (after 3ms in state CONNECT)")
    assert [line[:14] for line in log.lines] == FOUR + FOUR[:1]


def test_lines_of_this_system_are_all_written() -> None:
    log = Log("streams.songs.uploads")
    for _ in range(3):
        log.say("served")
    assert log.lines == ["served"] * 3


def test_arguments_that_do_not_fit_are_left_to_who_writes_the_line() -> None:
    record = logging.LogRecord("aiokafka", logging.WARNING, "", 0, "one %s, two %s", ("only one",), None)
    assert RepeatedLines(ManualClock()).filter(record)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1000)), max_size=200))
def test_every_line_is_written_or_counted(said: list[tuple[int, float]]) -> None:
    log = Log()
    kinds = [f"kind {'abcdef'[kind]}" for kind in range(6)]
    for kind, pause in said:
        log.clock.advance(pause)
        log.say(kinds[kind])
    # A last word of each kind tells what was held back, or is the first of a new flood of which nothing was.
    log.clock.advance(599)
    before = len(log.lines)
    for kind in {kind for kind, _ in said}:
        log.say(kinds[kind])
    counted = [int(line.partition(" (and ")[2].split()[0].replace(",", "")) for line in log.lines if "(and" in line]
    assert before <= len(log.lines)
    assert sum(counted) + len(log.lines) <= len(said) + 6
    for name in kinds:
        mine = [line for line in log.lines if line.startswith(name)]
        assert bool(mine) == any(kinds[kind] == name for kind, _ in said)
