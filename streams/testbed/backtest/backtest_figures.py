"""Whether pushes were right, and whether one variant is better than another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from encoder.data.history import History, cells
from streams.testbed.backtest.audit import Leak
from streams.testbed.backtest.broker_replay import Streamed
from streams.testbed.backtest.plan import DAY, DEFAULT, VARIANTS, BacktestPlan
from streams.testbed.backtest.replay import Decisions
from streams.testbed.backtest.script import Script
from targeting.evaluation.paired import METHOD, Difference, difference
from targeting.types import F64

# name -> in words; of a song, and a mean over the songs that have it.
MEASURES = {
    "right": "right pushes a song",
    "rate": "share of pushes that are right",
    "found": "share of later listeners who were pushed before",
}


@dataclass(frozen=True, slots=True)
class PushTally:
    """One arm, by judged song, float64 (songs,) each.

    Attributes:
        pushes, right: how many; ``live``: those of the right ones that came after the request.
        later: who listened later, the same for all arms.
    """

    pushes: F64
    right: F64
    live: F64
    later: F64

    def measure(self, name: str) -> F64:
        """A measure of :data:`MEASURES`, by song; NaN where it has none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"right": self.right, "rate": self.right / self.pushes, "found": self.right / self.later}[name]


@dataclass(frozen=True, slots=True)
class BacktestOutcome:
    """A backtest: the arms, beside what could have been reached.

    Attributes:
        songs: ids of the judged songs, in the order of their upload.
        uploads: of all, judged or not; ``mute``: of songs that nothing is known of.
        later, known: of the judged songs: later listeners, and those of them who had listened to anything before.
        ceiling: right pushes a song if exactly the known later listeners were pushed, as far as the budget goes.
        leaks: None without an audit.
        undated: listens that have no date and were left out.
        streamed: None where the stream was left out.
    """

    plan: BacktestPlan
    dataset: str
    citation: str | None
    users: int
    listens: int
    first: float
    start: float
    last: float
    trainings: int
    songs: tuple[str, ...]
    uploads: int
    mute: int
    later: int
    known: int
    ceiling: float
    arms: dict[str, PushTally]
    leaks: list[Leak] | None
    cuts: int
    seconds: dict[str, float]
    undated: int = 0
    streamed: Streamed | None = None

    def totals(self, name: str) -> dict[str, float]:
        """An arm in sums: what it sent, what of that was right."""
        arm = self.arms[name]
        pushes, right, later = arm.pushes.sum(), arm.right.sum(), arm.later.sum()
        return {
            "pushes": float(pushes),
            "right": float(right),
            "right_live": float(arm.live.sum()),
            "right_per_song": float(arm.right.mean()),
            "rate": float(right / pushes) if pushes else float("nan"),
            "found": float(right / later) if later else float("nan"),
            "songs_with_one": float((arm.right > 0).mean()),
        }

    def compared(self) -> dict[str, dict[str, Difference]]:
        """The default against each baseline: {baseline: {measure: difference}}; one without a song is left out."""
        found: dict[str, dict[str, Difference]] = {}
        for name, arm in self.arms.items():
            if name == DEFAULT:
                continue
            found[name] = {}
            for measure in MEASURES:
                one, other = self.arms[DEFAULT].measure(measure), arm.measure(measure)
                if np.isfinite(one - other).any():
                    found[name][measure] = difference(one, other, self.songs)
        return found

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        plan = self.plan
        return {
            "dataset": self.dataset,
            "users": self.users,
            "listens": self.listens,
            "undated_listens": self.undated,
            "first": self.first,
            "start": self.start,
            "last": self.last,
            "plan": {
                name: getattr(plan, name)
                for name in (
                    "seed", "history", "budget", "window_days", "campaign_days", "retrain_days", "refresh_days",
                    "warm_listeners", "neighbours",
                )
            },
            "caps": {"user": plan.rules.policy.cap, "artist": plan.rules.policy.artist_cap},
            "trainings": self.trainings,
            "uploads": self.uploads,
            "songs_without_content": self.mute,
            "judged_songs": len(self.songs),
            "later_listeners": self.later,
            "known_later_listeners": self.known,
            "ceiling_right_per_song": self.ceiling,
            "arms": {name: {"words": VARIANTS[name].words, **self.totals(name)} for name in self.arms},
            "paired": {
                f"{DEFAULT}-{name}": {measure: asdict(each) for measure, each in of.items()}
                for name, of in self.compared().items()
            },
            "paired_method": METHOD,
            "audit": None
            if self.leaks is None
            else {"cuts": self.cuts, "leaks": [asdict(leak) for leak in self.leaks]},
            "stream": None if self.streamed is None else {"alike": self.streamed.alike, **asdict(self.streamed)},
            "seconds": self.seconds,
        }  # fmt: skip


class Judge:
    """Knows the whole log, and so who listened after a push."""

    def __init__(self, history: History, plan: BacktestPlan, script: Script) -> None:
        self._plan = plan
        self._users = {user_id: row for row, user_id in enumerate(history.dataset.user_ids)}
        wide = len(self._users)
        self._pairs, first = np.unique(cells(history.song, history.user, wide), return_index=True)
        self._first = history.at[first]
        ends = float(history.at[-1]) - (plan.campaign_days + plan.window_days) * DAY
        self._uploads = [step for step in script.uploads if step.now <= ends]
        self._place = {step.match.song_id: place for place, step in enumerate(self._uploads)}
        joined = np.full(wide, np.inf)
        np.minimum.at(joined, history.user, history.at)
        later, known = [], []
        for step in self._uploads:
            some = slice(*np.searchsorted(self._pairs, [step.row * wide, (step.row + 1) * wide]))
            user, at = self._pairs[some] - step.row * wide, self._first[some]
            mine = (at > step.now) & (at <= step.now + (plan.campaign_days + plan.window_days) * DAY)
            later.append(int(mine.sum()))
            known.append(int((mine & (joined[user] < step.now)).sum()))
        self.later, self.known = np.array(later, np.float64), np.array(known, np.float64)

    @property
    def songs(self) -> tuple[str, ...]:
        """The songs that are judged."""
        return tuple(self._place)

    @property
    def ceiling(self) -> float:
        """Right pushes a song if exactly the known later listeners were pushed."""
        return float(np.minimum(self.known, self._plan.budget).mean()) if len(self.known) else float("nan")

    def judge(self, trace: Decisions) -> PushTally:
        """Which pushes of an arm were right."""
        count = len(self._uploads)
        pushes, right, live = np.zeros(count), np.zeros(count), np.zeros(count)
        mine = [push for push in trace.pushes if push.song_id in self._place]
        if mine:
            place = np.array([self._place[push.song_id] for push in mine])
            row = np.array([self._uploads[at].row for at in place.tolist()])
            user = np.array([self._users[push.user_id] for push in mine])
            at = np.array([push.at for push in mine])
            pair = cells(row, user, len(self._users))
            found = np.minimum(np.searchsorted(self._pairs, pair), len(self._pairs) - 1)
            heard = np.where(self._pairs[found] == pair, self._first[found], np.inf)
            good = (heard > at) & (heard <= at + self._plan.window_days * DAY)
            late = np.array([push.live for push in mine])
            np.add.at(pushes, place, 1)
            np.add.at(right, place, good)
            np.add.at(live, place, good & late)
        return PushTally(pushes, right, live, self.later)
