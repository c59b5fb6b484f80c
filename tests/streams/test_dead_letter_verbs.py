"""Dead letters are found, counted, and come in again through the front door, once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import Installation
from test_erased import CLOCK, USER, Scene
from test_offsets import PARTITION, verb

from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadRecord, InvalidField, OperatorSkipped, Undecodable
from streams.contract.events import Listen, SongUpload, UserPreferences
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    DEAD_LETTERS,
    LISTENS,
    MAX_RECORD_BYTES,
    MODELS,
    PREFERENCES,
    SONG_UPLOADS,
    Topic,
)
from streams.operations.buried_records import BuriedRecord, by_reason, common


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path, session_s=6.0)


def listen(id: str, source: str = "player") -> Record:
    now = CLOCK.now()
    event = Listen(
        listen_id=id, user_id=USER, song_id="s", played_at=datetime.fromtimestamp(now, UTC), source="organic"
    )
    return pack(event, id=id, source=source, time=now)


def upload(id: str, source: str = "acme") -> Record:
    event = SongUpload(song_id=id, revision=1, title="t", artist_ids=["a"])
    return pack(event, id=f"{id}/1", source=source, time=CLOCK.now(), ce_type=SongUpload.UPLOADED)


def bury(
    here: Installation,
    topic: Topic,
    record: Record,
    offset: int,
    error: BadRecord | None = None,
    stage: str = "songs.x",
    made: float | None = None,
    partition: int = PARTITION,
) -> None:
    stamp = 1000 + offset if made is None else int(made * 1000)
    origin = Origin(here.naming.name(topic), partition, offset, stamp, record.key, record.value, record.headers)
    letter = dead_letter(origin, stage, error or InvalidField("title: expected `str`"))
    here.send(DEAD_LETTERS, Record(letter.key or b"", letter.value, letter.headers))  # type: ignore[arg-type]


def listed(scene: Scene, *args: str) -> list[dict[str, object]]:
    code, said = verb(scene, "dead-letters", "list", "--json", *args)
    assert code == 0, said
    return list(json.loads(said))


def test_each_filter_leaves_what_it_names(scene: Scene) -> None:
    here = scene.here
    bury(here, SONG_UPLOADS, upload("a"), 0, InvalidField("revision: 'x'"))
    bury(here, SONG_UPLOADS, upload("b", "other"), 1, Undecodable("value: no JSON"))
    bury(here, LISTENS, listen("c"), 2, stage="audience.listens")
    stamps = [message.timestamp()[1] / 1000 for message in here.read(DEAD_LETTERS)]
    ids = [each["id"] for each in listed(scene)]
    assert ids == ["a/1", "b/1", "c"]
    for args, wanted in (
        (("--stage", "songs"), ["a/1", "b/1"]),
        (("--topic", "listens"), ["c"]),
        (("--source", "other"), ["b/1"]),
        (("--reason", "Undecodable"), ["b/1"]),
        (("--reason", "REVISION"), ["a/1"]),
        (("--since", datetime.fromtimestamp(stamps[2] + 60, UTC).isoformat()), []),
        (("--until", datetime.fromtimestamp(stamps[0] - 60, UTC).isoformat()), []),
        (("--since", "1h", "--until", "0s"), ["a/1", "b/1", "c"]),
        (("--stage", "songs", "--source", "acme"), ["a/1"]),
    ):
        assert [each["id"] for each in listed(scene, *args)] == wanted, args
    assert len(listed(scene, "--limit", "2")) == 2
    whole = json.loads(verb(scene, "dead-letters", "show", "1")[1])
    assert (whole["key"], json.loads(whole["value"])["title"], whole["error"]) == ("b", "t", "Undecodable")
    assert ["ce_source", "other"] in whole["headers"]
    assert not [name for name, _ in whole["headers"] if name.startswith("dl_")]
    assert verb(scene, "dead-letters", "show", "3")[0] == 2


def test_a_replay_comes_in_by_the_front_door_once_however_often_it_is_asked_for(scene: Scene) -> None:
    here = scene.here
    for number in range(3):
        bury(here, LISTENS, listen(f"l-{number}"), number, stage="audience.listens")
    # A second letter of the same record, as a crash between letter and commit leaves it.
    bury(here, LISTENS, listen("l-2"), 2, stage="audience.listens")
    code, plan = verb(scene, "dead-letters", "replay", "--topic", "listens")
    assert (code, "3 would be sent again" in plan, here.read(LISTENS)) == (0, True, [])
    assert "1 was replayed or dropped before" in plan
    for _ in range(3):
        assert verb(scene, "dead-letters", "replay", "--topic", "listens", "--apply")[0] == 0
    came = here.read(LISTENS, PARTITION)
    assert [dict(message.headers() or [])["ce_id"] for message in came] == [b"l-0", b"l-1", b"l-2"]
    assert not [name for message in came for name, _ in message.headers() or [] if name.startswith("dl_")]
    assert listed(scene) == []
    assert [each["done"] for each in listed(scene, "--done")] == ["replayed"] * 4
    # The worker counts each once.
    scene.work(scene.consumed(LISTENS, 3))
    assert here.read(DEAD_LETTERS)[4:] == []


def test_only_what_the_contract_takes_now_is_sent_and_the_rest_is_told(scene: Scene) -> None:
    here, good = scene.here, upload("good")
    bury(here, SONG_UPLOADS, good, 0)
    bury(here, SONG_UPLOADS, Record(b"bad", b'{"song_id":"bad"}', good.headers), 1)
    bury(here, SONG_UPLOADS, Record(b"huge", b"x" * (MAX_RECORD_BYTES + 1), good.headers), 2)
    bury(here, MODELS, Record(b"encoder", b"{}", []), 3, stage="songs.cache")
    code, said = verb(scene, "dead-letters", "replay", "--all", "--apply")
    assert code == 0
    for words in ("1 sent again", "1 would be refused again", "1 is not whole", "1 is of no input", "revision"):
        assert words in said, said
    assert [message.key() for message in here.read(SONG_UPLOADS)] == [b"good"]
    assert here.read(MODELS) == []
    assert [each["record_offset"] for each in listed(scene)] == [1, 2, 3]


def test_an_older_record_of_preferences_never_takes_a_newer_ones_place(scene: Scene) -> None:
    here, now = scene.here, datetime.now(UTC)

    def wish(opted_in: bool) -> Record:
        event = UserPreferences(user_id=USER, opted_in=opted_in, updated_at=now)
        return pack(event, id=f"p-{opted_in}", source="accounts", time=now.timestamp())

    here.send(PREFERENCES, wish(True))
    bury(here, PREFERENCES, wish(True), 0, stage="audience.preferences")
    here.send(PREFERENCES, wish(False))
    code, said = verb(scene, "dead-letters", "replay", "--topic", "preferences", "--apply")
    assert (code, "1 is outdated" in said) == (0, True)
    bury(here, PREFERENCES, wish(False), 1, stage="audience.preferences")
    code, said = verb(scene, "dead-letters", "replay", "--offset", "1", "--apply")
    assert (code, "1 sent again" in said) == (0, True)
    assert [b"true" in (message.value() or b"") for message in here.read(PREFERENCES)] == [True, False, False]


def test_what_an_operator_skipped_comes_back(scene: Scene) -> None:
    scene.listen(CLOCK.now() - 2)
    scene.work(scene.consumed(LISTENS, 1))
    scene.listen(CLOCK.now() - 1)
    assert verb(scene, "offsets", "skip", "audience", "listens", str(PARTITION), "--apply")[0] == 0
    code, said = verb(scene, "dead-letters", "replay", "--reason", OperatorSkipped.__name__, "--apply")
    assert (code, "1 sent again" in said) == (0, True)
    scene.work(scene.consumed(LISTENS, 3))


def test_dropped_letters_are_gone_from_lists_and_never_replayed(scene: Scene) -> None:
    bury(scene.here, SONG_UPLOADS, upload("a"), 0)
    bury(scene.here, SONG_UPLOADS, upload("b"), 1)
    assert verb(scene, "dead-letters", "drop")[0] == 2
    assert "1 would be dropped" in verb(scene, "dead-letters", "drop", "--offset", "0")[1]
    assert len(listed(scene)) == 2
    assert verb(scene, "dead-letters", "drop", "--offset", "0", "--apply")[0] == 0
    assert [each["id"] for each in listed(scene)] == ["b/1"]
    assert verb(scene, "dead-letters", "replay", "--all", "--apply")[0] == 0
    assert verb(scene, "dead-letters", "replay", "--offset", "0", "--apply")[0] == 0
    assert [message.key() for message in scene.here.read(SONG_UPLOADS)] == [b"b"]


def test_reasons_are_counted_by_producer_with_an_example(scene: Scene) -> None:
    for number in range(5):
        bury(
            scene.here, SONG_UPLOADS, upload(f"s-{number}"), number, InvalidField(f"tags: {number}.5, got 'x{number}'")
        )
    bury(scene.here, SONG_UPLOADS, upload("t", "other"), 5, InvalidField("tags: 1.5, got 'y'"))
    groups = json.loads(verb(scene, "dead-letters", "stats", "--json")[1])
    assert [(each["source"], each["letters"], each["reason"], each["example"]) for each in groups] == [
        ("acme", 5, "tags: N, got …", 4),
        ("other", 1, "tags: N, got …", 5),
    ]
    assert "6 letters of 2 reasons" in verb(scene, "dead-letters", "stats")[1]


def test_what_came_in_structured_mode_is_found_by_its_source_and_replayed_as_it_came(scene: Scene) -> None:
    here, value = scene.here, json.loads(upload("s").value)
    event = {"specversion": "1.0", "id": "s/1", "source": "java", "type": SongUpload.UPLOADED, "data": value}
    event["time"] = datetime.now(UTC).isoformat()
    whole = json.dumps(event).encode()
    bury(here, SONG_UPLOADS, Record(b"s", whole, [("content-type", b"application/cloudevents+json")]), 0)
    (row,) = listed(scene, "--source", "java")
    assert row["id"] == "s/1"
    assert "1 sent again" in verb(scene, "dead-letters", "replay", "--source", "java", "--apply")[1]
    (message,) = here.read(SONG_UPLOADS)
    assert (message.key(), message.value()) == (b"s", whole)


def test_a_vector_keeps_the_time_at_which_it_was_made(scene: Scene) -> None:
    here, made = scene.here, int(CLOCK.now() * 1000) - 5000
    for offset, value in enumerate(
        (b'{"space":"a","vector":[0.1,0.2]}', vector_codec.pack("a", np.ones(2, np.float32)))
    ):
        record = Origin(
            here.naming.name(AUDIENCE_VECTORS), PARTITION, offset, made, USER.encode() * (offset + 1), value, []
        )
        letter_ = dead_letter(record, "audience.vectors", Undecodable("vector: begins with"))
        here.send(DEAD_LETTERS, Record(letter_.key or b"", letter_.value or b"", letter_.headers))  # type: ignore[arg-type]
    said = verb(scene, "dead-letters", "replay", "--topic", "audience-vectors", "--apply")[1]
    assert "2 sent again" in said
    assert {message.timestamp()[1] for message in here.read(AUDIENCE_VECTORS)} == {made}


def letter(reason: str, source: str, at: float) -> BuriedRecord:
    return BuriedRecord(0, at, "t", 0, 0, 0, "s", "InvalidField", reason, source, "", None, None, [], False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["plays: {} is no number", "key: {!r} is not song_id"]), st.integers(), st.text()),
        max_size=30,
    )
)
def test_every_letter_is_counted_once_and_values_do_not_tell_reasons_apart(
    letters: list[tuple[str, int, str]],
) -> None:
    found = [
        letter(words.format(f"v{text}" if "key" in words else number), "a", 1.0) for words, number, text in letters
    ]
    groups = by_reason(found)
    assert sum(each.letters for each in groups) == len(found)
    assert len(groups) == len({words for words, _, _ in letters})
    assert all(common(each.reason) == each.reason for each in groups)
