"""Vectors as JSON, for producers that cannot write the binary layout: ``{"space": "acme-1", "vector": [0.12, -0.4]}``.

By itself, or as the data of a structured CloudEvent of type ``coldstart.audience-vector.v1``. Its data may also be the
binary layout, in ``data_base64``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from streams.contract.content_modes import opened
from streams.contract.errors import InvalidField, TooLarge, UnknownEventType
from streams.contract.event_base import MAX_DIMENSION
from streams.contract.reasons import DECODE_ERRORS, refusal_of
from streams.contract.record_size import MAX_VALUE_BYTES, full_size

# What a 32-bit float rounds to infinity.
_BEYOND = 2.0**128 - 2.0**103


class JsonVector(msgspec.Struct, frozen=True):
    """A vector of a space."""

    TYPE: ClassVar = "coldstart.audience-vector.v1"
    EXAMPLE: ClassVar = '{"space":"bcl-0a1b2c3d4e5f","vector":[0.12,-0.4,0.88]}'

    space: Annotated[
        str, Meta(pattern=r"^[\x20-\x7e]{1,32}$", description="whose vector it is: 1 to 32 characters of ASCII")
    ]
    vector: Annotated[
        list[Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": -_BEYOND, "exclusiveMaximum": _BEYOND})]],
        Meta(min_length=1, max_length=MAX_DIMENSION),
    ]


_decoder = msgspec.json.Decoder(JsonVector)


def is_json(value: bytes) -> bool:
    """Whether a value is one of these; the binary layout begins with other letters."""
    return value[:1] == b"{" or value.lstrip()[:1] == b"{"


def data_of(value: bytes) -> bytes:
    """What stands in a value: the JSON of a vector, or the binary layout.

    Raises:
        BadRecord: it is too large, or a structured event of another kind.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise TooLarge(f"value: {full_size(value)} bytes uncompressed, {MAX_VALUE_BYTES} allowed")
    if b'"specversion"' not in value:
        return value
    event = opened(value)
    told = (event.attributes.get("ce_type") or b"").decode()
    if told != JsonVector.TYPE:
        raise UnknownEventType(f"type: {told!r} is not {JsonVector.TYPE}")
    return event.data


def read(data: bytes) -> tuple[str, NDArray[np.float32]]:
    """The space and the float32 vector (d,) in the JSON of a vector.

    Raises:
        Undecodable, InvalidField: it is none, or holds a value that is not finite.
    """
    try:
        found = _decoder.decode(data)
    except DECODE_ERRORS as error:
        raise refusal_of(error, JsonVector, data, what="vector") from None
    with np.errstate(over="ignore"):
        vector = np.array(found.vector, np.float32)
    if not np.isfinite(vector).all():
        raise InvalidField("vector: holds a value beyond 32-bit floats")
    return found.space, vector
