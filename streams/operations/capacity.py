"""Derives what an installation needs from figures that were measured on smaller ones.

Nothing here was measured at the sizes that it is asked for: what lies beyond the largest measured size is marked as
extrapolated, and what nobody measured as computed from a format, or assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Final

from streams.contract.errors import Refused
from streams.contract.topics import LISTENS, MATCH_REQUESTS, PUSH_TARGETS, Topic

MEASURED, COMPUTED, ASSUMED = "measured", "computed", "assumed"
EXTRAPOLATED: Final = "extrapolated"

_DIMENSION: Final = 128
_MOST_PARTITIONS: Final = 1024
_LEAST_PARTITIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Figure:
    """What a need is derived from.

    Attributes:
        basis: measured, computed from a format, or assumed.
        source: the command that measures it, or where it stands.
        largest: the largest size at which it was measured; None where size does not matter.
    """

    name: str
    value: float
    unit: str
    basis: str
    source: str
    largest: float | None = None


_BENCH: Final = "make bench"
PARTITION_USERS: Final = Figure("users of a partition", 250_000, "", MEASURED, _BENCH)
WORKER_USERS: Final = Figure("users of a worker", 500_000, "", MEASURED, _BENCH)
USER_BYTES: Final = Figure("memory of a user with 50 songs", 2_395, "B", MEASURED, _BENCH, 1_000_000)
CANDIDATE_S: Final = Figure("a request, for each candidate", 12.05e-3 / 20_450, "s", MEASURED, _BENCH, 20_450)
REQUEST_S: Final = Figure(
    "a request, fixed part in each partition", 1e-3, "s", ASSUMED, "decoding, transaction, report"
)
LISTEN_S: Final = Figure("a listen", 1 / 98_267, "s", MEASURED, _BENCH)
DISK_S: Final = Figure("restart of a worker of 500,000 users, from disk", 8.5, "s", MEASURED, _BENCH)
CHANGELOG_S: Final = Figure("the same, from the changelog", 15.71, "s", MEASURED, _BENCH)
ENCODE_S: Final = Figure("encoding a song", 3.1e-3, "s", MEASURED, "encoder/README.md", 17_963)
SEARCH_S: Final = Figure("a search by HNSW", 0.43e-3, "s", MEASURED, "python tests/bench/bench_index.py", 100_000)
BUILD_S: Final = Figure(
    "building the index of 100,000 songs", 38.39, "s", MEASURED, "python tests/bench/bench_index.py", 100_000
)
PUSH_BYTES: Final = Figure("a push on disk", 750, "B", MEASURED, "CHANGELOG.md")
STATE_BYTES: Final = Figure("a user's records with 50 songs and 20 pushes", 1_500, "B", COMPUTED, "targeting/README.md")
SONG_BYTES: Final = Figure("a song's vector and ids, in a worker", 4 * _DIMENSION + 48, "B", COMPUTED, "128 floats")
INDEX_BYTES: Final = Figure(
    "a warm song in the songs role", 2 * 4 * _DIMENSION + 250, "B", COMPUTED, "vector twice, links"
)
REQUEST_BYTES: Final = Figure("a match request on disk", 4_000, "B", ASSUMED, "vector and 50 neighbours")
LISTEN_BYTES: Final = Figure("a listen on disk", 400, "B", ASSUMED, "as the producer compresses it")
BROKER_TB: Final = Figure("disk of a broker, filled to", 2, "TB", ASSUMED, "no cluster was measured")
FIGURES: Final = (
    PARTITION_USERS, WORKER_USERS, USER_BYTES, CANDIDATE_S, REQUEST_S, LISTEN_S, DISK_S, CHANGELOG_S, ENCODE_S,
    SEARCH_S, BUILD_S, PUSH_BYTES, STATE_BYTES, SONG_BYTES, INDEX_BYTES, REQUEST_BYTES, LISTEN_BYTES, BROKER_TB,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for.

    Attributes:
        songs: warm ones.
        listens_per_s: of all users together.
        history: songs that a user listened to.
        pushes: of an upload.
        neighbours: warm songs that are retrieved for it.
        replication: of every topic.
    """

    users: int
    songs: int
    uploads_per_s: float
    listens_per_s: float
    history: int = 50
    pushes: int = 1000
    neighbours: int = 50
    replication: int = 3


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that the demand needs, and whether figures of its size stand behind it."""

    what: str
    value: float
    unit: str
    basis: str
    why: str


def needs(demand: Demand) -> list[Need]:
    """What the demand needs.

    Raises:
        Refused: it is more than one installation can have.
    """
    partitions = _LEAST_PARTITIONS
    while partitions * PARTITION_USERS.value < demand.users:
        partitions *= 2
    if partitions > _MOST_PARTITIONS:
        raise Refused(
            f"{demand.users:,} users: {partitions:,} partitions of {PARTITION_USERS.value:,.0f} users, and "
            f"topics.audience_partitions is at most {_MOST_PARTITIONS:,}; divide them among several prefixes"
        )
    many, large = demand.users > (USER_BYTES.largest or 0), demand.songs > (BUILD_S.largest or 0)
    users, songs = (EXTRAPOLATED if beyond else MEASURED for beyond in (many, large))
    workers = min(partitions, max(2, ceil(demand.users / WORKER_USERS.value)))
    memory = demand.users * USER_BYTES.value * (demand.history / 50) / workers + demand.songs * SONG_BYTES.value
    listeners = demand.users * demand.history / demand.songs
    found_by = f"{demand.neighbours} songs, {listeners:,.0f} listeners"
    candidates = min(demand.users, demand.neighbours * listeners)
    audience = demand.uploads_per_s * (candidates * CANDIDATE_S.value + partitions * REQUEST_S.value)
    audience += demand.listens_per_s * LISTEN_S.value
    encoding = demand.uploads_per_s * (ENCODE_S.value + SEARCH_S.value)
    build = BUILD_S.value * (demand.songs / 1e5) * (log(max(demand.songs, 2)) / log(1e5))
    state = demand.users * STATE_BYTES.value
    kept = _kept_s(PUSH_TARGETS) * demand.uploads_per_s * demand.pushes * PUSH_BYTES.value
    kept += _kept_s(MATCH_REQUESTS) * demand.uploads_per_s * partitions * REQUEST_BYTES.value
    kept += _kept_s(LISTENS) * demand.listens_per_s * LISTEN_BYTES.value
    disk = demand.replication * (state + kept)
    return [
        Need("audience partitions", partitions, "", MEASURED, "250,000 users each at most, a power of two; fixed"),
        Need("audience workers", workers, "", users, "500,000 users each"),
        Need("memory of each", memory / 1e9, "GB", users, "its users, and the vectors of all songs"),
        Need("memory of all", workers * memory / 1e9, "GB", users, ""),
        Need("local disk of each", 2 * state / workers / 1e9, "GB", COMPUTED, "its changelog, twice for compaction"),
        Need("restart of each, from disk", DISK_S.value, "s", songs, "on a core of its own, without loading the songs"),
        Need("restart of each, from the changelog", CHANGELOG_S.value, "s", songs, "the same"),
        Need("candidates of an upload", candidates, "", COMPUTED, found_by),
        Need("cores for the audience", audience, "", users, "requests and listens, at full load; plan for twice that"),
        Need("cores for the songs role", encoding, "", songs, "encoding and search, at full load; plan for twice that"),
        Need("memory of a songs worker", demand.songs * INDEX_BYTES.value / 1e9, "GB", COMPUTED, "vectors and index"),
        Need("start of a songs worker", build, "s", songs, "it builds the index on one core"),
        Need("disk of the cluster", disk / 1e12, "TB", COMPUTED, f"{demand.replication} copies of state and of a week"),
        Need("brokers", max(3, ceil(disk / 1e12 / BROKER_TB.value)), "", ASSUMED, "2 TB each; no cluster was measured"),
    ]  # fmt: skip


def _kept_s(topic: Topic) -> float:
    """Seconds for which a topic keeps a record."""
    return (topic.retention_ms or 0) / 1000
