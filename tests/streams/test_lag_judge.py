"""The judge of lag, by properties: what offsets and lag do decides, and no threshold."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.operations.lag_judge import LagSample, PartitionState, judge, worst

OK, WARN, REWOUND, STALLED, STOPPED = PartitionState

samples = st.builds(LagSample, committed=st.none() | st.integers(0, 6), records=st.integers(0, 6), served=st.booleans())
windows = st.lists(samples, min_size=2, max_size=6)


def went_on(log: list[int], ends: list[int], served: bool = True) -> list[LagSample]:
    return [LagSample(at, end - at, served) for at, end in zip(log, ends, strict=True)]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (went_on([5, 5, 5], [5, 5, 5]), OK),  # idle
        (went_on([5, 5, 5], [5, 5, 5], served=False), OK),  # idle, and nobody there: nobody misses anything
        (went_on([0, 3, 6], [9, 9, 9]), OK),  # catches up
        (went_on([0, 3, 6], [0, 9, 12]), OK),  # had nothing left a moment ago
        (went_on([0, 1, 2], [9, 11, 13]), WARN),  # works, and falls behind
        (went_on([0, 1, 2], [9, 10, 11]), WARN),  # works, and gains nothing
        (went_on([4, 4, 4], [9, 9, 9]), STALLED),
        (went_on([4, 4, 4], [9, 10, 11]), STALLED),
        (went_on([4, 4, 4], [9, 9, 9], served=False), STOPPED),
        (went_on([9, 0, 0], [9, 9, 9], served=False), REWOUND),  # its workers are stopped for it
        (went_on([9, 0, 3], [9, 9, 9]), REWOUND),
        (went_on([9, 0, 9], [9, 9, 9]), OK),  # rewound, and through again
    ],
)
def test_each_state_by_an_example(window: list[LagSample], expected: PartitionState) -> None:
    assert judge(window) is expected


def test_before_the_first_commit_a_group_stands_and_the_first_commit_is_progress() -> None:
    none = [LagSample(None, 9, served=True)] * 3
    assert judge(none) is STALLED
    assert judge([*none[:2], LagSample(0, 9, served=True)]) is WARN
    # Its offsets were deleted: it will read again from the oldest record.
    assert judge([LagSample(4, 5, served=True), none[0]]) is REWOUND


def test_one_sample_tells_only_that_nothing_waits() -> None:
    assert judge([LagSample(4, 0, served=False)]) is OK
    assert judge([LagSample(4, 1, served=False)]) is None


@given(windows)
def test_nothing_waiting_is_always_ok_whatever_was_before(window: list[LagSample]) -> None:
    assert judge([*window, LagSample(3, 0, served=False)]) is OK


@given(windows, st.integers(1, 10**9), st.integers(2, 10**6))
def test_no_threshold_a_group_a_million_times_as_busy_is_judged_alike(
    window: list[LagSample], ahead: int, times: int
) -> None:
    other = [
        LagSample(None if s.committed is None else ahead + s.committed * times, s.records * times, s.served)
        for s in window
    ]
    assert judge(other) is judge(window)


@given(windows, samples)
def test_only_what_lies_in_the_window_counts_and_staying_for_longer_changes_nothing(
    window: list[LagSample], last: LagSample
) -> None:
    still = [last] * 4
    assert judge(still) is (OK if not last.records else STALLED if last.served else STOPPED)
    assert judge([*window, window[-1]]) is judge(window)


@given(windows)
def test_where_records_wait_the_offsets_decide(window: list[LagSample]) -> None:
    window = [*window[:-1], LagSample(window[-1].committed, max(1, window[-1].records), window[-1].served)]
    offsets = [-1 if s.committed is None else s.committed for s in window]
    state, back = judge(window), any(b < a for a, b in pairwise(offsets))
    stands = len({*offsets}) == 1
    attended = any(s.served for s in window)
    assert (state is STOPPED) == (stands and not attended)
    assert (state is REWOUND) == back
    never_free = all(s.records for s in window)
    assert (state is STALLED) == (stands and attended and never_free)
    shrank = any(b.records < a.records for a, b in pairwise(window))
    assert (state is WARN) == (not stands and not back and never_free and not shrank)


@given(st.lists(st.none() | st.sampled_from(PartitionState)))
def test_the_worst_state_gives_the_exit_code_and_none_of_python_or_of_a_refusal(
    states: list[PartitionState | None],
) -> None:
    assert worst(states).exit_code == max((s.exit_code for s in states if s), default=0)
    assert {s.exit_code for s in PartitionState}.isdisjoint({1, 2, 65, 75})
