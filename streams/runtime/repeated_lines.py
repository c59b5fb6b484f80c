"""Limits what a library logs again and again: one line, then one with a count now and then.

A client of a broker that is away, or of a topic that was deleted, says so a thousand times a second.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from typing import Final

from streams.runtime.clock import Clock, SystemClock

_FIRST_S: Final = 60.0
_LATER_S: Final = 600.0
_KINDS: Final = 1000
# What differs between two lines of one kind: numbers, addresses, ids. But not the number of a broker: "kafka-2:9092/2",
# "node with id 2".
_VARIES: Final = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<!\d)(?<!\w-)(?<!\d/)(?<!id )\d+")


class RepeatedLines(logging.Filter):
    """Lets one line of each kind through, the next after a minute, then one every ten minutes, each with the count.

    A kind is a logger, a level and a text without its numbers. A kind that has not come for ten minutes is new again.
    Lines of this system are not touched: each was written to be read.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or SystemClock()
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] == "streams":
            return True
        now, text = self._clock.monotonic(), _text(record)
        key = record.name, record.levelno, _VARIES.sub("#", text)
        kind = self._kinds.pop(key, None)
        new = kind is None or now - kind.seen_at >= _LATER_S
        if kind is None or new:
            kind = _Kind(now + _FIRST_S)
        kind.seen_at = now
        self._kinds[key] = kind
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        if not new and now < kind.due:
            kind.held_back += 1
            return False
        if kind.held_back:
            record.msg, record.args = f"{text} (and {kind.held_back:,} more like it)", ()
        if not new:
            kind.held_back, kind.due = 0, now + _LATER_S
        return True


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # The arguments do not fit; whoever writes the line says so.
        return str(record.msg)


class _Kind:
    """What is known of the lines of one kind."""

    __slots__ = ("due", "held_back", "seen_at")

    def __init__(self, due: float) -> None:
        self.due = due
        self.held_back = 0
        self.seen_at = 0.0
