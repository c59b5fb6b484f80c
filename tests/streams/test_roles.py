"""What the two roles do together, on a real broker, for each kind of event."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import pytest
from confluent_kafka import Message
from installation import copies

from streams.contract.cloudevents import Record, pack
from streams.contract.errors import BadBurst, Refused
from streams.contract.events import Campaign, DenseFeature, PushTarget, SongUpload, UserPreferences
from streams.contract.topics import (
    CAMPAIGNS,
    LISTENS,
    MODELS,
    PREFERENCES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    WARM_SONGS,
    Topic,
)
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import BAD_INPUT
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.dataset_events import upload_record
from streams.testbed.demo.follow import Follower


@pytest.fixture(scope="module")
def running(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Everybody with an even place in the list has opted out before the workers start."""
    running = set_up(kafka, "test-roles.", tmp_path_factory.mktemp("roles"))
    # Everybody is told of many songs by one artist here.
    running.environment |= {"COLDSTART_AUDIENCE__CAP_PUSHES": "100", "COLDSTART_AUDIENCE__ARTIST_CAP_PUSHES": "100"}
    running.environment |= skewable(running.folder)
    running.send(PREFERENCES, [preferences(user, opted_in=False) for user in running.users[::2]])
    running.start("songs", "songs")
    running.start("audience", "audience", "--slot", "0")
    running.wait_until_ready()
    yield running
    running.stop()


def skewable(folder: Path) -> dict[str, str]:
    """The environment of workers whose wall clock lags by what a file says: Python runs this before anything else."""
    lag = folder / "lag"
    lag.write_text("0")
    shim = f"import time\nright = time.time\ntime.time = lambda: right() - float(open({str(lag)!r}).read() or 0)\n"
    (folder / "shim").mkdir()
    (folder / "shim" / "sitecustomize.py").write_text(shim)
    return {"PYTHONPATH": os.pathsep.join([str(folder / "shim"), *sys.path])}


def lags(running: Environment, seconds: int) -> None:
    """Set the workers' clocks; atomically, as they look."""
    path = running.folder / "lag"
    path.with_suffix(".new").write_text(str(seconds))
    path.with_suffix(".new").replace(path)


@pytest.fixture(scope="module")
def follower(running: Environment) -> Iterator[Follower]:
    follower = Follower(running.kafka, running.naming)
    yield follower
    follower.close()


def preferences(user_id: str, **more: object) -> Record:
    event = UserPreferences(user_id=user_id, updated_at=datetime.now(UTC), **more)  # type: ignore[arg-type]
    return pack(event, id=user_id, source="test", time=time.time())


def read(running: Environment, topic: Topic) -> list[Message]:
    snapshot = Snapshot(running.kafka, [running.naming.name(topic)], SystemClock())
    try:
        return list(snapshot.read_to_end())
    finally:
        snapshot.close()


def pushes(running: Environment, song_id: str) -> list[PushTarget]:
    found = [msgspec.json.decode(m.value() or b"", type=PushTarget) for m in read(running, PUSH_TARGETS)]
    return [push for push in found if push.song_id == song_id]


def campaign(running: Environment, song_id: str) -> Campaign | None:
    records = [m for m in read(running, CAMPAIGNS) if m.key() == song_id.encode()]
    return msgspec.json.decode(records[-1].value() or b"", type=Campaign) if records else None


def named(running: Environment, name: str, **more: object) -> SongUpload:
    return msgspec.structs.replace(running.songs[0], song_id=name, **more)


def test_an_upload_is_pushed_to_people_who_did_not_opt_out(running: Environment, follower: Follower) -> None:
    song = named(running, "for-the-willing")
    running.upload([song])
    running.wait_until_answered(follower.answered, [song.song_id])

    found = pushes(running, song.song_id)
    assert found
    assert {push.user_id for push in found}.isdisjoint(running.users[::2])
    assert all(push.title == song.title and push.revision == 1 and 0 < push.score <= 1 for push in found)
    # 70 % of the budget at the request, and every push tells how far preferences were read.
    assert len(found) <= 70
    assert any(push.preferences_offset > 0 for push in found)


def test_an_opt_out_is_obeyed_by_the_next_upload(running: Environment, follower: Follower) -> None:
    first = named(running, "before-the-opt-out")
    running.upload([first])
    running.wait_until_answered(follower.answered, [first.song_id])
    lost = pushes(running, first.song_id)[0].user_id

    running.send(PREFERENCES, [preferences(lost, opted_in=False)])
    second = named(running, "after-the-opt-out")
    running.upload([second])
    running.wait_until_answered(follower.answered, [second.song_id])

    assert lost not in {push.user_id for push in pushes(running, second.song_id)}
    running.send(PREFERENCES, [preferences(lost, opted_in=True)])


def test_one_recording_under_two_songs_is_pushed_once_to_a_user(running: Environment, follower: Follower) -> None:
    both = [named(running, name, recording_id="REC-1") for name in ("single", "album-track")]
    for song in both:
        running.upload([song])
        running.wait_until_answered(follower.answered, [song.song_id])

    single, album = ({push.user_id for push in pushes(running, song.song_id)} for song in both)
    assert single
    assert single.isdisjoint(album)


