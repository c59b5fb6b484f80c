"""What the topics say.

Read with the declarations of events and topics alone: what is found here, a stranger could read.
"""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import msgspec
from confluent_kafka import Message

from streams.contract.dead_letters import headers
from streams.contract.event_base import Event
from streams.contract.events import Campaign, Listen, PushOutcome, PushTarget, SongUpload, UserPreferences
from streams.contract.internal_events import CampaignReport, LiveModel, MatchRequest, WarmSong
from streams.contract.topics import (
    AUDIENCE_STATE,
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    LISTENS,
    MATCH_REQUESTS,
    MODELS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    WARM_SONGS,
    Naming,
    Topic,
)
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

E = TypeVar("E", bound=Event)

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""

_READ = (
    DEAD_LETTERS, SONG_UPLOADS, LISTENS, PREFERENCES, PUSH_TARGETS, PUSH_OUTCOMES, MATCH_REQUESTS, CAMPAIGN_REPORTS,
    CAMPAIGNS, WARM_SONGS, MODELS, AUDIENCE_VECTORS, AUDIENCE_STATE,
)  # fmt: skip

EXPECTS = "torture_expects"
"""A header of the traffic: what must become of the record. The roles know nothing of it."""

OF_A_USER = (b"u", b"p", b"i")
"""How the keys of a changelog's records on a user begin: history, pushes, score threshold."""

# Magic, version, dtype, dimension, space: streams/contract/vector_codec.py says so.
_VECTOR = struct.Struct("<4sBBH32s")


@dataclass(frozen=True, slots=True)
class Said(Generic[E]):
    """An event and where it stands.

    Attributes:
        type: its ce_type; empty where the record has none.
        time: its ce_time, or else the record's own time; Unix seconds.
        event: None where the record deletes its key.
        appended: when the broker appended the record, Unix seconds.
        refused: it has a dead letter, and the event is what it comes to all the same.
    """

    partition: int
    offset: int
    key: str
    type: str
    time: float
    event: E | None
    appended: float = 0.0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """A record as it stands in its topic, or in a dead letter; ``headers`` None: the client cannot read them."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was said, by topic, each partition in the order of its offsets.

    Attributes:
        vectors: user and Unix seconds of every vector from outside that is not a deletion.
        state: what each changelog says of each key in the end; None: deleted.
        written: partition, key and append time of each record of a changelog that is of a user and no deletion.
        dead: the dead letters of each bad record.
        bad: the bad records themselves, as far as they are there.
        expected: what a record says that must become of it, "buried" or "kept" (the header ``EXPECTS``).
        unburied: bad records without a dead letter, in words.
    """

    uploads: list[Said[SongUpload]] = field(default_factory=list)
    listens: list[Said[Listen]] = field(default_factory=list)
    preferences: list[Said[UserPreferences]] = field(default_factory=list)
    pushes: list[Said[PushTarget]] = field(default_factory=list)
    outcomes: list[Said[PushOutcome]] = field(default_factory=list)
    requests: list[Said[MatchRequest]] = field(default_factory=list)
    reports: list[Said[CampaignReport]] = field(default_factory=list)
    campaigns: list[Said[Campaign]] = field(default_factory=list)
    warm: list[Said[WarmSong]] = field(default_factory=list)
    models: list[Said[LiveModel]] = field(default_factory=list)
    vectors: list[tuple[str, float]] = field(default_factory=list)
    state: dict[tuple[int, bytes], bytes | None] = field(default_factory=dict)
    written: list[tuple[int, bytes, float]] = field(default_factory=list)
    dead: dict[Place, list[TopicRecord]] = field(default_factory=dict)
    bad: dict[Place, TopicRecord] = field(default_factory=dict)
    expected: dict[Place, str] = field(default_factory=dict)
    unburied: list[str] = field(default_factory=list)


