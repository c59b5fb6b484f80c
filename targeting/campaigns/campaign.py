"""What is remembered of a song that asked for its audience.

Two records: the request, which stays as it came, and the account, small, which changes with every push and listen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np

from targeting.clustering import kmeans
from targeting.types import F32, Account, EndReason, Match, OutcomeCounts, Prototypes

_VERSION = b"\x02"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """A song's campaign in one partition. ``counts`` go on over revisions."""

    match: Match
    counts: OutcomeCounts = field(default_factory=OutcomeCounts)
    ended: EndReason | None = None
    ended_at: float = 0.0

    def account(self, found: Prototypes | None = None) -> Account:
        """What may be told outside, with the campaign's prototypes as they stand."""
        none = Prototypes(np.zeros((0, len(self.match.vector)), np.float32), np.zeros(0, np.int64))
        return Account(
            song_id=self.match.song_id,
            revision=self.match.revision,
            space=self.match.space,
            counts=self.counts,
            prototypes=kmeans.shown(found) if found else none,
            ended=self.ended,
            started_at=self.match.requested_at,
            ended_at=self.ended_at,
        )


class _AccountRecord(msgspec.Struct, array_like=True):
    counts: OutcomeCounts
    ended: EndReason | None
    ended_at: float


def encode_request(match: Match) -> bytes:
    """The request's record: a version byte and MessagePack; vectors are raw little-endian float32."""
    # A whole number of seconds may come as an int, which MessagePack would tell from the float read back.
    times = {name: float(getattr(match, name)) for name in ("requested_at", "expires_at", "available_from")}
    return _VERSION + _encoder.encode(msgspec.structs.replace(match, **times))


def encode_account(campaign: CampaignRecord) -> bytes:
    """The account's record: a version byte and MessagePack."""
    return _VERSION + _encoder.encode(_AccountRecord(campaign.counts, campaign.ended, float(campaign.ended_at)))


def decode_request(record: bytes) -> Match:
    """The inverse of :func:`encode_request`.

    Raises:
        ValueError: a record of another version, or broken.
    """
    return _read(_requests, record)


def decode(request: bytes, account: bytes) -> CampaignRecord:
    """A campaign from its two records.

    Raises:
        ValueError: a record of another version, or broken.
    """
    counts, ended, ended_at = decode_account(account)
    return CampaignRecord(decode_request(request), counts, ended, ended_at)


def decode_account(record: bytes) -> tuple[OutcomeCounts, EndReason | None, float]:
    """Counts, why the campaign ended and when.

    Raises:
        ValueError: a record of another version, or broken.
    """
    stored = _read(_accounts, record)
    return stored.counts, stored.ended, stored.ended_at


def _read(decoder: msgspec.msgpack.Decoder[T], record: bytes) -> T:
    if record[:1] != _VERSION:
        raise ValueError(f"a campaign record of version {record[:1]!r}")
    try:
        return decoder.decode(record[1:])
    except msgspec.DecodeError as error:
        raise ValueError(f"a broken campaign record: {error}") from error


def _bytes(vector: F32) -> bytes:
    return vector.astype("<f4").tobytes()


def _vector(_: type, stored: bytes) -> F32:
    return np.frombuffer(stored, "<f4")


_encoder = msgspec.msgpack.Encoder(enc_hook=_bytes)
_requests = msgspec.msgpack.Decoder(Match, dec_hook=_vector)
_accounts = msgspec.msgpack.Decoder(_AccountRecord)
