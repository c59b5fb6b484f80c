"""How much room a user has for another push.

A cap is kept by any span of its length, past and future: what was deferred to tomorrow morning counts, and so that no
span holds more than the cap, pushes less than its length before *and* after a moment are counted together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64
from targeting.rules.policy import Policy
from targeting.types import F64, Preferences
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import Added, PushLog, near


class FrequencyCaps:
    """The caps of users, and what is used of them, by what is committed and by what the batch decided already.

    Args:
        staged: preferences that are obeyed already but not applied yet.
        added: the batch's decisions so far; read at each question.
        forgotten: rows that are erased in this batch: nothing of theirs counts.
    """

    def __init__(
        self,
        policy: Policy,
        preferences: PreferenceTable,
        push_log: PushLog,
        staged: Mapping[int, Preferences | None],
        added: Added,
        forgotten: I64,
    ) -> None:
        self._policy = policy
        self._preferences = preferences
        self._push_log = push_log
        self._staged = staged
        self._added = added
        self._forgotten = forgotten

    def used(self, users: I64, at: F64) -> tuple[F64, F64]:
        """How many pushes of each user count around a moment, and how many the user takes; float64 (n,) each."""
        pushes, seconds = self._preferences.caps(users, self._staged)
        counts = np.zeros(len(users), np.float64)
        capped = np.flatnonzero(np.isfinite(pushes))
        if len(capped):
            found = self._push_log.within(users[capped], at[capped], seconds[capped])
            if len(self._forgotten):
                found[np.isin(users[capped], self._forgotten)] = 0
            counts[capped] = found + self._decided(users[capped], at[capped], seconds[capped])
        return counts, pushes

    def fits(self, users: I64, at: F64, artist: int) -> NDArray[np.bool_]:
        """Whether another push, of a song by this artist, fits each user at a moment; bool (n,)."""
        used, pushes = self.used(users, at)
        fits = (used < pushes) & ~self._push_log.full(users)
        cap = self._policy.artist_cap
        if self._policy.enabled and cap:
            counts = np.zeros(len(users), np.int64)
            for told, when in (self._push_log.artist(artist), self._decided_of(artist)):
                if len(self._forgotten):
                    told, when = told[~np.isin(told, self._forgotten)], when[~np.isin(told, self._forgotten)]
                counts += _count_near(users, at, np.full(len(users), cap.seconds), told, when.astype(np.float64))
            fits &= counts < cap.pushes
        return fits

    def _decided(self, users: I64, at: F64, seconds: F64) -> I64:
        told, _, when = self._added.told()
        return _count_near(users, at, seconds, told, when.astype(np.float64))

    def _decided_of(self, artist: int) -> tuple[I64, NDArray[np.uint32]]:
        told, artists, when = self._added.told()
        of = artists == np.uint64(artist)
        return told[of], when[of]


def _count_near(users: I64, at: F64, seconds: F64, told: I64, when: F64) -> I64:
    """How many of the pushes (rows ``told``, times ``when``) lie near each user's moment; users are distinct."""
    if not len(told) or not len(users):
        return np.zeros(len(users), np.int64)
    order = np.argsort(users, kind="stable")
    place = order[np.minimum(np.searchsorted(users[order], told), len(users) - 1)]
    close = (users[place] == told) & near(when, at[place], seconds[place])
    return np.bincount(place[close], minlength=len(users))
