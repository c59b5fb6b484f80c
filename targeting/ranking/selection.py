"""Who gets a song, of its candidates, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, U64, hash64, mixed
from targeting.calibration import Calibration
from targeting.ranking.recalibration import Correction, Examples, Scale
from targeting.ranking.scored import Scored
from targeting.rules.policy import Policy, fairness, held_out
from targeting.types import F32, F64, Mark, Match, Preferences, Push, PushReason, Suppression, Tier
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.preferences import PreferenceTable
from targeting.users.score_thresholds import ScoreThresholds

# Songs named as the reason of a push.
_NAMED = 5

# Mixed into the draw of whom to explore, so that it is another one than that of equal scores.
_EXPLORING = 0x5851F42D4C957F2D

# Mixed into the draw that keeps room for songs to come.
_KEEPING = 0x2545F4914F6CDD1D

# Looked up by the hundred: an enum asked for its member takes three times as long.
_WHY = {each.value: each for each in PushReason}

# Candidates looked at beyond the number wanted, before caps and quiet hours refuse some of them.
_SPARE = 64


@dataclass(frozen=True, slots=True)
class Selection:
    """Who gets a song, best first, and who is held out; by row.

    Attributes:
        users: int64 (n,), those pushed and those held out.
        at: float64 (n,), the ``not_before`` of each.
        marks: uint16 (n,), HELD_OUT or EXPLORED or nothing.
        pushes: those pushed, as they are told.
        suppressed: int64, how many candidates were not pushed, by :class:`targeting.types.Suppression`.
    """

    users: I64
    at: F64
    marks: NDArray[np.uint16]
    pushes: list[Push]
    suppressed: I64


class Ids(Protocol):
    """Who the rows are."""

    def id_of(self, row: int) -> str: ...

    def hashes(self, rows: I64) -> U64:
        """The :func:`targeting.arrays.id_table.hash64` of their ids, uint64 (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class SelectionContext:
    """What every decision of a batch looks at. ``staged_preferences`` are obeyed already but not applied yet."""

    now: float
    policy: Policy
    users: Ids
    preferences: PreferenceTable
    staged_preferences: Mapping[int, Preferences | None]
    score_thresholds: ScoreThresholds
    frequency_caps: FrequencyCaps
    calibration: Calibration | None
    least_chance: float
    examples: Examples = field(default_factory=Examples)


def choose(
    match: Match,
    scored: Scored,
    held: NDArray[np.uint8],
    most: int,
    context: SelectionContext,
    tier: Tier = Tier.INITIAL,
    prototypes: NDArray[np.int64] | None = None,
) -> Selection:
    """The best ``most`` of the candidates whom nothing holds back, and those among the better ones who are held out.

    Candidates are ranked by score divided by the user's threshold (:mod:`targeting.users.score_thresholds`). A score of
    zero is no reason to push. A share of the pushes goes to candidates at random. Whom a cap or quiet hours beyond the
    song's life refuse is passed over for the next best.

    Where :attr:`targeting.rules.policy.Policy.fair`, a user whose cap is partly used is open to the song by chance only
    (:func:`targeting.rules.policy.fairness`), and a place among the best ``most`` that is closed is not filled up with
    a worse one: that part of the budget stays unspent.

    With a calibration, pushes tell the chance of a listen as answers correct it, and nobody is pushed whose chance,
    divided by the threshold, is less than ``least_chance``. So do those to who came later, once enough of them were
    judged. A song that is scored by one sign alone has no chances.

    Of equal ranks the smaller hash of (user, song) wins: for each song another user, and the same one after
    a restart, whatever row the user has then.

    Args:
        held: why each candidate may not be pushed at all, uint8 (n,), a :class:`targeting.types.Suppression`; 0: it
            may. Every reason that is found here is added to it.
        prototypes: which prototype each candidate is near, int64 (n,), for those who came later.
    """
    calibration = context.calibration if scored.both else None
    live, policy = tier is Tier.LIVE, context.policy
    correction = context.examples.model if calibration else context.examples.live if live else None
    n = len(scored.users)
    thresholds = np.ones(n, np.float32)
    if policy.enabled:
        thresholds = context.score_thresholds.thresholds(scored.users, context.now)
    held[(held == 0) & (scored.scores <= 0)] = Suppression.BELOW_THRESHOLD
    eligible = np.flatnonzero(held == 0)
    if correction and context.least_chance > 0:
        chances = correction.chance(_priors(scored.scores[eligible], calibration))
        enough = chances / thresholds[eligible] >= context.least_chance
        held[eligible[~enough]] = Suppression.BELOW_THRESHOLD
        eligible = eligible[enough]
    # Whole seconds, as the push log keeps them, so that a cap is exact around what is told later.
    start = max(context.now, float(math.ceil(match.available_from)))
    # Whom nothing else holds back others come before.
    held[eligible] = Suppression.EXPIRED if start >= match.expires_at else Suppression.BUDGET
    if most <= 0 or not len(eligible) or start >= match.expires_at:
        return _nobody(held)
    song_hash, artist = song_and_artist(match)
    hashes = context.users.hashes(scored.users[eligible])
    worth = scored.scores[eligible] / thresholds[eligible]
    if policy.enabled and policy.fair:
        open_ = _open(context.frequency_caps, scored.users[eligible], hashes, start, song_hash)
        if not open_.all():
            most -= int(np.count_nonzero(~open_[_top(worth, mixed(hashes, song_hash), most)]))
            held[eligible[~open_]] = Suppression.CAP_RESERVED
            eligible, hashes, worth = eligible[open_], hashes[open_], worth[open_]
            if not len(eligible):
                return _nobody(held)
    draws = mixed(hashes, song_hash)
    explored = _exploration_count(most, policy, int(draws.min()))
    passed = np.zeros(len(eligible), np.uint8)
    best, when, out = _first(
        match, scored.users[eligible], hashes, -worth, draws, most - explored, start, artist, context, passed
    )
    marks = np.where(out, Mark.HELD_OUT, 0).astype(np.uint16)
    if explored:
        rest = np.delete(np.arange(len(eligible)), best)
        others = mixed(hashes[rest], song_hash ^ _EXPLORING)
        passed_exploring = np.zeros(len(rest), np.uint8)
        more, later, more_out = _first(
            match,
            scored.users[eligible[rest]],
            hashes[rest],
            others.astype(np.float64),
            others,
            explored,
            start,
            artist,
            context,
            passed_exploring,
        )
        passed[rest] = np.maximum(passed[rest], passed_exploring)
        best, when = np.concatenate([best, rest[more]]), np.concatenate([when, later])
        marks = np.concatenate([marks, np.where(more_out, Mark.HELD_OUT, Mark.EXPLORED).astype(np.uint16)])
    chosen = eligible[best]
    pushed = (marks & Mark.HELD_OUT) == 0
    held[eligible[passed > 0]] = passed[passed > 0]
    held[chosen] = np.where(pushed, 0, Suppression.HELD_OUT)
    priors = _priors(scored.scores[chosen[pushed]], calibration)
    why = np.where(marks & Mark.EXPLORED, PushReason.EXPLORATION, _why(scored, chosen, prototypes))
    if calibration or live:
        marks[pushed] |= context.examples.marks(priors, when[pushed], Scale.MODEL if calibration else Scale.LIVE)
    pushes = _pushes(
        match,
        scored,
        chosen[pushed],
        correction.chance(priors) if correction else priors,
        why[pushed],
        when[pushed],
        thresholds,
        context.users,
        correction,
        tier,
        prototypes,
    )
    return Selection(scored.users[chosen], when, marks, pushes, _counts(held))


def _nobody(held: NDArray[np.uint8]) -> Selection:
    return Selection(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.uint16), [], _counts(held))


