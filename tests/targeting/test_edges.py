"""What holds exactly at an edge: where a comparison turned round would be felt by somebody."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs
from test_partition import NOW, VECTORS, WARM, Driver, asking, hearing

from targeting.live.reverse_scoring import hits
from targeting.partition.partition import TargetingConfig
from targeting.partition.state_keys import ACCOUNT, INTEREST, PUSHED, REQUEST
from targeting.rules.policy import Policy
from targeting.types import (
    EndReason,
    Mark,
    Outcomes,
    OutsideVectors,
    PartitionOutputs,
    Preferences,
    QuietSpan,
    Takedown,
    Tier,
)

PLAIN = Policy(fair=False)
DAY = 86_400.0


def audience(config: TargetingConfig | None = None) -> Driver:
    made = Driver(config or TargetingConfig(policy=PLAIN))
    made.do(listens=hearing([(f"u{i}", f"s{(i + more) % WARM}") for i in range(200) for more in (0, 1)]))
    return made


def outcome(user: str, mark: Mark, song: str = "new") -> Outcomes:
    return Outcomes([user], [song], np.array([mark], np.uint16), np.array([NOW]))


def ended(outputs: PartitionOutputs) -> list[EndReason | None]:
    return [account.ended for account in outputs.accounts]


def test_a_song_whose_budget_is_spent_can_still_be_promoted() -> None:
    driver = audience(TargetingConfig(policy=PLAIN, at_once=1.0))
    assert ended(driver.do(asking(budget=1))) == [EndReason.BUDGET]
    assert ended(driver.do(Takedown("new", 1, EndReason.PROMOTED))) == [EndReason.PROMOTED]
    # And no end after that one.
    assert ended(driver.do(Takedown("new", 1, EndReason.TAKEN_DOWN))) == []


def test_an_ended_campaign_is_remembered_until_its_time_and_no_moment_longer() -> None:
    config = TargetingConfig(policy=PLAIN, ended_days=14)
    driver = audience(config)
    match = asking(budget=10)
    driver.do(match)
    assert ended(driver.do(Takedown("new", 1, EndReason.TAKEN_DOWN))) == [EndReason.TAKEN_DOWN]
    # Its life is over at expires_at; what was taken down before is remembered from then on.
    last = match.expires_at + 14 * DAY
    again = driver.do(match, now=last - 1)
    assert (ended(again), again.pushes) == ([EndReason.TAKEN_DOWN], [])
    gone = dict(driver.do(now=last).changelog)
    assert gone[REQUEST + b"new"] is None
    assert gone[ACCOUNT + b"new"] is None


@pytest.mark.parametrize(("before_the_end", "pushed"), [(60, True), (0, False), (-60, False)])
def test_a_push_at_the_moment_of_expiry_is_none(before_the_end: float, pushed: bool) -> None:
    driver = audience()
    # 22:13:20 UTC; quiet until 23:00, which is when the campaign ends, or a minute before or after.
    wakes = NOW - NOW % 3600 + 3600
    quiet = Preferences(quiet=(QuietSpan(22 * 60, 23 * 60),))
    driver.do(preferences=[(f"u{i}", quiet) for i in range(200)])
    outputs = driver.do(asking(expires_at=wakes + before_the_end))
    assert bool(outputs.pushes) is pushed
    assert {push.not_before for push in outputs.pushes} <= {wakes}


def test_a_song_out_at_the_moment_of_expiry_is_pushed_to_nobody() -> None:
    driver = audience()
    match = asking(budget=10)
    assert not driver.do(structs.replace(match, available_from=match.expires_at)).pushes
    assert driver.do(structs.replace(match, song_id="b", recording="b", available_from=match.expires_at - 1)).pushes


def test_a_score_at_the_threshold_reaches_it() -> None:
    # Products of powers of two are exact.
    vectors = np.array([[0.5, 0.25], [0.25, 0.5]], np.float32)
    prototypes = np.array([[[1.0, 0.0]]], np.float32)
    found = hits(vectors, prototypes, np.array([0.5], np.float32))
    assert (found.rows.tolist(), found.scores.tolist()) == ([0], [0.5])


def test_no_score_is_above_one_whatever_a_threshold_divides() -> None:
    driver = audience(TargetingConfig(policy=PLAIN, at_once=0.5))
    pushed = [push.user_id for push in driver.do(asking(budget=300)).pushes]
    # Dismissed at other times, so that each has a threshold of its own.
    for number, user in enumerate(pushed):
        driver.do(now=NOW + 60 * number, outcomes=outcome(user, Mark.DISMISSED))
    driver.do(asking("b", expires_at=NOW + 9 * DAY, budget=2))
    scores = []
    for number, user in enumerate(pushed):
        # Where the song itself stands: one, up to a rounding of the division and the product.
        here = OutsideVectors("space", [user], VECTORS[:1], np.array([NOW]), [])
        driver.do(asking(f"b{number}", expires_at=NOW + 9 * DAY, budget=2), now=NOW + DAY)
        outputs = driver.do(now=NOW + DAY + 3600 * number, vectors=here)
        scores += [push.score for push in outputs.pushes if push.tier is Tier.LIVE and push.score_threshold > 1]
    assert len(scores) > 20
    assert max(scores) == 1


def test_interest_and_pushes_are_gone_with_an_erasure_and_nothing_old_brings_them_back() -> None:
    driver = audience()
    user = driver.do(asking()).pushes[0].user_id
    driver.do(outcomes=outcome(user, Mark.DISMISSED))
    kept = {key for key, value in driver.log if value is not None}
    assert {INTEREST + user.encode(), PUSHED + user.encode()} <= kept

    gone = driver.do(now=NOW + 1, erasures=[(user, NOW + 1)])
    assert {key: value for key, value in gone.changelog if key[1:] == user.encode()}.keys() >= {
        INTEREST + user.encode(), PUSHED + user.encode(),
    }  # fmt: skip
    assert all(value is None for key, value in gone.changelog if key[1:] == user.encode())
    # Back again with a song like those pushed: nobody remembers that pushes were dismissed.
    driver.do(now=NOW + 2, listens=hearing([(user, "s0"), (user, "s1")], NOW + 2))
    again = driver.do(asking(song_id="b", recording="b"), now=NOW + 3)
    assert {push.score_threshold for push in again.pushes if push.user_id == user} == {1.0}


def test_an_outcome_in_the_batch_of_an_erasure_or_after_it_says_nothing_of_the_erased() -> None:
    for together in (True, False):
        driver = audience()
        user = driver.do(asking()).pushes[0].user_id
        said = outcome(user, Mark.OPENED)
        outputs = [
            driver.do(now=NOW + 1, erasures=[(user, NOW + 1)], outcomes=said if together else None),
            driver.do(now=NOW + 2, outcomes=said),
        ]
        told = [(key, value) for each in outputs for key, value in each.changelog if key[1:] == user.encode()]
        assert told
        assert all(value is None for _, value in told)
        assert driver.restored().digest() == driver.partition.digest()
