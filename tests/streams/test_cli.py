"""The verbs: what they say of themselves, and how they end when a setting is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from encoder import training_config
from streams.cli import app
from streams.contract.json_schema import schema
from streams.contract.topics import TOPICS
from streams.operations.published_contract import document
from streams.runtime.exit_codes import REFUSED, RESTART
from streams.runtime.settings import KafkaSettings

ROOT = Path(__file__).parents[2]


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, by the words that call it."""
    yield path, command
    for name, inner in inside(command).items():
        yield from verbs(inner, (*path, name))


def inside(command: Any) -> dict[str, Any]:
    """The commands of a group that are shown; nothing for a command."""
    return {name: inner for name, inner in getattr(command, "commands", {}).items() if not inner.hidden}


VERBS = dict(verbs(typer.main.get_command(app)))
# Those that read settings, with what else they cannot do without.
WITH_SETTINGS = {
    ("publish",): ["nowhere"],
    ("send",): ["nowhere"],
    ("demo",): [],
    ("contract", "show"): [],
    ("lag",): [],
    ("doctor",): [],
    ("digest",): [],
    ("erased",): ["u"],
    ("export",): ["u"],
    ("explain",): ["s"],
    ("probe",): [],
    ("backfill",): ["--data", "nowhere"],
    ("rewind",): ["songs", "--by", "1"],
    ("offsets", "show"): [],
    ("offsets", "skip"): ["audience", "listens", "0"],
    ("offsets", "reset"): ["audience", "--to-state"],
    ("dead-letters", "list"): [],
    ("dead-letters", "show"): ["0"],
    ("dead-letters", "stats"): [],
    ("dead-letters", "replay"): ["--all"],
    ("dead-letters", "drop"): ["--all"],
    ("up",): [],
    ("chaos",): [],
    ("simulate",): ["--variants", "organic"],
    ("backtest",): [],
    ("campaigns",): [],
    ("worker", "songs"): [],
    ("worker", "audience"): [],
    ("topics", "list"): [],
    ("topics", "create"): [],
    ("topics", "check"): [],
    ("topics", "adopt"): ["listens"],
    ("topics", "acls"): [],
    ("topics", "update"): [],
    ("kafka", "up"): [],
    ("kafka", "down"): [],
    ("kafka", "status"): [],
}
WITHOUT_SETTINGS = {
    ("train",),
    ("evaluate",),
    ("validate",),
    ("data", "check"),
    ("data", "generate"),
    ("capacity",),
    *(("contract", verb) for verb in ("schema", "diff", "release")),
}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TERM", "dumb")


def test_the_verbs_are_known_here() -> None:
    leaves = {path for path, command in VERBS.items() if not inside(command)}
    assert leaves == WITH_SETTINGS.keys() | WITHOUT_SETTINGS


@pytest.mark.parametrize("path", VERBS, ids=lambda path: " ".join(path) or "coldstart")
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_and_every_option_explains_itself(path: tuple[str, ...], flag: str) -> None:
    result = CliRunner().invoke(app, [*path, flag])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    command = VERBS[path]
    assert command.help, path
    for parameter in command.params:
        assert getattr(parameter, "help", None) or parameter.name == "help", f"{path}: {parameter.name}"
    assert all(name in result.output for name in inside(command))


