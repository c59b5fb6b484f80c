"""How many bytes does a record take, and how many may it have?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_VALUE_BYTES: Final = 1_048_576
"""Of a value that is read, uncompressed. A topic's limit counts compressed bytes, so that any size can come in."""

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