def read(kafka: KafkaSettings, naming: Naming, clock: Clock) -> Evidence:
    """Read every topic to its end, as a read_committed reader sees it.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    return _Reader(kafka, naming, clock).read()


def space_of(vector: bytes) -> str:
    """The space that a vector in the binary layout says it is of; empty for what is no vector."""
    if len(vector) < _VECTOR.size or vector[:4] != b"CSVE":
        return ""
    return str(_VECTOR.unpack_from(vector)[4].rstrip(b"\0"), "ascii", "replace")


class _Reader:
    def __init__(self, kafka: KafkaSettings, naming: Naming, clock: Clock) -> None:
        self._naming = naming
        self._dead_letters = naming.name(DEAD_LETTERS)
        snapshot = Snapshot(kafka, [naming.name(topic) for topic in _READ], clock)
        self._messages: defaultdict[str, list[Message]] = defaultdict(list)
        try:
            for message in snapshot.read_to_end():
                self._messages[message.topic() or ""].append(message)
        finally:
            snapshot.close()
        self._dead: defaultdict[Place, list[TopicRecord]] = defaultdict(list)
        self._unburied: list[str] = []

    def read(self) -> Evidence:
        for letter in self._of(DEAD_LETTERS):
            told = {name: (value or b"").decode("utf-8", "replace") for name, value in _headers(letter)}
            place = told.get("dl_topic", ""), int(told.get("dl_partition", -1)), int(told.get("dl_offset", -1))
            self._dead[place].append(_found(letter))
        state = {
            (message.partition() or 0, message.key() or b""): message.value() for message in self._of(AUDIENCE_STATE)
        }
        vectors = [
            ((message.key() or b"").decode("utf-8", "replace"), message.timestamp()[1] / 1000)
            for message in self._of(AUDIENCE_VECTORS)
            if message.value() is not None and not self._is_dead(message)
        ]
        written = [
            (message.partition() or 0, key, message.timestamp()[1] / 1000)
            for message in self._of(AUDIENCE_STATE)
            if (key := message.key() or b"")[:1] in OF_A_USER and message.value() is not None
        ]
        inputs = [message for name in self._messages for message in self._messages[name] if name != self._dead_letters]
        return Evidence(
            uploads=self._events(SONG_UPLOADS, SongUpload),
            listens=self._events(LISTENS, Listen),
            preferences=self._events(PREFERENCES, UserPreferences),
            pushes=self._events(PUSH_TARGETS, PushTarget),
            outcomes=self._events(PUSH_OUTCOMES, PushOutcome),
            requests=self._events(MATCH_REQUESTS, MatchRequest),
            reports=self._events(CAMPAIGN_REPORTS, CampaignReport),
            campaigns=self._events(CAMPAIGNS, Campaign),
            warm=self._events(WARM_SONGS, WarmSong),
            models=self._events(MODELS, LiveModel),
            vectors=vectors,
            state=state,
            written=written,
            dead=dict(self._dead),
            bad={_place(message): _found(message) for message in inputs if self._is_dead(message)},
            expected={_place(message): said for message in inputs if (said := _expected(message))},
            unburied=self._unburied,
        )

    def _of(self, topic: Topic) -> list[Message]:
        return self._messages[self._naming.name(topic)]

    def _is_dead(self, message: Message) -> bool:
        return _place(message) in self._dead

    def _events(self, topic: Topic, cls: type[E]) -> list[Said[E]]:
        decode, found = _decoder(cls), []
        for message in self._of(topic):
            if self._is_dead(message):
                if topic is PREFERENCES:
                    found.append(cast("Said[E]", _withheld(message)))
                continue
            try:
                found.append(_said(message, decode))
            # SystemError: the client cannot read the headers.
            except (msgspec.DecodeError, ValueError, OverflowError, SystemError) as error:
                where = f"{topic.name}[{message.partition()}] at {message.offset()}"
                self._unburied.append(f"{where}: bad, and no dead letter says so ({error})")
        return found


def _decoder(cls: type[E]) -> Callable[[bytes, bytes | None], E]:
    """Reads a value: JSON, but for match requests that say that they are MessagePack."""
    from_json, packed = msgspec.json.Decoder(cls).decode, msgspec.msgpack.Decoder(cls).decode

    def decode(value: bytes, content_type: bytes | None) -> E:
        return (packed if cls is MatchRequest and content_type == b"application/msgpack" else from_json)(value)

    return decode


def _said(message: Message, decode: Callable[[bytes, bytes | None], E]) -> Said[E]:
    headers, value = dict(_headers(message)), message.value()
    stamp = (headers.get("ce_time") or b"").decode()
    own = message.timestamp()[1] / 1000
    return Said(
        message.partition() or 0,
        message.offset() or 0,
        (message.key() or b"").decode(),
        (headers.get("ce_type") or b"").decode(),
        datetime.fromisoformat(stamp).timestamp() if stamp else own,
        None if value is None else decode(value, headers.get("content-type")),
        own,
    )


def _withheld(message: Message) -> Said[UserPreferences]:
    """What a refused record of preferences comes to by the contract: no pushes, the erasure that it asks for, and the
    objection to profiling. Of one that objects to nothing ``profiling`` means nothing."""
    own, value = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC), message.value() or b""
    objects = _plainly(value, "profiling", rb"(false)") in (False, "false")
    event = UserPreferences(
        user_id=(message.key() or b"").decode("utf-8", "replace"), opted_in=False,
        updated_at=_time(_plainly(value, "updated_at", rb'"([^"]*)"'), own), profiling=not objects,
        erase_requested_at=_asked(value, own),
    )  # fmt: skip
    at = own.timestamp()
    return Said(message.partition() or 0, message.offset() or 0, event.user_id, "", at, event, at, refused=True)


def _plainly(value: bytes, name: str, form: bytes) -> Any:
    """What a field says. Of what is no JSON at all only the plainest wish is known here; whoever obeys more breaks no
    promise."""
    try:
        whole = json.loads(value)
        return whole.get(name) if isinstance(whole, dict) else None
    except (ValueError, RecursionError):
        plain = re.search(b'"%s":%s' % (name.encode(), form), value)
        return plain and plain[1].decode("utf-8", "replace")


def _asked(value: bytes, own: datetime) -> datetime | None:
    said = _plainly(value, "erase_requested_at", rb'"([^"]*)"')
    return _time(said, own) if said else None


def _time(said: Any, own: datetime) -> datetime:
    """A time that a record says, or its own: if that is none, or farther ahead than clocks may differ."""
    try:
        asked = datetime.fromisoformat(said)
    except (TypeError, ValueError):
        return own
    return asked if asked.tzinfo and asked <= own + timedelta(minutes=5) else own


def _place(message: Message) -> Place:
    return message.topic() or "", message.partition() or 0, message.offset() or 0


def _found(message: Message) -> TopicRecord:
    try:
        return TopicRecord(message.key(), message.value(), list(_headers(message)))
    except SystemError:
        return TopicRecord(message.key(), message.value(), None)


def _expected(message: Message) -> str:
    try:
        return (dict(_headers(message)).get(EXPECTS) or b"").decode("ascii", "replace")
    except SystemError:
        return ""


def _headers(message: Message) -> Iterator[tuple[str, bytes | None]]:
    yield from headers(message)