@pytest.mark.parametrize("path", WITH_SETTINGS, ids=" ".join)
def test_a_wrong_setting_is_said_and_ends_with_the_code_for_refused(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLDSTART_TOPICS__AUDIENCE_PARTITIONS", "none")
    result = CliRunner().invoke(app, [*path, *WITH_SETTINGS[path]])
    assert result.exit_code == REFUSED, result.output
    assert "topics.audience_partitions = 'none'" in result.output
    assert "COLDSTART_TOPICS__AUDIENCE_PARTITIONS" in result.output
    assert isinstance(result.exception, SystemExit)
    assert list(tmp_path.iterdir()) == []


def test_as_a_process_too_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams", "topics", "list", "--config", "/no/such.toml"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == REFUSED
    assert "/no/such.toml" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "path",
    [
        ("lag",),
        ("campaigns",),
        ("erased", "u-1"),
        ("rewind", "audience", "--by", "1"),
        ("offsets", "show"),
        ("dead-letters", "list"),
        ("digest",),
        ("topics", "create"),
        ("topics", "check"),
        ("topics", "update"),
    ],
    ids=" ".join,
)
def test_no_broker_is_said_and_asks_for_another_try(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_KAFKA__REQUEST_TIMEOUT_S", "0.3")
    result = CliRunner().invoke(app, [*path, "--bootstrap-servers", "127.0.0.1:9"])
    assert result.exit_code == RESTART, result.output
    assert "127.0.0.1:9" in result.output


def test_topics_list_names_every_topic_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", "mine.")
    result = CliRunner().invoke(app, ["topics", "list"])
    assert result.exit_code == 0
    assert all(f"mine.{topic.name}" in result.output for topic in TOPICS)


def test_topics_contract_prints_the_document() -> None:
    printed = CliRunner().invoke(app, ["contract", "show"]).stdout
    assert yaml.safe_load(printed) == document()
    assert CliRunner().invoke(app, ["topics", "contract"]).stdout == printed


def test_the_contract_is_that_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", "mine.")
    monkeypatch.setenv("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "one:9093,two:9093")
    printed = yaml.safe_load(CliRunner().invoke(app, ["contract", "show"]).stdout)
    assert [server["host"] for server in printed["servers"].values()] == ["one:9093", "two:9093"]
    assert printed["channels"]["listens"]["bindings"]["kafka"]["topic"] == "mine.listens"


def test_an_events_schema_is_printed_and_an_unknown_events_name_is_answered_by_those_there_are() -> None:
    printed = CliRunner().invoke(app, ["contract", "schema", "SongUpload"]).stdout
    assert json.loads(printed) == schema("SongUpload")
    unknown = CliRunner().invoke(app, ["contract", "schema", "Song"])
    assert unknown.exit_code == REFUSED
    names = CliRunner().invoke(app, ["contract", "schema"]).stdout.split()
    assert all(name in unknown.stderr for name in names)
    assert {"SongUpload", "SongTakedown", "CloudEventHeaders"} <= {*names}


def test_topics_are_created_once_and_then_as_declared(
    kafka: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", prefix)
    monkeypatch.setenv("COLDSTART_TOPICS__AUDIENCE_PARTITIONS", "1")
    monkeypatch.setenv("COLDSTART_TOPICS__SONGS_PARTITIONS", "1")
    options = ["--bootstrap-servers", kafka.bootstrap_servers]
    before = CliRunner().invoke(app, ["topics", "check", *options])
    assert before.exit_code == 1
    assert len(before.output.splitlines()) == len(TOPICS)
    assert f"{prefix}listens: missing" in before.output
    first = CliRunner().invoke(app, ["topics", "create", *options])
    assert f"{len(TOPICS)} created, 0 existed already" in first.output
    again = CliRunner().invoke(app, ["topics", "create", *options])
    assert f"0 created, {len(TOPICS)} existed already" in again.output
    after = CliRunner().invoke(app, ["topics", "check", *options])
    assert (after.exit_code, after.output) == (0, f"{len(TOPICS)} topics are as declared\n")
    assert CliRunner().invoke(app, ["topics", "update", *options]).output == "0 settings changed\n"


def test_a_folder_that_is_no_artifact_is_not_published(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["publish", str(tmp_path)])
    assert result.exit_code == REFUSED
    assert "manifest.json" in result.output


def test_no_verb_pays_for_the_imports_of_another() -> None:
    """Who asks for the lag at night need not wait for what trains, evaluates or simulates."""
    heavy = {"scipy", "torch", "sklearn", "matplotlib", "faust", "numpy", "encoder"}
    script = f"import sys, streams.cli; print(*sorted({heavy!r} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []


def test_a_songs_story_is_read_without_what_serves() -> None:
    # `coldstart explain` is asked at night: half of its second was imports that it does not use.
    heavy = {"scipy", "hnswlib", "aiokafka", "faust", "structlog", "prometheus_client"}
    modules = "streams.cli, streams.audience.push_rules, streams.operations.user_story"
    script = f"import sys, {modules}; print(*sorted({heavy!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_a_former_name_of_a_verb_still_calls_it() -> None:
    named = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert named["torture"].hidden
    assert named["torture"].callback.__wrapped__ is named["chaos"].callback.__wrapped__


@pytest.mark.parametrize("option", ["--variants", "--arms"])
@pytest.mark.parametrize(
    "verb",
    [["evaluate", "--data", "nowhere", "--json", "f.json"], ["backtest"], ["simulate"]],
    ids=lambda verb: verb[0],
)
def test_the_former_name_of_an_option_still_works_and_is_not_shown(verb: list[str], option: str) -> None:
    refused = CliRunner().invoke(app, [*verb, option, "riddle, wrong"])
    assert refused.exit_code == REFUSED
    assert "--variants" in refused.output
    assert "riddle, wrong" in refused.output
    shown = CliRunner().invoke(app, [verb[0], "--help"]).output
    assert "--variants" in shown
    assert "--arms" not in shown


def test_training_takes_the_devices_that_the_encoder_takes() -> None:
    assert sys.modules["streams.cli.train"].Device == training_config.Device


def test_a_worker_loads_only_what_serves() -> None:
    heavy = {"torch", "sklearn", "matplotlib", "faust", "scipy.optimize", "scipy.stats", "encoder"}
    script = f"import sys, streams.audience.main; print(*sorted({heavy!r} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []
