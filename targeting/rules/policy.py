"""Who must not be pushed, and who not now."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, hash64, mixed
from targeting.types import F64, FrequencyCap, Match, Preferences, Suppression

POLICY_VERSION = 2
"""Stands in every push: which rules decided. Grows when a rule changes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is obeyed beside "never a song already heard" and "never the same recording twice".

    Attributes:
        enabled: False: nothing here is obeyed (to measure targeting alone).
        default: what a user without preferences is taken to prefer.
        cap: pushes a user, of users who do not say themselves; None: no cap.
        artist_cap: pushes a user of songs by one (primary) artist; None: no cap.
        holdout: share of (user, song) pairs that are left out at random and only counted.
        salt: of that random draw: another one holds out others.
        exploration: share of a song's pushes that go to candidates at random instead of by score, to learn.
        fair: caps that are partly used keep room for songs to come (:func:`fairness`); False: first come, first served.
    """

    enabled: bool = True
    default: Preferences = field(default_factory=Preferences)
    cap: FrequencyCap | None = None
    artist_cap: FrequencyCap | None = None
    holdout: float = 0.0
    salt: str = "1"
    exploration: float = 0.0
    fair: bool = True


def fairness(used: F64, pushes: F64) -> F64:
    """The chance that a user whose cap is partly used is open to a song, float64 (n,): 1 where unused, 0 where full.

    Songs that come first would take all of a cap, and those that come late would find nobody. The curve, with x the
    used part, is ``(1 - e^(x-1)) / (1 - 1/e)``, by which Mehta, Saberi, Vazirani and Vazirani discount bids ("AdWords
    and generalized online matching", J. ACM 2007). As a discount of scores it only turns a song to worse users while it
    takes as many; as a chance it leaves room, which is what late songs need (docs/adr/0006-caps-by-random-draw.md).
    """
    part = np.minimum(used / np.maximum(pushes, 1), 1)
    return np.asarray((1 - np.exp(part - 1)) / (1 - np.exp(-1)), np.float64)


def held_out(user_hashes: NDArray[np.uint64], song_id: str, policy: Policy) -> NDArray[np.bool_]:
    """Which users are never pushed this song, at random; bool (n,).

    The draw is ``mixed(hash64(user_id), hash64(salt + "/" + song_id))`` as a share of 2**64
    (:mod:`targeting.arrays.id_table`).
    """
    if not policy.holdout:
        return np.zeros(len(user_hashes), np.bool_)
    draws = mixed(user_hashes, int(hash64([f"{policy.salt}/{song_id}"])[0]))
    return np.asarray(draws.astype(np.float64) < policy.holdout * 2.0**64)


def allows(preferences: Preferences, match: Match) -> bool:
    """Whether a user with these preferences may be pushed the song.

    Where the song's rights name territories, a user of unknown country is outside of them.
    """
    return (
        preferences.opted_in
        and (preferences.allow_explicit or not match.explicit)
        and preferences.muted_artists.isdisjoint(match.artist_ids)
        and (not match.territories or preferences.country in match.territories)
    )


def hold_back(held: NDArray[np.uint8], users: I64, excluded: I64, why: Suppression) -> None:
    """Note in ``held`` (uint8 (n,), 0: nothing holds back) which users are excluded, unless something held them before.

    Args:
        users: int64 (n,), ascending rows; ``excluded``: rows in any order.
    """
    if len(excluded) and len(users):
        at = np.minimum(np.searchsorted(users, excluded), len(users) - 1)
        at = at[users[at] == excluded]
        held[at[held[at] == 0]] = why
