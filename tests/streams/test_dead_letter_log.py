"""Dead letters are counted one by one, and logged a line a reason and minute."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from streams.runtime.clock import ManualClock
from streams.runtime.dead_letter_log import DeadLetterLog
from streams.runtime.metrics import SongsMetrics


class Told:
    def __init__(self) -> None:
        self.clock, self.registry = ManualClock(), CollectorRegistry()
        self.letters = DeadLetterLog(SongsMetrics(self.registry).dead_letters, self.clock)

    def batch(self, count: int, error: str = "UnknownEventType") -> list[Any]:
        """Bury so many; the lines that this leads to."""
        with capture_logs() as lines:
            for number in range(count):
                self.letters.note("audience.listens", error, f"ce_type: 'song' ({number})")
            self.letters.tell()
        return lines


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_flood_of_one_reason_is_one_line_with_the_count_and_the_latest_reason(told: Told) -> None:
    (line,) = told.batch(6123)
    assert (line["log_level"], line["stage"], line["error"]) == ("warning", "audience.listens", "UnknownEventType")
    assert (line["records"], line["latest"]) == (6123, "ce_type: 'song' (6122)")


def test_then_it_is_silent_for_a_minute_and_tells_what_came_meanwhile_though_nothing_comes_any_more(
    told: Told,
) -> None:
    assert len(told.batch(5)) == 1
    for _ in range(59):
        told.clock.advance(1)
        assert told.batch(100) == []
    told.clock.advance(1)
    (line,) = told.batch(0)
    assert (line["records"], line["since_start"]) == (5900, 5905)
    told.clock.advance(3600)
    assert told.batch(0) == []


def test_another_reason_is_told_at_once(told: Told) -> None:
    told.batch(5)
    (line,) = told.batch(3, "KeyMismatch")
    assert (line["error"], line["records"]) == ("KeyMismatch", 3)


def test_status_has_every_reason_since_the_start_the_most_frequent_first(told: Told) -> None:
    told.batch(2, "KeyMismatch")
    told.clock.advance(100)
    told.batch(7)
    first, second = told.letters.shown()
    assert (first["error"], first["records"], first["latest"]) == ("UnknownEventType", 7, "ce_type: 'song' (6)")
    assert (second["error"], second["records"]) == ("KeyMismatch", 2)
    assert first["latest_at"] > second["latest_at"]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 90), st.integers(0, 50), st.sampled_from(["InvalidField", "Undecodable"])), max_size=40
    )
)
def test_every_record_is_told_once_and_no_reason_more_than_once_a_minute(steps: list[tuple[int, int, str]]) -> None:
    told = Told()
    lines: list[tuple[float, Any]] = []
    sent: dict[str, int] = {}
    for seconds, count, error in [*steps, (60, 0, "InvalidField")]:
        told.clock.advance(seconds)
        lines += [(told.clock.monotonic(), line) for line in told.batch(count, error)]
        sent[error] = sent.get(error, 0) + count
    for error, count in sent.items():
        mine = [(at, line["records"]) for at, line in lines if line["error"] == error]
        assert sum(records for _, records in mine) == count
        assert all(later - at >= 60 for (at, _), (later, _) in pairwise(mine))
        labels = {"stage": "audience.listens", "error": error}
        assert (told.registry.get_sample_value("coldstart_dead_letters_total", labels) or 0) == count
