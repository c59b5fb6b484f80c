"""Input positions of a partition, each with the id of the topic that it counts in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING

from streams.contract.errors import RecreatedTopic, Refused
from streams.contract.topics import AUDIENCE_VECTORS, LISTENS, MATCH_REQUESTS, PREFERENCES, PUSH_OUTCOMES

TOPIC_OF: Final = {
    "listens": LISTENS,
    "commands": MATCH_REQUESTS,
    "preferences": PREFERENCES,
    "vectors": AUDIENCE_VECTORS,
    "outcomes": PUSH_OUTCOMES,
}
"""The topic of every input."""

OFFSETS_KEY: Final = b"o"
"""The changelog's own record: the input offsets that its state stands for, with the ids of their topics."""

ADOPTED_PREFIX: Final = b"o+"
"""Before an input's name: the key of the id of a topic that an operator wants read from its beginning."""


@dataclass(slots=True)
class InputOffsets:
    """The next offset to read of each input of one partition, as of the last commit."""

    listens: int = OFFSET_BEGINNING
    commands: int = OFFSET_BEGINNING
    preferences: int = OFFSET_BEGINNING
    vectors: int = OFFSET_BEGINNING
    outcomes: int = OFFSET_BEGINNING

    def known(self) -> dict[str, int]:
        """Input -> offset, where there is one."""
        return {each.name: offset for each in fields(self) if (offset := getattr(self, each.name)) >= 0}


@dataclass(slots=True)
class RecordedOffsets:
    """What a changelog says of the inputs.

    Attributes:
        positions: the input offsets of the state; none known if nothing was ever committed.
        topic_ids: input -> id of the topic that the offset counts in; empty in records of an earlier format.
        adopted: input -> id of a topic that an operator accepted.
    """

    positions: InputOffsets = field(default_factory=InputOffsets)
    topic_ids: dict[str, str] = field(default_factory=dict)
    adopted: dict[str, str] = field(default_factory=dict)

    def take(self, key: bytes, value: bytes | None) -> bool:
        """Take over a record of the changelog; False: it is none of these."""
        if key == OFFSETS_KEY:
            self.positions, self.topic_ids = read_offsets(value)
        elif key.startswith(ADOPTED_PREFIX):
            self.adopted[key.removeprefix(ADOPTED_PREFIX).decode()] = (value or b"").decode()
        else:
            return False
        return True


class _Offsets(msgspec.Struct):
    at: dict[str, int]
    topics: dict[str, str]


_either = msgspec.json.Decoder(_Offsets)


def offsets_value(positions: InputOffsets, topic_ids: Mapping[str, str]) -> bytes:
    """The value of the offsets record."""
    return msgspec.json.encode(_Offsets(positions.known(), dict(topic_ids)))


def read_offsets(value: bytes | None) -> tuple[InputOffsets, dict[str, str]]:
    """The inverse of :func:`offsets_value`; a former format had offsets alone."""
    try:
        record = _either.decode(value or b"{}")
    except msgspec.ValidationError:
        return InputOffsets(**msgspec.json.decode(value or b"{}", type=dict[str, int])), {}
    return InputOffsets(**record.at), record.topics


def reconcile(
    partition: int,
    committed: InputOffsets,
    recorded: RecordedOffsets,
    topic_ids: Mapping[str, str],
    ends: Mapping[str, int],
) -> InputOffsets:
    """From where to read on.

    State and group are written by the same transactions, so they are equal; or the group's offsets were lost, then the
    state's own count. A topic that was created anew starts at its beginning once an operator has accepted it.

    Args:
        committed: the group's offsets.
        topic_ids: input -> id of its topic as it is now.
        ends: input -> its end.

    Raises:
        RecreatedTopic: an offset belongs to a former topic of the same name.
        Refused: group and state come from different histories.
    """
    theirs, ours, written = committed.known(), recorded.positions.known(), recorded.topic_ids
    adopted = {name for name, id in topic_ids.items() if recorded.adopted.get(name) == id != written.get(name)}
    for name in sorted(set(topic_ids) - adopted):
        former = written.get(name)
        if former is not None and former != topic_ids[name]:
            raise RecreatedTopic(TOPIC_OF[name].name, partition, ours.get(name), former, topic_ids[name])
        # Where no id was kept: the broker drops a group's offsets with the topic, and a new log begins at 0.
        if former is None and name in ours and ((theirs and name not in theirs) or ours[name] > ends[name]):
            raise RecreatedTopic(TOPIC_OF[name].name, partition, ours[name], None, topic_ids[name])
    at = replace(recorded.positions, **dict.fromkeys(adopted, OFFSET_BEGINNING))
    theirs = {name: offset for name, offset in theirs.items() if name not in adopted}
    # An offset that the group lost is no contradiction: the topic is the one that the state's was counted in.
    ours = {name: offset for name, offset in at.known().items() if name in theirs or name not in written}
    if theirs and theirs != ours:
        raise Refused(
            f"partition {partition}: the group's offsets {theirs} are not those of the state {at.known()}: the group "
            "or topic audience-state was changed by hand. With all audience workers stopped, "
            "`coldstart offsets reset audience --to-state --apply` makes the group follow the state"
        )
    return at


@dataclass(frozen=True, slots=True)
class OffsetGap:
    """Records that a position expects and the log does not have.

    Attributes:
        lost: how many; at least, where the log ends too early.
        why: for a person.
    """

    input: str
    lost: int
    why: str


def within(
    at: InputOffsets, ranges: Mapping[str, tuple[int, int]], compacted: Collection[str]
) -> tuple[InputOffsets, list[OffsetGap]]:
    """The same positions where the logs have them, the nearest elsewhere; and what is missing.

    Args:
        ranges: input -> first offset that is kept, and the end.
        compacted: inputs that are read from their beginning whatever the position says.
    """
    gaps = []
    for name, offset in at.known().items():
        low, end = ranges[name]
        if offset < low and name not in compacted:
            gaps.append(OffsetGap(name, low - offset, f"retention passed: read up to {offset}, kept from {low}"))
            at = replace(at, **{name: low})
        elif offset > end:
            gaps.append(OffsetGap(name, offset - end, f"the log lost its end: read up to {offset}, ends at {end}"))
            at = replace(at, **{name: end})
    return at, gaps
