"""`coldstart data`: a generated folder, what is told of one, and the code that says whether it can be trained on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.runtime.exit_codes import REFUSED

SONGS = "song_id,duration_sec,name\n" + "".join(f"s{i},{100 + i},Song {i}\n" for i in range(19)) + "s19,,Last\n"
LISTENS = "user_id,song_id,play_count,played_at\n" + "".join(
    f"u{u},s{i},2,{1_500_000_000 + 60 * u + i}\n" for u in range(6) for i in range(20) if i or u < 4
)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TERM", "dumb")


def lay(path: Path, songs: str = SONGS, listens: str = LISTENS) -> Path:
    (path / "songs.csv.gz").write_bytes(gzip.compress(songs.encode()))
    (path / "interactions.csv.gz").write_bytes(gzip.compress(listens.encode()))
    return path


def run(path: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["data", "check", str(path), *options])


def generate(path: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["data", "generate", str(path), *options])


def test_a_generated_folder_can_be_trained_on_and_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    few = ("--users", "200", "--songs", "400", "--history", "10")
    folders = {name: tmp_path / name for name in ("one", "same", "other")}
    for name, folder in folders.items():
        done = generate(folder, *few, "--seed", "4" if name == "other" else "3")
        assert done.exit_code == 0, done.output
        assert "200 users, 400 songs" in done.stdout
    told = json.loads(run(folders["one"], "--json").stdout)
    assert told["ok"]
    assert told["findings"] == []
    assert (told["songs"], told["interactions"] == told["dated_interactions"]) == (400, True)
    assert 150 < told["users"] <= 200
    one, same, other = ((folder / "interactions.csv.gz").read_bytes() for folder in folders.values())
    assert one == same
    assert one != other


def test_what_lies_in_a_folder_is_not_overwritten_and_an_impossible_world_is_refused(tmp_path: Path) -> None:
    lay(tmp_path)
    before = (tmp_path / "songs.csv.gz").read_bytes()
    found = generate(tmp_path)
    assert found.exit_code == REFUSED
    assert "the folder is not empty" in found.output
    assert (tmp_path / "songs.csv.gz").read_bytes() == before
    impossible = generate(tmp_path / "new", "--users", "50", "--songs", "8", "--history", "500")
    assert impossible.exit_code == REFUSED
    assert "lower history or raise songs" in impossible.output


def test_a_clean_folder_is_counted(tmp_path: Path) -> None:
    done = run(lay(tmp_path), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    # s0 has 4 listeners, one too few; a tenth of the other 19 is cold.
    assert (told["songs"], told["songs_with_too_few_listeners"], told["warm_songs"], told["cold_songs"]) == (
        20,
        1,
        17,
        2,
    )
    assert (told["users"], told["interactions"], told["plays"]) == (6, 118, 236)
    assert (told["first"], told["last"]) == ("2017-07-14T02:40:00Z", "2017-07-14T02:45:19Z")
    assert told["ok"]
    assert told["findings"] == []
    files = {each["name"]: each for each in told["files"]}
    assert files["tags.csv.gz"]["bytes"] is None
    assert files["interactions.csv.gz"]["lines"] == 118
    columns = {each["name"]: each for each in files["songs.csv.gz"]["columns"]}
    assert columns["duration_sec"] == {"name": "duration_sec", "filled": 19, "unknown": 1, "out_of_range": 0}
    shown = run(tmp_path)
    assert shown.exit_code == 0
    for words in ("nothing is dirty", "it can be trained on", "2017-07-14T02:45:19Z", "absent"):
        assert words in shown.output


def test_dirt_is_shown_with_its_lines_and_refused_only_by_strict(tmp_path: Path) -> None:
    lay(tmp_path, SONGS.replace("s3,103,", "s3,0,"), f"{LISTENS},s1,1,1500000000\n")
    done = run(tmp_path)
    assert done.exit_code == 0, done.output
    row = next(line for line in done.output.splitlines() if "out of range" in line and "read as unknown" in line)
    assert all(words in row for words in ("songs.csv.gz", "duration_sec", "5: '0'"))
    assert "without a user" in done.output
    strict = run(tmp_path, "--strict", "--json")
    assert strict.exit_code == REFUSED
    told = json.loads(strict.stdout)
    assert [(each["count"], each["refused"]) for each in told["findings"]] == [(1, True), (1, True)]
    assert told["findings"][0]["examples"] == [{"line": 5, "value": "0"}]


def test_what_is_refused_is_told_all_at_once_with_the_way_out(tmp_path: Path) -> None:
    done = run(lay(tmp_path, listens=LISTENS.replace("u1,s3,2", "u1,nowhere,2").replace("u2,s4,2", "u2,s4,two")))
    assert done.exit_code == REFUSED
    assert "column song_id: 'nowhere' is not in songs.csv.gz; add it there or delete this row" in done.output
    assert "column play_count: 'two' is not a number" in done.output
    assert "it can be trained on" not in done.output


def test_too_few_songs_are_refused_as_training_would(tmp_path: Path) -> None:
    done = run(lay(tmp_path, "song_id\ns1\n", "user_id,song_id,play_count\nu,s1,1\n"))
    assert done.exit_code == REFUSED
    assert "0 of 1 songs have at least 5 listeners" in done.output


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_no_folder_is_said(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "file":
        path.write_text("")
    done = run(path)
    assert done.exit_code == REFUSED
    assert "is not a directory" in done.output


@pytest.mark.parametrize("verb", ["train", "evaluate", "demo"])
def test_every_verb_that_reads_data_shows_what_is_dirty_and_refuses_it_if_asked(tmp_path: Path, verb: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    # Too few songs for a split: each verb ends after reading.
    lay(data, "song_id,duration_sec\ns1,0\n", "user_id,song_id,play_count\nu,s1,1\n")
    own = {
        "train": ["--out", str(tmp_path / "model")],
        "evaluate": ["--json", str(tmp_path / "f.json")],
        "demo": ["--folder", str(tmp_path / "run")],
    }[verb]
    read = CliRunner().invoke(app, [verb, "--data", str(data), *own])
    assert read.exit_code == REFUSED, read.output
    assert "duration_sec: 1 out of range, read as unknown (line 2: '0')" in read.output
    assert "at least 5 listeners" in read.output
    strict = CliRunner().invoke(app, [verb, "--data", str(data), *own, "--strict"])
    assert strict.exit_code == REFUSED
    assert "line 2, column duration_sec: '0' is out of range" in strict.output
