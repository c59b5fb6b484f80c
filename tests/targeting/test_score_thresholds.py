from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targeting.types import Mark
from targeting.users.score_thresholds import HALF_LIFE_S, STEPS, ScoreThresholds

NOW = 1_700_000_000.0
USERS = np.arange(4)

answers = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([*STEPS, Mark.DELIVERED, Mark.OPENED | Mark.LISTENED, Mark.HELD_OUT]),
        st.integers(0, 10_000_000),
    ),
    max_size=30,
)


def answer(interest: ScoreThresholds, batch: list[tuple[int, int, int]]) -> None:
    users, marks, times = zip(*batch, strict=True) if batch else ((), (), ())
    moved = interest.plan(
        np.asarray(users, np.int64), np.asarray(marks, np.uint16), NOW + np.asarray(times, np.float64)
    )
    if moved:
        interest.apply(moved)


def threshold(interest: ScoreThresholds, user: int = 0, now: float = NOW) -> float:
    return float(interest.thresholds(np.asarray([user]), now)[0])


def test_who_never_answered_has_one() -> None:
    interest = ScoreThresholds()
    assert interest.thresholds(np.asarray([0, 7]), NOW).tolist() == [1, 1]
    assert interest.records(USERS) == [b""] * 4


@pytest.mark.parametrize(("mark", "step"), STEPS.items())
def test_a_step_is_in_powers_of_two_and_half_of_it_is_gone_after_thirty_days(mark: Mark, step: float) -> None:
    interest = ScoreThresholds()
    answer(interest, [(0, mark, 0)])
    assert threshold(interest) == pytest.approx(2**step)
    assert threshold(interest, now=NOW + HALF_LIFE_S) == pytest.approx(2 ** (step / 2))
    assert threshold(interest, now=NOW + 40 * HALF_LIFE_S) == pytest.approx(1)
    assert HALF_LIFE_S == 30 * 86_400


def test_a_dismissal_asks_for_more_and_a_listen_for_less_of_this_user_alone() -> None:
    interest = ScoreThresholds()
    answer(interest, [(0, Mark.DISMISSED, 0), (1, Mark.LISTENED, 0)])
    assert threshold(interest, 0) > threshold(interest, 2) == 1 > threshold(interest, 1)


def test_what_tells_nothing_moves_nothing() -> None:
    interest = ScoreThresholds()
    told = np.asarray([Mark.DELIVERED, Mark.FAILED, Mark.EXPLORED], np.uint16)
    assert interest.plan(np.arange(3), told, np.full(3, NOW)) is None
    assert interest.plan(np.zeros(0, np.int64), told[:0], np.zeros(0)) is None


@given(st.lists(answers, max_size=4), st.integers(-100_000_000, 100_000_000))
def test_it_lies_between_a_half_and_two_and_comes_back_from_its_records(
    batches: list[list[tuple[int, int, int]]], later: int
) -> None:
    interest = ScoreThresholds()
    for batch in batches:
        answer(interest, batch)
    found = interest.thresholds(USERS, NOW + later)
    assert ((found >= 0.5) & (found <= 2)).all()
    records = interest.records(USERS)
    again = ScoreThresholds()
    backwards = USERS[::-1].copy()
    again.load(backwards, records[::-1])
    assert again.records(USERS) == records
    assert again.thresholds(USERS, NOW + later).tolist() == found.tolist()


@given(answers, st.randoms())
def test_the_order_of_answers_in_a_batch_does_not_matter(
    batch: list[tuple[int, int, int]], draws: st.DataObject
) -> None:
    one, other = ScoreThresholds(), ScoreThresholds()
    answer(one, batch)
    draws.shuffle(batch)  # type: ignore[attr-defined]
    answer(other, batch)
    late = NOW + 20_000_000
    assert one.thresholds(USERS, late) == pytest.approx(other.thresholds(USERS, late))


def test_an_answer_from_before_the_last_one_does_not_turn_the_clock_back() -> None:
    interest = ScoreThresholds()
    answer(interest, [(0, Mark.DISMISSED, 1000)])
    answer(interest, [(0, Mark.DISMISSED, 0)])
    assert threshold(interest, now=NOW + 1000) == pytest.approx(2 ** (2 * STEPS[Mark.DISMISSED]))


def test_planning_changes_nothing() -> None:
    interest = ScoreThresholds()
    answer(interest, [(0, Mark.OPENED, 0)])
    before = interest.records(USERS)
    interest.plan(np.asarray([0, 3]), np.full(2, Mark.DISMISSED, np.uint16), np.full(2, NOW))
    assert interest.records(USERS) == before


def test_who_is_forgotten_is_as_if_never_there() -> None:
    interest = ScoreThresholds()
    answer(interest, [(0, Mark.DISMISSED, 0), (1, Mark.DISMISSED, 0)])
    interest.forget(np.asarray([1, 99]))
    assert threshold(interest, 0) > 1 == threshold(interest, 1)
    assert interest.records(USERS)[1] == b""


def test_a_record_is_what_was_encoded_when_it_moved() -> None:
    interest = ScoreThresholds()
    moved = interest.plan(np.asarray([2, 0]), np.full(2, Mark.OPENED, np.uint16), np.full(2, NOW))
    assert moved
    interest.apply(moved)
    assert interest.records(moved.users) == ScoreThresholds.encode(moved)


@pytest.mark.parametrize("record", [b"\x02" + b"x" * 8, b"\x01" + b"x" * 7, b"\x01"])
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="score threshold record"):
        ScoreThresholds().load(np.zeros(1, np.int64), [record])