def test_a_repeated_or_older_revision_changes_nothing_and_a_newer_one_keeps_the_ledger(
    running: Environment, follower: Follower
) -> None:
    song = named(running, "revised", revision=5)
    running.upload([song])
    running.wait_until_answered(follower.answered, ["revised"])
    first = {push.user_id for push in pushes(running, "revised")}

    marker = named(running, "after-the-repeats")
    running.upload([song, msgspec.structs.replace(song, revision=4, title="older"), marker])
    running.wait_until_answered(follower.answered, [marker.song_id])
    assert {push.revision for push in pushes(running, "revised")} == {5}

    running.upload([msgspec.structs.replace(song, revision=6, title="newer", budget=200)])
    running.wait_until(
        lambda: (
            (found := campaign(running, "revised")) is not None
            and found.revision == 6
            and set(found.counts.answered) == running.partitions
        ),
        lambda: f"no campaign of revision 6: {campaign(running, 'revised')}",
    )
    again = [push for push in pushes(running, "revised") if push.revision == 6]
    assert first.isdisjoint(push.user_id for push in again)


def test_a_takedown_ends_the_campaign(running: Environment, follower: Follower) -> None:
    song = named(running, "taken-down")
    running.upload([song])
    running.wait_until_answered(follower.answered, [song.song_id])

    event = msgspec.structs.replace(song, revision=2)
    gone = pack(event, ce_type=SongUpload.TAKEN_DOWN, id="taken-down/2", source="test", time=time.time())
    running.send(SONG_UPLOADS, [gone])
    running.wait_until(
        lambda: (found := campaign(running, song.song_id)) is not None and found.status == "ended",
        lambda: f"not ended: {campaign(running, song.song_id)}",
    )
    ended = campaign(running, song.song_id)
    assert ended is not None
    assert ended.end_reason == "taken-down"
    assert set(ended.counts.answered) == running.partitions
    assert ended.counts.pushed == len(pushes(running, song.song_id))


def test_a_bad_listen_is_a_dead_letter_and_the_next_one_counts(running: Environment, follower: Follower) -> None:
    before = len(follower.dead)
    bad = Record(b"u-x", b'{"user_id":"u-x"}', list(upload_record(running.songs[0], time.time()).headers))
    running.send(LISTENS, [bad])
    running.wait_until(lambda: len(follower.dead) > before, lambda: "no dead letter for a bad listen")
    value, error, reason = follower.dead[-1]
    assert value == b'{"user_id":"u-x"}'
    assert error == "UnknownEventType"
    assert reason.startswith("ce_type:")

    song = copies(running.songs, 1)[0]
    running.upload([song])
    running.wait_until_answered(follower.answered, [song.song_id])


def test_features_of_another_model_are_a_dead_letter_and_do_not_stop_the_role(
    running: Environment, follower: Follower
) -> None:
    features = {"audio": DenseFeature("default", [1.0, 2.0]), "lyrics": DenseFeature("nobody", [1.0])}
    wrong = named(running, "wrong-size", features=features)
    # A feature that the model never met is no error, in whatever size.
    strange = [
        named(running, f"strange-{size}", features={"lyrics": DenseFeature("nobody", [1.0] * size)}) for size in (1, 2)
    ]
    before, process = len(follower.dead), running.workers[0].pid
    running.upload([wrong, *strange])
    running.wait_until_answered(follower.answered, [song.song_id for song in strange])
    running.wait_until(lambda: len(follower.dead) > before, lambda: "no dead letter for features of another size")
    _, error, reason = follower.dead[-1]
    assert error == "InvalidField"
    assert reason.startswith("features.audio.vector: 2 values")
    assert running.workers[0].pid == process


def test_what_cannot_be_read_on_warm_songs_and_models_stops_no_role_and_is_buried_once(
    running: Environment, follower: Follower
) -> None:
    bad = [Record(b"\xff bad", b"a warm song?", []), Record(b"encoder", b"a model?", [])]
    processes = [worker.pid for worker in running.workers]
    running.send(WARM_SONGS, [bad[0]])
    running.send(MODELS, [bad[1]])
    sent = {record.value for record in bad}

    def buried() -> list[bytes]:
        return sorted(letter[0] for letter in follower.dead if letter[0] in sent)

    running.wait_until(lambda: buried() == sorted(sent), lambda: f"buried are {buried()}")
    assert [worker.pid for worker in running.workers] == processes
    # Both roles read both topics again at every start; whoever buried them has said so.
    for worker in running.workers:
        worker.kill()
    marker = Record(b"u-y", b"after the restart", [])
    running.send(LISTENS, [marker])
    song = named(running, "after-bad-cached-records")
    running.upload([song])
    running.wait_until_answered(follower.answered, [song.song_id])
    running.wait_until(lambda: all("2 records" in notes(worker) for worker in running.workers), lambda: "no notes")
    running.wait_until(lambda: marker.value in {letter[0] for letter in follower.dead}, lambda: "no marker")
    assert buried() == sorted(sent)


