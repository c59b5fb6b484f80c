"""Groups that are moved by hand: past a record, and back to where the state stands."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition
from installation import Installation
from test_erased import CLOCK, USER, Scene
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.cloudevents import Record
from streams.contract.topics import AUDIENCE_STATE, DEAD_LETTERS, LISTENS, PUSH_TARGETS, SONG_UPLOADS, Topic
from streams.kafka.clients import consumer
from streams.kafka.partitioner import partition_of
from streams.runtime.clock import SystemClock

PARTITION = partition_of(USER.encode(), 2)


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path, session_s=6.0)


def verb(scene: Scene, *args: str) -> tuple[int, str]:
    prefix = scene.here.naming.prefix
    environment = {
        "COLDSTART_TOPICS__PREFIX": prefix,
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": "2",
        "COLDSTART_TOPICS__SONGS_PARTITIONS": "2",
        "COLDSTART_AUDIENCE__SESSION_TIMEOUT_S": "6",
        "COLDSTART_SONGS__SESSION_TIMEOUT_S": "6",
        "COLUMNS": "200",
    }
    done = CliRunner().invoke(app, [*args, *scene.options], env={**os.environ, **environment})
    return done.exit_code, done.output


def move_by_hand(scene: Scene, group: str, topic: Topic, offset: int, partition: int = PARTITION) -> None:
    reader = consumer(scene.here.kafka, f"{scene.here.naming.prefix}{group}")
    place = TopicPartition(scene.here.naming.name(topic), partition, offset)
    reader.commit(offsets=[place], asynchronous=False)
    reader.close()


def shown(scene: Scene, topic: Topic) -> dict[str, object]:
    rows = json.loads(verb(scene, "offsets", "show", "--json")[1])
    (row,) = [r for r in rows if r["topic"] == scene.here.naming.name(topic) and r["partition"] == PARTITION]
    return dict(row)


def test_a_record_that_stops_a_group_is_passed_over_and_kept(scene: Scene) -> None:
    now = CLOCK.now()
    scene.listen(now - 3)
    scene.work(scene.consumed(LISTENS, 1))
    scene.listen(now - 2)
    scene.listen(now - 1)
    assert (row := shown(scene, LISTENS))["committed"] == row["state"] == 1
    assert row["waiting"] == 2
    code, said = verb(scene, "offsets", "skip", "audience", "listens", str(PARTITION))
    assert (code, scene.here.read(DEAD_LETTERS)) == (0, [])
    assert "would skip" in said
    assert shown(scene, LISTENS)["committed"] == 1
    code, said = verb(scene, "offsets", "skip", "audience", "listens", str(PARTITION), "--apply")
    assert (code, f"at 1, key '{USER}'" in said) == (0, True)
    assert (row := shown(scene, LISTENS))["committed"] == row["state"] == 2
    (letter,) = scene.here.read(DEAD_LETTERS)
    passed = scene.here.read(LISTENS, PARTITION)[1]
    assert (letter.key(), letter.value()) == (passed.key(), passed.value())
    told = dict(letter.headers() or [])
    assert (told["dl_stage"], told["dl_error"], told["dl_offset"]) == (b"operator.skip", b"OperatorSkipped", b"1")
    # The worker takes it as said, by state and group.
    scene.work(scene.consumed(LISTENS, 3))
    assert shown(scene, LISTENS)["waiting"] == 0
    code, said = verb(scene, "offsets", "skip", "audience", "listens", str(PARTITION))
    assert (code, "nothing waits" in said) == (2, True)


def test_a_group_without_a_state_passes_over_records_too(scene: Scene) -> None:
    for number in range(3):
        scene.here.send(SONG_UPLOADS, Record(b"%d" % number, b"no upload", []), partition=1)
    move_by_hand(scene, "songs", SONG_UPLOADS, 0, partition=1)
    code, _ = verb(scene, "offsets", "skip", "songs", "song-uploads", "1", "--count", "2", "--apply")
    assert code == 0
    assert scene.here.committed("songs", SONG_UPLOADS, 1) == 2
    assert [letter.key() for letter in scene.here.read(DEAD_LETTERS)] == [b"0", b"1"]


def test_what_cannot_be_skipped_is_refused_with_the_way_out(scene: Scene) -> None:
    scene.listen(CLOCK.now())
    scene.work(scene.consumed(LISTENS, 1))
    for args, words in (
        (("audience", "preferences", "0"), "send a newer record of its key"),
        (("audience", "song-uploads", "0"), "has no offset in"),
        (("nobody", "listens", "0"), "its owner skips records"),
        (("songs", "song-uploads", "0"), "has committed nothing"),
    ):
        code, said = verb(scene, "offsets", "skip", *args)
        assert (code, words in " ".join(said.split())) == (2, True), said


def test_a_group_moved_by_hand_is_shown_and_follows_the_state_again(scene: Scene) -> None:
    scene.listen(CLOCK.now())
    scene.listen(CLOCK.now() + 1)
    scene.work(scene.consumed(LISTENS, 2))
    assert verb(scene, "offsets", "show")[0] == 0
    clock, deadline = SystemClock(), SystemClock().monotonic() + 60
    while True:
        # The worker's session is to end first.
        try:
            move_by_hand(scene, "audience", LISTENS, 1)
            break
        except KafkaException:
            assert clock.monotonic() < deadline
    code, _ = verb(scene, "offsets", "show")
    assert code == 1
    code, said = verb(scene, "rewind", "audience", "--topic", "listens", "--recount-listens", "--by", "1", "--apply")
    assert (code, "offsets reset audience --to-state" in " ".join(said.split())) == (2, True)
    code, said = verb(scene, "offsets", "reset", "audience", "--to-state")
    assert (code, "the group stands at 1, the state at 2" in said, "add --apply" in said) == (0, True, True)
    assert verb(scene, "offsets", "reset", "audience", "--to-state", "--apply")[0] == 0
    scene.listen(CLOCK.now() + 2)
    scene.work(scene.consumed(LISTENS, 3))
    assert verb(scene, "offsets", "show")[0] == 0


def test_another_teams_group_goes_back_to_a_moment(scene: Scene) -> None:
    for number in range(4):
        scene.here.send(PUSH_TARGETS, Record(b"u", b"%d" % number, []), PARTITION)
    stamps = [message.timestamp()[1] for message in scene.here.read(PUSH_TARGETS, PARTITION)]
    move_by_hand(scene, "pushes", PUSH_TARGETS, 4)
    to = f"{stamps[2] / 1000:.3f}"

    when = datetime.fromtimestamp(float(to), UTC).isoformat()
    code, _ = verb(scene, "rewind", "pushes", "--to", when, "--apply")
    assert code == 0
    assert scene.here.committed("pushes", PUSH_TARGETS, PARTITION) == min(
        at for at, stamp in enumerate(stamps) if stamp >= stamps[2]
    )
    assert scene.here.read(AUDIENCE_STATE) == []
    code, said = verb(scene, "rewind", "pushes", "--to", "yesterday")
    assert (code, "an age such as 2h" in " ".join(said.split())) == (2, True)
    assert verb(scene, "rewind", "pushes")[0] == 2
