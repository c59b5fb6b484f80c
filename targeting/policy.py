"""Who must not be pushed, and who not now?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from targeting.quiet import open_at
from targeting.slots import I64, grow, hash64, mixed
from targeting.types import F64, Cap, Match, Preferences, Quiet

POLICY_VERSION = 2
"""Stands in every push: which rules decided. Grows when a rule changes."""

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What is obeyed beside "never a song already heard" and "never the same recording twice".

    Attributes:
        enabled: False: nothing here is obeyed (to measure targeting alone).
        default: what a user without preferences is taken to prefer; its user_id means nothing.
        cap: pushes a user, of users who do not say themselves; None: no cap.
        artist_cap: pushes a user of songs by one (primary) artist; None: no cap.
        holdout: share of (user, song) pairs that are left out by lot and only counted.
        salt: of that lot: another one holds out others.
        exploration: share of a song's pushes that go to candidates by lot instead of by score, to learn.
        fair: caps that are partly used keep room for songs to come (:func:`fairness`); False: first come, first served.
    """

    enabled: bool = True
    default: Preferences = field(default_factory=lambda: Preferences(""))
    cap: Cap | None = None
    artist_cap: Cap | None = None
    holdout: float = 0.0
    salt: str = "1"
    exploration: float = 0.0
    fair: bool = True


def fairness(used: F64, pushes: F64) -> F64:
    """The chance that a user whose cap is partly used is open to a song, float64 (n,): 1 where unused, 0 where full.

    Songs that come first would take all of a cap, and those that come late would find nobody. The curve, with x the
    used part, is ``(1 - e^(x-1)) / (1 - 1/e)``, by which Mehta, Saberi, Vazirani and Vazirani discount bids ("AdWords
    and generalized online matching", J. ACM 2007). As a discount of scores it only turns a song to worse users while it
    takes as many; as a chance it leaves room, which is what late songs need (targeting/README.md, "Under caps").
    """
    part = np.minimum(used / np.maximum(pushes, 1), 1)
    return np.asarray((1 - np.exp(part - 1)) / (1 - np.exp(-1)), np.float64)


def held_out(user_hashes: NDArray[np.uint64], song_id: str, policy: Policy) -> NDArray[np.bool_]:
    """Which users are never pushed this song, by lot; bool (n,).

    The lot is ``mixed(hash64(user_id), hash64(salt + "/" + song_id))`` as a share of 2**64 (:mod:`targeting.slots`).
    """
    if not policy.holdout:
        return np.zeros(len(user_hashes), np.bool_)
    lots = mixed(user_hashes, int(hash64([f"{policy.salt}/{song_id}"])[0]))
    return np.asarray(lots.astype(np.float64) < policy.holdout * 2.0**64)


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


