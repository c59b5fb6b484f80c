"""What is held of a user comes out whole: of every topic and of the state, and nothing of anybody else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from installation import Installation
from test_erased import CLOCK, USER, Scene
from typer.testing import CliRunner

from streams.cli import app
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Listen
from streams.contract.topics import AUDIENCE_STATE, AUDIENCE_VECTORS, DEAD_LETTERS, LISTENS, PREFERENCES, PUSH_TARGETS
from streams.kafka.partitioner import partition_of
from targeting.arrays.id_table import hash64
from targeting.partition.state_keys import INTEREST, PUSHED
from targeting.types import Mark
from targeting.users import push_record, score_thresholds


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path)


def export(scene: Scene, user: str = USER) -> dict[str, object]:
    done = CliRunner().invoke(app, ["export", user, *scene.options], env=scene.environment)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_of_a_user_nobody_knows_there_is_nothing(scene: Scene) -> None:
    found = export(scene)
    assert found["topics"] == {}
    assert found["state"] == {"history": [], "pushes": [], "score_threshold": [], "erased_at": None, "profiling": None}


def test_everything_is_there_and_nothing_of_anybody_else(scene: Scene) -> None:
    here, now, name = scene.here, CLOCK.now(), scene.here.naming.name
    scene.listen(now)
    # Somebody else in the same partition.
    other = next(f"other-{n}" for n in range(99) if partition_of(b"other-%d" % n, 2) == partition_of(USER.encode(), 2))
    event = Listen(
        listen_id="x", user_id=other, song_id="secret", source="organic", played_at=datetime.fromtimestamp(now, UTC)
    )
    here.send(LISTENS, pack(event, id="x", source="test", time=now))
    here.send(AUDIENCE_VECTORS, Record(USER.encode(), vector_codec.pack("a", np.ones(2, np.float32)), []))
    here.send(PUSH_TARGETS, Record(USER.encode(), b'{"song_id":"s-9","artist_ids":["a-1"]}', []))
    here.send(DEAD_LETTERS, Record(b"\xff", b'{"user_id":"%s"' % USER.encode(), [("dl_topic", b"t")]))
    scene.work(scene.consumed(LISTENS, 2))
    found = export(scene)
    topics = found["topics"]
    assert isinstance(topics, dict)
    assert topics.keys() == {name(topic) for topic in (LISTENS, AUDIENCE_VECTORS, PUSH_TARGETS, DEAD_LETTERS)}
    (listen,) = topics[name(LISTENS)]
    assert (listen["value"]["song_id"], listen["headers"]["ce_source"]) == ("s", "test")
    assert topics[name(AUDIENCE_VECTORS)][0]["value"] == {"space": "a", "vector": [1.0, 1.0]}
    assert topics[name(DEAD_LETTERS)][0]["key"] == {"hex": "ff"}
    (heard,) = found["state"]["history"]  # type: ignore[index]
    assert (heard["song"], heard["weight"]) == ("s", 1.0)
    assert abs(datetime.fromisoformat(heard["last_played_at"]).timestamp() - now) < 2
    assert other not in json.dumps(found)
    assert "secret" not in json.dumps(found)


def test_pushes_and_thresholds_are_told_in_words(scene: Scene) -> None:
    here, partition = scene.here, partition_of(USER.encode(), 2)
    here.send(PUSH_TARGETS, Record(USER.encode(), b'{"song_id":"s-9","artist_ids":["a-1"]}', []))
    recordings, artists = hash64(["s-9", "gone"]), hash64(["a-1", "a-1"])
    marks = np.array([Mark.DELIVERED | Mark.OPENED, Mark.HELD_OUT], np.uint16)
    rows = np.array([2]), recordings, artists, np.array([1_700_000_000] * 2, np.uint32), marks
    (pushed,) = push_record.encode(*rows)
    (threshold,) = score_thresholds._encode(np.array([1.0], np.float32), np.array([1_700_000_000], np.uint32))
    here.send(AUDIENCE_STATE, Record(PUSHED + USER.encode(), pushed, []), partition)
    here.send(AUDIENCE_STATE, Record(INTEREST + USER.encode(), threshold, []), partition)
    state = export(scene)["state"]
    assert isinstance(state, dict)
    when = "2023-11-14T22:13:20+00:00"
    first, second = state["pushes"]
    assert first == {"recording": "s-9", "artist": "a-1", "not_before": when, "marks": ["DELIVERED", "OPENED"]}
    assert (second["recording"], second["marks"]) == (f"hash {int(recordings[1]):016x}", ["HELD_OUT"])
    assert state["score_threshold"] == [{"factor": 2.0, "at": when}]


def test_while_profiling_is_off_there_is_no_history_over_restarts_and_outdated_records(scene: Scene) -> None:
    now = CLOCK.now()
    time_of = [now - 60 + 10 * number for number in range(6)]

    def state() -> tuple[list[str], object]:
        found = export(scene)["state"]
        assert isinstance(found, dict)
        return [heard["last_played_at"][:19] for heard in found["history"]], found["profiling"]

    def told(time: float) -> str:
        return datetime.fromtimestamp(time, UTC).isoformat()

    scene.listen(time_of[0])
    scene.work(scene.consumed(LISTENS, 1))
    assert state() == ([told(time_of[0])[:19]], None)
    scene.says(profiling=False, updated_at=time_of[1])
    scene.work(scene.consumed(PREFERENCES, 1))
    off = {"allowed": False, "said_at": told(time_of[1])}
    assert state() == ([], off)
    scene.listen(time_of[2])
    scene.says(profiling=True, updated_at=time_of[0])
    scene.work(lambda: scene.consumed(LISTENS, 2)() and scene.consumed(PREFERENCES, 2)())
    assert state() == ([], off)
    scene.says(profiling=True, updated_at=time_of[3])
    scene.work(scene.consumed(PREFERENCES, 3))
    scene.listen(time_of[2] + 1)
    scene.listen(time_of[4])
    scene.work(scene.consumed(LISTENS, 4))
    assert state() == ([told(time_of[4])[:19]], {"allowed": True, "said_at": told(time_of[3])})


def test_of_an_erased_user_only_the_time_is_held(scene: Scene) -> None:
    scene.listen(CLOCK.now())
    scene.work(scene.consumed(LISTENS, 1))
    scene.ask()
    scene.work(scene.consumed(PREFERENCES, 1))
    state = export(scene)["state"]
    assert isinstance(state, dict)
    assert state["erased_at"] is not None
    assert (state["history"], state["pushes"]) == ([], [])
