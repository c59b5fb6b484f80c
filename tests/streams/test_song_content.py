"""Which uploads are new, and what content they bring."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.contract.cloudevents import ReceivedEvent
from streams.contract.events import SongUpload
from streams.songs.song_record import Novelty, Song, content_of, dense_name, entry, novelty, read, write


def upload(revision: int, id: str, source: str = "one") -> ReceivedEvent[SongUpload]:
    song = SongUpload(song_id="s", revision=revision, title="t", tags={"a": 1.0})
    return ReceivedEvent(song, source, id, SongUpload.UPLOADED, 0)


def served(revision: int, id: str) -> Song:
    return entry(upload(revision, id), 0, 28)


@pytest.mark.parametrize(
    ("revision", "id", "known", "what"),
    [
        (0, "a", None, Novelty.NEW),
        (2, "b", served(1, "a"), Novelty.NEW),
        (2, "a", served(1, "a"), Novelty.REPEATED),
        (1, "a", served(1, "a"), Novelty.REPEATED),
        (1, "b", served(1, "a"), Novelty.REPEATED),
        (0, "b", served(1, "a"), Novelty.OUTDATED),
        (0, "a", served(1, "a"), Novelty.OUTDATED),
    ],
)
def test_only_a_higher_revision_in_a_new_event_has_an_effect(
    revision: int, id: str, known: Song | None, what: Novelty
) -> None:
    assert novelty(upload(revision, id), known) is what


def test_one_ce_id_from_two_sources_is_two_events() -> None:
    known = read(write(served(1, "7")))
    assert novelty(upload(2, "7", "two"), known) is Novelty.NEW
    assert novelty(upload(2, "7", "one"), known) is Novelty.REPEATED
    # Where one ends and the other begins matters.
    assert novelty(upload(2, "e7", "on"), known) is Novelty.NEW


def test_an_entry_from_before_sources_counted_is_known_by_its_ce_id() -> None:
    known = read(b'{"revision":1,"id":"7","asked":1,"at":0.0,"expires_at":1.0,"upload":{}}')
    assert novelty(upload(2, "7", "two"), known) is Novelty.REPEATED
    assert novelty(upload(2, "8", "two"), known) is Novelty.NEW


def test_all_content_of_an_upload_reaches_the_encoder_by_its_name() -> None:
    event: dict[str, Any] = {
        "song_id": "s", "revision": 1, "title": "t", "artist_ids": ["a-1", "a-2"], "album_id": "al", "language": "pt",
        "genres": ["fado"], "tags": {"sad": 2.0}, "duration_ms": 1000,
        "features": {
            "audio": {"space": "default", "vector": [1.0, 2.0]}, "lyrics": {"space": "m-2", "vector": [3.0]},
        },
    }  # fmt: skip
    content = content_of(msgspec.convert(event, SongUpload))
    assert content.dense == {"audio": [1.0, 2.0], "lyrics:m-2": [3.0], "duration": [0.0]}
    assert content.bags == {
        "tags": {"sad": 2.0},
        "genres": {"fado": 1.0},
        "language": {"pt": 1.0},
        "artists": {"a-1": 1.0, "a-2": 1.0},
        "album": {"al": 1.0},
    }


def test_what_is_missing_is_absent_not_empty() -> None:
    content = content_of(SongUpload(song_id="s", revision=1, title="t", tags={"sad": 2.0}))
    assert content.dense == {}
    assert content.bags == {"tags": {"sad": 2.0}}


def test_two_models_embeddings_of_one_name_are_two_features() -> None:
    assert len({dense_name("audio", space) for space in ("default", "acme", "acme-2")}) == 3
