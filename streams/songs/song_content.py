"""Whether an upload is new, and what content it brings."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

from encoder.content import SongContent
from streams.contract.cloudevents import ReceivedEvent, Timestamp, append_time
from streams.contract.events import SongUpload
from streams.songs.song_record import Song

DEFAULT_SPACE = "default"
"""The space of a dense feature whose name alone says what it is."""


def timestamp(message: Any) -> Timestamp:
    """A record's that Faust brought, as confluent-kafka would tell it."""
    # aiokafka numbers the kinds from 0.
    return message.timestamp_type + 1, round(message.timestamp * 1000)


def appended(message: Any, now: float) -> float:
    """When the broker appended a record that Faust brought, Unix seconds; see
    :func:`streams.contract.cloudevents.append_time`.
    """
    return append_time(timestamp(message), now)


class Novelty(StrEnum):
    """What an upload means after those served before; only a new one has an effect."""

    NEW = "new"
    REPEATED = "repeated"
    OUTDATED = "outdated"


def novelty(upload: ReceivedEvent[SongUpload], known: Song | None) -> Novelty:
    """The same event or revision changes nothing; a lower revision came too late."""
    if known is None or upload.event.revision > known.revision:
        return Novelty.REPEATED if known is not None and known.holds(upload) else Novelty.NEW
    return Novelty.OUTDATED if upload.event.revision < known.revision else Novelty.REPEATED


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
    return SongContent(dense, {name: bag for name, bag in bags.items() if bag})
