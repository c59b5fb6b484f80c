"""Sends dead letters through the front door again, or drops them: each at most once.

A letter goes to the topic in which it was refused, with its own key, value, headers and id, and whoever reads that
topic judges it anew. A note of it is written by the same transaction, so that another replay leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaException

from streams.contract import vector_codec
from streams.contract.cloudevents import unpack
from streams.contract.errors import BadRecord, FromTheFuture, InvalidField, Unavailable
from streams.contract.event_base import Event
from streams.contract.event_time import MAX_AHEAD_SECONDS
from streams.contract.events import Listen, PushOutcome, SongUpload, UserPreferences
from streams.contract.internal_events import CampaignReport, MatchRequest
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    DEAD_LETTERS,
    LISTENS,
    MATCH_REQUESTS,
    PREFERENCES,
    PUSH_OUTCOMES,
    SONG_UPLOADS,
    Cleanup,
    Naming,
    Topic,
)
from streams.kafka.clients import producer
from streams.kafka.compacted_topic import Snapshot
from streams.operations.buried_records import NOTE, BuriedRecord
from streams.operations.operator_notes import read_notes, write_note
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

_EVENTS: Final[dict[Topic, type[Event]]] = {
    SONG_UPLOADS: SongUpload,
    LISTENS: Listen,
    PUSH_OUTCOMES: PushOutcome,
    PREFERENCES: UserPreferences,
    MATCH_REQUESTS: MatchRequest,
    CAMPAIGN_REPORTS: CampaignReport,
}
_INPUTS: Final = (*_EVENTS, AUDIENCE_VECTORS)

# Between our roles the sender chooses the partition, not the key.
_PLACED: Final = (MATCH_REQUESTS, CAMPAIGN_REPORTS)

# The earliest time at which a vector can have been made; a lower one is in seconds.
_EARLIEST_MS: Final = 978_307_200_000

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
    topics = {naming.name(topic): topic for topic in _INPUTS}
    newest: dict[str, dict[bytes, int]] = {}
    found, met = [], set()
    for letter in letters:
        topic, why = topics.get(letter.topic), ""
        if topic is None:
            fate = Fate.NO_INPUT
        elif letter.done or letter.place in met:
            fate = Fate.DONE
        elif letter.cut:
            fate = Fate.CUT
        elif why := _refusal(topic, letter, clock.now()):
            fate = Fate.REFUSED
        elif topic.cleanup is Cleanup.COMPACT:
            if letter.topic not in newest:
                newest[letter.topic] = _newest(kafka, letter.topic, clock)
            last = newest[letter.topic].get(letter.key or b"", letter.record_offset)
            fate = Fate.OUTDATED if last > letter.record_offset else Fate.SEND
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
    placed = {naming.name(topic) for topic in _PLACED}
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
                    sender.produce(each.topic, each.value, each.key, partition, timestamp=stamp, headers=headers)
                write_note(sender, naming, NOTE, each.place, {"done": done, "at": now})
                sender.poll(0)
            sender.commit_transaction(6 * timeout)
            progress(min(start + _AT_ONCE, len(letters)), len(letters))
    except KafkaException as error:
        raise Unavailable(f"{done}: {error.args[0].str()}; try again, what is done is left out") from error


def _refusal(topic: Topic, letter: BuriedRecord, now: float) -> str:
    """Why a letter would be refused if it came now; empty: the contract has nothing against it."""
    try:
        if topic is AUDIENCE_VECTORS:
            _check_vector(letter, now)
        else:
            unpack(_EVENTS[topic], letter.key, letter.value, letter.headers, now)
    except BadRecord as error:
        return str(error)
    return ""


def _check_vector(letter: BuriedRecord, now: float) -> None:
    if not 1 <= len(letter.key or b"") <= 128:
        raise InvalidField(f"key: {len(letter.key or b'')} bytes, 1 to 128 allowed")
    if letter.value is not None:
        # In whatever space: none has this name.
        for _, error in vector_codec.unpack_space([letter.value], "", 0).bad:
            raise error
        if letter.timestamp_ms < _EARLIEST_MS:
            raise InvalidField(f"timestamp: {letter.timestamp_ms} ms is no time at which a vector was made")
        if letter.timestamp_ms / 1000 > now + MAX_AHEAD_SECONDS:
            raise FromTheFuture(f"timestamp: {letter.timestamp_ms} ms has not come yet")


def _newest(kafka: KafkaSettings, topic: str, clock: Clock) -> dict[bytes, int]:
    """Offset of the last record of each key."""
    snapshot = Snapshot(kafka, [topic], clock)
    try:
        return {message.key() or b"": message.offset() or 0 for message in snapshot.read_to_end()}
    finally:
        snapshot.close()
