"""Outcomes count where they tell of a push that was made, follow from what is known of it, and name a possible time."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from test_partition import NOW, Driver, asking, hearing

from targeting.config import TargetingConfig
from targeting.rules.policy import Policy
from targeting.types import Mark, Outcomes, PartitionOutputs, Push, push_id

TOLD = (Mark.DELIVERED, Mark.FAILED, Mark.OPENED, Mark.DISMISSED, Mark.EXPIRED)
FOLLOWS = {
    (Mark.DELIVERED, Mark.OPENED), (Mark.DELIVERED, Mark.DISMISSED), (Mark.DELIVERED, Mark.EXPIRED),
    (Mark.OPENED, Mark.DELIVERED), (Mark.DISMISSED, Mark.DELIVERED), *((each, each) for each in TOLD),
}  # fmt: skip


def pushed() -> tuple[Driver, Push]:
    driver = Driver(TargetingConfig(policy=Policy(fair=False)))
    driver.do(listens=hearing([(f"u{i}", "s0") for i in range(20)]))
    return driver, driver.do(asking(budget=9)).pushes[0]


def tell(driver: Driver, push: Push, *marks: Mark, at: float = NOW, id: str | None = None) -> PartitionOutputs:
    many = len(marks)
    return driver.do(
        outcomes=Outcomes(
            [push.user_id] * many, [push.match.song_id] * many, np.array(marks, np.uint16), np.full(many, at),
            [id or push_id(push.user_id, push.match.recording)] * many,
        )
    )  # fmt: skip


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("first", "second"), list(product(TOLD, TOLD)))
def test_of_two_outcomes_the_second_counts_if_it_follows(first: Mark, second: Mark, together: bool) -> None:
    driver, push = pushed()
    if together:
        refused = tell(driver, push, first, second).refused
    else:
        assert tell(driver, push, first).refused == []
        refused = [(1, why) for _, why in tell(driver, push, second).refused]
    names = [(each.name or "").lower() for each in (first, second)]
    expected = [] if (first, second) in FOLLOWS else [(1, f"outcome: {names[1]} after {names[0]}")]
    assert list(refused) == expected
    once = pushed()[0]
    tell(once, push, *((first, second) if not expected else (first,)))
    assert once.partition.digest() == driver.partition.digest()


def test_expired_after_delivery_is_an_end() -> None:
    driver, push = pushed()
    refused = tell(driver, push, Mark.DELIVERED, Mark.EXPIRED, Mark.OPENED).refused
    assert refused == [(2, "outcome: opened after expired")]


def test_an_outcome_of_no_push_or_of_somebody_elses_is_named_and_changes_nothing() -> None:
    driver, push = pushed()
    before = driver.partition.digest()
    ids = {"unknown": "unknown", push_id("another", "new"): push_id("another", "new")}
    for id in ids:
        ((_, why),) = tell(driver, push, Mark.OPENED, id=id).refused
        assert why == f"push_id: {id!r} is no push of song 'new' to user '{push.user_id}'"
    nobody = Outcomes(["stranger"], ["new"], np.array([Mark.OPENED], np.uint16), np.array([NOW]), ["x"])
    assert driver.do(outcomes=nobody).refused == [(0, "push_id: 'x' is no push of song 'new' to user 'stranger'")]
    other = Outcomes([push.user_id], ["other"], np.array([Mark.OPENED], np.uint16), np.array([NOW]), ["x"])
    assert driver.do(outcomes=other).refused[0][0] == 0
    assert driver.partition.digest() == before


@pytest.mark.parametrize(
    ("mark", "what"), [(Mark.OPENED, "the push may be sent"), (Mark.FAILED, "its song was uploaded")]
)
def test_an_outcome_is_not_before_what_it_answers(mark: Mark, what: str) -> None:
    driver, push = pushed()
    ((_, why),) = tell(driver, push, mark, at=NOW - 301).refused
    assert what in why
    assert why.startswith("at: ")
    assert tell(driver, push, mark, at=NOW - 298).refused == []
