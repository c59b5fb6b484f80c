"""What goes into targeting and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Match:
    """A new song that asks a partition for its audience.

    Attributes:
        song_id, revision: which song; the first request of a (song, revision) wins.
        recording: the key of "never twice to a user": the recording's id, or the song's own.
        vector: float32 (d,), unit length, in ``space``.
        neighbours: ids of the K retrieved warm songs, most similar first; may be empty.
        similarities: float32 (K,), cosine of ``vector`` with each neighbour.
        budget: pushes over all partitions and the whole life of the campaign.
        requested_at, expires_at, available_from: Unix seconds; nobody is told of the song before the last.
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


class End(StrEnum):
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
    reason: End


@dataclass(frozen=True, slots=True)
class Listens:
    """A batch of listens by column, in arrival order; all four have the same length n.

    Attributes:
        weights: float32 (n,), plays (aggregated history counts more than one).
        times: float64 (n,), Unix seconds of the listen.
    """

    user_ids: Sequence[str]
    song_ids: Sequence[str]
    weights: F32
    times: F64


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user allows: always the full state, never a patch."""

    user_id: str
    opted_in: bool = True
    country: str | None = None
    muted_artists: frozenset[str] = frozenset()
    allow_explicit: bool = True


class Why(StrEnum):
    """Why a user gets a song: because of the songs heard, of the whole taste, of a prototype near it, or to learn."""

    EVIDENCE = "evidence"
    DIRECT = "direct"
    PROTOTYPE = "prototype"
    EXPLORATION = "exploration"


@dataclass(frozen=True, slots=True)
class Push:
    """One decision: this song to this user.

    ``songs`` are the retrieved songs that the user heard, those that speak loudest first, at most 5. ``score`` is the
    chance of a listen where ``calibrated``; otherwise it only orders.
    """

    match: Match
    user_id: str
    score: float
    why: Why
    songs: tuple[str, ...]
    prototype: int | None = None
    calibrated: bool = False


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The few vectors that stand for a campaign's audience in one partition.

    Attributes:
        vectors: float32 (C, d), unit rows.
        members: int64 (C,), sample members of each; a prototype of fewer than 10 is never shown outside.
    """

    vectors: F32
    members: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Account:
    """A partition's cumulative account of one song: what a campaign report tells.

    ``candidates`` is the number of users considered at the request, ``listened`` counts distinct listeners
    since then, ``pushed`` the pushes so far. ``ended`` is None while the campaign is alive; the times are Unix
    seconds.
    """

    song_id: str
    revision: int
    space: str
    candidates: int
    pushed: int
    listened: int
    prototypes: Prototypes
    ended: End | None = None
    started_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """One batch for a partition. Preferences are obeyed before the commands are served, commands in order.

    ``now`` is the wall clock, read once for the batch, Unix seconds.
    """

    now: float
    preferences: Sequence[tuple[str, Preferences | None]] = ()
    commands: Sequence[Match | Takedown] = ()
    listens: Listens | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a batch does to the world.

    Attributes:
        changelog: (key, value) records, one per changed key; None deletes.
        pushes: in the order of decision, best first within a song.
        accounts: the account of every campaign that a command touched.
    """

    changelog: Sequence[tuple[bytes, bytes | None]] = field(default_factory=list)
    pushes: Sequence[Push] = field(default_factory=list)
    accounts: Sequence[Account] = field(default_factory=list)
