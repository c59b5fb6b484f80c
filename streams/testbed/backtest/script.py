"""The events of a backtest in order, and what was known at each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from encoder.data.history import History
from streams.testbed.backtest.past_models import PastModel, Trainer
from streams.testbed.backtest.plan import DAY, BacktestPlan
from targeting.calibration import Calibration
from targeting.types import F32, F64, Match, Reanchor

# Listens are decided on an hour at a time; at most so many at once.
TICK_S = 3600.0
_CHUNK = 10_000

Tell = Callable[[int, int], None]
"""Progress: called with (done, of)."""


@dataclass(frozen=True, slots=True)
class Listened:
    """Rows ``first`` to ``end`` of the history, the end exclusive, decided on at ``now``: none is younger."""

    now: float
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A song comes, ``row`` of the data set."""

    now: float
    row: int
    match: Match


@dataclass(frozen=True, slots=True)
class Grown:
    """A song has grown warm: its campaign ends, and it weights for its listeners.

    Attributes:
        vector: by its content; None where it has one already, from a training.
    """

    now: float
    song_id: str
    space: str
    vector: F32 | None


@dataclass(frozen=True, slots=True)
class ModelSwapped:
    """A model takes over: the songs it knows, what it tells of who answers, and the songs on their way seen by it."""

    now: float
    space: str
    ids: tuple[str, ...]
    vectors: F32
    chances: Calibration | None
    moved: tuple[Reanchor, ...]


Step = Listened | Uploaded | Grown | ModelSwapped


@dataclass(frozen=True, slots=True)
class Script:
    """Everything in its order, the same for all arms.

    Attributes:
        start: when the replay begins; before it, listens are history.
        mute: songs that cannot be uploaded: there is nothing to match them by.
    """

    start: float
    steps: tuple[Step, ...]
    mute: int

    @property
    def uploads(self) -> list[Uploaded]:
        return [step for step in self.steps if isinstance(step, Uploaded)]


def begin(history: History, plan: BacktestPlan) -> float:
    """When the replay begins: at the first listen that is not history."""
    return float(history.at[min(int(plan.history * len(history)), len(history) - 1)])


def write(history: History, plan: BacktestPlan, start: float, trainer: Trainer, tell: Tell) -> Script:
    """Write the script of a history; all that stands at a moment follows from what is older.

    Raises:
        Refused: too little is older than ``start`` to train on.
    """
    return _Writer(history, plan, start, trainer, tell).write()


