"""`coldstart send`: every event of a file reaches its topic, whoever is killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner  # type: ignore[import-untyped]
from installation import PATIENCE_S, Installation
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.contract.cloudevents import unpack
from streams.contract.dead_letters import headers
from streams.contract.event_base import Event
from streams.contract.events import Listen, SongUpload
from streams.contract.topics import LISTENS, SONG_UPLOADS
from streams.operations.file_sender import BATCH


def uploads(count: int, start: int = 0) -> str:
    songs = (
        {"song_id": f"s-{n}", "revision": 1, "title": "x", "artist_ids": ["a"]} for n in range(start, start + count)
    )
    return "".join(json.dumps(song) + "\n" for song in songs)


def arguments(here: Installation, file: Path, *more: str) -> list[str]:
    reach = ["--bootstrap-servers", here.kafka.bootstrap_servers]
    return ["send", str(file), "--type", "song.uploaded", *reach, *more]


@pytest.fixture(autouse=True)
def _prefix(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", prefix)


def send(here: Installation, file: Path, *more: str) -> Result:
    return CliRunner().invoke(app, arguments(here, file, *more))


def ids(here: Installation) -> Counter[str]:
    """How often each event is there, by its id; each must be one that the service takes."""
    found: Counter[str] = Counter()
    for message in here.read(SONG_UPLOADS):
        received = unpack(SongUpload, message.key(), message.value(), headers(message), time.time())
        found[received.id] += 1
    return found


def test_a_file_is_sent_to_the_right_partitions_with_a_report(here: Installation, tmp_path: Path) -> None:
    file = tmp_path / "songs.ndjson"
    file.write_text(uploads(2500), encoding="utf-8")
    result = send(here, file, "--source", "label-feed")
    assert result.exit_code == 0, result.output
    messages = here.read(SONG_UPLOADS)
    placed = Counter(message.partition() for message in messages)
    assert len(messages) == 2500
    assert min(placed[0], placed[1]) > 0
    for message in messages:
        assert message.partition() == DefaultPartitioner()(message.key(), [0, 1], [0, 1])
        assert unpack(SongUpload, message.key(), message.value(), headers(message), time.time()).source == "label-feed"
    rows = [row.split() for row in result.stdout.splitlines() if here.naming.prefix in row]
    name = here.naming.name(SONG_UPLOADS)
    assert rows == [[name, str(at), f"{placed[at]:,}", "0", str(placed[at] - 1)] for at in (0, 1)]
    assert "2,500 events sent and acknowledged" in result.stdout


def test_killed_in_the_middle_again_and_again_each_event_is_there_once_by_its_id(
    here: Installation, tmp_path: Path
) -> None:
    file, journal = tmp_path / "songs.ndjson", tmp_path / "songs.ndjson.sent"
    count, kills = 20 * BATCH, 3
    file.write_text(uploads(count), encoding="utf-8")
    command = [sys.executable, "-m", "streams", *arguments(here, file)]
    done = 0
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE_S
        while events(journal) <= done:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        done = events(journal)
        assert done < count, "it was killed in the middle"
    last = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert last.returncode == 0, last.stderr
    assert f"{done:,} were done before" in last.stdout
    found = ids(here)
    assert len(found) == count
    # What was on its way at a kill is there twice, under the same id: it counts once.
    assert sum(found.values()) - count <= kills * BATCH


def events(journal: Path) -> int:
    return int(json.loads(journal.read_bytes())["events"]) if journal.exists() else 0


def test_a_file_that_was_sent_is_not_sent_again_and_one_that_grew_goes_on(here: Installation, tmp_path: Path) -> None:
    file = tmp_path / "songs.ndjson"
    file.write_text(uploads(1500) + "\n\n", encoding="utf-8")
    assert send(here, file).exit_code == 0
    again = send(here, file)
    assert again.exit_code == 0, again.output
    assert "0 events sent and acknowledged, 1,500 were done before" in again.stdout
    with file.open("a", encoding="utf-8") as more:
        more.write(uploads(700, start=1500))
    assert "700 events sent and acknowledged, 1,500 were done before" in send(here, file).stdout
    assert ids(here) == Counter(dict.fromkeys(ids(here), 1))
    assert len(ids(here)) == 2200
    assert "2,200 events sent" in send(here, file, "--again").stdout
    assert set(ids(here).values()) == {2}


def test_a_file_whose_sent_part_changed_and_a_journal_of_another_place_are_refused(
    here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, journal = tmp_path / "songs.ndjson", tmp_path / "songs.ndjson.sent"
    file.write_text(uploads(3), encoding="utf-8")
    assert send(here, file).exit_code == 0
    file.write_text(uploads(3, start=7), encoding="utf-8")
    changed = send(here, file)
    assert (changed.exit_code, "its first 3 events were sent, and have changed since" in changed.output) == (2, True)
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", "elsewhere.")
    other = send(here, file)
    assert (other.exit_code, f"is about topics {here.naming.prefix}*" in other.output) == (2, True)
    journal.write_bytes(b"{")
    torn = send(here, file)
    assert (torn.exit_code, "remove it to send the whole file" in torn.output) == (2, True)


def test_nothing_is_sent_of_a_file_with_a_bad_event_unless_it_may_be_left_out(
    here: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "songs.ndjson"
    file.write_text(uploads(2) + '{"song_id":"bad"}\n' + uploads(2, start=2), encoding="utf-8")
    refused = send(here, file)
    assert refused.exit_code == 1
    assert "line 3: revision: missing" in refused.stdout
    assert "nothing sent: 1 of 5 events are wrong" in refused.stdout
    assert ids(here) == Counter()
    skipped = send(here, file, "--skip-bad")
    assert (skipped.exit_code, "4 events sent and acknowledged, 1 left out" in skipped.stdout) == (0, True)
    # What was left out is done, too.
    again = send(here, file, "--skip-bad")
    assert (again.exit_code, "0 events sent and acknowledged, 5 were done before" in again.stdout) == (0, True)
    assert sum(ids(here).values()) == 4


def test_structured_events_go_to_the_topics_of_their_types_under_their_own_ids(
    here: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "events.ndjson"
    told = {"specversion": "1.0", "source": "app", "time": "2026-01-01T00:00:00Z"}
    kinds: list[type[Event]] = [SongUpload, Listen]
    lines = [
        told | {"id": f"e-{n}", "type": cls.TYPES[0], "data": json.loads(cls.EXAMPLE)} for n, cls in enumerate(kinds)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = CliRunner().invoke(app, ["send", str(file), "--bootstrap-servers", here.kafka.bootstrap_servers])
    assert result.exit_code == 0, result.output
    for cls, topic, id in ((SongUpload, SONG_UPLOADS, "e-0"), (Listen, LISTENS, "e-1")):
        (message,) = here.read(topic)
        received = unpack(cls, message.key(), message.value(), headers(message), time.time())
        assert (received.id, received.source) == (id, "app")


def test_a_topic_that_is_missing_is_named(here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", "elsewhere.")
    file = tmp_path / "songs.ndjson"
    file.write_text(uploads(1), encoding="utf-8")
    result = send(here, file)
    assert (result.exit_code, "topic elsewhere.song-uploads: does not exist" in result.output) == (75, True)
    assert not file.with_name("songs.ndjson.sent").exists()


def test_a_file_that_is_not_there_is_refused(here: Installation, tmp_path: Path) -> None:
    result = send(here, tmp_path / "none.ndjson")
    assert (result.exit_code, "there is no such file" in result.output) == (2, True)
