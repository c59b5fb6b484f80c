from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.catalogue.catalogue import Catalogue
from targeting.ranking.scoring import Ranking, ScoreWeights, score
from targeting.types import Match
from targeting.users.histories import UserHistories

SONGS, USERS, D = 6, 8, 4
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((SONGS, D)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
VECTORS[5] = 0  # known by its listens alone
# Near to some songs and far from others.
NEW = VECTORS[0] + VECTORS[1] - VECTORS[2]
NEW /= np.linalg.norm(NEW)
# Where the songs crowd counts less: the inverse of their second moments, evened out.
METRIC = np.linalg.inv(VECTORS[:5].T.astype(float) @ VECTORS[:5] / 5 + (0.25 + D / 5) / D * np.eye(D))

heard_pairs = st.sets(st.tuples(st.integers(0, USERS - 1), st.integers(0, SONGS - 1)), max_size=25)
neighbours = st.lists(
    st.tuples(st.sampled_from([*range(SONGS), 99]), st.floats(-0.5, 1, width=32)),
    unique_by=lambda each: each[0],
    max_size=6,
)


def audience_of(pairs: set[tuple[int, int]]) -> tuple[Catalogue, UserHistories]:
    songs = Catalogue()
    songs.set_vectors("space", [f"s{i}" for i in range(SONGS)], VECTORS)
    audience = UserHistories(songs)
    users, heard = np.asarray(sorted(pairs) or np.zeros((0, 2)), np.int64).T
    ones = np.ones(len(users))
    audience.apply(audience.plan(users, songs.slots([f"s{i}" for i in heard]), ones.astype(np.float32), ones))
    return songs, audience


def asking(retrieved: list[tuple[int, float]], space: str = "space") -> Match:
    return Match(
        "new", 1, "new", "", (), space, NEW,
        tuple(f"s{song}" for song, _ in retrieved), np.asarray([sim for _, sim in retrieved], np.float32),
        10, 0, 9,
    )  # fmt: skip


def naive(
    pairs: set[tuple[int, int]], retrieved: list[tuple[int, float]], config: ScoreWeights, same_space: bool
) -> dict[int, float]:
    """One user after the other, as the module's docstring says it."""
    known = any(sim > 0 and song == each for song, sim in retrieved for _, each in pairs)
    everything = sum(max(sim, 0) ** config.sharpness for _, sim in retrieved)
    scores = {}
    for user in range(USERS):
        heard = {song for each, song in pairs if each == user}
        taste = sum((VECTORS[song].astype(float) for song in sorted(heard)), np.zeros(D))
        length = math.sqrt(taste @ METRIC @ taste)
        direct = max(0.0, taste @ METRIC @ NEW / length / math.sqrt(NEW @ METRIC @ NEW)) if length > 0 else 0.0
        weights = sum(max(sim, 0) ** config.sharpness for song, sim in retrieved if song in heard)
        evidence = 1 - math.exp(-weights / everything / config.saturation) if weights else 0.0
        if not known and same_space and length > 0:
            scores[user] = direct
        elif known and weights:
            scores[user] = config.weight * evidence + (1 - config.weight) * direct if same_space else evidence
    return scores


@settings(max_examples=300)
@given(
    heard_pairs,
    neighbours,
    st.sampled_from([ScoreWeights(), ScoreWeights(1, 0.5, 0.7)]),
    st.sampled_from(["space", "other"]),
)
def test_candidates_and_scores_are_what_one_user_after_the_other_gives(
    pairs: set[tuple[int, int]], retrieved: list[tuple[int, float]], config: ScoreWeights, space: str
) -> None:
    # A similarity so small that its power is no float32 any more is as good as none.
    retrieved = [(song, sim if abs(sim) > 1e-3 else 0.0) for song, sim in retrieved]
    songs, audience = audience_of(pairs)
    scored = score(audience, songs, asking(retrieved, space), config)
    expected = naive(pairs, retrieved, config, space == "space")
    assert scored.users.tolist() == sorted(expected)
    np.testing.assert_allclose(scored.scores, [expected[user] for user in sorted(expected)], atol=1e-5)
    assert ((scored.scores >= 0) & (scored.scores <= 1 + 1e-6)).all()
    np.testing.assert_allclose(scored.evidence + scored.direct, scored.scores, atol=1e-6)


def test_a_score_does_not_depend_on_who_else_is_in_the_partition() -> None:
    rng = np.random.default_rng(1)
    pairs = {(int(u), int(s)) for u, s in zip(rng.integers(0, USERS, 30), rng.integers(0, 5, 30), strict=True)}
    request = asking([(0, 0.9), (3, 0.5), (4, 0.2)])
    whole = dict(zip(*_scores(pairs, request), strict=True))
    halves = {}
    for parity in range(2):
        halves |= dict(zip(*_scores({p for p in pairs if p[0] % 2 == parity}, request), strict=True))
    assert halves.keys() == whole.keys()
    for user, value in whole.items():
        assert math.isclose(halves[user], value, abs_tol=1e-6)


def _scores(pairs: set[tuple[int, int]], request: Match) -> tuple[list[int], list[float]]:
    songs, audience = audience_of(pairs)
    scored = score(audience, songs, request, ScoreWeights())
    return scored.users.tolist(), scored.scores.tolist()


def test_who_heard_what_is_remembered() -> None:
    songs, audience = audience_of({(0, 1), (0, 2), (3, 2)})
    scored = score(audience, songs, asking([(2, 0.9), (1, 0.5), (4, 0.4)]), ScoreWeights())
    assert {*zip(scored.heard_users.tolist(), scored.heard_songs.tolist(), strict=True)} == {(0, 0), (0, 1), (3, 0)}


def ranked(pairs: set[tuple[int, int]], request: Match, ranking: Ranking) -> dict[int, float]:
    songs, audience = audience_of(pairs)
    scored = score(audience, songs, request, ScoreWeights(ranking=ranking))
    return dict(zip(scored.users.tolist(), scored.scores.tolist(), strict=True))


RETRIEVED = [(0, 0.9), (1, 0.8), (2, 0.6), (3, 0.5), (4, 0.4), (5, 0.2)]


@settings(max_examples=100)
@given(heard_pairs)
def test_the_rival_evidence_is_the_share_of_the_similarities_heard(pairs: set[tuple[int, int]]) -> None:
    heard = {user: [sim for song, sim in RETRIEVED if (user, song) in pairs] for user, _ in pairs}
    expected = {user: sum(sims) / sum(sim for _, sim in RETRIEVED) for user, sims in heard.items()}
    found = ranked(pairs, asking(RETRIEVED), Ranking.EVIDENCE)
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[user], expected[user], abs_tol=1e-5) for user in expected)


