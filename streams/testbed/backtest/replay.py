"""Replays one variant: whom it pushes, and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from encoder.data.history import History
from streams.testbed.backtest.script import Grown, Listened, ModelSwapped, Script, Step, Uploaded
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.types import Command, EndReason, Listens, PartitionInputs, Takedown

Cuts = Mapping[int, Sequence[int]]
"""The steps that are decided on in several batches, by their number: how many records each batch has."""


class Pushed(NamedTuple):
    """One push: decided at ``now``, not to reach the user before ``at``; ``live``: after the request."""

    now: float
    at: float
    song_id: str
    user_id: str
    score: float
    live: bool


@dataclass(slots=True)
class Decisions:
    """What an arm did.

    Attributes:
        digests: of the state, at the moments that were asked for: after what happened at them.
    """

    pushes: list[Pushed] = field(default_factory=list)
    digests: dict[float, str] = field(default_factory=dict)


def replay(
    script: Script,
    history: History,
    config: TargetingConfig,
    until: float = float("inf"),
    looks: Collection[float] = (),
    tell: Callable[[int, int], None] | None = None,
    cuts: Cuts = MappingProxyType({}),
) -> Decisions:
    """Play a script through a partition of all users.

    Args:
        until: what comes later is not played.
        looks: moments at which the state's digest is kept.
        cuts: of a worker that was given the same script; every other step is one batch.
    """
    songs, trace = Catalogue(), Decisions()
    partition = Partition(0, 1, songs, config)
    steps = [step for step in script.steps if step.now <= until]
    left = sorted(looks)
    for number, step in enumerate(steps):
        while left and left[0] < step.now:
            trace.digests[left.pop(0)] = partition.digest()
        if isinstance(step, ModelSwapped):
            _swap(songs, partition, step)
        elif isinstance(step, Grown) and step.vector is not None:
            songs.add(step.space, [step.song_id], step.vector[None])
        for inputs in _batches(step, history, cuts.get(number)):
            _stage(partition, trace, inputs)
        if tell and number % 100 == 0:
            tell(number, len(steps))
    if tell:
        tell(len(steps), len(steps))
    for look in left:
        trace.digests[look] = partition.digest()
    return trace


def commands(step: Step) -> list[Command]:
    """What a step asks of a partition; nothing but listens, if it brings those."""
    if isinstance(step, Uploaded):
        return [step.match]
    if isinstance(step, Grown):
        return [Takedown(step.song_id, 1, EndReason.PROMOTED)]
    return list(step.moved) if isinstance(step, ModelSwapped) else []


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


def _batches(step: Step, history: History, sizes: Sequence[int] | None) -> Iterator[PartitionInputs]:
    """A step as the batches of it that hold anything."""
    first, asked = 0, commands(step)
    for size in sizes or [step.end - step.first if isinstance(step, Listened) else len(asked)]:
        if isinstance(step, Listened):
            some = replace(step, first=step.first + first, end=step.first + first + size)
            yield PartitionInputs(step.now, listens=listens(history, some))
        elif size:
            yield PartitionInputs(step.now, commands=asked[first : first + size])
        first += size


def _swap(songs: Catalogue, partition: Partition, step: ModelSwapped) -> None:
    if songs.space is None:
        songs.set_vectors(step.space, step.ids, step.vectors)
    else:
        songs.prepare(step.space, step.ids, step.vectors)
        while not partition.prepare(1 << 30):
            pass
        if songs.coming is not None:
            songs.switch()
    songs.calibration = step.chances


def _stage(partition: Partition, trace: Decisions, inputs: PartitionInputs) -> None:
    staged = partition.stage(inputs)
    partition.apply(staged)
    trace.pushes.extend(
        Pushed(inputs.now, push.not_before, push.match.song_id, push.user_id, push.score, push.tier == "live")
        for push in staged.outputs.pushes
    )
