"""What all events have in common: their base, and the types of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from streams.contract.event_time import check_times
from streams.contract.topics import Topic

MAX_ID_LENGTH = 128
"""Of an id, in characters, as JSON Schema and Python count them."""
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, description="opaque, 1 to 128 characters")]
Time = Annotated[
    datetime,
    Meta(tz=True, description="RFC 3339, with an offset; no leap second; years 2 to 9998, year 1 in UTC only"),
]
Language = Annotated[
    str,
    Meta(
        # x- and i- begin the tags that BCP 47 leaves to private use and to the past.
        pattern=r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*|[IiXx](-[A-Za-z0-9]{1,8})+)$",
        description="BCP 47, such as pt-BR",
    ),
]
Territory = Annotated[str, Meta(pattern=r"^[A-Z]{2}$", max_length=2, description="ISO 3166-1 alpha-2")]
VectorBytes = Annotated[
    bytes,
    Meta(description="base64 of the binary vector layout: magic, version, dtype, dimension, space, vector"),
]
MAX_DIMENSION = 4096
"""Of a dense feature and of a model's vectors: many stand in one record, such as prototypes in a campaign."""
LARGEST = 1e18
"""Of a number in a song's content: squares of it still fit 32-bit floats, in which the encoder computes."""
Weight = Annotated[float, Meta(gt=0, extra_json_schema={"maximum": LARGEST})]
JSON = "application/json"
MESSAGEPACK = "application/msgpack"


class Event(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of all events.

    Attributes:
        TYPES: the ce_types that carry this struct.
        TOPIC: where it travels.
        KEY: what the record key is made of; ``record_key`` makes it.
        MEDIA: how its records are written: JSON, which everybody reads, or between our own roles MessagePack, in which
            vectors are bytes. JSON is read in either case.
        FORMS: what is read of a value where it depends on the ce_type: every other field is ignored.
    """

    TYPES: ClassVar[tuple[str, ...]]
    TOPIC: ClassVar[Topic]
    KEY: ClassVar[str]
    MEDIA: ClassVar[str] = JSON
    EXAMPLE: ClassVar[str]
    FORMS: ClassVar[Mapping[str, type[Event]]] = {}

    def complete(self) -> Event:
        """The event that this one, one of its ``FORMS``, stands for."""
        return self

    def record_key(self) -> str:
        return str(getattr(self, self.KEY))

    def check(self, _ce_type: str, _appended: float) -> None:
        """Rules that msgspec cannot state of a field, or that no single field can.

        Args:
            _ce_type: under which the event came.
            _appended: when the broker appended the record, Unix seconds.

        Raises:
            InvalidField, FromTheFuture: naming the field.
        """
        check_times(self)
