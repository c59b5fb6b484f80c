"""The W3C trace context of a record: read from its headers, and passed on with what follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from streams.contract.cloudevents import Record

TRACEPARENT: Final = "traceparent"

# Ids of zeros are none, nor is version ff. Versions after 00 may have more at the end.
_FORM: Final = re.compile(
    rb"(?:00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"|(?!00|ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[ -~]{0,256})?)"
)


def traceparent_of(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    """The first ``traceparent`` of a record; None where there is none, or one that says nothing."""
    found = next((value for name, value in headers if name == TRACEPARENT), None)
    return found if found and _FORM.fullmatch(found) else None


def traced(record: Record, traceparent: bytes | None) -> Record:
    """The record with this trace context, if there is one."""
    if traceparent is None:
        return record
    return Record(record.key, record.value, [*record.headers, (TRACEPARENT, traceparent)])
