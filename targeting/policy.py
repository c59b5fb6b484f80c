"""Who must not be pushed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from targeting.slots import I64, grow
from targeting.types import Match, Preferences

POLICY_VERSION = 1
"""Stands in every push: which rules decided. Grows when a rule changes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is obeyed beside "never a song already heard" and "never the same recording twice".

    Attributes:
        enabled: False: preferences are known but not obeyed (to measure targeting alone).
        default: what a user without preferences is taken to prefer; its user_id means nothing.
    """

    enabled: bool = True
    default: Preferences = field(default_factory=lambda: Preferences(""))


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

    def apply(self, preferences: Mapping[int, Preferences | None]) -> None:
        """Takes over the full preferences of users, by row; None forgets them."""
        if not preferences:
            return
        for column in (self._known, self._opted_in, self._explicit, self._country):
            grow(column, max(preferences) + 1)
        for user, wish in preferences.items():
            for artist in self._muted.pop(user, frozenset()):
                self._muting[artist].discard(user)
            self._known[user] = wish is not None
            if wish is None:
                continue
            self._opted_in[user] = wish.opted_in
            self._explicit[user] = wish.allow_explicit
            self._country[user] = 0 if wish.country is None else self._code(wish.country)
            if wish.muted_artists:
                self._muted[user] = wish.muted_artists
                for artist in wish.muted_artists:
                    self._muting.setdefault(artist, set()).add(user)

    def allowed(self, match: Match, users: I64, staged: Mapping[int, Preferences | None]) -> NDArray[np.bool_]:
        """Which users may be pushed a song.

        Args:
            users: int64 (n,), rows, ascending.
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
        for user, wish in staged.items():
            found = int(np.searchsorted(users, user))
            if found < len(users) and users[found] == user:
                allowed[found] = allows(wish or self._policy.default, match)
        return allowed

    def _code(self, country: str) -> int:
        return self._code_of.setdefault(country, len(self._code_of) + 1)


def without(users: I64, excluded: Sequence[I64]) -> NDArray[np.bool_]:
    """Which of ``users`` (int64 (n,), ascending) are in none of the excluded arrays of rows."""
    keep = np.ones(len(users), np.bool_)
    for each in excluded:
        if len(each) and len(users):
            at = np.minimum(np.searchsorted(users, each), len(users) - 1)
            keep[at[users[at] == each]] = False
    return keep