def _counts(held: NDArray[np.uint8]) -> I64:
    counts = np.bincount(held, minlength=max(Suppression) + 1)
    counts[0] = 0
    return counts


def _priors(scores: F32, calibration: Calibration | None) -> F32:
    """The chances that the model gives, or what stands in for them; as many, float32."""
    return calibration.prior(scores) if calibration else scores


def song_and_artist(match: Match) -> tuple[int, int]:
    """The 64-bit hashes of the song and of its primary artist (of no artist: its own)."""
    song, artist = hash64([match.song_id, match.artist_ids[0] if match.artist_ids else match.song_id])
    return int(song), int(artist)


def _first(
    match: Match,
    rows: I64,
    hashes: NDArray[np.uint64],
    rank: NDArray[np.float64] | F32,
    draws: NDArray[np.uint64],
    most: int,
    start: float,
    artist: int,
    context: SelectionContext,
    passed: NDArray[np.uint8],
) -> tuple[I64, F64, NDArray[np.bool_]]:
    """The first ``most`` by (rank, draw) who can be disturbed, and those held out who stand before the last of them.

    Args:
        passed: is told, by index into ``rows``, why those are passed over who stand before the last of them.

    Returns:
        indices into ``rows`` in order, when each may be disturbed, and who is held out.
    """
    if most <= 0 or not len(rows):
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_)
    look, policy = 2 * most + _SPARE, context.policy
    while True:
        block = np.arange(len(rows))
        if look < len(rows):
            # All of the last rank that is looked at: which of equals come first is the draw's to say.
            block = np.flatnonzero(rank <= np.partition(rank, look)[look])
        block = block[np.lexsort((draws[block], rank[block]))]
        when = context.preferences.not_before(rows[block], start, context.staged_preferences)
        fits = when < match.expires_at
        why = np.where(fits, Suppression.FREQUENCY_CAP, Suppression.QUIET_HOURS)
        fits &= context.frequency_caps.fits(rows[block], np.where(fits, when, start), artist)
        looked, block, when = block, block[fits], when[fits]
        out = held_out(hashes[block], match.song_id, policy) if policy.enabled else np.zeros(len(block), np.bool_)
        enough = int(np.searchsorted(np.cumsum(~out), most))
        if enough < len(block):
            last = enough + 1
            end = int(np.flatnonzero(fits)[enough])
            passed[looked[:end][~fits[:end]]] = why[:end][~fits[:end]]
            return block[:last], when[:last], out[:last]
        if look >= len(rows):
            passed[looked[~fits]] = why[~fits]
            return block, when, out
        look *= 4


