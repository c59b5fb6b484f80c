"""Where a bad record goes: to ``dead-letters``, with its bytes untouched and the reason in the headers.

A record may be larger than any topic accepts, because limits count compressed bytes. Its letter then holds as much as
fits, and the size and SHA-256 of the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import Any, Final, cast

from confluent_kafka import Message

from streams.contract.cloudevents import Headers
from streams.contract.errors import BadRecord
from streams.contract.record_size import Beginning, full_size, headers_size, record_size
from streams.contract.topics import DEAD_LETTERS
from streams.contract.unreadable import BAD_HEADER_NAME, unreadable

# Characters of the reason: it may quote a key or a field as long as a record.
_MESSAGE = 2000
# Of a letter that must be cut: key and headers get this at most each, and the value the rest.
_SHARE = 0.25


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
    """The dead letter of a record, never larger than its topic takes.

    Args:
        stage: the step that refused it, such as ``songs.validate``.
    """
    reason = _headers(
        {
            "dl_topic": origin.topic,
            "dl_partition": str(origin.partition),
            "dl_offset": str(origin.offset),
            "dl_timestamp": str(origin.timestamp_ms),
            "dl_stage": stage,
            "dl_error": type(error).__name__,
            "dl_message": str(error)[:_MESSAGE],
        }
    )
    headers = [*origin.headers, *reason]
    if record_size(origin.key, origin.value, headers) <= DEAD_LETTERS.largest:
        return DeadLetter(origin.key, origin.value, headers)
    return _cut(origin, reason)


def _cut(origin: Origin, reason: Headers) -> DeadLetter:
    """The first bytes of each part of a record, and what it was."""
    said = {
        "dl_key_size": str(full_size(origin.key or b"")),
        "dl_key_sha256": _sha256(origin.key or b""),
        "dl_value_size": str(full_size(origin.value or b"")),
        "dl_value_sha256": _sha256(origin.value or b""),
        "dl_headers": str(len(origin.headers)),
    }
    reason = [*reason, *_headers(said)]
    room = DEAD_LETTERS.largest - record_size(None, None, reason)
    share = int(room * _SHARE)
    key = origin.key and origin.key[:share]
    ends = accumulate(headers_size([header]) for header in origin.headers)
    headers = list(origin.headers[: sum(end <= share for end in ends)])
    left = room - len(key or b"") - headers_size(headers)
    return DeadLetter(key, origin.value and origin.value[:left], [*headers, *reason])


def _sha256(part: bytes) -> str:
    return part.sha256 if isinstance(part, Beginning) else sha256(part).hexdigest()


def _headers(texts: dict[str, str]) -> list[tuple[str, bytes | None]]:
    return [(name, text.encode("utf-8", "backslashreplace")) for name, text in texts.items()]


def origin(message: Message) -> Origin:
    """Where a record was found."""
    return Origin(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers(message),
    )


_BAD_NAME: Final[Any] = unreadable(BAD_HEADER_NAME)


def headers(message: Message) -> Headers:
    """A consumed record's headers; confluent-kafka's type also allows what only a producer may give.

    Every reader of headers that others sent comes here, or to :func:`headers_of`: where the name of one is not UTF-8,
    the client raises once, and then gives out a list with holes in it, at which the process dies.
    """
    try:
        return cast(Headers, message.headers() or [])
    except SystemError:
        message.set_headers(_BAD_NAME)
        return cast(Headers, message.headers())


def headers_of(messages: Sequence[Message]) -> list[Any]:
    """The headers of each; None where there are none."""
    found: list[Any] = []
    left = iter(messages)
    while True:
        try:
            # Keeps what it has when one raises, and that one is not asked again.
            found.extend(map(Message.headers, left))
        except SystemError:
            messages[len(found)].set_headers(_BAD_NAME)
            found.append(messages[len(found)].headers())
        else:
            return found
