"""In which mode of CloudEvents a record comes, and what stands in one that comes in structured mode.

Binary: the value is the event, its attributes are ``ce_`` headers. Structured: the value is an object that holds both,
and ``content-type`` is ``application/cloudevents+json``. Either is read on every topic that others write to.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

import msgspec

from streams.contract.errors import InvalidField, UnknownMediaType
from streams.contract.event_base import JSON
from streams.contract.reasons import DECODE_ERRORS, refusal_of

STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch"
_WAY_OUT: Final = f"read are {JSON} with ce_ headers, and {STRUCTURED}"
# What is found good is remembered.
_LONGEST: Final = 256
_HEADERS: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time")
# JSON has no other encoding, and ASCII is a part of it.
_CHARSETS: Final = ("utf-8", "utf8", "us-ascii")


class ContentMode(Enum):
    BINARY = auto()
    STRUCTURED = auto()


class _Envelope(msgspec.Struct):
    """What is read of a structured event. Null means that an attribute is not set; others are extensions."""

    specversion: str | None = None
    id: str | None = None
    source: str | None = None
    type: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


@dataclass(frozen=True, slots=True)
class StructuredEvent:
    """A structured event.

    Attributes:
        attributes: by the names of their headers in binary mode; one that is not set is missing.
        data: the event's bytes.
        media: their media type, in lower case and without parameters.
    """

    attributes: dict[str, bytes | None]
    data: bytes
    media: str

    def json(self) -> bytes:
        """The data, which must be JSON.

        Raises:
            UnknownMediaType: they say that they are something else.
        """
        if not _is_json(self.media):
            raise UnknownMediaType(f"datacontenttype: {self.media!r} is not read here, {JSON} is")
        return self.data


_envelopes = msgspec.json.Decoder(_Envelope)


@lru_cache(256)
def mode_of(content_type: bytes | None, own: str = JSON) -> ContentMode:
    """The mode of a record with this ``content-type`` header; without one it is binary, and JSON.

    Args:
        own: a media type that the topic carries beside JSON.

    Raises:
        UnknownMediaType: a batch, or anything else that is not read; the message says what is.
    """
    if not content_type:
        return ContentMode.BINARY
    if len(content_type) > _LONGEST:
        raise UnknownMediaType(f"content-type: {len(content_type)} bytes, {_LONGEST} allowed; {_WAY_OUT}")
    text = content_type.decode("utf-8", "backslashreplace")
    media = _media("content-type", text)
    if media == STRUCTURED:
        return ContentMode.STRUCTURED
    if media.startswith(_BATCH):
        raise UnknownMediaType(f"content-type: {text!r}: batches are not read, send each event by itself; {_WAY_OUT}")
    if media.startswith("application/cloudevents") or not (_is_json(media) or media == own):
        raise UnknownMediaType(f"content-type: {text!r} is not read; {_WAY_OUT}")
    return ContentMode.BINARY


def opened(value: bytes) -> StructuredEvent:
    """What stands in the value of a structured event.

    Raises:
        Undecodable, InvalidField, UnknownMediaType: it is no such event; the message names the attribute.
    """
    try:
        found = _envelopes.decode(value)
    except DECODE_ERRORS as error:
        raise refusal_of(error, _Envelope, value) from None
    data = bytes(found.data).removeprefix(b"null")
    if data and found.data_base64 is not None:
        raise InvalidField("data, data_base64: both are there, one is allowed")
    if found.data_base64 is not None:
        try:
            data = b64decode(found.data_base64, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidField("data_base64: is not base64") from None
    elif not data:
        raise InvalidField("data: missing")
    told = (found.specversion, found.id, found.source, found.type, found.time)
    attributes: dict[str, bytes | None] = {
        name: text.encode() for name, text in zip(_HEADERS, told, strict=True) if text
    }
    said = found.datacontenttype or JSON
    return StructuredEvent(
        attributes, data, (_remembered if len(said) <= _LONGEST else _media)("datacontenttype", said)
    )


def _media(name: str, text: str) -> str:
    """A media type without its parameters, in lower case."""
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip(' "') not in _CHARSETS:
            raise UnknownMediaType(f"{name}: {text!r}: charset {value.strip()} is not read, utf-8 is")
    return media


_remembered: Final = lru_cache(256)(_media)


def _is_json(media: str) -> bool:
    return media in (JSON, "text/json") or media.endswith("+json")
