"""Files of events, read line by line: NDJSON, and CSV whose columns are an event's fields.

``coldstart validate`` judges an event by the record that ``coldstart send`` makes of it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from itertools import islice, starmap
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import inspect

from streams.contract.cloudevents import Record
from streams.contract.content_modes import STRUCTURED, StructuredEvent, opened
from streams.contract.errors import BadRecord, InvalidField, Refused, TooLarge, Undecodable, UnknownEventType
from streams.contract.event_base import JSON, Event
from streams.contract.events import Listen, PushOutcome, SongUpload, UserPreferences
from streams.contract.reasons import DECODE_ERRORS, bare_type
from streams.contract.record_size import MAX_VALUE_BYTES

SENT_BY_OTHERS: Final[tuple[type[Event], ...]] = (SongUpload, Listen, PushOutcome, UserPreferences)
"""The events that can stand in a file."""

TYPES: Final[dict[str, type[Event]]] = {name: cls for cls in SENT_BY_OTHERS for name in cls.TYPES}

# Of a line that is taken into memory. An envelope and base64 make at most this of the largest value that is read.
_LONGEST: Final = 2 * MAX_VALUE_BYTES
# Fields of an object by name, each left as it is.
_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)


class Form(StrEnum):
    """How events stand in a file."""

    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(slots=True)
class FileEvent:
    """One event of a file.

    Attributes:
        line: where it begins, from 1.
        type: the ce_type that it says to be of; empty where ``value`` is an error.
        value: the value of its record, or why there can be none.
        envelope: what stands in the value where it holds the event's attributes, too.
    """

    line: int
    type: str
    value: bytes | BadRecord
    envelope: StructuredEvent | None = None

    @property
    def data(self) -> bytes:
        """The event by itself; of one whose value is no error."""
        assert isinstance(self.value, bytes)
        return self.value if self.envelope is None else self.envelope.data

    def record(self, source: str, time: float) -> Record:
        """What is sent; for one whose value is no error.

        Args:
            source, time: ce_source and ce_time (Unix seconds) of data that came without.
        """
        assert isinstance(self.value, bytes)
        key = _key(TYPES[self.type], self.data)
        if self.envelope is not None:
            return Record(key, self.value, [("content-type", STRUCTURED.encode())])
        headers = {
            # The same data are the same event, however often the file is sent.
            "ce_id": sha256(self.value).hexdigest()[:32],
            "ce_source": source,
            "ce_type": self.type,
            "ce_specversion": "1.0",
            "ce_time": datetime.fromtimestamp(time, UTC).isoformat(),
            "content-type": JSON,
        }
        return Record(key, self.value, [(name, text.encode()) for name, text in headers.items()])


def event_type(name: str) -> str:
    """The ce_type that a name stands for: itself, or without ``coldstart.`` and ``.v1``.

    Raises:
        Refused: there is none; the message names those that are.
    """
    for each in TYPES:
        if name in (each, _short(each)):
            return each
    raise Refused(f"type {name!r}: there is none; allowed are {', '.join(map(_short, TYPES))}")


def _short(ce_type: str) -> str:
    return ce_type.removeprefix("coldstart.").removesuffix(".v1")


class EventFile:
    """The events of a stream, in order.

    Args:
        ce_type: of every line, which then is an event's data alone; None: each line is a structured CloudEvent.

    Attributes:
        done: bytes read so far.
    """

    def __init__(self, stream: BinaryIO, form: Form, ce_type: str | None) -> None:
        if form is Form.CSV and ce_type is None:
            ce_type = SongUpload.UPLOADED
        self.done = 0
        self._stream, self._form, self._ce_type = stream, form, ce_type
        self._lines = 0
        self._events = starmap(self._event, self._rows() if form is Form.CSV else self._whole_lines())

    def take(self, count: int) -> list[FileEvent]:
        """The next events, at most so many; none at the end."""
        return list(islice(self._events, count))

    def _event(self, line: int, value: bytes | BadRecord) -> FileEvent:
        if isinstance(value, BadRecord):
            return FileEvent(line, "", value)
        if self._ce_type is not None:
            return FileEvent(line, self._ce_type, value)
        try:
            return _structured(line, value)
        except BadRecord as error:
            return FileEvent(line, "", error.without_frames())

    def _whole_lines(self) -> Iterator[tuple[int, bytes | BadRecord]]:
        for raw in self._raw():
            value = raw.strip()
            if self._lines == 1:
                value = value.removeprefix(b"\xef\xbb\xbf")
            if len(raw) > _LONGEST:
                yield self._lines, TooLarge(f"value: more than {_LONGEST} bytes in one line")
            elif value:
                yield self._lines, value

    def _raw(self) -> Iterator[bytes]:
        """Lines, each counted; of one that is too long its beginning."""
        while raw := self._stream.readline(_LONGEST + 1):
            self.done += len(raw)
            whole = raw
            while len(whole) > _LONGEST and not whole.endswith(b"\n"):
                if not (whole := self._stream.readline(_LONGEST + 1)):
                    break
                self.done += len(whole)
            self._lines += 1
            yield raw

    def _rows(self) -> Iterator[tuple[int, bytes | BadRecord]]:
        """The rows of CSV as JSON; a row may take several lines."""
        csv.field_size_limit(_LONGEST)
        texts = (raw.decode("utf-8-sig" if self._lines == 1 else "utf-8", "surrogateescape") for raw in self._raw())
        rows = csv.reader(texts, strict=True)
        names: list[str] | None = None
        while True:
            began = self._lines + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield began, Undecodable(f"row: {error}")
                continue
            if names is None:
                names = _header([each.strip() for each in row])
            elif row:
                yield began, self._row(names, row)

    def _row(self, names: list[str], row: list[str]) -> bytes | BadRecord:
        if len(row) > len(names):
            return Undecodable(f"row: {len(row)} cells, the header names {len(names)} columns")
        cells = zip(names, row, strict=False)
        try:
            return msgspec.json.encode({name: _cell(self._kinds.get(name), cell) for name, cell in cells if cell})
        except UnicodeEncodeError:
            return Undecodable("row: not UTF-8")

    @cached_property
    def _kinds(self) -> dict[str, Any]:
        cls = TYPES[self._ce_type or ""]
        return {each.encode_name: bare_type(inspect.type_info(each.type)) for each in msgspec.structs.fields(cls)}


def _header(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(f"line 1: column {', '.join(twice)} is there twice")
    return names


def _structured(line: int, value: bytes) -> FileEvent:
    """A structured event.

    Raises:
        BadRecord: it is none, or none that can stand in a file.
    """
    if b'"specversion"' not in value:
        raise InvalidField("specversion: missing; a line is a structured CloudEvent. Of data alone say which: --type")
    envelope = opened(value)
    name = (envelope.attributes.get("ce_type") or b"").decode()
    if name not in TYPES:
        raise UnknownEventType(f"type: {name!r} is none of {', '.join(TYPES)}")
    return FileEvent(line, name, value, envelope)


def field_names(data: bytes) -> list[str]:
    """The fields of an event, as they are spelt; none where it is no object."""
    try:
        return list(_parts.decode(data))
    except DECODE_ERRORS:
        return []


def _key(cls: type[Event], data: bytes) -> bytes:
    """A record's key; nothing where the service will refuse it anyway."""
    try:
        return _text.decode(_parts.decode(data)[cls.KEY]).encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        return b""


def _cell(kind: Any, text: str) -> Any:
    """What a cell says, as JSON; one that says nothing of the sort stays text, for the service's decoder to name."""
    text = text.strip()
    if isinstance(kind, inspect.StrType | inspect.DateTimeType | inspect.LiteralType | None):
        return text
    if isinstance(kind, inspect.ListType | inspect.DictType) and text[:1] not in ("[", "{"):
        words = [word.strip() for word in text.split(";") if word.strip()]
        return words if isinstance(kind, inspect.ListType) else dict(map(_weighted, words))
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text


def _weighted(word: str) -> tuple[str, Any]:
    """``dream pop:3`` as a tag and its weight, which is 1 where none is given."""
    name, colon, weight = word.rpartition(":")
    if not colon:
        return word, 1
    try:
        return name.strip(), float(weight)
    except ValueError:
        return name.strip(), weight
