"""Whom does one arm push, and when?"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from encoder.data.history import History
from streams.backtest.script import Grown, Listened, Script, Swapped, Uploaded
from targeting.config import Config
from targeting.partition import Partition
from targeting.songs import Songs
from targeting.types import Command, End, Inputs, Listens, Takedown


class Pushed(NamedTuple):
    """One push: decided at ``now``, not to reach the user before ``at``; ``live``: after the request."""

    now: float
    at: float
    song_id: str
    user_id: str
    score: float
    live: bool


@dataclass(slots=True)
class Trace:
    """What an arm did.

    Attributes:
        digests: of the state, at the moments that were asked for: after what happened at them.
    """

    pushes: list[Pushed] = field(default_factory=list)
    digests: dict[float, str] = field(default_factory=dict)


def replay(
    script: Script,
    history: History,
    config: Config,
    until: float = float("inf"),
    looks: Collection[float] = (),
    tell: Callable[[int, int], None] | None = None,
) -> Trace:
    """Play a script through a partition of all users.

    Args:
        until: what comes later is not played.
        looks: moments at which the state's digest is kept.
    """
    songs, trace = Songs(), Trace()
    partition = Partition(0, 1, songs, config)
    steps = [step for step in script.steps if step.now <= until]
    left = sorted(looks)
    for number, step in enumerate(steps):
        while left and left[0] < step.now:
            trace.digests[left.pop(0)] = partition.digest()
        if isinstance(step, Listened):
            _stage(partition, trace, Inputs(step.now, listens=listens(history, step)))
        elif isinstance(step, Uploaded):
            _stage(partition, trace, Inputs(step.now, commands=[step.match]))
        elif isinstance(step, Grown):
            if step.vector is not None:
                songs.add(step.space, [step.song_id], step.vector[None])
            _stage(partition, trace, Inputs(step.now, commands=[Takedown(step.song_id, 1, End.PROMOTED)]))
        else:
            _swap(songs, partition, step)
            commands: list[Command] = list(step.moved)
            _stage(partition, trace, Inputs(step.now, commands=commands))
        if tell and number % 100 == 0:
            tell(number, len(steps))
    if tell:
        tell(len(steps), len(steps))
    for look in left:
        trace.digests[look] = partition.digest()
    return trace


def listens(history: History, step: Listened) -> Listens:
    """The rows of the history that a step brings."""
    rows = slice(step.first, step.end)
    ids, names = history.dataset.user_ids, history.dataset.song_ids
    return Listens(
        user_ids=[ids[row] for row in history.user[rows].tolist()],
        song_ids=[names[row] for row in history.song[rows].tolist()],
        weights=history.plays[rows],
        times=history.at[rows],
    )


def _swap(songs: Songs, partition: Partition, step: Swapped) -> None:
    if songs.space is None:
        songs.set_vectors(step.space, step.ids, step.vectors)
    else:
        songs.prepare(step.space, step.ids, step.vectors)
        while not partition.prepare(1 << 30):
            pass
        if songs.coming is not None:
            songs.switch()
    songs.calibration = step.chances


def _stage(partition: Partition, trace: Trace, inputs: Inputs) -> None:
    staged = partition.stage(inputs)
    partition.apply(staged)
    trace.pushes.extend(
        Pushed(inputs.now, push.not_before, push.match.song_id, push.user_id, push.score, push.tier == "live")
        for push in staged.outputs.pushes
    )
