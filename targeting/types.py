"""What goes into targeting and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, StrEnum
from hashlib import blake2b
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

LARGEST_COUNT = 2**53
"""As large as a float64 holds exactly: whatever a number of JSON may be, what is computed with it must not overflow."""
Count = Annotated[int, Meta(ge=0, le=LARGEST_COUNT)]


class Match(msgspec.Struct, frozen=True, array_like=True):
    """A new song that asks a partition for its audience.

    A struct, because its fields, in this order, are its record in the changelog (:mod:`targeting.campaigns.campaign`):
    a new one goes to the end and has a default.

    Attributes:
        song_id, revision: which song; the first request of a (song, revision) wins.
        recording: the key of "never twice to a user": the recording's id, or the song's own.
        vector: float32 (d,), unit length, in ``space``.
        neighbours: ids of the K retrieved warm songs, most similar first; may be empty.
        similarities: float32 (K,), cosine of ``vector`` with each neighbour.
        budget: pushes over all partitions and the whole life of the campaign.
        requested_at, expires_at, available_from: Unix seconds; nobody is told of the song before the last.
        explicit: only users who allow explicit songs are pushed it.
        territories: countries, as users' preferences name theirs, in which it may be pushed; empty: everywhere.
        others: the song's vector in further spaces, by space: during a swap of models a request carries both.
    """

    song_id: str
    revision: int
    recording: str
    title: str
    artist_ids: tuple[str, ...]
    space: str
    vector: F32
    neighbours: tuple[str, ...]
    similarities: F32
    budget: int
    requested_at: float
    expires_at: float
    explicit: bool = False
    territories: tuple[str, ...] = ()
    available_from: float = 0.0
    others: tuple[tuple[str, F32], ...] = ()


class EndReason(StrEnum):
    """Why a campaign ends."""

    TAKEN_DOWN = "taken-down"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    PROMOTED = "promoted"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Takedown:
    """A command on a running campaign: stop, for this reason."""

    song_id: str
    revision: int
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Reanchor:
    """A command on a running campaign: its song's vector in another space, and what is similar to it there."""

    song_id: str
    revision: int
    space: str
    vector: F32
    neighbours: tuple[str, ...]
    similarities: F32


Command = Match | Takedown | Reanchor


@dataclass(frozen=True, slots=True)
class Listens:
    """A batch of listens by column, in arrival order; all columns have the same length n.

    Attributes:
        weights: float32 (n,), plays (aggregated history counts more than one).
        times: float64 (n,), Unix seconds of the listen.
        marks: uint16 (n,), :class:`Mark` bits COMPLETED and COLLECTED of each; None: neither.
    """

    user_ids: Sequence[str]
    song_ids: Sequence[str]
    weights: F32
    times: F64
    marks: NDArray[np.uint16] | None = None


@dataclass(frozen=True, slots=True)
class OutsideVectors:
    """Listeners' vectors from a model outside, in one space; the latest of each user in a batch.

    Attributes:
        user_ids: n distinct ids.
        vectors: float32 (n, d).
        times: float64 (n,), Unix seconds of the records; what is older than an erasure is not taken.
        withdrawn: ids, none of them in ``user_ids``, whose vector is their history's again.
    """

    space: str
    user_ids: Sequence[str]
    vectors: F32
    times: F64
    withdrawn: Sequence[str] = ()