class Consent:
    """The preferences of a partition's users, by column, asked for thousands of users at once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known = np.zeros(0, np.bool_)
        self._opted_in = np.zeros(0, np.bool_)
        self._explicit = np.zeros(0, np.bool_)
        self._country = np.zeros(0, np.int16)  # 0: unknown
        self._code_of: dict[str, int] = {}
        self._muted: dict[int, frozenset[str]] = {}  # user -> artists
        self._muting: dict[str, set[int]] = {}  # artist -> users
        self._cap = np.zeros((0, 2), np.float32)  # pushes, hours; hours 0: the policy's own
        self._quiet: dict[int, tuple[str, tuple[Quiet, ...]]] = {}  # user -> zone and spans
        self._has_quiet = np.zeros(0, np.bool_)

    def apply(self, preferences: Mapping[int, Preferences | None]) -> None:
        """Takes over the full preferences of users, by row; None forgets them."""
        if not preferences:
            return
        for column in (self._known, self._opted_in, self._explicit, self._country, self._cap, self._has_quiet):
            grow(column, max(preferences) + 1)
        for user, wish in preferences.items():
            self._quiet.pop(user, None)
            self._has_quiet[user] = False
            self._cap[user] = 0
            for artist in self._muted.pop(user, frozenset()):
                self._muting[artist].discard(user)
            self._known[user] = wish is not None
            if wish is None:
                continue
            self._opted_in[user] = wish.opted_in
            self._explicit[user] = wish.allow_explicit
            self._country[user] = 0 if wish.country is None else self._code(wish.country)
            if wish.cap:
                self._cap[user] = wish.cap.pushes, wish.cap.hours
            if wish.quiet:
                self._quiet[user], self._has_quiet[user] = (wish.timezone, wish.quiet), True
            if wish.muted_artists:
                self._muted[user] = wish.muted_artists
                for artist in wish.muted_artists:
                    self._muting.setdefault(artist, set()).add(user)

    def allowed(self, match: Match, users: I64, staged: Mapping[int, Preferences | None]) -> NDArray[np.bool_]:
        """Which users may be pushed a song.

        Args:
            users: int64 (n,), distinct rows.
            staged: preferences that are obeyed already but not applied yet.
        """
        if not self._policy.enabled:
            return np.ones(len(users), np.bool_)
        allowed = np.full(len(users), allows(self._policy.default, match))
        at = np.flatnonzero(users < len(self._known))
        at = at[self._known[users[at]]]
        rows = users[at]
        may = self._opted_in[rows]
        if match.explicit:
            may = may & self._explicit[rows]
        if match.territories:
            codes = [self._code_of[each] for each in match.territories if each in self._code_of]
            may = may & np.isin(self._country[rows], codes)
        for artist in match.artist_ids:
            muting = self._muting.get(artist)
            if muting:
                may = may & ~np.isin(rows, np.fromiter(muting, np.int64, len(muting)))
        allowed[at] = may
        for found, wish in _at(users, staged):
            allowed[found] = allows(wish or self._policy.default, match)
        return allowed

    def caps(self, users: I64, staged: Mapping[int, Preferences | None]) -> tuple[F64, F64]:
        """How many pushes in how many seconds each user takes, float64 (n,) each; infinitely many where uncapped."""
        pushes, seconds = np.full(len(users), np.inf), np.full(len(users), _HOUR)
        if not self._policy.enabled:
            return pushes, seconds
        default = self._policy.default.cap or self._policy.cap
        if default:
            pushes[:], seconds[:] = default.pushes, default.hours * _HOUR
        at = np.flatnonzero(users < len(self._cap))
        at = at[self._cap[users[at], 1] > 0]
        pushes[at], seconds[at] = self._cap[users[at], 0], self._cap[users[at], 1] * _HOUR
        for found, wish in _at(users, staged):
            cap = (wish.cap if wish else None) or default
            pushes[found], seconds[found] = (cap.pushes, cap.hours * _HOUR) if cap else (np.inf, _HOUR)
        return pushes, seconds

    def not_before(self, users: I64, time: float, staged: Mapping[int, Preferences | None]) -> F64:
        """From when on each user may be disturbed, float64 (n,), Unix seconds; infinity: never."""
        # A whole number of seconds would make whole numbers of all, and "never" is none.
        when = np.full(len(users), time, np.float64)
        if not self._policy.enabled:
            return when
        default = self._policy.default
        wishes: dict[int, tuple[str, tuple[Quiet, ...]]] = {}
        if default.quiet:
            wishes = {at: (default.timezone, default.quiet) for at in np.flatnonzero(~self._knows(users)).tolist()}
        at = np.flatnonzero(users < len(self._has_quiet))
        wishes |= {each: self._quiet[int(users[each])] for each in at[self._has_quiet[users[at]]].tolist()}
        for found, wish in _at(users, staged):
            wish = wish or default
            wishes[found] = wish.timezone, wish.quiet
        # Few zones and habits stand for many users.
        opens: dict[tuple[str, tuple[Quiet, ...]], float] = {}
        for each, habit in wishes.items():
            if habit not in opens:
                opens[habit] = open_at(time, *habit)
            when[each] = opens[habit]
        return when

    def _knows(self, users: I64) -> NDArray[np.bool_]:
        known = np.zeros(len(users), np.bool_)
        at = np.flatnonzero(users < len(self._known))
        known[at] = self._known[users[at]]
        return known

    def _code(self, country: str) -> int:
        return self._code_of.setdefault(country, len(self._code_of) + 1)


def _at(users: I64, staged: Mapping[int, Preferences | None]) -> list[tuple[int, Preferences | None]]:
    """Where the users with staged preferences stand among ``users``, distinct rows, and what they prefer."""
    if not staged or not len(users):
        return []
    order = np.argsort(users, kind="stable")
    rows = np.fromiter(staged, np.int64, len(staged))
    at = order[np.minimum(np.searchsorted(users[order], rows), len(users) - 1)]
    there = users[at] == rows
    return [(int(place), staged[int(row)]) for place, row in zip(at[there], rows[there], strict=True)]


def without(users: I64, excluded: Sequence[I64]) -> NDArray[np.bool_]:
    """Which of ``users`` (int64 (n,), ascending) are in none of the excluded arrays of rows."""
    keep = np.ones(len(users), np.bool_)
    for each in excluded:
        if len(each) and len(users):
            at = np.minimum(np.searchsorted(users, each), len(users) - 1)
            keep[at[users[at] == each]] = False
    return keep
