"""Which moments a record may name, and by whose clock they are judged.

By the broker's: what an event says of time is compared with when its record was appended. So a worker's clock decides
nothing about a record, and reading it again, on another machine, decides the same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct, inspect

from streams.contract.errors import FromTheFuture, InvalidField

MAX_AHEAD_SECONDS: Final = 300.0
"""Clocks of producers differ; an event further ahead than this would outlive every decay and cap."""

CAMPAIGN_DAYS: Final = 28
"""A campaign's life where neither its upload nor ``songs.campaign_days`` says another."""

LONGEST_CAMPAIGN_DAYS: Final = 365
"""Pushes of a recording are remembered a little longer than that, and caps look back no further."""

# Any zone's offset, and what is added to a campaign's end, stay within what a datetime can be.
EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
EARLIEST_S: Final = EARLIEST.timestamp()

LOG_APPEND_TIME: Final = 2
"""confluent-kafka's kind of a timestamp that the broker set; aiokafka counts from 0, so that there it is 1."""


@cache
def times_of(cls: type[Struct]) -> tuple[str, ...]:
    """The names of an event's fields that are times."""
    return tuple(each.name for each in msgspec.structs.fields(cls) if _is_time(inspect.type_info(each.type)))


def check_times(event: Struct) -> None:
    """Whether every time of an event can be computed with.

    Raises:
        InvalidField: one lies beyond what a calendar in UTC holds; the message names it.
    """
    for name in times_of(type(event)):
        time: datetime | None = getattr(event, name)
        if time is not None and not EARLIEST <= time < LATEST:
            raise InvalidField(f"{name}: {time.isoformat()} is not within the years 1 to 9998 in UTC")


def check_not_ahead(name: str, time: float, appended: float) -> None:
    """Whether a time, Unix seconds, had come when its record was appended, give or take a difference of clocks.

    Raises:
        FromTheFuture: it had not.
    """
    if time > appended + MAX_AHEAD_SECONDS:
        raise FromTheFuture(
            f"{name}: {time - appended:.0f} s ahead of the broker's clock, {MAX_AHEAD_SECONDS:.0f} allowed"
        )


def _is_time(type: Any) -> bool:
    if isinstance(type, inspect.Metadata):
        return _is_time(type.type)
    if isinstance(type, inspect.UnionType):
        return any(map(_is_time, type.types))
    return isinstance(type, inspect.DateTimeType)
