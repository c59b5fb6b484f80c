"""Where a bad record goes: to ``dead-letters``, with its bytes untouched and the reason in the headers."""

from __future__ import annotations

from dataclasses import dataclass

from streams.envelope import Headers
from streams.errors import BadRecord

# Characters of the reason: it may quote a key or a field as long as a record.
_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class Origin:
    """A record as it was found. ``timestamp_ms`` is the record's own, Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is sent: original key, value and headers, and the reason as further headers."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def dead_letter(origin: Origin, stage: str, error: BadRecord) -> DeadLetter:
    """The dead letter of a record.

    Args:
        stage: the step that refused it, such as ``songs.validate``.
    """
    reason = {
        "dl_topic": origin.topic,
        "dl_partition": str(origin.partition),
        "dl_offset": str(origin.offset),
        "dl_timestamp": str(origin.timestamp_ms),
        "dl_stage": stage,
        "dl_error": type(error).__name__,
        "dl_message": str(error)[:_MESSAGE],
    }
    headers = [*origin.headers, *((name, text.encode()) for name, text in reason.items())]
    return DeadLetter(origin.key, origin.value, headers)
