"""Which topics exist: one table, from which they are created, checked and documented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from streams.contract.event_time import MAX_AHEAD_SECONDS

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS

TIMESTAMP_TYPE = "message.timestamp.type"

# The broker refuses a producer's timestamp that lies ahead of the broker's clock, or that is given in seconds, which
# read as milliseconds lie in 1970.
_STATED_TIMES = {
    "message.timestamp.after.max.ms": str(round(MAX_AHEAD_SECONDS * 1000)),
    "message.timestamp.before.max.ms": str(20 * 365 * _DAY_MS),
}
TIME_SETTINGS = (TIMESTAMP_TYPE, *_STATED_TIMES)
"""The settings of a topic that say whose clock its records' times come from."""


class Plane(Enum):
    """Which number of partitions a topic has. Topics of one plane are co-partitioned."""

    AUDIENCE = "audience"
    SONGS = "songs"
    SINGLE = "single"


class Cleanup(StrEnum):
    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Topic:
    """One declared topic.

    Attributes:
        name: without the prefix of the installation.
        key: what the record key is.
        retention_ms: of a deleted topic; None for a compacted one.
        append_time: the broker stamps records as it appends them, so that no producer's clock reaches retention, lag or
            a decision. Otherwise producers state when a record's content was made, within what the broker allows.
        public: part of the contract with other teams (in the AsyncAPI document).
        largest: bytes of a record; the broker's own default, stated so that producers' limits can be held to it.
    """

    name: str
    key: str
    plane: Plane
    cleanup: Cleanup
    writers: str
    meaning: str
    retention_ms: int | None = None
    append_time: bool = True
    public: bool = True
    largest: int = 1_048_576

    def config(self) -> dict[str, str]:
        """The topic's settings on the broker."""
        config = {
            "cleanup.policy": self.cleanup.value,
            "max.message.bytes": str(self.largest),
            TIMESTAMP_TYPE: "LogAppendTime" if self.append_time else "CreateTime",
        }
        if not self.append_time:
            config |= _STATED_TIMES
        if self.cleanup is Cleanup.DELETE:
            config["retention.ms"] = str(self.retention_ms)
        else:
            # A reader that was away for less than this still sees every deletion.
            config["delete.retention.ms"] = str(7 * _DAY_MS)
            # The segment that is written to is never compacted, and a segment is closed only when a record comes after
            # its time: at the default of a week, what was erased would stay readable for as long.
            config["segment.ms"] = str(_HOUR_MS)
        return config


# A dead letter is a record as it was, and headers with the reason; a song's entries hold an upload, whose numbers can
# take more bytes than they came in.
MAX_RECORD_BYTES = 2 * 1_048_576


def _events(name: str, key: str, plane: Plane, days: int, writers: str, meaning: str, **more: bool) -> Topic:
    return Topic(name, key, plane, Cleanup.DELETE, writers, meaning, retention_ms=days * _DAY_MS, **more)


def _state(name: str, key: str, plane: Plane, writers: str, meaning: str, **more: bool) -> Topic:
    return Topic(name, key, plane, Cleanup.COMPACT, writers, meaning, **more)


