"""Proves that no decision knew the future."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest

import numpy as np

from encoder.data.history import History
from streams.testbed.backtest.past_models import Trainer
from streams.testbed.backtest.plan import BacktestPlan
from streams.testbed.backtest.replay import Decisions, Pushed, replay
from streams.testbed.backtest.script import Grown, Listened, ModelSwapped, Script, Step, Uploaded, write
from targeting.config import TargetingConfig


@dataclass(frozen=True, slots=True)
class Leak:
    """A decision that is another one without the future.

    Attributes:
        cut: the moment after which everything was deleted, Unix seconds.
        where: what differs first.
    """

    cut: float
    where: str


def cuts(script: Script, count: int) -> list[float]:
    """The moments of so many uploads, spread evenly over all."""
    moments = sorted({step.now for step in script.uploads})
    if not moments or not count:
        return []
    picked = np.linspace(0, len(moments) - 1, count + 2)[1:-1] if len(moments) > count else np.arange(len(moments))
    return [moments[int(at)] for at in picked]


def audit(
    history: History,
    plan: BacktestPlan,
    script: Script,
    trace: Decisions,
    config: TargetingConfig,
    trainer: Trainer,
    moments: list[float],
    tell: Callable[[int, int], None],
) -> list[Leak]:
    """Repeat the replay without the future of each moment, and name what comes out otherwise.

    Args:
        trace: of the arm whose ``config`` this is, with its digests at the moments.
    """
    leaks = []
    for number, cut in enumerate(moments):
        tell(number, len(moments))
        short = history.until(cut)
        again = write(short, plan, script.start, trainer, lambda *_: None)
        played = replay(again, short, config, until=cut, looks=[cut])
        where = next(_differences(script, again, trace, played, cut), None)
        if where is not None:
            leaks.append(Leak(cut, where))
    tell(len(moments), len(moments))
    return leaks


def _differences(one: Script, other: Script, trace: Decisions, played: Decisions, cut: float) -> Iterator[str]:
    steps = ([_named(step) for step in script.steps if step.now <= cut] for script in (one, other))
    for mine, theirs in zip_longest(*steps):
        if mine != theirs:
            yield f"the script says {mine or theirs}, and not so without the future"
    pushes = ([push for push in of.pushes if push.now <= cut] for of in (trace, played))
    for push, without in zip_longest(*pushes):
        if push != without:
            yield f"{_said(push)} with the future, {_said(without)} without it"
    if trace.digests[cut] != played.digests[cut]:
        yield "the partition's state knows more than what was older"


def _said(push: Pushed | None) -> str:
    if push is None:
        return "no push"
    return f"song {push.song_id} to user {push.user_id} with score {push.score!r}"


def _named(step: Step) -> str:
    """A step in words that differ where anything in it does."""
    if isinstance(step, Listened):
        return f"listens {step.first} to {step.end} at {step.now}"
    if isinstance(step, Uploaded):
        match = step.match
        seen = _hash(match.vector, match.similarities)
        return f"upload of {match.song_id} at {step.now}, space {match.space}, {seen}, {match.neighbours}"
    if isinstance(step, Grown):
        seen = "known" if step.vector is None else _hash(step.vector)
        return f"song {step.song_id} warm at {step.now}, space {step.space}, {seen}"
    assert isinstance(step, ModelSwapped)
    moved = [(each.song_id, each.neighbours, _hash(each.vector, each.similarities)) for each in step.moved]
    return f"model {step.space} at {step.now}, {_hash(step.vectors)}, {step.chances}, {moved}"


def _hash(*arrays: np.ndarray) -> str:
    return sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in arrays)).hexdigest()[:16]
