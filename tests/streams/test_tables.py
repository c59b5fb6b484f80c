from __future__ import annotations

import re

import pytest
from rich.table import Table

from streams.cli import tables

LONG = "coldstart.a-topic-with-a-long-name"


def table() -> Table:
    made = Table("topic", "meaning", "records")
    made.add_row(LONG, "what nobody can read when it is cut", "1,234,567")
    return made


def test_in_a_pipe_a_name_is_whole_whatever_the_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    tables.show(table())
    assert re.search(rf"{LONG} +what nobody can read when it is cut +1,234,567", capsys.readouterr().out)


def test_on_a_narrow_terminal_nothing_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    tables.show(table())
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) == 40
    # The topic's column is read downwards.
    assert "".join(line.split("  ")[0].strip() for line in lines[2:]).startswith(LONG)
    assert "…" not in "".join(lines)
