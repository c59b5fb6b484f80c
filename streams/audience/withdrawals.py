"""What is still obeyed of a preferences record that is refused.

Preferences are the full state, and their topic is compacted: a refused record replaces the one before it, so what its
user allowed is no longer known. Such a user is not pushed until a readable record or a deletion comes, and an erasure
that the record asks for is done, and so is what it says against profiling. Of a record that says nothing of profiling
nothing is concluded. Everything depends on the record alone, so it is the same at every start.
"""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec

from streams.contract.event_base import MAX_ID_LENGTH
from streams.contract.event_time import MAX_AHEAD_SECONDS
from targeting.types import Preferences

# Of a value that is no JSON as a whole. Where the name stands in a text, a backslash stands before its quotes.
_NAMED: Final = {
    name: re.compile(rb'(?<!\\)"%s"\s*:\s*("(?:[^"\\]|\\.)*"?|[^\s,}\]"]+)' % name.encode())
    for name in ("erase_requested_at", "profiling", "updated_at")
}

WITHHELD: Final = Preferences(opted_in=False)
"""What a refused record leaves its user: no pushes."""


def user_of(key: bytes | None) -> str | None:
    """The user that a record is of, by its key alone; None for a key that is nobody's id."""
    try:
        user = (key or b"").decode()
    except UnicodeDecodeError:
        return None
    return user if 1 <= len(user) <= MAX_ID_LENGTH else None


def erasure_asked(value: bytes, appended_at: float) -> float | None:
    """When a refused record, appended at ``appended_at``, asks to forget its user, Unix seconds; None: it does not.

    Anything but null, false, 0 or nothing in ``erase_requested_at`` asks. What is no time, or one too far ahead of the
    record's own, means the record's own.
    """
    said = _said(value, "erase_requested_at")
    if not said:
        return None
    asked = _time(said, appended_at)
    return max(asked, 0.0) if asked <= appended_at + MAX_AHEAD_SECONDS else appended_at


def objection(value: bytes, appended_at: float) -> float | None:
    """When a refused record, appended at ``appended_at``, says that profiling is not allowed, Unix seconds; None: it
    says nothing against it.

    False, 0 and the text "false" say so, as of ``updated_at``; see :func:`said_at`.
    """
    said = _said(value, "profiling")
    if not (said == 0 or (isinstance(said, str) and said.strip().lower() == "false")):
        return None
    return said_at(_time(_said(value, "updated_at"), appended_at), appended_at)


def said_at(updated_at: float, appended_at: float) -> float:
    """When a record's user said what it says, Unix seconds: as the record has it, and no farther ahead of the broker's
    clock than clocks may differ, or what is said next would be outdated."""
    return max(0.0, min(updated_at, appended_at + MAX_AHEAD_SECONDS))


def _time(said: Any, appended_at: float) -> float:
    """A time that a record says; what is none means the record's own."""
    try:
        # Numbers, and texts without an offset, are no times by the contract.
        time = msgspec.convert(said, datetime)
        return time.timestamp() if time.tzinfo else appended_at
    except (msgspec.ValidationError, ValueError, OverflowError):
        return appended_at


def _data(whole: Any) -> Any:
    """The event in a value: it may stand in a structured CloudEvent, itself refused."""
    if not isinstance(whole, dict) or "specversion" not in whole:
        return whole
    with suppress(RecursionError, ValueError, TypeError):
        return whole["data"] if "data" in whole else msgspec.json.decode(b64decode(whole.get("data_base64", "")))
    return whole


def _said(value: bytes, name: str) -> Any:
    """What stands in a field, as far as it can be read."""
    try:
        whole = _data(msgspec.json.decode(value))
        return whole.get(name) if isinstance(whole, dict) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = [match[1] for match in _NAMED[name].finditer(value)]
    if not found:
        return None
    # As in JSON, the last one says it.
    try:
        return msgspec.json.decode(found[-1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no time"
