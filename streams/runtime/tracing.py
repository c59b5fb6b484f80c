"""Each hop of an upload's way as a span of its trace, if spans are wanted; the trace context is passed on anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

Attributes = Mapping[str, str | int]
NOTHING: Final[Attributes] = MappingProxyType({})


@dataclass(slots=True)
class Hop:
    """The work on one record.

    Attributes:
        traceparent: of what follows from it; None: it belongs to no trace.
    """

    traceparent: bytes | None

    def step(self, name: str, started: float, ended: float) -> None:
        """A part of it, between two moments in Unix seconds."""

    def end(self, error: str | None = None, attributes: Attributes = NOTHING) -> None:
        """It is done, or failed for this reason; only the first end counts."""


class Tracing:
    """Passes on what records bring, and makes no spans."""

    def begin(self, name: str, parent: bytes | None, started: float, attributes: Attributes) -> Hop:  # noqa: ARG002
        """A hop begins.

        Args:
            name: of the span, such as ``process song-uploads``.
            parent: the record's ``traceparent``.
            started: Unix seconds.
            attributes: of the span, by OpenTelemetry's names.
        """
        return Hop(parent)

    def close(self) -> None:
        """Send what is not sent yet, within a few seconds."""
