"""What is remembered of a song, and what it waits for when nobody says anything of it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from streams.contract.cloudevents import ReceivedEvent
from streams.contract.events import DenseFeature, SongUpload
from streams.songs.reconcile import Due, due
from streams.songs.song_record import KEPT_S, Song, entry, read, recording, write

START = 1_800_000_000.0
DAY = 86_400.0
END = START + 28 * DAY
UPLOAD = SongUpload(song_id="s", revision=3, title="t", tags={"a": 1.0}, recording_id="r")


def song(**more: Any) -> Song:
    made = entry(ReceivedEvent(UPLOAD, "test", "id-3", SongUpload.UPLOADED, START), START, END)
    return msgspec.structs.replace(made, space="x", **more)


def test_an_entry_holds_its_upload_through_its_record() -> None:
    found = read(write(song(warm=True, ended="promoted", ended_at=START + 1, heard=4)))
    assert found == song(warm=True, ended="promoted", ended_at=START + 1, heard=4)
    assert found is not None
    assert found.event() == UPLOAD
    assert recording(found.event()) == "r"
    assert read(None) is None


def test_dense_features_come_back_as_32_bit_floats() -> None:
    dense = {"audio": DenseFeature("m", [0.1, -1e17]), "text": DenseFeature("default", [1.0])}
    made = entry(
        ReceivedEvent(msgspec.structs.replace(UPLOAD, features=dense), "test", "i", SongUpload.UPLOADED, 0), 0, 28
    )
    found = read(write(made))
    assert found is not None
    rounded = {name: DenseFeature(each.space, np.float32(each.vector).tolist()) for name, each in dense.items()}
    assert found.event() == msgspec.structs.replace(UPLOAD, features=rounded)


def test_an_entry_from_before_features_stood_by_themselves_is_read() -> None:
    upload = b'{"song_id":"s","revision":1,"title":"t","features":{"audio":{"space":"m","vector":[0.5]}}}'
    found = read(b'{"revision":1,"id":"7","asked":1,"at":0.0,"expires_at":1.0,"upload":%s}' % upload)
    assert found is not None
    assert found.event().features == {"audio": DenseFeature("m", [0.5])}


def test_a_takedown_is_an_end() -> None:
    gone = entry(ReceivedEvent(UPLOAD, "test", "i", SongUpload.TAKEN_DOWN, START), START, END)
    assert (gone.ended, gone.ended_at, gone.expires_at) == ("taken-down", START, END)


@pytest.mark.parametrize(
    ("known", "space", "warm_here", "now", "what"),
    [
        ({}, "x", False, END - 1, None),
        ({}, "x", False, END, Due.EXPIRE),
        ({}, "y", False, END - 1, Due.MOVE),
        ({"ended": "budget"}, "y", False, END, None),
        ({"ended": "budget"}, "x", False, END + KEPT_S - 1, None),
        ({"ended": "budget"}, "x", False, END + KEPT_S, Due.FORGET),
        ({"ended": "promoted", "warm": True}, "y", False, END - 1, Due.MOVE),
        ({"ended": "promoted", "warm": True}, "x", True, END + KEPT_S, Due.FORGET),
        ({"ended": "promoted", "warm": True, "closed": True}, "x", True, END + KEPT_S, None),
        ({"ended": "promoted", "warm": True, "closed": True}, "y", False, END + KEPT_S, Due.MOVE),
        ({"ended": "taken-down"}, "y", False, END, None),
        ({"ended": "taken-down"}, "y", True, END, Due.STAY_DOWN),
    ],
)
def test_what_a_song_waits_for(known: dict[str, Any], space: str, warm_here: bool, now: float, what: Due) -> None:
    assert due(song(**known), space, warm_here, now) is what


def test_an_end_is_remembered_longer_than_uploads_are_retained() -> None:
    assert KEPT_S == 14 * DAY
