"""Which uploads are new, and what content they bring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from streams.contract.cloudevents import ReceivedEvent
from streams.contract.errors import OutdatedRevision
from streams.contract.events import DenseFeature, SongUpload
from streams.songs.song_record import Novelty, Song, content_of, dense_name, entry, novelty, read, write


def upload(revision: int, id: str, source: str = "one") -> ReceivedEvent[SongUpload]:
    song = SongUpload(song_id="s", revision=revision, title="t", tags={"a": 1.0})
    return ReceivedEvent(song, source, id, SongUpload.UPLOADED, 0)


def served(revision: int, id: str, offset: int = 5) -> Song:
    return entry(upload(revision, id), 0, 28, offset)


def down(revision: int, id: str) -> ReceivedEvent[SongUpload]:
    return replace(upload(revision, id), type=SongUpload.TAKEN_DOWN)


DOWN = entry(down(1, "a"), 0, 28, 5)
CHANGED = replace(upload(1, "b"), event=SongUpload(song_id="s", revision=1, title="u", tags={"a": 1.0}))


@pytest.mark.parametrize(
    ("event", "known", "what"),
    [
        (upload(0, "a"), None, Novelty.NEW),
        (upload(2, "b"), served(1, "a"), Novelty.NEW),
        (upload(2, "a"), served(1, "a"), Novelty.REPEATED),
        (upload(1, "a"), served(1, "a"), Novelty.REPEATED),
        (upload(1, "b"), served(1, "a"), Novelty.REPEATED),
        (down(1, "b"), served(1, "a"), Novelty.NEW),
        (down(1, "b"), DOWN, Novelty.REPEATED),
        (down(1, "a"), DOWN, Novelty.REPEATED),
        (down(2, "b"), DOWN, Novelty.NEW),
        (upload(2, "b"), DOWN, Novelty.NEW),
    ],
)
@pytest.mark.parametrize("offset", [4, 6])
def test_a_higher_revision_in_a_new_event_has_an_effect_and_so_has_a_takedown_of_the_current_one(
    event: ReceivedEvent[SongUpload], known: Song | None, what: Novelty, offset: int
) -> None:
    assert novelty(event, known, offset) is what


@pytest.mark.parametrize(
    ("event", "known", "why"),
    [
        (upload(0, "b"), served(1, "a"), "revision: 0, 1 was served before;"),
        (down(0, "b"), served(1, "a"), "revision: 0, 1 was served before;"),
        (CHANGED, served(1, "a"), r"revision: 1, it was served with other content \(title\);"),
        (upload(1, "b"), DOWN, "revision: 1, it took the song down;"),
    ],
)
def test_what_comes_too_late_is_answered_but_not_where_it_is_read_again(
    event: ReceivedEvent[SongUpload], known: Song, why: str
) -> None:
    with pytest.raises(OutdatedRevision, match=why):
        novelty(event, known, 6)
    for offset in (4, 5):
        assert novelty(event, known, offset) is Novelty.OUTDATED
    # Of an entry that says no offset nobody knows whether it is read again.
    assert novelty(event, msgspec.structs.replace(known, offset=-1), 6) is Novelty.OUTDATED


def test_dense_content_is_compared_as_it_is_kept() -> None:
    features = {"audio": DenseFeature("m", [0.1, 1 / 3])}
    first, second = (
        ReceivedEvent(
            SongUpload(song_id="s", revision=1, title="t", features=features), "one", id, SongUpload.UPLOADED, 0
        )
        for id in "ab"
    )
    assert novelty(second, read(write(entry(first, 0, 28, 5))), 6) is Novelty.REPEATED


def test_one_ce_id_from_two_sources_is_two_events() -> None:
    known = read(write(served(1, "7")))
    assert novelty(upload(2, "7", "two"), known, 6) is Novelty.NEW
    assert novelty(upload(2, "7", "one"), known, 6) is Novelty.REPEATED
    # Where one ends and the other begins matters.
    assert novelty(upload(2, "e7", "on"), known, 6) is Novelty.NEW


def test_an_entry_from_before_sources_counted_is_known_by_its_ce_id() -> None:
    known = read(b'{"revision":1,"id":"7","asked":1,"at":0.0,"expires_at":1.0,"upload":{}}')
    assert novelty(upload(2, "7", "two"), known, 6) is Novelty.REPEATED
    assert novelty(upload(2, "8", "two"), known, 6) is Novelty.NEW


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
