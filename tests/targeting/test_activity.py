"""Users' activity in scores: what it multiplies, what stays as it was, and how its power is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from test_partition import NOW, VECTORS, WARM, asking, hearing

from targeting.calibration import STRONGEST, Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.evaluation.activity_power import POWERS, strength
from targeting.evaluation.case import Case
from targeting.partition.partition import Partition
from targeting.partition.state_keys import SHAPE
from targeting.ranking.activity import factors
from targeting.ranking.scoring import Ranking, ScoreWeights
from targeting.rules.policy import Policy
from targeting.types import F32, OutsideVectors, PartitionInputs, PartitionOutputs, Push, Tier
from targeting.users.histories import HISTORY

HOUR = 3600.0
PLAIN = Policy(enabled=False)


class Driver:
    """A partition with its changelog, whose songs are calibrated with a power of activity; None: not calibrated."""

    def __init__(self, power: float | None, config: TargetingConfig | None = None) -> None:
        self.config = config or TargetingConfig(policy=PLAIN)
        self.songs = calibrated(power)
        self.partition = Partition(0, 1, self.songs, self.config)
        self.log: list[tuple[bytes, bytes | None]] = []

    def do(self, *commands: object, now: float = NOW, **inputs: object) -> PartitionOutputs:
        staged = self.partition.stage(PartitionInputs(now, commands=commands, **inputs))  # type: ignore[arg-type]
        self.partition.apply(staged)
        self.log += staged.outputs.changelog
        return staged.outputs

    def restored(self, power: float | None) -> Partition:
        fresh = Partition(0, 1, calibrated(power), self.config)
        fresh.restore(self.log)
        return fresh

    def bases(self) -> set[bytes]:
        """On what the records of campaigns that are scored rest."""
        records = {key: value for key, value in self.log if key.startswith(SHAPE)}
        return {value[1 : 1 + value[0]] for value in records.values() if value is not None}


def calibrated(power: float | None) -> Catalogue:
    songs = Catalogue()
    songs.set_vectors("space", [f"s{i}" for i in range(WARM)], VECTORS)
    if power is not None:
        songs.calibration = Calibration((0.0, 1.0), (0.0, 0.5), power)
    return songs


def unheard(user: str, count: int) -> list[tuple[str, str]]:
    """Listens of songs that have no vector: they tell of activity and not of taste."""
    return [(user, f"x{number}") for number in range(count)]


def coming(user_ids: list[str], vectors: F32) -> OutsideVectors:
    return OutsideVectors("space", user_ids, vectors, np.full(len(user_ids), NOW), [])


@given(st.integers(0, HISTORY), st.integers(0, HISTORY), st.floats(0, STRONGEST))
def test_a_factor_is_a_power_of_the_songs_heard(few: int, many: int, power: float) -> None:
    one, other = factors(np.asarray([few, many]), power).tolist()
    assert 0 < one <= 1
    assert one / other == pytest.approx(((1 + few) / (1 + many)) ** power, rel=1e-5)
    assert factors(np.asarray([HISTORY, HISTORY + 1]), power).tolist() == [1, 1]


def test_of_two_who_fit_alike_the_busier_one_comes_first_and_pushes_tell_why() -> None:
    driver = Driver(0.5)
    driver.do(listens=hearing([("quiet", "s0"), ("busy", "s0"), *unheard("busy", 48), *unheard("quiet", 3)]))
    busy, quiet = driver.do(asking(budget=100)).pushes
    assert (busy.user_id, quiet.user_id) == ("busy", "quiet")
    assert (busy.evidence, busy.direct) == (quiet.evidence, quiet.direct)
    assert (busy.activity, quiet.activity) == pytest.approx(((50 / 501) ** 0.5, (5 / 501) ** 0.5))
    for push in (busy, quiet):
        assert push.calibrated
        assert push.score == pytest.approx(0.5 * (push.evidence + push.direct) * push.activity, rel=1e-5)


def test_without_a_power_activity_says_nothing() -> None:
    for power in (None, 0.0):
        driver = Driver(power)
        driver.do(listens=hearing([("quiet", "s0"), ("busy", "s0"), *unheard("busy", 50)]))
        one, other = driver.do(asking(budget=100)).pushes
        assert one.score == other.score
        assert one.activity == other.activity == 1


@pytest.mark.parametrize("ranking", [each for each in Ranking if each is not Ranking.DEFAULT])
def test_rivals_know_of_no_activity(ranking: Ranking) -> None:
    told = []
    for power in (0.0, 1.0):
        driver = Driver(power, TargetingConfig(policy=PLAIN, relevance=ScoreWeights(ranking=ranking), at_once=0.5))
        driver.do(listens=hearing([(f"u{i}", f"s{(i + j) % WARM}") for i in range(40) for j in range(1 + i % 5)]))
        pushes = list(driver.do(asking(budget=30)).pushes)
        pushes += driver.do(now=NOW + HOUR / 10, vectors=coming(["late"], VECTORS[:1])).pushes
        told.append([(push.user_id, push.score, push.activity) for push in pushes])
    assert told[0] == told[1]
    assert len(told[0]) > 15


def test_a_score_of_one_sign_alone_is_multiplied_too() -> None:
    driver = Driver(1.0)
    driver.do(listens=hearing([("quiet", "s0"), ("busy", "s0"), *unheard("busy", 9)]))
    for match in (asking("a", neighbours=(), similarities=np.zeros(0, np.float32)), asking("b", space="another")):
        busy, quiet = driver.do(match).pushes
        assert (busy.user_id, busy.calibrated, quiet.calibrated) == ("busy", False, False)
        assert busy.score / quiet.score == pytest.approx(11 / 2, rel=1e-5)


def crowd(driver: Driver, songs_of: int | None) -> list[Push]:
    """300 users, a campaign, and 200 more who come near it one by one; all with so many songs, None: a few to many."""
    rng = np.random.default_rng(5)
    heard = [2 + int(rng.integers(0, 60)) if songs_of is None else songs_of for _ in range(500)]
    # Two songs of the first 300 have vectors.
    pairs = [(f"u{i}", f"s{song}") for i in range(300) for song in rng.choice(WARM, 2, replace=False)]
    more = [each for i in range(500) for each in unheard(f"u{i}", heard[i] - 2 * (i < 300))]
    driver.do(listens=hearing([*pairs, *more]))
    pushes = list(driver.do(asking(budget=120, expires_at=NOW + 200 * HOUR)).pushes)
    near = VECTORS[:1] + 0.2 * rng.standard_normal((200, VECTORS.shape[1])).astype(np.float32)
    for i in range(200):
        batch = coming([f"u{300 + i}"], near[i : i + 1])
        pushes += driver.do(now=NOW + i * HOUR, vectors=batch).pushes
    return pushes


def test_where_all_are_equally_active_nothing_changes_but_the_size_of_scores() -> None:
    plain, active = crowd(Driver(0.0), 20), crowd(Driver(0.5), 20)
    late = [push for push in plain if push.tier is Tier.LIVE]
    assert len(late) > 10
    assert [push.user_id for push in late] == [push.user_id for push in active if push.tier is Tier.LIVE]
    for one, other in zip(late, (push for push in active if push.tier is Tier.LIVE), strict=True):
        assert other.score == pytest.approx(one.score * (21 / 501) ** 0.5, rel=1e-5)


def test_who_comes_near_is_held_to_a_threshold_in_which_activity_counts() -> None:
    driver = Driver(0.5)
    late = [push for push in crowd(driver, None) if push.tier is Tier.LIVE]
    assert len(late) > 10
    for push in late:
        assert push.score == pytest.approx(push.direct * push.activity, rel=1e-5)
        assert push.evidence == 0
    # Of those who came, the ones with the highest scores, not with the nearest vectors.
    plain = [push for push in crowd(Driver(0.0), None) if push.tier is Tier.LIVE]
    power = [np.mean([push.activity for push in late]), np.mean(factors(np.asarray([1, 60]), 0.5))]
    assert power[0] > power[1]
    assert {push.user_id for push in late} != {push.user_id for push in plain}


def test_listens_of_the_same_batch_count() -> None:
    driver = Driver(1.0)
    driver.do(listens=hearing([(f"u{i}", f"s{i % WARM}") for i in range(100)]))
    driver.do(asking(budget=100, expires_at=NOW + 200 * HOUR))
    outputs = driver.do(listens=hearing([("new", "s0"), *unheard("new", 399)]), now=NOW + HOUR)
    (push,) = [push for push in outputs.pushes if push.user_id == "new"]
    assert push.activity == pytest.approx(401 / 501)


def test_campaigns_are_opened_anew_when_the_power_changes_and_restored_on_their_own_alone() -> None:
    driver = Driver(None, TargetingConfig(policy=PLAIN, at_once=0.2))
    driver.do(listens=hearing([(f"u{i}", f"s{(i + j) % WARM}") for i in range(100) for j in range(1 + i % 5)]))
    for number in range(6):
        driver.do(asking(f"n{number}", near=number, budget=300, expires_at=NOW + 200 * HOUR))
    assert driver.bases() == {b"space"}
    # What the former code wrote is restored by one that knows of activity: opened anew, a few a batch.
    after = driver.restored(0.25)
    assert after.scored == 0
    after.apply(after.stage(PartitionInputs(NOW + 1)))
    assert after.scored == 4

    driver.songs.calibration = Calibration((0.0, 1.0), (0.0, 0.5), 0.25)
    scored = []
    for number in range(3):
        driver.do(now=NOW + 1 + number)
        scored.append(driver.partition.scored)
    assert scored == [4, 6, 6]
    assert driver.bases() == {b"space 0.25"}
    same = driver.restored(0.25)
    assert same.scored == 6
    assert same.digest() == driver.partition.digest()
    # Another power, or a worker that looks for liking: none of these thresholds means anything to it.
    assert driver.restored(0.3).scored == driver.restored(None).scored == 0
    assert driver.restored(None).digest() == driver.partition.digest()


def busy_and_quiet(answers_follow_activity: bool) -> Case:
    """Users of four scenes who heard three songs of theirs and some of no scene; cold songs in the scenes' centres."""
    rng = np.random.default_rng(0)
    users, songs, scenes, d = 400, 120, 4, 8
    scene = np.arange(users) % scenes
    vectors = np.eye(d, dtype=np.float32)[np.arange(songs) % d] + 0.1 * rng.standard_normal((songs, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    more = rng.integers(0, 40, users)
    heard = np.zeros((songs, users), np.float32)
    for user in range(users):
        heard[rng.choice(np.arange(scene[user], songs, d), 3, replace=False), user] = 1
        others = np.flatnonzero(np.arange(songs) % d >= scenes)
        heard[rng.choice(others, more[user], replace=False), user] = 1
    chance = more / 40 if answers_follow_activity else np.full(users, 0.5)
    truth = (np.arange(40)[:, None] % scenes == scene[None]) & (rng.random((40, users)) < chance)
    return Case(
        "busy and quiet", tuple(f"new{row}" for row in range(40)), sparse.csr_matrix(heard),
        vectors.astype(np.float32), np.eye(d, dtype=np.float32)[np.arange(40) % scenes], sparse.csr_matrix(truth),
        neighbours=15,
    )  # fmt: skip


def test_the_power_is_found_where_answers_follow_activity_and_is_none_where_they_do_not() -> None:
    assert strength([busy_and_quiet(True)]) >= 0.1
    assert strength([busy_and_quiet(False)]) == 0
    assert {strength([busy_and_quiet(True)])} <= set(POWERS)


def test_too_few_songs_tell_of_no_power() -> None:
    case = busy_and_quiet(True)
    few = Case("few", case.song_ids[:1], case.plays, case.vectors, case.queries[:1], case.truth[:1], neighbours=15)
    assert strength([few]) == 0
    nobody = sparse.csr_matrix(case.truth.shape)
    assert strength([Case("none", case.song_ids, case.plays, case.vectors, case.queries, nobody)]) == 0
