"""systemd units: verified by systemd itself, hardened, with codes and deadlines of the roles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from toolchain import ROOT, run, tool

from streams.cli import app
from streams.runtime.exit_codes import BAD_INPUT, REFUSED, RESTART
from streams.runtime.settings import AudienceSettings, SongsSettings
from streams.runtime.settings_sources import load_settings

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
ROLES = [unit for unit in UNITS if "topics" not in unit.name]


def lines(unit: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The units as installed, instance 3 of the template, with a program where they look for it."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/coldstart/bin/coldstart", "/bin/true")
        text = text.replace("User=coldstart", "User=daemon").replace("Group=coldstart", "Group=daemon")
        (tmp_path / unit.name.replace("@.", "@3.")).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_systemd_takes_the_unit_without_a_word_and_finds_it_little_exposed(unit: Path, root: Path) -> None:
    analyze, installed = tool("systemd-analyze"), root / unit.name.replace("@.", "@3.")
    said = run(analyze, "verify", "--recursive-errors=no", installed)
    assert [line for line in said.splitlines() if unit.name.partition("@")[0].partition(".")[0] in line] == []
    # From 0, nothing is open, to 10: the thresholds are tenths.
    run(analyze, "security", "--offline=yes", "--threshold=20", installed)


def test_a_wrong_unit_would_be_seen(root: Path) -> None:
    broken = root / "coldstart-songs.service"
    broken.write_text(broken.read_text(encoding="utf-8").replace("Type=exec", "Type=excel"), encoding="utf-8")
    assert "excel" in run(tool("systemd-analyze"), "verify", "--recursive-errors=no", broken, code=1)


@pytest.mark.parametrize("unit", ROLES, ids=lambda unit: str(unit.name))
def test_what_no_restart_mends_stays_down_and_draining_has_its_time(unit: Path) -> None:
    found = lines(unit)
    assert {int(code) for code in found["RestartPreventExitStatus"].split()} == {REFUSED, BAD_INPUT}
    assert str(RESTART) not in found["RestartPreventExitStatus"]
    assert int(found["TimeoutStopSec"]) >= max(SongsSettings().shutdown_s, AudienceSettings().shutdown_s) + 5


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_variables_are_settings(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = (FOLDER / "environment.example").read_text(encoding="utf-8")
    pairs = re.findall(r"^(COLDSTART_\w+)=(.*)$", example, re.MULTILINE)
    pairs += [tuple(word.split("=", 1)) for word in lines(unit)["Environment"].split() if word.startswith("COLDSTART_")]
    assert len(pairs) > 4
    for name, value in pairs:
        monkeypatch.setenv(name, value)
    assert load_settings().topics.replication_factor == 3


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_what_a_unit_starts_is_a_command(unit: Path) -> None:
    program, *words = lines(unit)["ExecStart"].replace("%i", "3").split()
    assert program == "/opt/coldstart/bin/coldstart"
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    said = command.make_context(unit.stem, words).params
    # Prometheus is elsewhere; the roles are told by their settings.
    assert said.get("http_host", "0.0.0.0") == "0.0.0.0"
