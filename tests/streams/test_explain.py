"""A song's story, and a user's, as `coldstart explain` finds them behind running workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from streams.contract.cloudevents import Record, pack
from streams.contract.events import PushOutcome, PushTarget, SongUpload, UserPreferences
from streams.contract.topics import (
    LISTENS,
    MATCH_REQUESTS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    Naming,
    Topic,
)
from streams.kafka.clients import admin, enqueue, producer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.partitioner import partition_of
from streams.kafka.topic_admin import create_topics
from streams.operations.bounded_reading import BoundedReader, ReadFrom
from streams.operations.song_story import read_song
from streams.operations.user_story import read_user
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import REFUSED
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.chaos.traffic import listen
from streams.testbed.demo.dataset_events import upload_record
from streams.testbed.demo.follow import Follower
from targeting.arrays.id_table import hash64
from targeting.rules.policy import Policy, held_out
from targeting.users.erasures import Erasures


@pytest.fixture(scope="module")
def town(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    town = set_up(kafka, "test-explain.", tmp_path_factory.mktemp("explain"))
    # Everybody gets one push; a fifth of everybody is held out of each song.
    town.environment |= {"COLDSTART_AUDIENCE__CAP_PUSHES": "1", "COLDSTART_AUDIENCE__HOLDOUT": "0.2"}
    town.send(PREFERENCES, [preferences(user, opted_in=False) for user in town.users[::4]])
    town.send(PREFERENCES, [preferences(town.users[1], opted_in=True, profiling=False)])
    town.start("songs", "songs")
    town.start("audience", "audience", "--slot", "0")
    town.wait_until_ready()
    yield town
    town.stop()


@pytest.fixture(scope="module")
def first(town: Environment) -> Iterator[list[PushTarget]]:
    """The pushes of a song to which everybody is open."""
    follower = Follower(town.kafka, town.naming)
    song = msgspec.structs.replace(town.songs[0], song_id="first", recording_id="REC-1", budget=40)
    town.upload([song])
    town.wait_until_answered(follower.answered, ["first"])
    yield pushes(town, "first")
    follower.close()


def preferences(user_id: str, **more: object) -> Record:
    event = UserPreferences(user_id=user_id, updated_at=datetime.now(UTC), **more)  # type: ignore[arg-type]
    return pack(event, id=user_id, source="test", time=time.time())


def read(town: Environment, topic: Topic) -> list[Any]:
    snapshot = Snapshot(town.kafka, [town.naming.name(topic)], SystemClock())
    try:
        return list(snapshot.read_to_end())
    finally:
        snapshot.close()


def pushes(town: Environment, song_id: str) -> list[PushTarget]:
    found = [msgspec.json.decode(m.value() or b"", type=PushTarget) for m in read(town, PUSH_TARGETS)]
    return [push for push in found if push.song_id == song_id]


def run(town: Environment, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams", "explain", *args], env={**os.environ, **town.environment, "COLUMNS": "200"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def explain(town: Environment, *args: str) -> Any:
    # However busy this machine is.
    done = run(town, *args, "--json", "--seconds", "60")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["not_looked_at"] == {}
    return told


def test_an_uploads_whole_way(town: Environment, first: list[PushTarget]) -> None:
    told = explain(town, "first")
    (upload,) = told["uploads"]
    assert (upload["type"], upload["revision"]) == (SongUpload.UPLOADED, 1)
    assert told["refused"] == []
    assert told["song"]["ended"] is None
    request = told["request"]
    assert request["neighbours"]
    assert request["budget"] == 40
    assert {int(number) for number in request["sent_at"]} == town.partitions
    assert {each["partition"] for each in told["answers"]} == town.partitions
    assert upload["at"] <= max(request["sent_at"].values()) <= min(each["answered_at"] for each in told["answers"])
    assert sum(each["counts"]["pushed"] for each in told["answers"]) == len(first) == told["pushes"]["found"]
    assert sum(told["pushes"]["by_reason"].values()) == len(first)
    assert told["campaign"]["status"] == "active"


def test_why_a_user_was_pushed_and_what_came_of_it(town: Environment, first: list[PushTarget]) -> None:
    push, now = first[0], time.time()
    outcome = PushOutcome(
        push_id=push.push_id, user_id=push.user_id, song_id="first", outcome="opened", at=datetime.now(UTC)
    )
    town.send(PUSH_OUTCOMES, [pack(outcome, id="o-1", source="test", time=now)])
    heard = msgspec.json.decode(listen(push.user_id, "l-1", now).value or b"", type=dict)
    record = listen(push.user_id, "l-1", now)
    town.send(LISTENS, [Record(record.key, msgspec.json.encode({**heard, "song_id": "first"}), record.headers)])
    told = explain(town, "first", push.user_id)["user"]
    assert told["pushed"] is True
    assert told["push"]["push_id"] == push.push_id
    assert told["push"]["reason"]["why"] == push.reason.why
    assert set(push.reason.songs) <= set(told["neighbours_heard"])
    assert [each["outcome"] for each in told["outcomes"]] == ["opened"]
    assert len(told["listens"]) == 1
    assert told["held_back"] == []


def test_why_a_user_was_not_pushed(town: Environment, first: list[PushTarget]) -> None:
    pushed = first[0].user_id
    same = msgspec.structs.replace(town.songs[0], song_id="same-recording", recording_id="REC-1", budget=1000)
    other = msgspec.structs.replace(town.songs[0], song_id="other", recording_id="REC-2", budget=1000)
    follower = Follower(town.kafka, town.naming)
    town.upload([same, other])
    town.wait_until_answered(follower.answered, ["same-recording", "other"])
    follower.close()

    def reasons(song: str, user: str) -> str:
        told = explain(town, song, user)["user"]
        assert told["pushed"] is False
        return "; ".join(told["held_back"])

    assert reasons("first", town.users[0]).startswith("opted out (since ")
    assert reasons("first", town.users[1]).startswith("profiling is off since ")
    assert explain(town, "first", town.users[1])["user"]["no_profiling_since"]
    assert explain(town, "first", town.users[0])["user"]["no_profiling_since"] is None
    assert "the same recording was pushed before" in reasons("same-recording", pushed)
    assert "frequency cap: 1 pushes within 24 h" in reasons("other", pushed)
    in_holdout = held_out(hash64(town.users), "other", Policy(holdout=0.2))
    held = next(user for number, user in enumerate(town.users) if in_holdout[number] and number % 4)
    assert "this user is in the holdout for this song" in reasons("other", held)


def test_what_was_asked_and_pushed_is_found_before_the_ledger_has_the_song(
    town: Environment, first: list[PushTarget], kafka: KafkaSettings, prefix: str
) -> None:
    """As where the songs worker ends after its requests: here the topics of events alone hold anything."""
    there = Naming(prefix, town.naming.audience_partitions, town.naming.songs_partitions)
    create_topics(admin(kafka), there, 1)
    sender = producer(kafka)
    for topic in (SONG_UPLOADS, MATCH_REQUESTS, PUSH_TARGETS):
        for each in read(town, topic):
            enqueue(
                sender, there.name(topic), value=each.value(), key=each.key(), partition=each.partition(),
                headers=each.headers(),
            )  # fmt: skip
    assert sender.flush(60) == 0
    with BoundedReader(kafka, there, SystemClock(), 60) as reader:
        story = read_song(reader, there, "first", sorted(town.partitions))
        told = read_user(reader, there, story, first[0].user_id, Policy(), Erasures(b"coldstart"))
        other = read_user(reader, there, story, "nobody", Policy(), Erasures(b"coldstart"))
        assert reader.left == {}
    assert story.song is None
    assert story.requests.keys() == town.partitions
    assert {push.push_id for push in story.pushes} == {push.push_id for push in first}
    assert told.pushed is True
    assert other.held_back[0].startswith("the partitions were asked, and there is no song record")


def test_who_allows_no_profiling_is_told_without_the_erasure_key(town: Environment, first: list[PushTarget]) -> None:
    user, naming = town.users[1], town.naming
    assert first
    partition = partition_of(user.encode(), naming.audience_partitions)
    with BoundedReader(town.kafka, naming, SystemClock(), 60) as reader:
        story = read_song(reader, naming, "first", [partition])
        told = read_user(reader, naming, story, user, Policy(), Erasures(b"another key"))
    assert told.held_back[0].startswith("profiling is off by the preferences of ")


def test_an_upload_that_was_refused_says_why(town: Environment) -> None:
    good = upload_record(msgspec.structs.replace(town.songs[0], song_id="refused"), time.time())
    town.send(SONG_UPLOADS, [Record(good.key, b'{"song_id":"refused","revision":1}', good.headers)])
    town.wait_until(
        lambda: run(town, "refused", "--seconds", "60").returncode == 0 and bool(explain(town, "refused")["refused"]),
        lambda: "no dead letter",
    )
    told = explain(town, "refused", town.users[1])
    assert told["song"] is None
    (letter,) = told["refused"]
    assert letter["stage"] == "songs.validate"
    assert "title" in letter["reason"]
    assert told["user"]["held_back"] == [
        f"no upload of the song was served: refused as {letter['error']}: {letter['reason']}"
    ]


def test_a_reader_sees_the_same(town: Environment, first: list[PushTarget]) -> None:
    done = run(town, "first", first[0].user_id, "--seconds", "60")
    assert done.returncode == 0, done.stderr
    assert f"{SongUpload.UPLOADED}, revision 1" in done.stdout
    assert f"asked {len(town.partitions)} partitions, budget 40" in done.stdout
    assert "first push" in done.stdout
    assert f"pushed: {first[0].reason.why}" in done.stdout


def test_a_song_that_nobody_uploaded(town: Environment) -> None:
    done = run(town, "nobody's", "--seconds", "60")
    assert done.returncode == REFUSED
    assert "no topic knows the song" in done.stderr


def test_a_place_is_read_no_further_than_it_is_finished_and_the_others_to_their_ends(town: Environment) -> None:
    naming = town.naming
    places = [ReadFrom(LISTENS, number) for number in range(naming.audience_partitions)]
    seen: Counter[int | None] = Counter()
    with BoundedReader(town.kafka, naming, SystemClock(), 60) as reader:
        for _, message in reader.read(places, lambda _: True):
            seen[message.partition()] += 1
            if message.partition() == 0:
                reader.finish(message)
        # What is finished counts as looked at.
        assert reader.left == {}
        again = Counter(message.partition() for _, message in reader.read(places, lambda _: True))
    whole = Counter(message.partition() for message in read(town, LISTENS))
    assert whole[0] > 1
    assert seen == {**whole, 0: 1}
    assert again == whole


def test_what_was_not_looked_at_in_time_is_named_and_nothing_is_concluded_from_it(
    town: Environment, first: list[PushTarget]
) -> None:
    user, naming = first[0].user_id, town.naming
    partition = partition_of(user.encode(), naming.audience_partitions)
    with BoundedReader(town.kafka, naming, SystemClock(), 60) as reader:
        story = read_song(reader, naming, "first", [partition])
        reader.left[naming.name(PUSH_TARGETS)] = 1
        story.pushes = []
        told = read_user(reader, naming, story, user, Policy(), Erasures(b"coldstart"))
    assert told.pushed is None
    assert told.held_back[0].startswith("not everything was looked at in time")
    with BoundedReader(town.kafka, naming, SystemClock(), 0) as reader:
        assert not read_song(reader, naming, "first", [partition]).known
        assert naming.name(SONGS_LEDGER) in reader.left
