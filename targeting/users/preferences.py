"""What each user of a partition allows.

Equal preferences are held once, whoever has them: a user costs the number of them, and a rule is asked of thousands of
users at once. Most people who say what they allow are nobody's candidate yet: until a listen or a vector comes,
their preferences wait under a keyed hash of the id, and no row is kept for them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, grow
from targeting.rules.policy import Policy, allows
from targeting.rules.quiet_hours import open_at
from targeting.types import F64, Match, Preferences, QuietSpan

_NOBODY: frozenset[str] = frozenset()

# The number of users without preferences.
_NONE = 0


class PreferenceTable:
    """The preferences of a partition's users, asked for thousands of users at once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # Equal preferences have one number; the columns are by number.
        self._number_of: dict[Preferences, int] = {}
        self._wishes: list[Preferences | None] = [None]
        self._holders: list[int] = [0]
        self._free: list[int] = []
        self._room = 1
        self._opted_in = np.zeros(1, np.bool_)
        self._explicit = np.zeros(1, np.bool_)
        self._country = np.zeros(1, np.int32)  # 0: unknown
        self._cap = np.zeros((1, 2), np.float64)  # pushes, seconds; seconds 0: the policy's own
        self._has_quiet = np.zeros(1, np.bool_)
        self._code_of: dict[str, int] = {}  # ISO countries, 676 at most
        self._muting: dict[str, set[int]] = {}  # artist -> numbers
        self._of_row = np.zeros(0, np.int32)
        # Of users without a row. The key of the hash is this process's own: the table tells nobody's name.
        self._waiting: dict[bytes, int] = {}
        self._key = os.urandom(16)

    def __len__(self) -> int:
        """How many different preferences are held."""
        return len(self._number_of)

    @property
    def waiting(self) -> int:
        """How many users without a row have preferences."""
        return len(self._waiting)

    def key(self, user_id: str) -> bytes:
        """By what the preferences of a user without a row wait, 16 bytes."""
        return blake2b(user_id.encode(), digest_size=16, key=self._key).digest()

    def apply(self, preferences: Mapping[int, Preferences | None]) -> None:
        """Takes over the full preferences of users, by row; None forgets them."""
        if not preferences:
            return
        grow(self._of_row, max(preferences) + 1)
        for row, wish in preferences.items():
            # First the new one: where nothing changes, it must not be forgotten in between.
            number = self._hold(wish)
            self._drop(int(self._of_row[row]))
            self._of_row[row] = number

    def wait(self, preferences: Mapping[bytes, Preferences | None]) -> None:
        """The same for users without a row, by :meth:`key`."""
        for key, wish in preferences.items():
            number = self._hold(wish)
            self._drop(self._waiting.pop(key, _NONE))
            if number:
                self._waiting[key] = number

    def waited(self, user_ids: Iterable[str]) -> list[Preferences | None]:
        """What is waiting for each user; None: nothing."""
        if not self._waiting:
            return [None for _ in user_ids]
        numbers = [self._waiting.get(self.key(each), _NONE) for each in user_ids]
        return [self._wishes[number] for number in numbers]

    def leave(self, rows: I64, user_ids: Sequence[str]) -> None:
        """The rows of these users are given back: what they prefer waits from now on."""
        for row, user in zip(rows.tolist(), user_ids, strict=True):
            if row < len(self._of_row) and self._of_row[row]:
                key = self.key(user)
                self._drop(self._waiting.get(key, _NONE))
                self._waiting[key] = int(self._of_row[row])
                self._of_row[row] = _NONE

    def allowed(self, match: Match, users: I64, staged: Mapping[int, Preferences | None]) -> NDArray[np.bool_]:
        """Which users may be pushed a song.

        Args:
            users: int64 (n,), distinct rows.
            staged: preferences that are obeyed already but not applied yet.
        """
        if not self._policy.enabled:
            return np.ones(len(users), np.bool_)
        allowed = np.full(len(users), allows(self._policy.default, match))
        numbers = self._numbers(users)
        at = np.flatnonzero(numbers)
        numbers = numbers[at]
        may = self._opted_in[numbers]
        if match.explicit:
            may = may & self._explicit[numbers]
        if match.territories:
            codes = [self._code_of[each] for each in match.territories if each in self._code_of]
            may = may & np.isin(self._country[numbers], codes)
        for artist in match.artist_ids:
            muting = self._muting.get(artist)
            if muting:
                may = may & ~np.isin(numbers, np.fromiter(muting, np.int64, len(muting)))
        allowed[at] = may
        for found, wish in _at(users, staged):
            allowed[found] = allows(wish or self._policy.default, match)
        return allowed

    def opted_out(self, users: I64, staged: Mapping[int, Preferences | None]) -> NDArray[np.bool_]:
        """Which users (distinct rows) take no pushes at all; arguments as in :meth:`allowed`."""
        out = np.full(len(users), not self._policy.default.opted_in)
        numbers = self._numbers(users)
        at = np.flatnonzero(numbers)
        out[at] = ~self._opted_in[numbers[at]]
        for found, wish in _at(users, staged):
            out[found] = not (wish or self._policy.default).opted_in
        return out

    def caps(self, users: I64, staged: Mapping[int, Preferences | None]) -> tuple[F64, F64]:
        """How many pushes in how many seconds each user takes, float64 (n,) each; infinitely many where uncapped."""
        pushes, seconds = np.full(len(users), np.inf), np.full(len(users), 1.0)
        if not self._policy.enabled:
            return pushes, seconds
        default = self._policy.default.cap or self._policy.cap
        if default:
            pushes[:], seconds[:] = default.pushes, default.seconds
        numbers = self._numbers(users)
        own = np.flatnonzero(self._cap[numbers, 1])
        pushes[own], seconds[own] = self._cap[numbers[own]].T
        for found, wish in _at(users, staged):
            cap = (wish.cap if wish else None) or default
            pushes[found], seconds[found] = (cap.pushes, cap.seconds) if cap else (np.inf, 1.0)
        return pushes, seconds

    def not_before(self, users: I64, time: float, staged: Mapping[int, Preferences | None]) -> F64:
        """From when on each user may be disturbed, float64 (n,), Unix seconds; infinity: never."""
        # A whole number of seconds would make whole numbers of all, and "never" is none.
        when = np.full(len(users), time, np.float64)
        if not self._policy.enabled:
            return when
        # Few zones and habits stand for many users.
        opens: dict[tuple[str, tuple[QuietSpan, ...]], float] = {}

        def opening(timezone: str, quiet: tuple[QuietSpan, ...]) -> float:
            habit = timezone, quiet
            if habit not in opens:
                opens[habit] = open_at(time, *habit) if quiet else time
            return opens[habit]

        numbers = self._numbers(users)
        if self._policy.default.quiet:
            when[numbers == _NONE] = opening(self._policy.default.timezone, self._policy.default.quiet)
        quiet = np.flatnonzero(self._has_quiet[numbers])
        if len(quiet):
            each, which = np.unique(numbers[quiet], return_inverse=True)
            wishes = [wish for number in each.tolist() if (wish := self._wishes[number]) is not None]
            openings = [opening(wish.timezone, wish.quiet) for wish in wishes]
            when[quiet] = np.asarray(openings, np.float64)[which]
        for found, wish in _at(users, staged):
            wish = wish or self._policy.default
            when[found] = opening(wish.timezone, wish.quiet)
        return when

    def _numbers(self, users: I64) -> NDArray[np.int32]:
        """The number of each row's preferences, int32 (n,)."""
        known = users < len(self._of_row)
        if known.all():
            return self._of_row[users]
        numbers = np.zeros(len(users), np.int32)
        numbers[known] = self._of_row[users[known]]
        return numbers

    def _hold(self, wish: Preferences | None) -> int:
        """The number of these preferences, which one more user has."""
        if wish is None:
            return _NONE
        number = self._number_of.get(wish)
        if number is None:
            number = self._add(wish)
        self._holders[number] += 1
        return number

    def _add(self, wish: Preferences) -> int:
        number = self._free.pop() if self._free else len(self._wishes)
        if number == len(self._wishes):
            self._wishes.append(None)
            self._holders.append(0)
            if number == self._room:
                columns = self._opted_in, self._explicit, self._country, self._cap, self._has_quiet
                for column in columns:
                    grow(column, number + 1)
                self._room = min(map(len, columns))
        # Strings that come again and again are held once.
        wish = structs.replace(
            wish,
            country=wish.country and sys.intern(wish.country),
            muted_artists=frozenset(map(sys.intern, wish.muted_artists)) if wish.muted_artists else _NOBODY,
            timezone=sys.intern(wish.timezone),
        )
        self._number_of[wish] = number
        self._wishes[number] = wish
        self._opted_in[number] = wish.opted_in
        self._explicit[number] = wish.allow_explicit
        self._country[number] = self._code(wish.country) if wish.country else 0
        self._cap[number] = (wish.cap.pushes, wish.cap.seconds) if wish.cap else (0, 0)
        self._has_quiet[number] = bool(wish.quiet)
        for artist in wish.muted_artists:
            muting = self._muting.get(artist)
            if muting is None:
                self._muting[artist] = {number}
            else:
                muting.add(number)
        return number

    def _drop(self, number: int) -> None:
        """One user less has these preferences; those that nobody has are forgotten."""
        wish = self._wishes[number]
        if wish is None:
            return
        self._holders[number] -= 1
        if self._holders[number]:
            return
        del self._number_of[wish]
        for artist in wish.muted_artists:
            muting = self._muting[artist]
            muting.discard(number)
            if not muting:
                del self._muting[artist]
        self._wishes[number] = None
        self._free.append(number)

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
