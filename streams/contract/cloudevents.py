"""How an event becomes a Kafka record and back: CloudEvents 1.0.

Written is binary content mode: the value is the event's JSON, or MessagePack where an event of our own says so; the
attributes travel as headers ``ce_id``, ``ce_source``, ``ce_type``, ``ce_specversion`` and ``ce_time``, beside
``content-type``. Headers beyond these are carried but not read. Structured mode is read as well
(:mod:`streams.contract.content_modes`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from streams.contract.content_modes import ContentMode, mode_of, opened
from streams.contract.errors import BadRecord, InvalidField, KeyMismatch, TooLarge, Undecodable, UnknownEventType
from streams.contract.event_base import JSON, MESSAGEPACK, Event
from streams.contract.event_time import (
    CE_TIME_PATTERN,
    LOG_APPEND_TIME,
    MAX_AHEAD_SECONDS,
    check_not_ahead,
    times_of,
)
from streams.contract.reasons import DECODE_ERRORS, refusal_of
from streams.contract.record_size import MAX_VALUE_BYTES, full_size
from streams.contract.unreadable import UNREADABLE

E = TypeVar("E", bound=Event)

Headers = Sequence[tuple[str, bytes | None]]

_TIME: Final = re.compile(CE_TIME_PATTERN).fullmatch
# As nearly everybody writes it: told by its form alone that only the calendar may refuse it.
_PLAIN_TIME: Final = re.compile(rb"[1-9]\d{3}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)").fullmatch

Timestamp = tuple[int, int]
"""A record's, as confluent-kafka tells it: its kind, and milliseconds."""

_ENCODERS: dict[str, msgspec.json.Encoder | msgspec.msgpack.Encoder] = {
    JSON: msgspec.json.Encoder(),
    MESSAGEPACK: msgspec.msgpack.Encoder(),
}


@dataclass(frozen=True, slots=True)
class ReceivedEvent(Generic[E]):
    """An event with the attributes of its envelope: source and id together say which event it is. ``time`` is Unix
    seconds."""

    event: E
    source: str
    id: str
    type: str
    time: float


@dataclass(slots=True)
class EventColumns(Generic[E]):
    """The events of several records, by column.

    Attributes:
        events, times, at: of the good ones, in order: the event, its Unix seconds, its place among the records.
        bad: place and error of each of the others.
        sources: who sent good ones.
    """

    events: list[E] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    bad: list[tuple[int, BadRecord]] = field(default_factory=list)
    sources: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Record:
    """What a producer sends."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@cache
def _decoder(cls: type[E]) -> msgspec.json.Decoder[E]:
    return msgspec.json.Decoder(cls)


@cache
def _packed_decoder(cls: type[E]) -> msgspec.msgpack.Decoder[E]:
    return msgspec.msgpack.Decoder(cls)


def pack(event: Event, *, id: str, source: str, time: float, ce_type: str | None = None) -> Record:
    """The record of an event.

    Args:
        id: the idempotency key: the same id is the same event.
        time: Unix seconds.
        ce_type: one of the event's TYPES; may be left out where there is only one.

    Raises:
        ValueError: the event has several types and none is given.
    """
    if ce_type is None:
        (ce_type,) = event.TYPES
    stamp = datetime.fromtimestamp(time, UTC).isoformat()
    headers = [
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_time", stamp.encode()),
        ("content-type", event.MEDIA.encode()),
    ]
    return Record(event.record_key().encode(), _ENCODERS[event.MEDIA].encode(event), headers)


def decoded(cls: type[E], value: bytes, attributes: Mapping[str, object]) -> E:
    """The event in a value, as its content type says; nothing that :func:`unpack` checks is.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: the value holds no such event.
    """
    if cls.MEDIA == MESSAGEPACK and attributes.get("content-type") == MESSAGEPACK.encode():
        event: E = _packed_decoder(cls).decode(value)
        return event
    told = attributes.get("ce_type")
    form = cls.FORMS.get(told.decode(), cls) if isinstance(told, bytes) else cls
    return cast(E, _json(form, value).complete())


def _json(cls: type[Event], value: bytes) -> Event:
    try:
        return cast(Event, _decoder(cls).decode(value))
    except msgspec.ValidationError as error:
        if "`float`" not in str(error):
            raise
    # To JSON 1.0 and 1e3 are the integers 1 and 1000.
    return cast(Event, _decoder(cls).decode(msgspec.json.encode(_whole(msgspec.json.decode(value)))))


def _whole(value: Any) -> Any:
    """A value whose whole numbers are integers."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def append_time(timestamp: Timestamp, now: float) -> float:
    """When the broker appended a record, Unix seconds; or ``now`` for one from before its topic was stamped by the
    broker, which carries a producer's word: it was appended by now, and what it says is judged by that."""
    kind, milliseconds = timestamp
    return milliseconds / 1000 if kind == LOG_APPEND_TIME else now


