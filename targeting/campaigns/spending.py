"""Spends what is left of budgets on the campaigns whose first answers promise most (Thompson sampling).

Thompson sampling (Chapelle and Li, "An empirical evaluation of Thompson sampling", NIPS 2011; for new releases, Deezer,
arXiv 2401.02827): the chance that a push of a campaign is answered with a listen is drawn again and again from what is
known of it. Each draw over the partition's mean is the rate at which that part of the campaign's life is planned to be
spent: with 1 a budget lasts until its campaign ends, with 2 until half of that, with .5 half of it stays unspent.

Nothing is stored for it: what is known is in the campaigns' counts, and draws rest on the salt, the partition, the song
and the part of its life. So the same counts at the same time give the same rates, after a restart and whatever rows and
slots there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from targeting.arrays.id_table import hash64, mixed
from targeting.campaigns import budget
from targeting.campaigns.campaign import CampaignRecord
from targeting.types import F64, Match, OutcomeCounts

# What the partition's mean weighs against a campaign's own answers, in pushes.
_PRIOR = 20.0
# One push in ten is answered: weighs as much as ten pushes in the partition's mean.
_FIRST = 1.0, 10.0
# A draw is a quarter of the mean at least, four times at most: none of them stops a campaign or spends it at once.
_MOST = 4.0
# Parts of a campaign's life, with a draw each: about one a day of a life of 28 days.
_PARTS = 28
_DAY_S = 86_400.0


class Spending(StrEnum):
    """What says how fast the rest of a budget is spent: the time that is left, or the answers so far, too."""

    PACE = "pace"
    BANDIT = "bandit"


@dataclass(frozen=True, slots=True)
class Plan:
    """How campaigns spend; float64 (A,) each.

    Attributes:
        rates: how many times as fast as the time alone would have it, 1/4 to 4.
        threshold_factors: what a threshold is multiplied with, 0 to 1: less than 1 where guaranteed pushes are late.
        priorities: campaigns of higher ones choose first among users who come near several.
    """

    rates: F64
    threshold_factors: F64
    priorities: F64


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What belongs to one request: ``normals`` float64 (_PARTS,), and the pushes guaranteed in this partition."""

    match: Match
    normals: F64
    guaranteed: int


def known(counts: OutcomeCounts) -> tuple[int, int]:
    """Pushes whose outcome was told, and the listens among them.

    A push without an outcome may still be answered.
    """
    told = counts.opened + counts.dismissed + counts.expired
    return told, min(counts.listened, told)


