"""Which moments a record may name, and by whose clock they are judged.

By the broker's: what an event says of time is compared with when its record was appended. So a worker's clock decides
nothing about a record, and reading it again, on another machine, decides the same.
"""

from __future__ import annotations

from datetime import datetime
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

# What is written of a date, so that JSON Schema says the same as the service. Any zone's offset, and what is added to a
# campaign's end, stay within what a datetime can be. Without lookahead, which not every engine has.
_DAYS = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])"
_YEARS = "000[2-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8]"
_LEAP_YEARS = "[0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00"
_DATES = f"(({_YEARS})-({_DAYS})|({_LEAP_YEARS})-02-29)"
_HOURS, _SIXTY = "([01][0-9]|2[0-3])", "[0-5][0-9]"


def _times(seconds: str, offset: str, zero: str) -> str:
    clock = f"{_HOURS}:{_SIXTY}{seconds}"
    return f"^({_DATES}[Tt ]{clock}{offset}|0001-({_DAYS})[Tt ]{clock}{zero})$"


TIME_PATTERN: Final = _times(rf":{_SIXTY}(\.[0-9]+)?", f"([Zz]|[+-]{_HOURS}:?{_SIXTY})", "([Zz]|[+-]00:?00)")
"""Of a time in an event."""

CE_TIME_PATTERN: Final = _times(
    rf"(:{_SIXTY}([.,][0-9]+)?)?", f"([Zz]|[+-]{_HOURS}(:?{_SIXTY})?)", "([Zz]|[+-]00(:?00)?)"
)
"""Of the attribute ``time``: what libraries write into a header where they do not quite write RFC 3339."""

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
        if time is not None and not (1 < time.year < 9999 or (time.year == 1 and not time.utcoffset())):
            raise InvalidField(f"{name}: {time.isoformat()} is not within the years 2 to 9998, or in year 1 in UTC")


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