def unpack(
    cls: type[E], key: bytes | None, value: bytes | None, headers: Headers | None, appended: float
) -> ReceivedEvent[E]:
    """The event in a record.

    Args:
        appended: when the broker appended the record, Unix seconds: what the event says of time is judged by it.

    Raises:
        InvalidField: a header, attribute or field is missing or malformed; the message names it.
        UnknownEventType, UnknownMediaType, TooLarge, Undecodable, KeyMismatch, FromTheFuture: as their names say.
    """
    attributes = dict(headers or ())
    if UNREADABLE in attributes and "ce_type" not in attributes:
        raise Undecodable((attributes[UNREADABLE] or b"").decode("utf-8", "backslashreplace"))
    structured = mode_of(attributes.get("content-type"), cls.MEDIA) is ContentMode.STRUCTURED
    if structured:
        envelope = opened(_sized(value))
        attributes, value = envelope.attributes, envelope.json()
    ce_type, source, id, time = read_attributes(cls, attributes, appended, structured)
    value = _sized(value)
    try:
        event = decoded(cls, value, attributes)
    except DECODE_ERRORS as error:
        packed = attributes.get("content-type") == MESSAGEPACK.encode()
        raise refusal_of(error, cls, value, packed) from None
    event.check(ce_type, appended)
    expected = event.record_key()
    if key != expected.encode():
        raise KeyMismatch(f"key: {key!r} is not {event.KEY} {expected!r}")
    return ReceivedEvent(event, source, id, ce_type, time)


def read_attributes(
    cls: type[Event], attributes: Mapping[str, bytes | None], appended: float, structured: bool
) -> tuple[str, str, str, float]:
    """Type, source, id and time (Unix seconds) of an event.

    Args:
        attributes: by the names of their headers.
        structured: they came in structured mode, and an error calls them as their sender does.

    Raises:
        InvalidField: one is missing or malformed; the message names it.
        UnknownEventType, FromTheFuture: as their names say.
    """
    named = _ATTRIBUTES if structured else _HEADERS
    ce_type = _attribute(attributes, "ce_type", named)
    if ce_type not in cls.TYPES:
        raise UnknownEventType(f"{named['ce_type']}: {ce_type!r} is none of {', '.join(cls.TYPES)}")
    version = _attribute(attributes, "ce_specversion", named)
    if version != "1.0":
        raise InvalidField(f"{named['ce_specversion']}: {version!r}, this reader knows '1.0'")
    source = _attribute(attributes, "ce_source", named)
    id = _attribute(attributes, "ce_id", named)
    time = _timestamp(named["ce_time"], _attribute(attributes, "ce_time", named))
    check_not_ahead(named["ce_time"], time, appended)
    return ce_type, source, id, time


