"""What is known of a song that was uploaded, and what an upload adds: its content, its campaign's end.

The topic ``songs-ledger`` holds one record a song, in the partition of its uploads and reports. Uploads, reports and
reconciliation all decide by it and write it last: what it says has been done, and what it does not say yet is done
again, with the same ids. It keeps the upload, so that the song can be encoded again.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from streams.contract.cloudevents import ReceivedEvent
from streams.contract.errors import InvalidField, KeyMismatch, OutdatedRevision, Undecodable
from streams.contract.event_time import LONGEST_CAMPAIGN_DAYS
from streams.contract.events import DenseFeature, EndReason, SongUpload
from streams.contract.topics import SONG_UPLOADS

if TYPE_CHECKING:
    from encoder.content import SongContent

_DAY_S = 86_400.0
_EVENT_ID = "event:"

KEPT_S = (SONG_UPLOADS.retention_ms or 0) / 1000 + 7 * _DAY_S
"""How long the end of a song is remembered after its campaign's life: no upload of it can be read again by then, and
the week beyond is for readers that were away."""

DEFAULT_SPACE = "default"
"""The space of a dense feature whose name alone says what it is."""


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A dense feature in 32-bit floats, which the encoder computes in: as text it takes up to five times the bytes, and
    more than it came in."""

    space: str
    vector: bytes

    @classmethod
    def of(cls, feature: DenseFeature) -> Self:
        return cls(feature.space, np.asarray(feature.vector, "<f4").tobytes())

    def feature(self) -> DenseFeature:
        return DenseFeature(self.space, np.frombuffer(self.vector, "<f4").tolist())