@settings(max_examples=100)
@given(heard_pairs)
def test_i2i2u_takes_all_listeners_of_the_five_most_similar_songs_alike(pairs: set[tuple[int, int]]) -> None:
    assert ranked(pairs, asking(RETRIEVED), Ranking.I2I2U) == {user: 1.0 for user, song in pairs if song < 5}


@settings(max_examples=100)
@given(heard_pairs)
def test_random_takes_everybody_who_has_a_vector_alike(pairs: set[tuple[int, int]]) -> None:
    # The song without a vector says nothing of its listeners.
    assert ranked(pairs, asking(RETRIEVED), Ranking.RANDOM) == {user: 1.0 for user, song in pairs if song < 5}


def test_cat_is_the_cosine_with_the_centroid_of_the_listeners_for_everybody() -> None:
    pairs = {(0, 0), (1, 0), (2, 1), (3, 3), (4, 4), (5, 5)}
    songs, audience = audience_of(pairs)
    scored = score(audience, songs, asking([(0, 1.0), (1, 0.5)]), ScoreWeights(ranking=Ranking.CAT))
    assert scored.users.tolist() == [0, 1, 2, 3, 4]
    vectors = audience.taste.of(np.arange(5)).astype(float)
    # The listeners of song 1 weigh a sixteenth of those of song 0.
    centre = vectors[0] + vectors[1] + vectors[2] / 16
    np.testing.assert_allclose(scored.scores, np.maximum(vectors @ centre / np.linalg.norm(centre), 0), atol=1e-4)
    assert scored.listening().users.tolist() == [0, 1, 2]


def test_a_rival_in_another_space_or_without_listeners_does_not_fail() -> None:
    for ranking in Ranking:
        for request in (asking([]), asking([(99, 0.9)]), asking(RETRIEVED, "other")):
            songs, audience = audience_of({(0, 0), (1, 1)})
            scored = score(audience, songs, request, ScoreWeights(ranking=ranking))
            assert ((scored.scores >= 0) & (scored.scores <= 1 + 1e-6)).all()
            assert scored.listening().users.tolist() == scored.users.tolist() or len(scored.heard_users)