def unpack_many(
    cls: type[E], records: Iterable[tuple[bytes | None, bytes | None, Headers | None, Timestamp]], now: float
) -> EventColumns[E]:
    """What :func:`unpack` makes of each (key, value, headers, timestamp), at half its cost.

    A record takes the short way only where it can be seen cheaply that every rule holds: attributes that repeat
    were found good in this batch, the rest is plain ASCII. Any other goes through :func:`unpack`, which decides.
    """
    found: EventColumns[E] = EventColumns()
    decode, key_of, year_of = _decoder(cls).decode, attrgetter(cls.KEY), _year_of(cls)
    if cls.record_key is not Event.record_key:
        raise ValueError(f"the key of {cls.__name__} is made of several fields")
    parse, ahead = datetime.fromisoformat, MAX_AHEAD_SECONDS
    good: set[tuple[bytes | None, bytes | None, bytes | None, bytes | None]] = set()
    events, times, places = found.events.append, found.times.append, found.at.append
    for at, (key, value, headers, (kind, milliseconds)) in enumerate(records):
        repeated = None
        try:
            attributes = dict(headers or ())
            repeated = (
                attributes["ce_type"], attributes["ce_specversion"], attributes["ce_source"],
                attributes.get("content-type"),
            )  # fmt: skip
            id, stamp = attributes["ce_id"], attributes["ce_time"]
            if (
                repeated in good and id and stamp and value and len(value) <= MAX_VALUE_BYTES
                and id.isascii() and _PLAIN_TIME(stamp)
            ):  # fmt: skip
                when = parse(stamp.decode())
                event = decode(value)
                appended = milliseconds / 1000 if kind == LOG_APPEND_TIME else now
                if key_of(event).encode() == key and (time := when.timestamp()) <= appended + ahead:
                    # Where a year that no offset leaves the calendar from is all that a check asks for.
                    if year_of is None or not 1 < year_of(event) < 9998:
                        event.check((repeated[0] or b"").decode(), appended)
                    events(event)
                    times(time)
                    places(at)
                    continue
        except (BadRecord, KeyError, ValueError, RecursionError, msgspec.DecodeError):
            pass  # said by the long way
        try:
            received = unpack(cls, key, value, headers, append_time((kind, milliseconds), now))
        except BadRecord as error:
            found.bad.append((at, error.without_frames()))
            continue
        # Known to be good by now, and no exception.
        if repeated is not None and mode_of(repeated[3], cls.MEDIA) is ContentMode.BINARY:
            good.add(repeated)
        else:
            found.sources.add(received.source.encode())
        events(received.event)
        times(received.time)
        places(at)
    found.sources |= {source or b"" for _, _, source, _ in good}
    return found


@cache
def _year_of(cls: type[Event]) -> Callable[[Event], int] | None:
    """The year of an event's only time, where nothing else of it is checked after decoding."""
    times = times_of(cls)
    required = not any(each.name in times and not each.required for each in msgspec.structs.fields(cls))
    plain = cls.check is Event.check and len(times) == 1 and required
    return attrgetter(f"{times[0]}.year") if plain else None


_HEADERS = {name: name for name in ("ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time")}
_ATTRIBUTES = {name: name.removeprefix("ce_") for name in _HEADERS}


def _attribute(attributes: Mapping[str, bytes | None], name: str, named: Mapping[str, str]) -> str:
    """An attribute.

    Args:
        named: what its sender calls it.
    """
    value = attributes.get(name)
    if not value:
        raise InvalidField(f"{named[name]}: {'header' if named is _HEADERS else 'attribute'} missing")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidField(f"{name}: header {value!r} is not UTF-8") from None


def _sized(value: bytes | None) -> bytes:
    if value is None:
        raise Undecodable("value: empty; this topic knows no deletion")
    if len(value) > MAX_VALUE_BYTES:
        raise TooLarge(f"value: {full_size(value)} bytes uncompressed, {MAX_VALUE_BYTES} allowed")
    return value


def _timestamp(name: str, text: str) -> float:
    if _TIME(text):
        # RFC 3339 allows t and z, too.
        return datetime.fromisoformat(text.upper()).timestamp()
    if _TIME(text + "Z"):
        raise InvalidField(f"{name}: {text!r} has no offset (append Z for UTC)")
    raise InvalidField(f"{name}: {text!r} is not an RFC 3339 time, in the years 2 to 9998, or in year 1 in UTC")
