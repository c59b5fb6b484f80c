"""The size of a record: how it is counted, what is allowed, and what is kept of a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from streams.contract.topics import MAX_RECORD_BYTES

MAX_VALUE_BYTES: Final = 1_048_576
"""Of a value that is read, uncompressed. A topic's limit counts compressed bytes, so that any size can come in."""

MAX_UNPACKED_BYTES: Final = 64 * 1_048_576
"""Of a batch that is read whole. What lies beyond is one dead letter."""

# A batch's own header, and the lengths, offset and time of its only record at their longest (record format 2).
_BATCH: Final = 61 + 36
_HEADER: Final = 10


def record_size(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()) -> int:
    """Bytes of a record in a batch of its own, uncompressed: what clients and brokers hold against their limits, at
    most some bytes above it."""
    return _BATCH + len(key or b"") + len(value or b"") + headers_size(headers)


def headers_size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Bytes of headers in a record."""
    return sum(_HEADER + len(name.encode("utf-8", "surrogatepass")) + len(value or b"") for name, value in headers)


class Beginning(bytes):
    """The first bytes of a key or value that is not kept whole, with the size and SHA-256 of what it was."""

    size: int
    sha256: str


def beginning(part: bytes) -> bytes:
    """What must be kept of a key or value: no more than a dead letter can hold."""
    if len(part) <= MAX_RECORD_BYTES:
        return part
    kept = Beginning(part[:MAX_RECORD_BYTES])
    kept.size, kept.sha256 = len(part), sha256(part).hexdigest()
    return kept


def full_size(part: bytes) -> int:
    """Bytes of a key or value as it came."""
    return part.size if isinstance(part, Beginning) else len(part)
