"""When a user may be disturbed, held to a walk over the local clock, minute by minute."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from targeting.rules.quiet_hours import open_at
from targeting.types import QuietSpan

ZONES = ["UTC", "Europe/Lisbon", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana"]
NIGHT = QuietSpan(22 * 60, 7 * 60)

spans = st.lists(st.builds(QuietSpan, st.integers(0, 1439), st.integers(0, 1440)), max_size=4).map(tuple)
# Half the moments lie around the nights in which European and American clocks change.
moments = st.integers(1_735_700_000, 1_767_200_000) | st.builds(
    lambda day, after: int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) + after,
    st.sampled_from(["2025-03-09", "2025-03-30", "2025-04-05", "2025-10-04", "2025-10-26", "2025-11-02"]),
    st.integers(-43_200, 86_400),
)


def quiet(time: float, zone: str, spans: tuple[QuietSpan, ...]) -> bool:
    local = datetime.fromtimestamp(time, ZoneInfo(zone))
    minute = local.hour * 60 + local.minute
    return any(
        span.start <= minute < span.end if span.start < span.end else not span.end <= minute < span.start
        for span in spans
    )


def back_within(time: float, zone: str, until: float) -> bool:
    """Whether clocks go back between two moments."""
    offsets = [
        datetime.fromtimestamp(each, ZoneInfo(zone)).utcoffset() or timedelta()
        for each in range(int(time), int(min(until, time + 200_000)) + 900, 900)
    ]
    return any(later < earlier for earlier, later in pairwise(offsets))


@settings(max_examples=300)
@given(moments, st.sampled_from(ZONES), spans)
@example(1_743_300_000, "Europe/Lisbon", (QuietSpan(60, 90),))  # its end is skipped in the night of 30 March 2025
@example(1_761_440_400 + 2400, "Europe/Lisbon", (QuietSpan(30, 100), QuietSpan(110, 60)))
def test_it_is_the_first_moment_outside_all_spans(time: int, zone: str, spans: tuple[QuietSpan, ...]) -> None:
    opens = open_at(time, zone, spans)
    assert opens >= time
    if math.isinf(opens):
        covered = {m for m in range(1440) for s in spans if quiet(m * 60.0, "UTC", (s,))}
        assert len(covered) == 1440
        return
    assert not quiet(opens, zone, spans)
    minutes = [time, *range(time - time % 60 + 60, int(opens), 60)]
    before = [each for each in minutes if each < opens and not quiet(each, zone, spans)]
    # A span that clocks going back leave for a while goes on: then, and only then, it is not the first one.
    assert not before or back_within(time, zone, opens)


@pytest.mark.parametrize(
    ("at", "zone", "spans", "opens"),
    [
        ("2025-01-15T12:00:00+00:00", "UTC", (), "2025-01-15T12:00:00+00:00"),
        ("2025-01-15T12:00:30+00:00", "UTC", (NIGHT,), "2025-01-15T12:00:30+00:00"),
        ("2025-01-15T23:10:07+00:00", "UTC", (NIGHT,), "2025-01-16T07:00:00+00:00"),
        ("2025-01-15T06:59:59+00:00", "UTC", (NIGHT,), "2025-01-15T07:00:00+00:00"),
        ("2025-01-15T07:00:00+00:00", "UTC", (NIGHT,), "2025-01-15T07:00:00+00:00"),
        # Summer time is an hour ahead of winter time, whose offset Lisbon has none of.
        ("2025-07-15T23:10:00+00:00", "Europe/Lisbon", (NIGHT,), "2025-07-16T06:00:00+00:00"),
        # The nights of the changes: ten quiet hours less one, and more one.
        ("2025-03-29T22:30:00+00:00", "Europe/Lisbon", (NIGHT,), "2025-03-30T06:00:00+00:00"),
        ("2025-10-25T21:30:00+00:00", "Europe/Lisbon", (NIGHT,), "2025-10-26T07:00:00+00:00"),
        # Clocks go from 01:00 to 02:00: the end at 01:30 is skipped, and 02:00 is the first minute shown after it.
        ("2025-03-30T00:30:00+00:00", "Europe/Lisbon", (QuietSpan(0, 90),), "2025-03-30T01:00:00+00:00"),
        # Clocks go from 02:00 back to 01:00: what is over at 01:30 starts again, and what is quiet is so twice.
        ("2025-10-26T00:10:00+00:00", "Europe/Lisbon", (QuietSpan(60, 90),), "2025-10-26T00:30:00+00:00"),
        ("2025-10-26T01:10:00+00:00", "Europe/Lisbon", (QuietSpan(60, 90),), "2025-10-26T01:30:00+00:00"),
        # One span leads into the next, over midnight and back to the first of them.
        ("2025-01-15T21:00:00+00:00", "UTC", (QuietSpan(1380, 60), QuietSpan(60, 300), QuietSpan(1200, 1380)),
         "2025-01-16T05:00:00+00:00"),
        ("2025-01-15T23:59:00+00:00", "UTC", (QuietSpan(1200, 1440),), "2025-01-16T00:00:00+00:00"),
    ],
)  # fmt: skip
def test_by_hand(at: str, zone: str, spans: tuple[QuietSpan, ...], opens: str) -> None:
    opened = open_at(datetime.fromisoformat(at).timestamp(), zone, spans)
    assert datetime.fromtimestamp(opened, UTC).isoformat() == opens


@pytest.mark.parametrize("minute", range(61, 120))
def test_a_span_whose_end_is_skipped_ends_exactly_where_the_clock_skips_it(minute: int) -> None:
    skipped = datetime(2025, 3, 30, 1, tzinfo=UTC).timestamp()
    for before in (60.0, 1800.25, 3600.0):
        assert open_at(skipped - before, "Europe/Lisbon", (QuietSpan(0, minute),)) == skipped


def test_it_opens_on_the_minute_whatever_part_of_a_second_it_is_asked_at() -> None:
    night = datetime(2025, 1, 15, 23, 10, 7, 250_000, tzinfo=UTC).timestamp()
    assert open_at(night, "UTC", (NIGHT,)) == datetime(2025, 1, 16, 7, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "spans", [(QuietSpan(0, 1440),), (QuietSpan(480, 480),), (QuietSpan(0, 700), QuietSpan(600, 0))]
)
def test_where_all_day_is_quiet_it_never_opens(spans: tuple[QuietSpan, ...]) -> None:
    assert open_at(1_700_000_000.0, "Europe/Lisbon", spans) == math.inf


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        open_at(0.0, "Europe/Atlantis", (NIGHT,))