class Bandit:
    """The answers to one partition's campaigns, and what follows for their spending.

    Args:
        salt: another one draws others.
        guaranteed: share of a budget that is pushed within a day, whatever the answers.
    """

    def __init__(self, salt: str, number: int, partitions: int, guaranteed: float) -> None:
        self._salt = f"{salt}/{number}"
        self._number = number
        self._partitions = partitions
        self._guaranteed = guaranteed
        self._told, self._answered = 0, 0
        self._drawn: dict[str, _Drawn] = {}

    def remember(self, before: CampaignRecord | None, after: CampaignRecord | None) -> None:
        """A campaign's counts changed; None: it was not there, or is forgotten."""
        for each, sign in ((before, -1), (after, 1)):
            if each is not None:
                told, answered = known(each.counts)
                self._told += sign * told
                self._answered += sign * answered
        if after is None and before is not None:
            self._drawn.pop(before.match.song_id, None)

    @property
    def mean(self) -> float:
        """The share of the pushes of all remembered campaigns that were answered, in (0, 1)."""
        return (_FIRST[0] + self._answered) / (_FIRST[1] + self._told)

    def plan(
        self, song_ids: Sequence[str | None], campaign: Callable[[str], CampaignRecord | None], now: float
    ) -> Plan:
        """How campaigns spend now.

        Args:
            song_ids: A of them; None, or one without a campaign, spends as the time has it. So do all as long as no
                outcome was ever told: where no push system tells any, draws would only be noise.
            now: Unix seconds.
        """
        found = [None if song_id is None else campaign(song_id) for song_id in song_ids]
        plan = Plan(np.ones(len(found)), np.ones(len(found)), np.ones(len(found)))
        at = np.array([place for place, each in enumerate(found) if each is not None], np.int64)
        here = [each for each in found if each is not None]
        if not here:
            return plan
        asked = [self._of(each.match) for each in here]
        counts = np.array([known(each.counts) for each in here], np.float64)
        begun = np.array([each.match.requested_at for each in here])
        life = np.maximum(np.array([each.match.expires_at for each in here]) - begun, 1.0)
        age = np.clip(now - begun, 0, life)
        draws = drawn(counts, self.mean, np.stack([each.normals for each in asked]))
        if self._told:
            plan.rates[at] = so_far(draws, age / life)
        plan.priorities[at] = draws[np.arange(len(at)), np.minimum((age / life * _PARTS).astype(np.int64), _PARTS - 1)]
        owed = np.array([self.owed(each) > 0 for each in here])
        plan.rates[at[owed]] = np.maximum(plan.rates[at[owed]], 1)
        plan.threshold_factors[at[owed]] = np.maximum(1 - 2 * age / np.minimum(life, _DAY_S), 0)[owed]
        plan.priorities[at[owed]] = np.inf
        return plan

    def owed(self, each: CampaignRecord) -> int:
        """How many of a campaign's guaranteed pushes are this partition's still."""
        return max(0, self._of(each.match).guaranteed - each.counts.pushed)

    def _of(self, match: Match) -> _Drawn:
        found = self._drawn.get(match.song_id)
        if found is None or found.match is not match:
            song_hash = int(hash64([match.song_id])[0])
            pushes = budget.share(
                budget.at_once(match.budget, self._guaranteed), self._number, self._partitions, song_hash
            )
            found = self._drawn[match.song_id] = _Drawn(match, self._normals(match.song_id), pushes)
        return found

    def _normals(self, song_id: str) -> F64:
        """A draw of the normal distribution for each part of a campaign's life, float64 (_PARTS,)."""
        # Here, because whoever spends by time alone needs no scipy.special: a fifth of a second.
        from scipy.special import ndtri

        draws = mixed(np.arange(_PARTS, dtype=np.uint64), int(hash64([f"{self._salt}/{song_id}"])[0]))
        return np.asarray(ndtri(((draws >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53), np.float64)


def drawn(counts: F64, mean: float, normals: F64) -> F64:
    """Draws of campaigns' chances over the partition's mean, 1/4 to 4, float64 (A, parts).

    The odds of a Beta distribution's chance are near lognormal: a draw has the mean digamma(a) - digamma(b) and the
    variance trigamma(a) + trigamma(b) of their logarithm.

    Args:
        counts: float64 (A, 2), as :func:`known`.
        mean: in (0, 1), the prior's.
        normals: float64 (A, parts).
    """
    from scipy.special import expit, polygamma, psi

    yes = _PRIOR * mean + counts[:, 1]
    no = _PRIOR * (1 - mean) + counts[:, 0] - counts[:, 1]
    centre, spread = psi(yes) - psi(no), np.sqrt(polygamma(1, yes) + polygamma(1, no))
    chances = expit(centre[:, None] + spread[:, None] * normals)
    return np.asarray(np.clip(chances / mean, 1 / _MOST, _MOST), np.float64)


def so_far(draws: F64, age: F64) -> F64:
    """The mean of the draws, (A, parts), of the parts that have passed of each life, float64 (A,), 0 to 1.

    The part that has begun counts by how much of it has passed; so what is planned to be spent grows by a draw at a
    time, and a new draw changes nothing of what was planned before.
    """
    parts = draws.shape[1]
    passed = np.clip(age[:, None] * parts - np.arange(parts), 0, 1)
    # At the very beginning, the first.
    passed[:, 0] = np.maximum(passed[:, 0], 1e-9)
    return np.asarray((draws * passed).sum(axis=1) / passed.sum(axis=1), np.float64)