class Mark(IntFlag):
    """What is known of a push, or of one that was held out; 16 bits in the push log, of which five more say what it
    teaches (:mod:`targeting.ranking.recalibration`)."""

    HELD_OUT = 1
    EXPLORED = 2
    DELIVERED = 4
    FAILED = 8
    OPENED = 16
    DISMISSED = 32
    EXPIRED = 64
    LISTENED = 128
    COMPLETED = 256
    COLLECTED = 512


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of pushes, by column, in arrival order; n each.

    Attributes:
        marks: uint16 (n,), one :class:`Mark` each.
        times: float64 (n,), Unix seconds: when it happened.
        push_ids: of which pushes; None: user and song say so.
    """

    user_ids: Sequence[str]
    song_ids: Sequence[str]
    marks: NDArray[np.uint16]
    times: F64
    push_ids: Sequence[str] | None = None


class FrequencyCap(NamedTuple):
    """At most so many pushes in any so many hours."""

    pushes: int
    hours: float

    @property
    def seconds(self) -> float:
        """The span, to the millisecond: what is less than that in a decimal number of hours was never meant."""
        return round(self.hours * 3_600_000) / 1000


class QuietSpan(NamedTuple):
    """A span of the local day without pushes: minutes after midnight, the end exclusive; it may cross midnight."""

    start: int
    end: int


class Preferences(msgspec.Struct, frozen=True, gc=False):
    """What a user allows: always the full state, never a patch.

    No dataclass, because each different one is held in memory and looked up by its hash.

    Attributes:
        opted_in: False: no pushes at all.
        country: ISO 3166-1 code; None: unknown, so that no song is pushed that has territories.
        muted_artists: ids; no song is pushed that names one of them.
        allow_explicit: False: no explicit songs.
        timezone: IANA name; ``quiet`` is in its local time.
        quiet: spans without pushes, every day.
        cap: None: the policy's own.
    """

    opted_in: bool = True
    country: str | None = None
    muted_artists: frozenset[str] = frozenset()
    allow_explicit: bool = True
    timezone: str = "UTC"
    quiet: tuple[QuietSpan, ...] = ()
    cap: FrequencyCap | None = None


class PushReason(StrEnum):
    """Why a user gets a song: because of the songs heard, of the whole taste, of a prototype near it, or to learn."""

    EVIDENCE = "evidence"
    DIRECT = "direct"
    PROTOTYPE = "prototype"
    EXPLORATION = "exploration"


class Tier(StrEnum):
    """When a push was decided: at the song's request, or later, when the user came near the song."""

    INITIAL = "initial"
    LIVE = "live"


def push_id(user_id: str, recording: str, erased_at: float | None = None) -> str:
    """The identity of a push: 128 bits of BLAKE2b over the two ids, separated by a byte that UTF-8 never holds.

    Of a user who was erased, what was pushed before is forgotten and may come again: then another such byte and the
    erasure's time in microseconds, decimal, follow, so that it is another push.

    Args:
        erased_at: Unix seconds; None: never.
    """
    named = user_id.encode() + b"\xff" + recording.encode()
    if erased_at is not None:
        # Rounded, because float64 holds today's seconds to a quarter of a microsecond.
        named += b"\xff%d" % round(erased_at * 1e6)
    return blake2b(named, digest_size=16).hexdigest()


class Suppression(IntEnum):
    """Why a candidate is not pushed a song: of several reasons the first in this order."""

    OPTED_OUT = 1
    NOT_WANTED = 2  # explicit, a muted artist, or outside of the song's territories
    HEARD = 3
    ALREADY_PUSHED = 4  # the same recording
    ERASED = 5  # in this very batch
    BELOW_THRESHOLD = 6  # no fit at all, or too small a chance for this user's threshold
    EXPIRED = 7  # the song's life ends before it may be pushed
    CAP_RESERVED = 8  # at random: what is left of the cap is for songs to come
    QUIET_HOURS = 9  # until the song's end
    FREQUENCY_CAP = 10  # the user's own, or that of the artist
    HELD_OUT = 11
    BUDGET = 12  # others come before

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


