"""The tables of the READMEs are those of the figures beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from encoder.evaluation.tables import TABLES, filled
from encoder.evaluation.variants import VARIANTS

FOLDER = Path(__file__).parents[2] / "encoder" / "evaluation"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "hetrec2011.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("page", [FOLDER / "README.md", FOLDER.parent / "README.md"], ids=["evaluation", "encoder"])
def test_the_tables_are_those_of_the_run(page: Path, figures: dict[str, Any]) -> None:
    """If not: ``python -m encoder.evaluation.tables FIGURES.json README.md``."""
    text = page.read_text(encoding="utf-8")
    assert "<!-- table arms -->" in text
    assert filled(text, figures) == text


def later_runs() -> dict[str, dict[str, Any]]:
    """Runs of some arms alone, by name, since the run of all."""
    files = sorted(FOLDER.glob("*_*.json"))
    return {file.stem.partition("_")[2]: json.loads(file.read_text(encoding="utf-8")) for file in files}


@pytest.mark.parametrize("run", later_runs())
def test_so_are_those_of_a_later_run(run: str) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"<!-- table {run}." in text
    assert filled(text, later_runs()[run], run) == text


def test_every_table_is_shown() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"<!-- table (?:\w+\.)?(\w+) -->", text))
    assert shown == set(TABLES)


def test_the_run_had_every_arm_and_later_runs_those_that_came_since(figures: dict[str, Any]) -> None:
    known = figures["arms"].keys() | figures["skipped"].keys()
    assert known.union(*(run["arms"] for run in later_runs().values())) == VARIANTS.keys()
    assert figures["seeds"] == [0, 1, 2, 3, 4]
    assert len(figures["paper"]["seeds"]) == 10


def test_what_stands_between_the_marks_is_replaced_and_nothing_else(figures: dict[str, Any]) -> None:
    page = "before\n<!-- table gauges -->\nold\n<!-- end -->\nafter"
    new = filled(page, figures)
    assert new.startswith("before\n<!-- table gauges -->\n| variant |")
    assert new.endswith("|\n<!-- end -->\nafter")
    assert "old" not in new
