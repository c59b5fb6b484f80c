"""The ways of pushing that are compared."""

from __future__ import annotations

from dataclasses import dataclass

from encoder.data.world import DAY
from streams.testbed.simulation.scenario import Scenario


@dataclass(frozen=True, slots=True)
class PushVariant:
    """A way of pushing, as settings of the audience role.

    Attributes:
        words: as a person reads it.
        ranking, at_once, objective, spending: of ``[audience]``; an empty ranking pushes nobody.
    """

    name: str
    words: str
    ranking: str = ""
    at_once: float = 1.0
    objective: str = "answers"
    spending: str = "bandit"

    @property
    def pushes(self) -> bool:
        return bool(self.ranking)


ORGANIC, EVIDENCE, DEFAULT, DEFAULT_ONCE = "organic", "evidence", "default", "default-once"
CAT, CAT_ONCE = "cat", "cat-once"
LIKING, PACE = "liking", "pace"

# What is kept for later is kept by the variants that stay alive; the baselines decide once, as they are known.
VARIANTS = {
    arm.name: arm
    for arm in (
        PushVariant(ORGANIC, "no pushes"),
        PushVariant("random", "anybody", "random"),
        PushVariant("i2i2u", "listeners of similar songs, unranked", "i2i2u"),
        PushVariant(EVIDENCE, "listeners of similar songs, ranked", "evidence"),
        PushVariant(CAT_ONCE, "clusters of these listeners, once", "cat"),
        PushVariant(CAT, "clusters of these listeners, alive", "cat", 0.7),
        PushVariant(DEFAULT_ONCE, "coldstart, once", "default"),
        PushVariant(LIKING, "coldstart for liking, alive", "default", 0.7, "liking"),
        PushVariant(PACE, "coldstart, alive, spent by time alone", "default", 0.7, spending="pace"),
        PushVariant(DEFAULT, "coldstart, alive", "default", 0.7),
    )
}

# What is compared with what, by what it tells: (arm, than which).
COMPARISONS = {
    "against the evidence alone": tuple((name, EVIDENCE) for name in VARIANTS if name not in (EVIDENCE, ORGANIC)),
    "against no pushes": tuple((name, ORGANIC) for name in VARIANTS if name != ORGANIC),
    "alive against deciding once": ((CAT, CAT_ONCE), (DEFAULT, DEFAULT_ONCE)),
    "for answers against for liking": ((DEFAULT, LIKING),),
    "spent by answers against by time alone": ((DEFAULT, PACE),),
}


def environment(arm: PushVariant, scenario: Scenario, day_s: float) -> dict[str, str]:
    """The settings of an arm's workers. What the wall clock decides is counted in compressed days."""
    day_hours = str(day_s / 3600)
    return {
        "COLDSTART_AUDIENCE__RANKING": arm.ranking,
        "COLDSTART_AUDIENCE__OBJECTIVE": arm.objective,
        "COLDSTART_AUDIENCE__AT_ONCE": str(arm.at_once),
        "COLDSTART_AUDIENCE__SPENDING": arm.spending,
        "COLDSTART_AUDIENCE__CAP_PUSHES": str(scenario.caps),
        "COLDSTART_AUDIENCE__CAP_HOURS": day_hours,
        "COLDSTART_AUDIENCE__ARTIST_CAP_PUSHES": "1",
        "COLDSTART_AUDIENCE__ARTIST_CAP_HOURS": day_hours,
        # A song that grows warm ends its campaign: the better an arm, the less it would spend. Here all spend the same.
        "COLDSTART_SONGS__WARM_LISTENERS": str(scenario.users + 1),
        "COLDSTART_SONGS__CAMPAIGN_DAYS": str(scenario.campaign_days * day_s / DAY),
    }
