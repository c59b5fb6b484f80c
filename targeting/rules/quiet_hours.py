"""When a user may be disturbed."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from targeting.types import QuietSpan


@cache
def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: there is none.
    """
    return ZoneInfo(name)


def open_at(time: float, timezone: str, spans: tuple[QuietSpan, ...]) -> float:
    """The first moment from ``time`` on that lies in none of the spans; Unix seconds, infinity where none does.

    A moment that the calendar does not hold (it ends with the year 9999) counts as never, too.

    Spans are of the local clock: when clocks go back, an hour that is shown twice is quiet twice, and a span that this
    leaves for a while goes on. A span whose end is skipped ends where the clock skips it.
    """
    here = zone(timezone)
    # Leaving one span can enter the next, and the first again after midnight; more rounds mean that all is quiet.
    for _ in range(2 * len(spans) + 2):
        try:
            local = datetime.fromtimestamp(time, here)
            minute = local.hour * 60 + local.minute
            inside = next((span for span in spans if _holds(span, minute)), None)
            if inside is None:
                return time
            time = _next_shown(inside.end, local, time)
        except (OverflowError, ValueError):
            return math.inf
    return math.inf


def _holds(span: QuietSpan, minute: int) -> bool:
    if span.start < span.end:
        return span.start <= minute < span.end
    return minute >= span.start or minute < span.end


def _next_shown(minute: int, local: datetime, after: float) -> float:
    """The first moment after ``after`` at which the local clock shows this minute of a day."""
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    walls = (midnight + timedelta(days=day, minutes=minute) for day in (0, 1, 2))
    return next(shown for wall in walls for shown in _shown(wall) if shown > after)


def _shown(wall: datetime) -> tuple[float, ...]:
    """When a local clock shows a time of day, once or twice; or goes over it."""
    first, second = (wall.replace(fold=fold).timestamp() for fold in (0, 1))
    return (_skip(second, first, wall),) if second < first else (first, second)


def _skip(before: float, after: float, wall: datetime) -> float:
    """The moment between two others at which the clock goes over a time of day that it never shows."""
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, wall.tzinfo).replace(tzinfo=None) < wall.replace(tzinfo=None):
            before = middle
        else:
            after = middle
    return after
