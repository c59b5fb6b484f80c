"""What a world came to, and whether one variant is better than another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from encoder.data.world import DAY, catalogue
from streams.testbed.simulation.life import Life, Mask
from targeting.arrays.id_table import I64
from targeting.evaluation.paired import Difference
from targeting.types import F64

# name -> (in words, whether more is better; None: neither).
MEASURES: dict[str, tuple[str, bool | None]] = {
    "reach": ("listeners of a new song, within the days watched", True),
    "reached_users": ("share of users who listen to a new song", True),
    "listens": ("listens to new songs", True),
    "completion_rate": ("share of these to the end", True),
    "collects": ("new songs collected", True),
    "collect_rate": ("share of their listeners who collect", True),
    "warm_share": ("share of new songs that grow warm, within the days watched", True),
    "time_to_warm": ("days until warm, at most the days watched", False),
    "pushes_per_user": ("pushes a user", None),
    "opened_rate": ("share of pushes opened", True),
    "push_listen_rate": ("share of pushes that lead to a listen", True),
    "push_collect_rate": ("share of pushes that lead to a collect", True),
    "gini_songs": ("Gini of how often new songs are come across", None),
    "gini_artists": ("Gini of how often artists are come across", None),
    "opt_outs": ("share of users who opt out", False),
}


@dataclass(slots=True)
class Pushes:
    """What became of the pushes of a run, in counts; ``live``: of those decided after the request."""

    sent: int = 0
    live: int = 0
    failed: int = 0
    opened: int = 0
    listened: int = 0
    live_listened: int = 0
    collected: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """One arm in one world.

    Attributes:
        values: by name of :data:`MEASURES`; NaN where there was nothing to measure.
        reach, warm: by days since upload, 0 to the days watched: mean share of all users who listened to a new song,
            and share of new songs that are warm.
        behind_s: how late the driver came at most: simulated days were that much longer then.
        reported: what the system itself says at the end: its campaigns' counts, added up.
    """

    values: dict[str, float]
    reach: list[float]
    warm: list[float]
    pushes: Pushes = field(default_factory=Pushes)
    behind_s: float = 0.0
    reported: dict[str, int] = field(default_factory=dict)


def measure(life: Life, pushes: Pushes, warm_at: int, behind_s: float, reported: dict[str, int]) -> Figures:
    """The figures of a run; a song is warm with ``warm_at`` listeners."""
    scenario, new = life.scenario, life.scenario.new_songs
    times = first_listens(life)
    warm = np.array([each[warm_at - 1] if len(each) >= warm_at else np.inf for each in times])
    days = np.arange(scenario.watch + 1)
    within = np.array([[np.searchsorted(each, day, side="right") for each in times] for day in days])
    plays, listeners = int(life.plays[new].sum()), len(np.concatenate(times))
    collects = int(life.collected[new].sum())
    artists = np.bincount(catalogue(scenario.world).artist, life.shown)
    delivered = pushes.sent - pushes.failed
    values = {
        "reach": float(within[-1].mean()),
        "reached_users": float(life.heard[:, new].any(axis=1).mean()),
        "listens": float(plays),
        "completion_rate": _share(int(life.completed[new].sum()), plays),
        "collects": float(collects),
        "collect_rate": _share(collects, listeners),
        "warm_share": float((warm <= scenario.watch).mean()),
        "time_to_warm": float(np.minimum(warm, scenario.watch).mean()),
        "pushes_per_user": delivered / scenario.users,
        "opened_rate": _share(pushes.opened, delivered),
        "push_listen_rate": _share(pushes.listened, delivered),
        "push_collect_rate": _share(pushes.collected, delivered),
        "gini_songs": gini(life.shown[new].astype(np.float64)),
        "gini_artists": gini(artists[artists > 0].astype(np.float64)),
        "opt_outs": float(life.opted_out.mean()),
    }
    return Figures(
        values=values,
        reach=[float(row.mean()) / scenario.users for row in within],
        warm=[float((warm <= day).mean()) for day in days],
        pushes=pushes,
        behind_s=behind_s,
        reported=reported,
    )


def first_listens(life: Life) -> list[F64]:
    """For each new song, in the order of uploads: when its listeners first listened, days since upload, ascending."""
    songs, at = life.first
    order = np.lexsort((at, songs))
    songs, at = songs[order], at[order]
    starts: I64 = np.searchsorted(songs, life.scenario.new_songs, side="left")
    ends: I64 = np.searchsorted(songs, life.scenario.new_songs, side="right")
    columns = zip(starts.tolist(), ends.tolist(), life.scenario.uploaded.tolist(), strict=True)
    return [(at[start:end] - uploaded) / DAY for start, end, uploaded in columns]


def gini(values: F64) -> float:
    """0: all alike; towards 1: one has everything. NaN for nothing at all."""
    n, total = len(values), float(values.sum())
    if not n or total <= 0:
        return float("nan")
    ranks = np.arange(1, n + 1)
    return float((2 * ranks - n - 1) @ np.sort(values) / (n * total))


@dataclass(frozen=True, slots=True)
class Compared:
    """One arm minus another in one measure: over seeds, and as a share of the other's mean (None: that is 0)."""

    one: str
    other: str
    measure: str
    seeds: int
    difference: Difference
    relative: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(one: str, other: str, measure: str, runs: Mapping[str, Mapping[int, Figures]]) -> Compared | None:
    """The mean over their common seeds of the difference within a seed, with Student's 95 % interval; None without one.

    ``runs``: by arm and seed.

    A seed is a world, the same for all arms; songs and users within one are not independent, so that worlds are what is
    counted. With one seed the interval is infinite.
    """
    both = sorted(runs[one].keys() & runs[other].keys())
    first, second = (np.array([runs[arm][seed].values[measure] for seed in both]) for arm in (one, other))
    known: Mask = np.isfinite(first) & np.isfinite(second)
    n = int(known.sum())
    if not n:
        return None
    differences = (first - second)[known]
    mean, base = float(differences.mean()), float(second[known].mean())
    half = float("inf")
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5)
    return Compared(one, other, measure, n, Difference(mean, mean - half, mean + half), mean / base if base else None)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
