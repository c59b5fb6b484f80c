"""How a partition decides: everything that can be chosen, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from targeting.campaigns import budget
from targeting.campaigns.spending import Spending
from targeting.live.cat_config import CatConfig
from targeting.ranking import scoring
from targeting.rules.policy import Policy
from targeting.users import histories, taste_vectors


@dataclass(frozen=True, slots=True)
class TargetingConfig:
    """How a partition decides.

    Ranges are not checked here.

    Attributes:
        policy: who must not be pushed, and who not now.
        relevance: how a request scores users.
        cat: how prototypes follow the stream.
        scored: campaigns at most that are scored against users who change; the others only count listens.
        at_once: share of the budget, 0 to 1, that is spent on the request itself; the rest is for who comes near later.
            With 1, there is none.
        spending: what says how fast that rest is spent.
        guaranteed: share of the budget, 0 to 1, that is pushed within a day whatever the answers, as far as there is
            anybody who may be; obeyed where ``spending`` is by answers.
        history: songs remembered of a user.
        half_life: days in which a song's weight in its listener's vector halves.
        half: user vectors in 16-bit floats.
        least_chance: 0 to 1; nobody is pushed whose chance of a listen is less; obeyed where scores are calibrated
            (:attr:`targeting.catalogue.catalogue.Catalogue.calibration`).
        answer_hours: a push without a listen counts as not answered after so many hours, 0 or more, or up to 6 later;
            by answers chances are corrected (:mod:`targeting.ranking.recalibration`). 0: they are not.
        ended_days: for so long an ended campaign is remembered, so that a late or repeated request revives nothing.
        erasure_key: of the keyed hash by which erased users are remembered, up to 64 bytes.
        former_erasure_keys: that may have been used before it.
    """

    policy: Policy = field(default_factory=Policy)
    relevance: scoring.ScoreWeights = field(default_factory=scoring.ScoreWeights)
    cat: CatConfig = field(default_factory=CatConfig)
    scored: int = 1000
    at_once: float = budget.AT_ONCE
    spending: Spending = Spending.BANDIT
    guaranteed: float = budget.GUARANTEED
    history: int = histories.HISTORY
    half_life: float = taste_vectors.HALF_LIFE
    half: bool = False
    least_chance: float = 0.0
    answer_hours: float = 24.0
    ended_days: float = 14.0
    erasure_key: bytes = field(default=b"coldstart", repr=False)
    former_erasure_keys: tuple[bytes, ...] = field(default=(), repr=False)