SONG_UPLOADS = _events(
    "song-uploads", "song_id", Plane.SONGS, 7, "upload services",
    "a song was uploaded, updated or taken down, with its content",
)  # fmt: skip
LISTENS = _events("listens", "user_id", Plane.AUDIENCE, 7, "players", "who played what, when, how long, collected")
PUSH_OUTCOMES = _events(
    "push-outcomes", "user_id", Plane.AUDIENCE, 7, "push systems",
    "what became of a push: delivered, failed, opened, dismissed, expired",
)  # fmt: skip
PREFERENCES = _state(
    "preferences", "user_id", Plane.AUDIENCE, "account service",
    "a user's full preferences, or the request to be erased",
)  # fmt: skip
AUDIENCE_VECTORS = _state(
    "audience-vectors", "user_id", Plane.AUDIENCE, "user-model team (optional)",
    "a listener's representation from outside; its timestamp says when it was made", append_time=False,
)  # fmt: skip
PUSH_TARGETS = _events("push-targets", "user_id", Plane.AUDIENCE, 7, "audience role", "push this song to this user")
CAMPAIGNS = _state(
    "campaigns", "song_id", Plane.SONGS, "songs role", "the merged view of a song: status, counts, prototypes"
)
DEAD_LETTERS = replace(
    _events(
        "dead-letters", "the original key", Plane.SINGLE, 14, "all roles",
        "a bad record: original bytes, the reason in the headers",
    ),
    largest=MAX_RECORD_BYTES,
)  # fmt: skip
MATCH_REQUESTS = _events(
    "match-requests", "song_id", Plane.AUDIENCE, 7, "songs role",
    "a song for this partition, and every later command on it", public=False,
)  # fmt: skip
CAMPAIGN_REPORTS = _events(
    "campaign-reports", "song_id", Plane.SONGS, 1, "audience role",
    "a partition's cumulative account of a song; the highest version wins", public=False,
)  # fmt: skip
WARM_SONGS = replace(
    _state(
        "warm-songs", "song_id and space", Plane.SONGS, "publish, songs role",
        "retrievable songs: embedding, space and content", public=False,
    ),
    largest=MAX_RECORD_BYTES,
)  # fmt: skip
MODELS = _state("models", "name", Plane.SINGLE, "publish", "the live artifact: URI, sha256, space", public=False)
AUDIENCE_STATE = _state(
    "audience-state", "type and id", Plane.AUDIENCE, "audience role",
    "changelog of a partition's state and of its input offsets", public=False,
)  # fmt: skip
SONGS_LEDGER = replace(
    _state(
        "songs-ledger", "song_id", Plane.SONGS, "songs role",
        "the state of every song: its upload, the revision served last, its end", public=False,
    ),
    largest=MAX_RECORD_BYTES,
)  # fmt: skip
SONGS_REPORTS = _state(
    "songs-reports", "song_id and partition", Plane.SONGS, "songs role",
    "the newest report of every partition", public=False,
)  # fmt: skip

OPERATIONS = _state(
    "operations", "what it is about", Plane.SINGLE, "operators",
    "which dead letters were replayed or dropped, and how far a backfill has come", public=False,
)  # fmt: skip

TOPICS: tuple[Topic, ...] = (
    SONG_UPLOADS, LISTENS, PUSH_OUTCOMES, PREFERENCES, AUDIENCE_VECTORS, PUSH_TARGETS, CAMPAIGNS, DEAD_LETTERS,
    MATCH_REQUESTS, CAMPAIGN_REPORTS, WARM_SONGS, MODELS, AUDIENCE_STATE,
    SONGS_LEDGER, SONGS_REPORTS, OPERATIONS,
)  # fmt: skip

SENT: tuple[Topic, ...] = (PUSH_TARGETS, CAMPAIGNS, DEAD_LETTERS)
"""The public topics that this system writes; it reads every other one."""

READ_BY_OTHERS: tuple[Topic, ...] = (*SENT, PREFERENCES)
"""The public topics that others may read: push systems look at a user's preferences right before they send."""

WRITTEN_COMPRESSION = "none"
"""The codec of what this system writes."""
READ_COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")
PARTITIONER = "murmur2_random"
"""librdkafka's name for what the Java client does by default: murmur2 of the key, modulo the number of partitions."""


@dataclass(frozen=True, slots=True)
class Naming:
    """The topics of one installation: names with its prefix, partitions by plane."""

    prefix: str
    audience_partitions: int
    songs_partitions: int

    def name(self, topic: Topic) -> str:
        return f"{self.prefix}{topic.name}"

    def partitions(self, topic: Topic) -> int:
        return {
            Plane.AUDIENCE: self.audience_partitions,
            Plane.SONGS: self.songs_partitions,
            Plane.SINGLE: 1,
        }[topic.plane]

    def by_name(self) -> Mapping[str, Topic]:
        """Full name -> topic."""
        return {self.name(topic): topic for topic in TOPICS}
