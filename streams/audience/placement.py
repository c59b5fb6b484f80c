"""Refuses records of a user that lie in another partition than the user's: nothing there is the user's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from confluent_kafka import Message

from streams.contract.cloudevents import EventColumns, Headers, Timestamp, unpack_many
from streams.contract.dead_letters import headers_of
from streams.contract.errors import WrongPartition
from streams.contract.event_base import Event
from streams.kafka.partitioner import check_partitions

E = TypeVar("E", bound=Event)

_AT_ONCE: Final = 20_000


def misplaced(messages: Sequence[Message], partitions: int) -> list[tuple[int, WrongPartition]]:
    """The place of each of these records, all of one partition, that lies in the wrong one, ascending, and the error.

    Args:
        messages: with keys.
        partitions: how many the topic has.
    """
    if not messages:
        return []
    return check_partitions([message.key() or b"" for message in messages], messages[0].partition() or 0, partitions)


def read_users_events(cls: type[E], messages: Sequence[Message], now: float, partitions: int) -> EventColumns[E]:
    """The events in these records of one partition; those that lie in the wrong one are among the bad."""
    found = unpack_many(cls, _parts(messages), now)
    wrong = misplaced([messages[at] for at in found.at], partitions)
    if not wrong:
        return found
    refused = {found.at[place]: error for place, error in wrong}
    kept = [place for place, at in enumerate(found.at) if at not in refused]
    at = [found.at[place] for place in kept]
    return EventColumns(
        events=[found.events[place] for place in kept],
        times=[found.times[place] for place in kept],
        at=at,
        bad=sorted([*found.bad, *refused.items()], key=lambda bad: bad[0]),
        # Who sent good ones can be told of these alone.
        sources=unpack_many(cls, _parts([messages[place] for place in at]), now).sources,
    )


def strangers(users: Iterable[str], partition: int, partitions: int) -> list[str]:
    """Which of these users belong in another partition, in their order."""
    found: list[str] = []
    left = iter(users)
    while some := list(islice(left, _AT_ONCE)):
        found += [some[at] for at, _ in check_partitions([user.encode() for user in some], partition, partitions)]
    return found


def _parts(messages: Sequence[Message]) -> Iterator[tuple[bytes | None, bytes | None, Headers | None, Timestamp]]:
    stamps = map(Message.timestamp, messages)
    return zip(map(Message.key, messages), map(Message.value, messages), headers_of(messages), stamps, strict=True)
