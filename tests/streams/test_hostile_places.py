"""What a verb says of a file or folder that cannot be used: one line, before the work, and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from streams.cli import app
from streams.runtime.exit_codes import REFUSED

# What each verb cannot do without.
NEEDED = {
    ("train",): {"data": "--data=nowhere", "out": "--out=out"},
    ("publish",): {"artifact": "nowhere"},
    ("topics", "adopt"): {"topic": "listens"},
    ("erased",): {"user_id": "u-1"},
    ("export",): {"user_id": "u-1"},
    ("explain",): {"song_id": "s-1"},
    ("send",): {"file": "a file"},
    ("backfill",): {"data": "--data=a file"},
    ("rewind",): {"group": "audience", "to": "--to-beginning"},
    ("dead-letters", "show"): {"offset": "0"},
    ("dead-letters", "replay"): {"every": "--all"},
    ("dead-letters", "drop"): {"every": "--all"},
    ("offsets", "skip"): {"group": "audience", "topic": "listens", "partition": "0"},
    ("offsets", "reset"): {"group": "audience", "to": "--to-state"},
    ("evaluate",): {"data": "--data=nowhere", "json_path": "--json=figures.json"},
}
BAD = ("a file/below", "a link to itself", "/proc/nothing/there", "n" * 300)


def places() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Every parameter of every verb that names a file or folder."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))
        for parameter in command.params:
            if "Path" in repr(parameter.type_descriptor.annotation):
                option = parameter.opts[0] if parameter.param_type_name == "option" else ""
                yield path, parameter.name, option

    yield from walk(typer.main.get_command(app), ())


PLACES = list(places())


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setenv("COLDSTART_KAFKA__REQUEST_TIMEOUT_S", "0.3")
    Path("a file").touch()
    Path("a link to itself").symlink_to("a link to itself")


def test_the_parameters_are_found() -> None:
    assert {name for _, name, _ in PLACES} >= {
        "config",
        "data",
        "out",
        "checkpoint",
        "artifact",
        "logs",
        "report",
        "keep",
    }


@pytest.mark.parametrize(("verb", "name", "option"), PLACES, ids=lambda value: " ".join(value) or "-")
def test_a_place_that_cannot_be_used_is_named_at_once(verb: tuple[str, ...], name: str, option: str) -> None:
    for bad in BAD:
        given = [f"{option}={bad}"] if option else [bad]
        others = [words for other, words in NEEDED.get(verb, {}).items() if other != name]
        found = CliRunner().invoke(app, [*verb, *given, *others])
        assert found.exit_code == REFUSED, (bad, found.output, found.exception)
        assert isinstance(found.exception, SystemExit), (bad, found.exception)
        assert bad.split("/")[-1][:100] in found.output, (bad, found.output)
        assert "Traceback" not in found.output
    # Of a demo its own folder, in which it was to work.
    assert {each.name for each in Path().iterdir()} <= {"a file", "a link to itself", "runs"}


@pytest.mark.parametrize(
    "words",
    [
        ["publish", "a file"],
        ["publish", "."],
        ["up", "--logs", "a file"],
        ["train", "--data", ".", "--out", "a file"],
        ["train", "--data", "a file", "--out", "new"],
        ["train", "--data", ".", "--out", "new", "--name", "no such name"],
        ["train", "--data", ".", "--out", "new", "--checkpoint", "."],
        ["evaluate", "--data", ".", "--json", "."],
        ["demo", "--report", "."],
        ["demo", "--json", "."],
        ["demo", "--folder", "a file"],
        ["simulate", "--variants", "organic", "--report", "."],
        ["simulate", "--variants", "organic", "--json", "."],
        ["chaos", "--keep", "a file"],
        ["topics", "list", "--config", "."],
        ["digest", "--partition", "99"],
    ],
    ids=" ".join,
)
def test_a_file_for_a_folder_and_a_folder_for_a_file(words: list[str]) -> None:
    found = CliRunner().invoke(app, words)
    assert found.exit_code == REFUSED, (found.output, found.exception)
    assert isinstance(found.exception, SystemExit)
    assert "Traceback" not in found.output
    assert any(word in found.output for word in words[1:]), found.output


@pytest.mark.parametrize("bad", ["a file", "/proc/nothing"])
@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_a_cache_that_cannot_be_used(verb: str, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_PATHS__CACHE", bad)
    found = CliRunner().invoke(app, ["kafka", verb])
    assert found.exit_code == (REFUSED if verb == "up" else {"down": 0, "status": 1}[verb]), found.output
    assert isinstance(found.exception, SystemExit | None)
    assert "Traceback" not in found.output
    assert verb != "up" or bad in found.output
