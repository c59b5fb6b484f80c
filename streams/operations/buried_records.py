"""What lies in ``dead-letters``: found by time, stage, reason and source, and counted by reason."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from streams.contract.cloudevents import Headers
from streams.contract.dead_letters import headers
from streams.contract.topics import DEAD_LETTERS, Naming
from streams.kafka.compacted_topic import Snapshot
from streams.operations.operator_notes import read_notes
from streams.runtime.bad_record_burst import source_of
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

NOTE: Final = "dead-letter"
"""The kind of the notes that say what became of a letter."""

# Of the reason; the last three are alone on letters that had to be cut.
_CUT: Final = ("dl_key_size", "dl_key_sha256", "dl_value_size", "dl_value_sha256", "dl_headers")
_REASON: Final = ("dl_topic", "dl_partition", "dl_offset", "dl_timestamp", "dl_stage", "dl_error", "dl_message")

_QUOTED: Final = re.compile(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"|\[\.\.\.\]")
_NUMBER: Final = re.compile(r"(?<![A-Za-z_`])-?\d+(?:(?:[.,:T+-]|e[+-]?)\d+)*")


@dataclass(frozen=True, slots=True)
class BuriedRecord:
    """A dead letter.

    Attributes:
        offset: in ``dead-letters``, by which an operator names it; ``at``: when it was written, Unix seconds.
        topic: where the record was met, full name; ``partition``, ``record_offset``, ``timestamp_ms``: there.
        stage, error, reason, source: who refused it, the class of the error, its message, and who had sent it.
        id: the event's, if it has one.
        key, value, headers: the record's own, as they came.
        cut: the record was larger than a letter may be, and only its beginning is here.
        done: ``replayed`` or ``dropped``; empty: nothing.
    """

    offset: int
    at: float
    topic: str
    partition: int
    record_offset: int
    timestamp_ms: int
    stage: str
    error: str
    reason: str
    source: str
    id: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    cut: bool
    done: str = ""

    @property
    def place(self) -> str:
        """Which record it was: two letters of one record have one."""
        return f"{self.topic}/{self.partition}/{self.record_offset}/{self.timestamp_ms}"


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant: those for which everything holds that is asked for.

    Attributes:
        since, until: when the letter was written, Unix seconds.
        stage: its beginning, such as ``songs``; topic: without the prefix.
        reason: the class of the error, or a part of its message, whatever the case.
        source: the ``ce_source``.
        offsets: in ``dead-letters``.
        done: letters that were replayed or dropped, too.
    """

    since: float | None = None
    until: float | None = None
    stage: str | None = None
    topic: str | None = None
    reason: str | None = None
    source: str | None = None
    offsets: Collection[int] = ()
    done: bool = False

    @property
    def narrow(self) -> bool:
        """Whether anything is asked for."""
        return any((self.since, self.until, self.stage, self.topic, self.reason, self.source, self.offsets))

    def takes(self, letter: BuriedRecord, prefix: str) -> bool:
        """Whether a letter is meant."""
        return (
            (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and (self.stage is None or letter.stage.startswith(self.stage))
            and (self.topic is None or letter.topic == prefix + self.topic.removeprefix(prefix))
            and (self.reason is None or self.reason == letter.error or self.reason.lower() in letter.reason.lower())
            and (self.source is None or self.source == letter.source)
            and (not self.offsets or letter.offset in self.offsets)
            and (self.done or not letter.done)
        )


@dataclass(slots=True)
class ReasonCount:
    """Letters of one reason from one source.

    Attributes:
        reason: the message without the values that differ between records.
        example: offset of the latest, in ``dead-letters``.
    """

    topic: str
    source: str
    stage: str
    error: str
    reason: str
    letters: int = 0
    first: float = field(default=float("inf"))
    last: float = 0.0
    example: int = 0


def read_letters(kafka: KafkaSettings, naming: Naming, clock: Clock, wanted: LetterFilter) -> Iterator[BuriedRecord]:
    """The letters that are meant, oldest first.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    done = {about: str(note["done"]) for about, note in read_notes(kafka, naming, clock, NOTE).items()}
    snapshot = Snapshot(kafka, [naming.name(DEAD_LETTERS)], clock)
    try:
        for message in snapshot.read_to_end():
            letter = letter_of(message, done)
            if letter is not None and wanted.takes(letter, naming.prefix):
                yield letter
    finally:
        snapshot.close()


def letter_of(message: Message, done: dict[str, str]) -> BuriedRecord | None:
    """The letter in a record of ``dead-letters``; None: it is none, whoever wrote it.

    Args:
        done: what became of records, by :attr:`BuriedRecord.place`.
    """
    found = list(headers(message))
    cut = [name for name, _ in found[-len(_CUT) :]] == list(_CUT)
    own = found[: -len(_CUT)] if cut else found
    if [name for name, _ in own[-len(_REASON) :]] != list(_REASON):
        return None
    own, reason = own[: -len(_REASON)], own[-len(_REASON) :]
    said = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in reason}
    numbers = [said[name] for name in ("dl_partition", "dl_offset", "dl_timestamp")]
    if not all(re.fullmatch(r"-?\d{1,19}", number) for number in numbers):
        return None
    partition, offset, timestamp = map(int, numbers)
    source, id = _sender(own, message.value() or b"")
    place = f"{said['dl_topic']}/{partition}/{offset}/{timestamp}"
    return BuriedRecord(
        message.offset() or 0,
        message.timestamp()[1] / 1000,
        said["dl_topic"],
        partition,
        offset,
        timestamp,
        said["dl_stage"],
        said["dl_error"],
        said["dl_message"],
        source,
        id,
        message.key(),
        message.value(),
        own,
        cut,
        done.get(place, ""),
    )


class _Attributes(msgspec.Struct):
    """Of a structured event, in its value."""

    specversion: str
    id: str = ""
    source: str = ""


_attributes = msgspec.json.Decoder(_Attributes)


def _sender(own: Headers, value: bytes) -> tuple[str, str]:
    """Source and id of the event in a record, as far as it tells them."""
    id = next((said for name, said in own if name == "ce_id"), None)
    if id is None and b'"specversion"' in value:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = _attributes.decode(value)
            return found.source, found.id
    return source_of(own), (id or b"").decode("utf-8", "backslashreplace")


def by_reason(letters: Iterable[BuriedRecord]) -> list[ReasonCount]:
    """How many there are of each reason from each source, most first: what a producer has to fix."""
    found: dict[tuple[str, ...], ReasonCount] = {}
    for each in letters:
        key = each.topic, each.source, each.stage, each.error, common(each.reason)
        group = found.setdefault(key, ReasonCount(*key))
        group.letters += 1
        group.first, group.last = min(group.first, each.at), max(group.last, each.at)
        group.example = each.offset
    return sorted(found.values(), key=lambda group: (-group.letters, group.topic, group.reason))


def common(reason: str) -> str:
    """A reason without what differs between records: quoted values and numbers.

    >>> common("ce_time: 300 s ahead, got 'x'")
    'ce_time: N s ahead, got …'
    """
    return _NUMBER.sub("N", _QUOTED.sub("…", reason))


def as_json(letter: BuriedRecord, whole: bool = False) -> dict[str, Any]:
    """For a program; with ``whole`` the record, too: as text where it is UTF-8, else as hex."""
    names = ("offset", "at", "topic", "partition", "record_offset", "stage", "error", "reason", "source", "id", "done")
    found = {name: getattr(letter, name) for name in names}
    if whole:
        found |= {"cut": letter.cut, "key": _text(letter.key), "value": _text(letter.value)}
        found["headers"] = [[name, _text(value)] for name, value in letter.headers]
    return found


def _text(part: bytes | None) -> str | dict[str, str] | None:
    if part is None:
        return None
    try:
        return part.decode()
    except UnicodeDecodeError:
        return {"hex": part.hex()}