class Song(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A song's entry.

    Attributes:
        revision: of the upload served last.
        offset: of that upload, in its partition; -1 in entries from before offsets were kept.
        id: which event that was, by :func:`event_id`; its ``ce_id`` alone in entries from before sources counted.
        asked: the revision of the last request: partitions report on it.
        at: when the campaign began: its request's upload's time, Unix seconds.
        expires_at: the end of the campaign's life, Unix seconds.
        upload: the event as JSON without its dense features, decoded only where it is needed. In entries from before
            these stood by themselves, with them.
        features: the dense ones, by name.
        space: where the song's vector stands: that of its requests, or of its warm song.
        ended: why its campaign is over; None while it is active.
        ended_at: Unix seconds.
        warm: it can be retrieved, and it was this role that made it so.
        heard: listeners counted for former recordings under this id, which make the present one no warmer.
        closed: its campaign's record is gone, and only that it is warm is still known.
    """

    revision: int
    offset: int = -1
    id: str
    asked: int
    at: float
    expires_at: float
    upload: msgspec.Raw
    features: dict[str, Packed] = {}
    space: str = ""
    ended: EndReason | None = None
    ended_at: float = 0.0
    warm: bool = False
    heard: int = 0
    closed: bool = False

    def holds(self, upload: ReceivedEvent[SongUpload]) -> bool:
        """Whether this very event was served last."""
        return self.id == (event_id(upload) if self.id.startswith(_EVENT_ID) else upload.id)

    def event(self) -> SongUpload:
        """The upload."""
        event = _uploads.decode(self.upload)
        if not self.features:
            return event
        return msgspec.structs.replace(event, features={name: each.feature() for name, each in self.features.items()})

    @property
    def forgotten_at(self) -> float:
        """When the campaign's last record goes, Unix seconds."""
        return self.expires_at + KEPT_S

    @property
    def expires(self) -> datetime:
        return datetime.fromtimestamp(self.expires_at, UTC)

    @property
    def uploaded(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


_songs = msgspec.json.Decoder(Song)
_uploads = msgspec.json.Decoder(SongUpload)
_encoder = msgspec.json.Encoder()


def read(value: bytes | None) -> Song | None:
    """The entry in a record of `songs-ledger`."""
    return None if value is None else _songs.decode(value)


def check(key: bytes, value: bytes) -> None:
    """Whether a record of `songs-ledger` can be used for all that is ever made of it.

    Raises:
        Undecodable: it cannot.
        KeyMismatch: it is another song's.
    """
    try:
        song = _songs.decode(value)
        upload = song.event()
        _ = song.expires, song.uploaded, datetime.fromtimestamp(song.ended_at, UTC)
    except (msgspec.MsgspecError, ValueError, OverflowError, OSError, RecursionError) as error:
        raise Undecodable(f"no song's entry: {error}") from None
    if upload.song_id.encode() != key:
        raise KeyMismatch(f"key: {key!r} is not song_id {upload.song_id!r}")


def report_key(song_id: str, partition: int) -> bytes:
    """The key of a partition's report, beside the song's entry."""
    # Ids may hold any character, so the number stands first.
    return f"{partition} {song_id}".encode()


def write(song: Song) -> bytes:
    """The inverse of :func:`read`."""
    return _encoder.encode(song)


def entry(upload: ReceivedEvent[SongUpload], at: float, expires_at: float, offset: int = -1) -> Song:
    """A song as an upload leaves it: taken down, or on its way.

    Args:
        at: time of the upload's record, Unix seconds.
        expires_at: the end of its campaign, Unix seconds.
        offset: of the upload's record.
    """
    song = upload.event
    taken_down = SongUpload.taken_down(upload.type)
    return Song(
        revision=song.revision,
        offset=offset,
        id=event_id(upload),
        asked=song.revision,
        at=at,
        expires_at=expires_at,
        upload=msgspec.Raw(_encoder.encode(msgspec.structs.replace(song, features={}))),
        features={name: Packed.of(feature) for name, feature in song.features.items()},
        ended="taken-down" if taken_down else None,
        ended_at=at if taken_down else 0.0,
    )


def event_id(upload: ReceivedEvent[SongUpload]) -> str:
    """Which event an upload is: in CloudEvents, source and id together say so. A hash, because they have any length."""
    # A byte that UTF-8 never holds keeps the two apart.
    both = upload.source.encode() + b"\xff" + upload.id.encode()
    return _EVENT_ID + blake2b(both, digest_size=16).hexdigest()


def recording(song: SongUpload) -> str:
    """What is never pushed twice to a user: the recording, or the song where nobody says which it is."""
    return song.recording_id or song.song_id


class Novelty(StrEnum):
    """What an upload means after those served before; only a new one has an effect."""

    NEW = "new"
    REPEATED = "repeated"
    OUTDATED = "outdated"


def novelty(upload: ReceivedEvent[SongUpload], known: Song | None, offset: int) -> Novelty:
    """What an upload means: the same event or content changes nothing, and neither does one that is read again.

    Args:
        offset: of its record, in its partition.

    Raises:
        OutdatedRevision: its sender must be told that a higher revision was served before, or other content under this
            one.
    """
    song = upload.event
    if known is None:
        return Novelty.NEW
    if known.holds(upload):
        return Novelty.REPEATED
    if song.revision > known.revision:
        return Novelty.NEW
    why = f"{known.revision} was served before"
    if song.revision == known.revision:
        down = known.ended == "taken-down"
        if SongUpload.taken_down(upload.type):
            return Novelty.REPEATED if down else Novelty.NEW
        before, now = known.event(), entry(upload, 0, 0).event()
        changed = [name for name in SongUpload.__struct_fields__ if getattr(before, name) != getattr(now, name)]
        if not down and not changed:
            return Novelty.REPEATED
        why = "it took the song down" if down else f"it was served with other content ({', '.join(changed)})"
    if offset <= known.offset or known.offset < 0:
        return Novelty.OUTDATED
    raise OutdatedRevision(f"revision: {song.revision}, {why}; send a higher one to change the song")


def dense_name(name: str, space: str) -> str:
    """The name under which a dense feature meets the encoder: two models' embeddings never share one."""
    return name if space == DEFAULT_SPACE else f"{name}:{space}"


def content_of(upload: SongUpload) -> SongContent:
    """The content in an upload, by the names that the encoder's schema uses."""
    dense = {dense_name(name, feature.space): feature.vector for name, feature in upload.features.items()}
    if upload.duration_ms is not None:
        dense["duration"] = [math.log(upload.duration_ms / 1000)]
    bags = {
        "tags": upload.tags,
        "genres": dict.fromkeys(upload.genres, 1.0),
        "language": {} if upload.language is None else {upload.language: 1.0},
        "artists": dict.fromkeys(upload.artist_ids, 1.0),
        "album": {} if upload.album_id is None else {upload.album_id: 1.0},
    }
    # Who only reads entries is spared what the encoder loads.
    from encoder.content import SongContent

    return SongContent(dense, {name: bag for name, bag in bags.items() if bag})


def campaign_end(upload: SongUpload, at: float, days: float) -> float:
    """The end of a song's campaign, Unix seconds.

    Args:
        at: when the broker appended the upload, Unix seconds.
        days: a campaign's life where the upload does not say.

    Raises:
        InvalidField: no moment is left for it, or it lies further ahead than may be looked.
    """
    latest = at + LONGEST_CAMPAIGN_DAYS * _DAY_S
    for name in ("available_from", "expires_at"):
        when = getattr(upload, name)
        if when is not None and when.timestamp() > latest:
            raise InvalidField(
                f"{name}: {when.isoformat()}, at most {LONGEST_CAMPAIGN_DAYS} days after the upload allowed"
            )
    begins, named = at, f"the upload, {datetime.fromtimestamp(at, UTC).isoformat()}"
    if upload.available_from is not None and upload.available_from.timestamp() > at:
        begins, named = upload.available_from.timestamp(), f"available_from, {upload.available_from.isoformat()}"
    ends = min(begins + days * _DAY_S, latest) if upload.expires_at is None else upload.expires_at.timestamp()
    if ends > begins:
        return ends
    if upload.expires_at is not None:
        raise InvalidField(f"expires_at: {upload.expires_at.isoformat()} is not after {named}")
    raise InvalidField(
        f"{named.replace(',', ':', 1)} leaves the campaign no time: "
        f"it ends {LONGEST_CAMPAIGN_DAYS} days after the upload"
    )