class _Writer:
    def __init__(self, history: History, plan: BacktestPlan, start: float, trainer: Trainer, tell: Tell) -> None:
        self._history = history
        self._plan = plan
        self._start = start
        self._trainer = trainer
        self._tell = tell
        self._content = history.dataset.content
        self._first = history.first()
        self._grown_at = _kth_listener(history, plan.warm_listeners)
        self._steps: list[Step] = []
        self._model: PastModel | None = None
        # Uploads whose campaign may be alive, by song row; songs that are uploaded and not in the index yet.
        self._alive: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._mute = 0

    def write(self) -> Script:
        moments, done = self._moments(), 0
        for number, (now, kinds) in enumerate(moments):
            end = self._history.before(now)
            for first in range(done, end, _CHUNK):
                self._steps.append(Listened(now, first, min(first + _CHUNK, end)))
            done = end
            if "train" in kinds:
                self._tell(number, len(moments))
                self._train(now)
            if "refresh" in kinds:
                self._refresh(now)
            for row in kinds.get("upload", ()):
                self._upload(now, row)
        self._tell(len(moments), len(moments))
        return Script(self._start, tuple(self._steps), self._mute)

    def _moments(self) -> list[tuple[float, dict[str, list[int]]]]:
        """Every moment at which something happens, or a batch of listens ends, with what happens."""
        last = float(self._history.at[-1])
        found: dict[float, dict[str, list[int]]] = {}
        for kind, days in (("train", self._plan.retrain_days), ("refresh", self._plan.refresh_days)):
            for now in _every(self._start, days * DAY, last):
                found.setdefault(now, {})[kind] = []
        for row in np.flatnonzero((self._first >= self._start) & np.isfinite(self._first)).tolist():
            found.setdefault(float(self._first[row]), {}).setdefault("upload", []).append(row)
        # The end of each hour in which somebody listens, counted from the start.
        young = self._history.at[self._history.before(self._start) :]
        for hour in np.unique(np.floor((young - self._start) / TICK_S)).tolist():
            found.setdefault(self._start + (hour + 1) * TICK_S, {})
        # So that no listen is left over, whatever its fraction of a second.
        found.setdefault(last + TICK_S, {})
        return sorted(found.items())

    def _train(self, now: float) -> None:
        self._model = model = self._trainer.train(self._history.known(now))
        self._alive = {row: until for row, until in self._alive.items() if until > now}
        rows = sorted(self._alive)
        vectors: Sequence[F32] = list(model.encode(self._content.rows(np.array(rows, np.int64)))) if rows else []
        moved = tuple(
            Reanchor(song_id, 1, model.space, vector, *model.similar(song_id, vector, self._plan.neighbours))
            for song_id, vector in zip((self._content.song_ids[row] for row in rows), vectors, strict=True)
        )
        self._waiting = {row for row in self._waiting if not model.holds(self._content.song_ids[row])}
        self._steps.append(ModelSwapped(now, model.space, model.ids, model.vectors, model.chances, moved))

    def _refresh(self, now: float) -> None:
        grown = sorted(row for row in {*self._waiting, *self._alive} if self._grown_at[row] < now)
        for row in grown:
            song_id, model, vector = self._content.song_ids[row], self._current(), None
            if row in self._waiting:
                vector = model.encode(self._content.rows(np.array([row])))[0]
                model.add((song_id,), vector[None])
            self._steps.append(Grown(now, song_id, model.space, vector))
            self._waiting.discard(row)
            self._alive.pop(row, None)

    def _upload(self, now: float, row: int) -> None:
        song = self._content.song(row)
        if not song.dense and not song.bags:
            self._mute += 1
            return
        model, song_id, until = self._current(), self._content.song_ids[row], now + self._plan.campaign_days * DAY
        vector = model.encode(self._content.rows(np.array([row])))[0]
        names, cosines = model.similar(song_id, vector, self._plan.neighbours)
        match = Match(
            song_id=song_id, revision=1, recording=song_id, title="",
            artist_ids=tuple(song.bags.get("artists", {})), space=model.space, vector=vector, neighbours=names,
            similarities=cosines, budget=self._plan.budget, requested_at=now, expires_at=until,
        )  # fmt: skip
        self._steps.append(Uploaded(now, row, match))
        self._alive[row] = until
        self._waiting.add(row)

    def _current(self) -> PastModel:
        # A training stands at the start, before anything else.
        assert self._model is not None
        return self._model


def _every(start: float, step: float, last: float) -> Iterator[float]:
    number = 0
    while start + number * step <= last:
        yield start + number * step
        number += 1


def _kth_listener(history: History, count: int) -> F64:
    """When each song was heard by so many different users, float64 (songs,); infinite where it was not."""
    pair = history.song.astype(np.int64) * len(history.dataset.user_ids) + history.user
    _, first = np.unique(pair, return_index=True)
    first = np.sort(first)
    song = history.song[first]
    # The first listens of each song, in the order of time.
    order = np.argsort(song, kind="stable")
    starts = np.searchsorted(song[order], np.arange(len(history.dataset.song_ids) + 1))
    found = np.full(len(history.dataset.song_ids), np.inf)
    enough = np.flatnonzero(np.diff(starts) >= count)
    found[enough] = history.at[first][order[starts[enough] + count - 1]]
    return found
