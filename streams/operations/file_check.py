"""What the service would say of the events in a file: the judgement of ``coldstart validate``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from streams.contract.cloudevents import Record, read_attributes, unpack
from streams.contract.errors import BadRecord, TooLarge
from streams.contract.event_base import Event
from streams.contract.event_time import CAMPAIGN_DAYS
from streams.contract.events import SongUpload
from streams.contract.record_size import record_size
from streams.operations.event_files import TYPES, FileEvent, field_names
from streams.songs.song_record import campaign_end

# How alike two names must be, of 1, for one to be taken for the other misspelt.
_ALIKE: Final = 0.75
# Bytes of a value for which no record is too large.
_SMALL: Final = 500_000

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class BadEvent:
    """Why an event would not be taken as it was meant.

    Attributes:
        line: where it begins, from 1.
        field: the field or header that is wrong; ``value`` for the whole.
        message: what was found there, and what is allowed.
    """

    line: int
    field: str
    message: str


@dataclass(slots=True)
class Ignored:
    """A field that no event has: where it stands first, and how often."""

    line: int
    events: int = 0


@dataclass(slots=True)
class FileCheck:
    """What was found so far.

    Attributes:
        events, bad: how many were looked at, and how many of them have a finding.
        ignored: fields without effect, by event and name.
    """

    events: int = 0
    bad: int = 0
    ignored: dict[tuple[str, str], Ignored] = field(default_factory=dict)

    def look(self, events: Sequence[FileEvent], now: float) -> list[BadEvent]:
        """Judge some events as the service would if they were appended now.

        Args:
            now: Unix seconds.

        Returns:
            What is wrong, at most one finding an event, by line.
        """
        found = [each for each in (self._finding(event, now) for event in events) if each is not None]
        self.events += len(events)
        self.bad += len(found)
        return found

    def _finding(self, event: FileEvent, now: float) -> BadEvent | None:
        value = event.value
        if isinstance(value, BadRecord):
            return _found(event.line, value)
        if _is_plainly_good(event, now):
            return None
        cls, record = TYPES[event.type], event.record("file", now)
        try:
            received = unpack(cls, record.key, record.value, record.headers, now)
            _check_size(cls, record)
            if isinstance(received.event, SongUpload):
                _check_life(received.event, event.type, now)
        except BadRecord as error:
            return _found(event.line, error)
        wrong = self._misspelt(cls, field_names(event.data), event.line)
        return None if wrong is None else BadEvent(event.line, *wrong)

    def _misspelt(self, cls: type[Event], names: Sequence[str], line: int) -> tuple[str, str] | None:
        """The first field whose name seems to be meant for one that is missing; others are noted as ignored."""
        known, there, wrong = _names(cls), frozenset(names), None
        for name in names:
            if name in known:
                continue
            meant = _meant(name, known - there)
            if meant is None:
                noted = self.ignored.setdefault((cls.__name__, name), Ignored(line))
                noted.events += 1
            elif wrong is None:
                wrong = name, f"there is no such field, it would be ignored; did you mean {meant}?"
        return wrong


def _is_plainly_good(event: FileEvent, now: float) -> bool:
    """Whether it can be seen cheaply that every rule holds, as :func:`~streams.contract.cloudevents.unpack_many` does;
    of any other event the long way decides."""
    cls, data = TYPES[event.type], event.data
    # Without escapes and beyond-ASCII letters, an id has as many bytes as characters.
    if not isinstance(event.value, bytes) or len(event.value) > _SMALL or b"\\" in data or not data.isascii():
        return False
    try:
        found = _strict(cls).decode(data)
        found.check(event.type, now)
        if event.envelope is not None:
            event.envelope.json()
            read_attributes(cls, event.envelope.attributes, now, structured=True)
        if isinstance(found, SongUpload) and (found.expires_at or found.available_from):
            _check_life(found, event.type, now)
    except (BadRecord, ValueError, RecursionError):
        return False
    return True


@lru_cache
def _strict(cls: type[E]) -> msgspec.json.Decoder[E]:
    """The service's decoder, but one to which a field without effect is an error."""
    strict = msgspec.defstruct(cls.__name__, [], bases=(cls,), frozen=True, kw_only=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(strict)


def _found(line: int, error: BadRecord) -> BadEvent:
    field, _, message = str(error).partition(": ")
    return BadEvent(line, field, message)


@lru_cache
def _names(cls: type[Event]) -> frozenset[str]:
    return frozenset(each.encode_name for each in msgspec.structs.fields(cls))


@lru_cache(1024)
def _meant(name: str, missing: frozenset[str]) -> str | None:
    """The missing field whose letters and digits are most like those of a name."""
    letters = {re.sub(r"[^a-z0-9]", "", each.lower()): each for each in sorted(missing)}
    near = get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), letters, 1, _ALIKE)
    return letters[near[0]] if near else None


def _check_life(event: SongUpload, ce_type: str, now: float) -> None:
    if not SongUpload.taken_down(ce_type):
        campaign_end(event, now, CAMPAIGN_DAYS)


def _check_size(cls: type[Event], record: Record) -> None:
    size = record_size(record.key, record.value, record.headers)
    if size > cls.TOPIC.largest:
        raise TooLarge(f"value: the record takes {size} bytes, {cls.TOPIC.name} takes {cls.TOPIC.largest}")


def fields_of(found: Iterable[BadEvent]) -> dict[str, int]:
    """How many findings each field has, most first; entries of an object or list count for it."""
    counts: dict[str, int] = {}
    for each in found:
        name = re.split(r"[.\[]", each.field, maxsplit=1)[0]
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