def _open(caps: FrequencyCaps, users: I64, hashes: NDArray[np.uint64], at: float, song_hash: int) -> NDArray[np.bool_]:
    """Which users are open to the song, at random: a partly used cap keeps some of the rest for songs to come."""
    used, pushes = caps.used(users, np.full(len(users), at, np.float64))
    some = np.flatnonzero(used > 0)
    open_ = np.ones(len(users), np.bool_)
    draws = mixed(hashes[some], song_hash ^ _KEEPING).astype(np.float64)
    open_[some] = draws < fairness(used[some], pushes[some]) * 2.0**64
    return open_


def _top(worth: NDArray[np.floating[Any]], draws: NDArray[np.uint64], most: int) -> I64:
    """The indices of the ``most`` that are worth most, the smaller draw first among equals."""
    at = np.arange(len(worth))
    if most < len(worth):
        at = np.flatnonzero(worth >= np.partition(worth, len(worth) - most)[len(worth) - most])
    return at[np.lexsort((draws[at], -worth[at]))][:most]


def _exploration_count(most: int, policy: Policy, chance: int) -> int:
    """How many of the pushes explore: the share, rounded up or down at random, so that small budgets explore too."""
    if not policy.enabled:
        return 0
    return int(most * policy.exploration + (chance % 2**20) / 2**20)


def _why(scored: Scored, chosen: I64, prototypes: NDArray[np.int64] | None) -> NDArray[np.str_]:
    if prototypes is not None:
        return np.where(prototypes[chosen] >= 0, PushReason.PROTOTYPE, PushReason.DIRECT)
    return np.where(scored.evidence[chosen] > scored.direct[chosen], PushReason.EVIDENCE, PushReason.DIRECT)


def _pushes(
    match: Match,
    scored: Scored,
    best: I64,
    scores: F32,
    why: NDArray[np.str_],
    when: F64,
    thresholds: F32,
    users: Ids,
    correction: Correction | None,
    tier: Tier,
    prototypes: NDArray[np.int64] | None,
) -> list[Push]:
    heard: dict[int, list[int]] = {user: [] for user in scored.users[best].tolist()}
    if len(best) and len(scored.heard_users):
        mine = np.zeros(int(max(scored.users.max(), scored.heard_users.max())) + 1, np.bool_)
        mine[scored.users[best]] = True
        at = np.flatnonzero(mine[scored.heard_users])
        # Loudest first, so that the first five that a user heard are the reason.
        at = at[np.argsort(-scored.weights[scored.heard_songs[at]], kind="stable")]
        for user, song in zip(scored.heard_users[at].tolist(), scored.heard_songs[at].tolist(), strict=True):
            heard[user].append(song)
    near = prototypes[best].tolist() if prototypes is not None else [-1] * len(best)
    offset, slope = (correction.offset, correction.slope) if correction else (0.0, 1.0)
    activity = [1.0] * len(best) if scored.activity is None else scored.activity[best].tolist()
    columns = zip(
        scored.users[best].tolist(), scores.tolist(), why.tolist(), when.tolist(), thresholds[best].tolist(), near,
        scored.evidence[best].tolist(), scored.direct[best].tolist(), activity,
        strict=True,
    )  # fmt: skip
    return [
        Push(
            match=match,
            user_id=users.id_of(user),
            score=score,
            why=_WHY[reason],
            songs=tuple([match.neighbours[song] for song in heard[user][:_NAMED]]),
            not_before=at_time,
            prototype=prototype if prototype >= 0 else None,
            calibrated=correction is not None,
            tier=tier,
            score_threshold=threshold,
            evidence=evidence,
            direct=direct,
            activity=active,
            offset=offset,
            slope=slope,
        )
        for user, score, reason, at_time, threshold, prototype, evidence, direct, active in columns
    ]
