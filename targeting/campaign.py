"""What is remembered of a song that asked for its audience?"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from targeting import prototypes
from targeting.types import Account, End, Match, Prototypes

_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class Campaign:
    """A song's campaign in one partition. ``pushed`` and ``listened`` go on over revisions.

    ``prototypes`` are all of them, the small ones too; the song's own vector stands beside them in ``match``.
    """

    match: Match
    candidates: int
    pushed: int
    listened: int
    prototypes: Prototypes
    ended: End | None = None
    ended_at: float = 0.0

    def account(self) -> Account:
        """What may be told outside."""
        return Account(
            song_id=self.match.song_id,
            revision=self.match.revision,
            space=self.match.space,
            candidates=self.candidates,
            pushed=self.pushed,
            listened=self.listened,
            prototypes=prototypes.shown(self.prototypes),
            ended=self.ended,
            started_at=self.match.requested_at,
            ended_at=self.ended_at,
        )


class _Record(msgspec.Struct, array_like=True):
    song_id: str
    revision: int
    recording: str
    title: str
    artist_ids: tuple[str, ...]
    space: str
    vector: bytes
    neighbours: tuple[str, ...]
    similarities: bytes
    budget: int
    requested_at: float
    expires_at: float
    explicit: bool
    territories: tuple[str, ...]
    available_from: float
    candidates: int
    pushed: int
    listened: int
    prototypes: bytes
    members: bytes
    ended: End | None
    ended_at: float


_decoder = msgspec.msgpack.Decoder(_Record)
_encoder = msgspec.msgpack.Encoder()


def encode(campaign: Campaign) -> bytes:
    """The record: a version byte and MessagePack; arrays are raw little-endian float32 and int64."""
    match = campaign.match
    return _VERSION + _encoder.encode(
        _Record(
            song_id=match.song_id,
            revision=match.revision,
            recording=match.recording,
            title=match.title,
            artist_ids=match.artist_ids,
            space=match.space,
            vector=match.vector.astype("<f4").tobytes(),
            neighbours=match.neighbours,
            similarities=match.similarities.astype("<f4").tobytes(),
            budget=match.budget,
            # A whole number of seconds may come as an int, which MessagePack would tell from the float read back.
            requested_at=float(match.requested_at),
            expires_at=float(match.expires_at),
            available_from=float(match.available_from),
            explicit=match.explicit,
            territories=match.territories,
            candidates=campaign.candidates,
            pushed=campaign.pushed,
            listened=campaign.listened,
            prototypes=campaign.prototypes.vectors.astype("<f4").tobytes(),
            members=campaign.prototypes.members.astype("<i8").tobytes(),
            ended=campaign.ended,
            ended_at=float(campaign.ended_at),
        )
    )


def decode(record: bytes) -> Campaign:
    """The inverse of :func:`encode`.

    Raises:
        ValueError: a record of another version, or broken.
    """
    if record[:1] != _VERSION:
        raise ValueError(f"a campaign record of version {record[:1]!r}")
    try:
        stored = _decoder.decode(record[1:])
    except msgspec.DecodeError as error:
        raise ValueError(f"a broken campaign record: {error}") from error
    vector = np.frombuffer(stored.vector, "<f4")
    return Campaign(
        match=Match(
            song_id=stored.song_id,
            revision=stored.revision,
            recording=stored.recording,
            title=stored.title,
            artist_ids=stored.artist_ids,
            space=stored.space,
            vector=vector,
            neighbours=stored.neighbours,
            similarities=np.frombuffer(stored.similarities, "<f4"),
            budget=stored.budget,
            requested_at=stored.requested_at,
            expires_at=stored.expires_at,
            explicit=stored.explicit,
            territories=stored.territories,
            available_from=stored.available_from,
        ),
        candidates=stored.candidates,
        pushed=stored.pushed,
        listened=stored.listened,
        prototypes=Prototypes(
            np.frombuffer(stored.prototypes, "<f4").reshape(-1, len(vector)),
            np.frombuffer(stored.members, "<i8"),
        ),
        ended=stored.ended,
        ended_at=stored.ended_at,
    )