def test_a_burst_of_bad_uploads_ends_the_songs_role_for_good_until_it_is_told_to_resume(
    running: Environment, follower: Follower
) -> None:
    running.workers.pop(0).stop()
    environment = running.environment | {"COLDSTART_SONGS__STOP_AT_BAD_OF": "20"}
    bad = [Record(b"s", b"burst-%d" % number, [("ce_source", b"acme")]) for number in range(60)]
    running.send(SONG_UPLOADS, bad)

    def buried() -> list[bytes]:
        return sorted(value for value, _, _ in follower.dead if value.startswith(b"burst-"))

    def start(*args: str) -> RoleProcess:
        return RoleProcess("songs-burst", ["songs", *args], environment, running.log("songs-burst"))

    worker = start()
    assert ended(worker) == BAD_INPUT
    with pytest.raises(BadBurst, match=r"song-uploads: .* of the last .* records were bad, from 'acme'"):
        worker.watch()
    running.workers.insert(0, start("--resume-with-bad"))
    song = named(running, "behind-the-burst")
    running.upload([song])
    running.wait_until_answered(follower.answered, [song.song_id])
    # Once each: what was acknowledged before the end is not read again.
    running.wait_until(lambda: len(buried()) >= 60, lambda: f"{len(buried())} of 60 are buried")
    assert buried() == sorted(record.value for record in bad)


def ended(process: RoleProcess) -> int:
    """Wait for its end and leave it to be found; its exit code, or the signal that killed it."""
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status


def notes(worker: RoleProcess) -> str:
    """What ``/readyz`` of a worker says of skipped records."""
    try:
        with urlopen(f"{worker.url}/readyz", timeout=5) as answer:
            return str(json.loads(answer.read()).get("notes", {}).get("skipped", ""))
    except (URLError, OSError):
        return ""


def test_a_second_worker_of_a_slot_ends_with_the_reason_and_the_first_goes_on(running: Environment) -> None:
    first = running.audience[0]
    pid = first.pid
    second = RoleProcess("again", ["audience", "--slot", "0"], running.environment, running.log("again"))

    def refused() -> bool:
        with suppress(Refused):
            assert second.watch() is None
            return False
        return True

    running.wait_until(refused, lambda: "the second worker goes on")
    assert f"another process of this machine (pid {pid}) has this slot" in running.log("again").read_text()
    assert first.pid == pid
    assert first.readiness() == {}


def test_what_was_published_while_the_workers_clocks_were_400_s_behind_is_served_once_they_are_right(
    running: Environment, follower: Follower
) -> None:
    dead = len(follower.dead)
    lost, erased, *_ = (push.user_id for push in pushes(running, "for-the-willing"))
    lags(running, 400)
    song = named(running, "by-the-right-clock")
    running.send(PREFERENCES, [
        preferences(lost, opted_in=False), preferences(erased, opted_in=False, erase_requested_at=datetime.now(UTC))
    ])  # fmt: skip
    running.upload([song])

    def doubts() -> list[str]:
        return [dict(worker.readiness()).get("clock", "") for worker in running.workers]

    running.wait_until(lambda: all("s behind the broker's" in each for each in doubts()), lambda: f"{doubts()}")
    assert follower.answered(song.song_id) == set()
    lags(running, 0)
    running.wait_until_answered(follower.answered, [song.song_id])
    running.wait_until_ready()
    found = {push.user_id for push in pushes(running, song.song_id)}
    assert found
    assert found.isdisjoint({lost, erased})
    assert len(follower.dead) == dead
    running.send(PREFERENCES, [preferences(lost, opted_in=True)])


def status(worker: RoleProcess) -> Any:
    with urlopen(f"{worker.url}/status", timeout=5) as answer:
        return json.load(answer)


def test_status_names_the_reason_of_dead_letters_and_the_log_has_one_line_for_hundreds(
    running: Environment,
) -> None:
    worker = running.audience[0]
    before = running.log("audience").read_text().count("records sent to dead-letters")
    wrong = upload_record(running.songs[0], time.time()).headers
    bad = [Record(f"u-{n}".encode(), b"wrong-type-%d" % n, list(wrong)) for n in range(400)]
    running.send(LISTENS, bad)

    def letters() -> int:
        found = [each for each in status(worker)["dead_letters"] if each["error"] == "UnknownEventType"]
        return sum(each["records"] for each in found)

    running.wait_until(lambda: letters() >= 400, lambda: f"{letters()} of 400")
    told = status(worker)
    (reason,) = [each for each in told["dead_letters"] if each["error"] == "UnknownEventType"]
    assert reason["stage"] == "audience.listens"
    assert reason["latest"].startswith("ce_type:")
    lines = running.log("audience").read_text().count("records sent to dead-letters") - before
    assert lines <= 2
    assert (told["role"], told["slot"], told["ready"]) == ("audience", 0, True)
    assert {each["partition"]: each["state"] for each in told["partitions"]} == dict.fromkeys(
        running.partitions, "serving"
    )
    songs = status(running.workers[0])
    assert songs["role"] == "songs"
    assert songs["partitions"]
    assert songs["model"]["space_in_use"] == told["model"]["space_in_use"] == told["model"]["space"]
