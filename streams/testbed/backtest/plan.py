"""What is replayed, and under which rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from streams.runtime.settings import Settings
from targeting.config import TargetingConfig
from targeting.ranking.scoring import Ranking, ScoreWeights

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class BacktestVariant:
    """A way of pushing.

    Attributes:
        words: as a person reads it.
        at_once: share of the budget for the request itself; the rest is for who comes near later.
    """

    name: str
    words: str
    ranking: Ranking
    at_once: float = 1.0

    def config(self, rules: TargetingConfig) -> TargetingConfig:
        """The rules that are the same for all, with this arm's ranking."""
        return replace(rules, relevance=ScoreWeights(ranking=self.ranking), at_once=self.at_once)


DEFAULT = "default"
# What is kept for later is kept by the variant that stays alive; the baselines decide once, as they are known.
VARIANTS = {
    arm.name: arm
    for arm in (
        BacktestVariant("random", "anybody", Ranking.RANDOM),
        BacktestVariant("i2i2u", "listeners of similar songs, unranked", Ranking.I2I2U),
        BacktestVariant("evidence", "listeners of similar songs, ranked", Ranking.EVIDENCE),
        BacktestVariant("cat", "clusters of these listeners", Ranking.CAT),
        BacktestVariant("default-once", "coldstart, once", Ranking.DEFAULT),
        BacktestVariant(DEFAULT, "coldstart, alive", Ranking.DEFAULT, 0.7),
    )
}


@dataclass(frozen=True, slots=True)
class BacktestPlan:
    """What a backtest is asked to do.

    Attributes:
        data: a dated data set in the neutral layout; None generates one of ``users`` and ``songs``.
        history: share of the listens that are the past when the replay begins.
        window_days: a push is right if the listen comes within so many days.
        campaign_days: how long a song is pushed for.
        retrain_days, refresh_days: between trainings, and between looks at which songs have grown warm.
        warm_listeners: with so many a song is warm.
        neighbours: warm songs retrieved for an upload.
        cuts: uploads at which the audit deletes the future; 0: no audit.
        arms: by name, the default among them.
        rules: caps and the like, for all arms.
        folder: where a generated data set, the report and a worker's log go.
        stream: the settings of the worker and its broker; None leaves the stream out.
        embedded: a broker is started for it; otherwise the settings name one.
    """

    data: Path | None
    users: int
    songs: int
    seed: int
    history: float
    budget: int
    window_days: float
    campaign_days: float
    retrain_days: float
    refresh_days: float
    warm_listeners: int
    neighbours: int
    cuts: int
    arms: tuple[str, ...]
    rules: TargetingConfig
    folder: Path
    strict: bool = False
    stream: Settings | None = None
    embedded: bool = True
