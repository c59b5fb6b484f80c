"""What do the topics say?

Read with the declarations of events and topics alone: what is found here, a stranger could read.
"""

from __future__ import annotations

import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar, cast

import msgspec
from confluent_kafka import Message

from streams.clock import Clock
from streams.events import (
    Campaign,
    CampaignReport,
    Event,
    Listen,
    LiveModel,
    MatchRequest,
    PushOutcome,
    PushTarget,
    SongUpload,
    UserPreferences,
    WarmSong,
)
from streams.settings import Kafka
from streams.snapshot import Snapshot
from streams.topics import (
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

E = TypeVar("E", bound=Event)

Place = tuple[str, int, int]
"""Topic, partition and offset of a record."""

_READ = (
    DEAD_LETTERS, SONG_UPLOADS, LISTENS, PREFERENCES, PUSH_TARGETS, PUSH_OUTCOMES, MATCH_REQUESTS, CAMPAIGN_REPORTS,
    CAMPAIGNS, WARM_SONGS, MODELS, AUDIENCE_VECTORS, AUDIENCE_STATE,
)  # fmt: skip

# Magic, version, dtype, dimension, space: streams/vectors.py says so.
_VECTOR = struct.Struct("<4sBBH32s")


@dataclass(frozen=True, slots=True)
class Said(Generic[E]):
    """An event and where it stands.

    Attributes:
        type: its ce_type; empty where the record has none.
        time: its ce_time, or else the record's own time; Unix seconds.
        event: None where the record deletes its key.
    """

    partition: int
    offset: int
    key: str
    type: str
    time: float
    event: E | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was said, by topic, each partition in the order of its offsets.

    Attributes:
        vectors: user and Unix seconds of every vector from outside that is not a deletion.
        state: what each changelog says of each key in the end; None: deleted.
        dead: how many dead letters each bad record has.
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
    dead: Counter[Place] = field(default_factory=Counter)
    unburied: list[str] = field(default_factory=list)


def read(kafka: Kafka, naming: Naming, clock: Clock) -> Evidence:
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
    def __init__(self, kafka: Kafka, naming: Naming, clock: Clock) -> None:
        self._naming = naming
        snapshot = Snapshot(kafka, [naming.name(topic) for topic in _READ], clock)
        self._messages: defaultdict[str, list[Message]] = defaultdict(list)
        try:
            for message in snapshot.read_to_end():
                self._messages[message.topic() or ""].append(message)
        finally:
            snapshot.close()
        self._dead: Counter[Place] = Counter()
        self._unburied: list[str] = []

    def read(self) -> Evidence:
        for letter in self._of(DEAD_LETTERS):
            said = {name: (value or b"").decode("utf-8", "replace") for name, value in _headers(letter)}
            self._dead[said["dl_topic"], int(said["dl_partition"]), int(said["dl_offset"])] += 1
        state = {
            (message.partition() or 0, message.key() or b""): message.value() for message in self._of(AUDIENCE_STATE)
        }
        vectors = [
            ((message.key() or b"").decode("utf-8", "replace"), message.timestamp()[1] / 1000)
            for message in self._of(AUDIENCE_VECTORS)
            if message.value() is not None and not self._is_dead(message)
        ]
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
            dead=self._dead,
            unburied=self._unburied,
        )

    def _of(self, topic: Topic) -> list[Message]:
        return self._messages[self._naming.name(topic)]

    def _is_dead(self, message: Message) -> bool:
        return (message.topic() or "", message.partition() or 0, message.offset() or 0) in self._dead

    def _events(self, topic: Topic, cls: type[E]) -> list[Said[E]]:
        decoder, found = msgspec.json.Decoder(cls), []
        for message in self._of(topic):
            if self._is_dead(message):
                if topic is PREFERENCES:
                    found.append(cast("Said[E]", _withheld(message)))
                continue
            headers, value = dict(_headers(message)), message.value()
            try:
                event = None if value is None else decoder.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                where = f"{topic.name}[{message.partition()}] at {message.offset()}"
                self._unburied.append(f"{where}: bad, and no dead letter says so ({error})")
                continue
            stamp = (headers.get("ce_time") or b"").decode()
            found.append(
                Said(
                    message.partition() or 0,
                    message.offset() or 0,
                    (message.key() or b"").decode(),
                    (headers.get("ce_type") or b"").decode(),
                    datetime.fromisoformat(stamp).timestamp() if stamp else message.timestamp()[1] / 1000,
                    event,
                )
            )
        return found


def _withheld(message: Message) -> Said[UserPreferences]:
    """What a refused record of preferences comes to by the contract: no pushes, and the erasure that it asks for."""
    own = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    event = UserPreferences(
        user_id=(message.key() or b"").decode("utf-8", "replace"), opted_in=False, updated_at=own,
        erase_requested_at=_asked(message.value() or b"", own),
    )  # fmt: skip
    return Said(message.partition() or 0, message.offset() or 0, event.user_id, "", own.timestamp(), event)


def _asked(value: bytes, own: datetime) -> datetime | None:
    """Of what is no JSON at all nothing is known here; whoever obeys more than is known breaks no promise."""
    try:
        whole = json.loads(value)
    except (ValueError, RecursionError):
        return None
    said = whole.get("erase_requested_at") if isinstance(whole, dict) else None
    if not said:
        return None
    try:
        asked = datetime.fromisoformat(said)
    except (TypeError, ValueError):
        return own
    return asked if asked.tzinfo and asked <= own + timedelta(minutes=5) else own


def _headers(message: Message) -> Iterator[tuple[str, bytes | None]]:
    # confluent-kafka's type also allows what only a producer may give.
    yield from cast("list[tuple[str, bytes | None]]", message.headers() or [])
