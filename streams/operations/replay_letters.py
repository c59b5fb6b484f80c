"""Sends dead letters again, through the topic that they came from, or drops them: each at most once.

A letter goes to the topic in which it was refused, with its own key, value, headers and id, and whoever reads that
topic judges it again. A note of it is written by the same transaction, so that another replay leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaException, Message

from streams.contract.errors import Unavailable
from streams.contract.topics import AUDIENCE_VECTORS, DEAD_LETTERS, Cleanup, Naming
from streams.kafka.clients import enqueue, producer
from streams.kafka.compacted_topic import Snapshot
from streams.operations.buried_records import NOTE, BuriedRecord
from streams.operations.letter_verdict import INPUTS, PLACED, live_space, refusal
from streams.operations.operator_notes import read_notes, write_note
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

_AT_ONCE: Final = 1000

# Of a note: longer than its letter can be there.
_KEPT_S: Final = 3 * (DEAD_LETTERS.retention_ms or 0) / 1000


class Fate(StrEnum):
    """What a replay does with a letter."""

    SEND = "is sent again"
    DONE = "was replayed or dropped before"
    REFUSED = "would be refused again"
    CUT = "is not whole: the record was larger than a letter may be, and must come from its producer"
    OUTDATED = "is outdated: its key has a newer record"
    NO_INPUT = "is of no input: what wrote it must write it again"


@dataclass(frozen=True, slots=True)
class JudgedLetter:
    """A letter, and what a replay does with it; ``why`` it would be refused."""

    letter: BuriedRecord
    fate: Fate
    why: str = ""


def judge_letters(
    kafka: KafkaSettings, naming: Naming, clock: Clock, letters: Iterable[BuriedRecord]
) -> list[JudgedLetter]:
    """What a replay would do with each letter; nothing is sent.

    Of a compacted topic the last record of a key says what holds, so only a letter that is still its key's last one is
    sent again.

    Raises:
        Unavailable: the broker does not answer.
    """
    letters = list(letters)
    topics = {naming.name(topic): topic for topic in INPUTS}
    space = live_space(kafka, naming, clock) if letters else None
    newest: dict[str, Newest] = {}
    found, met = [], set()
    for letter in letters:
        topic, why = topics.get(letter.topic), ""
        if topic is None:
            fate = Fate.NO_INPUT
        elif letter.done or letter.place in met:
            fate = Fate.DONE
        elif letter.cut:
            fate = Fate.CUT
        elif why := refusal(topic, letter, naming, space, clock.now()):
            fate = Fate.REFUSED
        elif topic.cleanup is Cleanup.COMPACT:
            if letter.topic not in newest:
                newest[letter.topic] = _newest(kafka, letter.topic, clock)
            fate = Fate.OUTDATED if newest[letter.topic].after(letter) else Fate.SEND
        else:
            fate = Fate.SEND
        met.add(letter.place)
        found.append(JudgedLetter(letter, fate, why))
    return found


def replay(
    kafka: KafkaSettings,
    naming: Naming,
    clock: Clock,
    letters: Sequence[BuriedRecord],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Send letters that :func:`judge_letters` lets through.

    Args:
        progress: called with (sent, in all).

    Raises:
        Unavailable: the broker does not answer; a second replay sends what this one did not.
    """
    placed = {naming.name(topic) for topic in PLACED}
    vectors = naming.name(AUDIENCE_VECTORS)
    _noted(kafka, naming, clock, letters, "replayed", progress, placed, vectors)


def drop(kafka: KafkaSettings, naming: Naming, clock: Clock, letters: Sequence[BuriedRecord]) -> None:
    """Note letters as done with: they are not listed any more, and never replayed. Their bytes go with retention.

    Raises:
        Unavailable: the broker does not answer.
    """
    _noted(kafka, naming, clock, letters, "dropped", lambda *_: None, None, "")


def _noted(
    kafka: KafkaSettings,
    naming: Naming,
    clock: Clock,
    letters: Sequence[BuriedRecord],
    done: str,
    progress: Callable[[int, int], None],
    placed: set[str] | None,
    vectors: str,
) -> None:
    """Send, unless ``placed`` is None, and note, so many letters in each transaction."""
    timeout, now = kafka.request_timeout_s, clock.now()
    old = [about for about, note in read_notes(kafka, naming, clock, NOTE).items() if note["at"] < now - _KEPT_S]
    sender = producer(kafka, f"{naming.prefix}dead-letters", 2 * timeout)
    try:
        sender.init_transactions(6 * timeout)
        for start in range(0, len(letters), _AT_ONCE):
            sender.begin_transaction()
            while old:
                write_note(sender, naming, NOTE, old.pop(), None)
            for each in letters[start : start + _AT_ONCE]:
                if placed is not None:
                    # A vector's timestamp says when it was made; the broker stamps everything else anew.
                    stamp = each.timestamp_ms if each.topic == vectors else 0
                    partition = each.partition if each.topic in placed else -1
                    headers: list[tuple[str, str | bytes | None]] = [*each.headers]
                    enqueue(
                        sender, each.topic, value=each.value, key=each.key, partition=partition, timestamp=stamp,
                        headers=headers,
                    )  # fmt: skip
                write_note(sender, naming, NOTE, each.place, {"done": done, "at": now})
                sender.poll(0)
            sender.commit_transaction(6 * timeout)
            progress(min(start + _AT_ONCE, len(letters)), len(letters))
    except KafkaException as error:
        raise Unavailable(f"{done}: {error.args[0].str()}; try again, what is done is left out") from error


class Newest:
    """The last record of each key in each partition of a topic."""

    def __init__(self) -> None:
        self._last: dict[bytes, dict[int, tuple[int, int]]] = {}

    def note(self, message: Message) -> None:
        places = self._last.setdefault(message.key() or b"", {})
        places[message.partition() or 0] = message.offset() or 0, message.timestamp()[1]

    def after(self, letter: BuriedRecord) -> bool:
        """Whether a letter's key has a later record: by offset; in another partition, by timestamp."""
        return any(
            offset > letter.record_offset if partition == letter.partition else stamp > letter.timestamp_ms
            for partition, (offset, stamp) in self._last.get(letter.key or b"", {}).items()
        )


def _newest(kafka: KafkaSettings, topic: str, clock: Clock) -> Newest:
    snapshot, newest = Snapshot(kafka, [topic], clock), Newest()
    try:
        for message in snapshot.read_to_end():
            newest.note(message)
    finally:
        snapshot.close()
    return newest
