"""Everything that is held of a user: every record that names them, and what the state has made of these.

What is searched is what ``coldstart erased`` searches (:mod:`streams.operations.erasure_audit`). The state keeps hashes
of songs, recordings and artists; they are named as far as a topic still tells whose they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from streams.contract import vector_codec
from streams.contract.dead_letters import headers
from streams.contract.errors import BadRecord, Refused
from streams.contract.topics import (
    AUDIENCE_STATE,
    AUDIENCE_VECTORS,
    CAMPAIGNS,
    LISTENS,
    PUSH_TARGETS,
    SONGS_LEDGER,
    TOPICS,
    WARM_SONGS,
    Naming,
    Topic,
)
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.partitioner import partition_of
from streams.operations.erasure_audit import about_user, searched
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from targeting.arrays.id_table import hash64
from targeting.partition.state_keys import ERASED, INTEREST, PUSHED, USER
from targeting.types import Mark
from targeting.users import history_record, push_record, score_thresholds
from targeting.users.erasures import Erasures

_MARKS: Final = tuple(Mark)


class _Names(msgspec.Struct):
    """What an event says of songs, recordings and artists."""

    song_id: str = ""
    recording_id: str | None = None
    artist_ids: list[str] = []


class _SongRecordNames(msgspec.Struct):
    upload: _Names | None = None


def export_user(
    kafka: KafkaSettings,
    naming: Naming,
    clock: Clock,
    user_id: str,
    keys: Sequence[bytes],
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """What is held of a user, for JSON. Workers may run meanwhile.

    Args:
        keys: of the keyed hash that remembers erased users, the current one first (``audience.erasure_keys``).
        progress: called with the name of each topic before it is read.

    Raises:
        Refused: the state holds a record that cannot be read.
        Unavailable: the broker does not answer, or a topic is missing.
    """
    partition = partition_of(user_id.encode(), naming.audience_partitions)
    topics: dict[str, list[dict[str, Any]]] = {}
    names: set[str] = set()
    erasures, standing = Erasures(keys[0], keys[1:]), dict[bytes, bytes]()
    for topic in TOPICS:
        name = naming.name(topic)
        progress(name)
        snapshot = Snapshot(kafka, [name], clock, searched(topic, partition))
        try:
            messages = _naming(topic, snapshot.read_to_end(), names)
            if topic is AUDIENCE_STATE:
                _note_state(name, messages, user_id.encode(), standing, erasures)
                continue
            about = about_user(topic, user_id)
            if found := [_record(topic, message, names) for message in messages if about(message)]:
                topics[name] = found
        finally:
            snapshot.close()
    marker = erasures.of(user_id)
    return {
        "user_id": user_id,
        "partition": partition,
        "exported_at": _time(clock.now()),
        "topics": topics,
        "state": _state(standing, dict(zip(hash64(names).tolist(), names, strict=True)))
        | {
            "erased_at": _time(marker.erased) if marker.erased else None,
            "profiling": {"allowed": not marker.objects, "said_at": _time(marker.said)} if marker.said else None,
        },
    }


def _naming(topic: Topic, messages: Iterable[Message], names: set[str]) -> Iterator[Message]:
    """The same messages; the ids of songs, recordings and artists in them are noted."""
    for message in messages:
        key = (message.key() or b"").decode("utf-8", "replace")
        if topic is WARM_SONGS:
            names.add(key.partition(" ")[2])
        elif topic in (CAMPAIGNS, SONGS_LEDGER):
            names.add(key)
        if topic is SONGS_LEDGER and message.value():
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                _note(msgspec.json.decode(message.value() or b"", type=_SongRecordNames).upload, names)
        yield message


def _note(found: _Names | None, names: set[str]) -> None:
    if found:
        names.update(filter(None, (found.song_id, found.recording_id, *found.artist_ids)))


def _note_state(
    name: str, messages: Iterable[Message], user: bytes, standing: dict[bytes, bytes], erasures: Erasures
) -> None:
    """What the changelog says last of the user's keys, by their kind; and who was erased."""
    for message in messages:
        key, value = message.key() or b"", message.value()
        try:
            if key[:1] == ERASED:
                erasures.load(key[1:], value)
        except ValueError as error:
            where = f"{name}[{message.partition()}] at offset {message.offset()}"
            raise Refused(f"{where}: {error}; a worker of this partition says the way out") from None
        if key[1:] == user and key[:1] in (USER, PUSHED, INTEREST):
            if value is None:
                standing.pop(key[:1], None)
            else:
                standing[key[:1]] = value


def _record(topic: Topic, message: Message, names: set[str]) -> dict[str, Any]:
    value = message.value()
    if topic in (LISTENS, PUSH_TARGETS) and value:
        # What is no such event is shown as it is.
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            _note(msgspec.json.decode(value, type=_Names), names)
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "at": _time(message.timestamp()[1] / 1000),
        "key": _readable(message.key()),
        "value": _vector(value) if topic is AUDIENCE_VECTORS else _readable(value),
        "headers": {name: _readable(value, json=False) for name, value in headers(message)},
    }


def _vector(value: bytes | None) -> Any:
    try:
        space, vector = vector_codec.unpack(value or b"")
    except BadRecord:
        return _readable(value)
    return {"space": space, "vector": vector.tolist()}


def _readable(part: bytes | None, json: bool = True) -> Any:
    """What JSON says, or text, or hex."""
    if part is None:
        return None
    try:
        text = part.decode()
        return msgspec.json.decode(part) if json and text[:1] in ("{", "[") else text
    except UnicodeDecodeError:
        return {"hex": part.hex()}
    except (msgspec.DecodeError, RecursionError):
        return text


def _state(standing: dict[bytes, bytes], names: dict[int, str]) -> dict[str, Any]:
    """What the state has of a user.

    Raises:
        Refused: a record cannot be read.
    """
    try:
        _, heard = history_record.decode([standing.get(USER, b"")])
        _, pushed = push_record.decode([standing.get(PUSHED, b"")])
        threshold = score_thresholds.decode([standing.get(INTEREST, b"")])
    except ValueError as error:
        raise Refused(f"the state of the user: {error}; a worker of this partition says the way out") from None

    def name(hashed: Any) -> str:
        return names.get(int(hashed), f"hash {int(hashed):016x}")

    return {
        "history": [
            {"song": name(each["song"]), "weight": float(each["weight"]), "last_played_at": _time(float(each["time"]))}
            for each in heard
        ],
        "pushes": [
            {
                "recording": name(each["recording"]),
                "artist": name(each["artist"]),
                "not_before": _time(float(each["at"])),
                "marks": [mark.name for mark in _MARKS if int(each["marks"]) & mark and mark.name],
            }
            for each in pushed
        ],
        "score_threshold": [
            {"factor": 2.0 ** float(each["level"]), "at": _time(float(each["at"]))} for each in threshold
        ],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
