"""The tables of the README are those of the runs whose figures stand beside the encoder's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from targeting.evaluation.audience_tables import TABLES, filled
from targeting.evaluation.ranking_variants import VARIANTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "targeting" / "evaluation" / "README.md"
RUNS = {"fresh": "hetrec2011_fresh.json", "world": "generated_world.json"}


@pytest.mark.parametrize("run", RUNS)
def test_the_tables_are_those_of_the_run(run: str) -> None:
    """If not: ``python -m targeting.evaluation.audience_tables FIGURES_RUN.json README.md``."""
    figures = json.loads((ROOT / "encoder" / "evaluation" / RUNS[run]).read_text(encoding="utf-8"))
    assert figures["targeting"].keys() == {variant.name for variant in VARIANTS}
    page = PAGE.read_text(encoding="utf-8")
    assert f"<!-- table {run}.arms -->" in page
    assert filled(page, figures, run) == page


def test_every_table_is_shown() -> None:
    assert all(f"<!-- table fresh.{name} -->" in PAGE.read_text(encoding="utf-8") for name in TABLES)