class Push(msgspec.Struct, frozen=True, gc=False):
    """One decision: this song to this user.

    No dataclass, because a request makes hundreds, and these take a quarter of the time.

    Attributes:
        match: the song's request.
        score: the chance of a listen where ``calibrated``; otherwise it only orders.
        why: see :class:`PushReason`.
        songs: the retrieved songs that the user heard, those of the largest weight first, at most 5.
        not_before: Unix seconds; nothing may reach the user earlier.
        prototype: which of the campaign's the user came near, from 0; None: none.
        calibrated: ``score`` is a chance.
        tier: decided at the request, or later.
        score_threshold: what this user's scores were divided by (:mod:`targeting.users.score_thresholds`).
        erased_at: when the user was last erased, Unix seconds; None: never.
        evidence, direct, activity: the score was made of ``(evidence + direct) * activity``
            (:mod:`targeting.ranking.scoring`).
        offset, slope: what answers made of its chance (:mod:`targeting.ranking.recalibration`).
    """

    match: Match
    user_id: str
    score: float
    why: PushReason
    songs: tuple[str, ...]
    not_before: float
    prototype: int | None = None
    calibrated: bool = False
    tier: Tier = Tier.INITIAL
    score_threshold: float = 1.0
    erased_at: float | None = None
    evidence: float = 0.0
    direct: float = 0.0
    activity: float = 1.0
    offset: float = 0.0
    slope: float = 1.0


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The few vectors that stand for a campaign's audience in one partition.

    Attributes:
        vectors: float32 (C, d), unit rows.
        members: int64 (C,), sample members of each; a prototype of fewer than 10 is never shown outside.
    """

    vectors: F32
    members: NDArray[np.int64]


class OutcomeCounts(msgspec.Struct, frozen=True):
    """What became of a song in one partition, in users; a user counts once in each.

    Bounds and descriptions are those of the wire contract, whose ``Counts`` are these.
    """

    candidates: Annotated[Count, Meta(description="considered at the request")] = 0
    pushed: Count = 0
    explored: Annotated[Count, Meta(description="of the pushed, at random, to learn")] = 0
    held_out: Annotated[Count, Meta(description="would have been pushed, and were left out at random")] = 0
    delivered: Count = 0
    failed: Count = 0
    opened: Count = 0
    dismissed: Count = 0
    expired: Count = 0
    listened: Annotated[Count, Meta(description="of the pushed")] = 0
    completed: Annotated[Count, Meta(description="of the pushed")] = 0
    collected: Annotated[Count, Meta(description="of the pushed")] = 0
    held_out_listened: Count = 0
    held_out_completed: Count = 0
    held_out_collected: Count = 0
    distinct_listeners: Annotated[Count, Meta(description="of everybody, since the request")] = 0


@dataclass(frozen=True, slots=True)
class Account:
    """A partition's cumulative account of one song: what a campaign report tells.

    Attributes:
        ended: None while the campaign is alive.
        started_at: when the song was requested, Unix seconds.
        ended_at: Unix seconds; 0 while the campaign is alive.
    """

    song_id: str
    revision: int
    space: str
    counts: OutcomeCounts
    prototypes: Prototypes
    ended: EndReason | None = None
    started_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class PartitionInputs:
    """One batch for a partition. Preferences are obeyed before the commands are served, commands in order.

    Attributes:
        now: the wall clock, read once for the batch, Unix seconds.
        preferences: of users, by id; None: forgotten. Of several for one user the last stands.
        erasures: users, by id, of whom everything from before a time, Unix seconds, is to be forgotten; in any order.
        profiling: users, by id, who say at a time, Unix seconds, whether they allow profiling; in the order of reading.
            Of who does not, everything is forgotten, and nothing counts until they say at a later time that they do.
    """

    now: float
    preferences: Sequence[tuple[str, Preferences | None]] = ()
    commands: Sequence[Command] = ()
    listens: Listens | None = None
    vectors: OutsideVectors | None = None
    outcomes: Outcomes | None = None
    erasures: Sequence[tuple[str, float]] = ()
    profiling: Sequence[tuple[str, float, bool]] = ()


@dataclass(frozen=True, slots=True)
class PartitionOutputs:
    """What a batch does to the world.

    Attributes:
        changelog: (key, value) records, one per changed key; None deletes.
        pushes: in the order of decision, best first within a song.
        accounts: the account of every campaign that a command touched.
        refused: place and reason of each outcome that does not count.
        suppressed: how many candidates were not pushed, by when they were looked at and why.
    """

    changelog: Sequence[tuple[bytes, bytes | None]] = field(default_factory=list)
    pushes: Sequence[Push] = field(default_factory=list)
    accounts: Sequence[Account] = field(default_factory=list)
    refused: Sequence[tuple[int, str]] = ()
    suppressed: Mapping[tuple[Tier, Suppression], int] = field(default_factory=dict)
