"""The header by which a record says that its client could not read it.

It comes with one header, which no event has, and is refused for the reason in it. A producer that sends such a header
itself has its record refused: no more than it asked for.
"""

from __future__ import annotations

from typing import Final

UNREADABLE: Final = "unreadable"
"""The header's name."""

BAD_HEADER_NAME: Final = "headers: the name of one is not UTF-8"


def unreadable(reason: str) -> list[tuple[str, bytes | None]]:
    """The headers of a record that cannot be read."""
    return [(UNREADABLE, reason.encode("utf-8", "backslashreplace"))]
