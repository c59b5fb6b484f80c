"""A request arrives: who gets the song, and why?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targeting.calibration import Calibration
from targeting.relevance import Scored
from targeting.slots import I64, Slots, mixed
from targeting.types import Match, Push, Why

# Songs named as the reason of a push.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """The users who get a song, best first, as rows int64 (n,), and the pushes that tell them."""

    users: I64
    pushes: list[Push]


def choose(
    match: Match,
    scored: Scored,
    allowed: NDArray[np.bool_],
    most: int,
    users: Slots,
    song_hash: int,
    calibration: Calibration | None = None,
    least_chance: float = 0.0,
) -> Chosen:
    """The best ``most`` of the allowed candidates. A score of zero is no reason to push.

    With a ``calibration``, pushes tell the chance of a listen, and nobody is pushed whose chance is less than
    ``least_chance``. A song that is scored by one sign alone has no chances.

    Of equal scores the smaller hash of (user, song) wins: for each song another user, and the same one after
    a restart, whatever row the user has then.
    """
    calibration = calibration if scored.both else None
    least = calibration.least_score(least_chance) if calibration else 0.0
    eligible = np.flatnonzero(allowed & (scored.scores > 0) & (scored.scores >= least))
    if most <= 0 or not len(eligible):
        return Chosen(np.zeros(0, np.int64), [])
    scores = scored.scores[eligible]
    if most < len(eligible):
        last = np.partition(scores, len(scores) - most)[len(scores) - most]
        eligible = eligible[scores >= last]
        scores = scored.scores[eligible]
    ties = mixed(users.hashes(scored.users[eligible]), song_hash)
    best = eligible[np.lexsort((ties, -scores))[:most]]
    return Chosen(scored.users[best], _pushes(match, scored, best, users, calibration))


def _pushes(match: Match, scored: Scored, best: I64, users: Slots, calibration: Calibration | None) -> list[Push]:
    heard: dict[int, list[int]] = {user: [] for user in scored.users[best].tolist()}
    mine = np.zeros(int(scored.users[-1]) + 1, np.bool_)
    mine[scored.users[best]] = True
    at = np.flatnonzero(mine[scored.heard_users])
    # Loudest first, so that the first five that a user heard are the reason.
    at = at[np.argsort(-scored.speaks[scored.heard_songs[at]], kind="stable")]
    for user, song in zip(scored.heard_users[at].tolist(), scored.heard_songs[at].tolist(), strict=True):
        heard[user].append(song)
    told = scored.scores[best]
    if calibration:
        told = calibration.chance(told)
    by_evidence = scored.evidence[best] > scored.direct[best]
    return [
        Push(
            match=match,
            user_id=users.id_of(user),
            score=score,
            why=Why.EVIDENCE if evidence else Why.DIRECT,
            songs=tuple([match.neighbours[song] for song in heard[user][:_NAMED]]),
            calibrated=calibration is not None,
        )
        for user, score, evidence in zip(scored.users[best].tolist(), told.tolist(), by_evidence.tolist(), strict=True)
    ]
