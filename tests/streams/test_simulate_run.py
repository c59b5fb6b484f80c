"""What is kept of simulated worlds: a run goes on where another stopped, and compares what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from streams.contract.errors import Refused
from streams.runtime.settings import Settings
from streams.testbed.simulation.push_variants import EVIDENCE, ORGANIC
from streams.testbed.simulation.scenario import Scenario
from streams.testbed.simulation.simulation_figures import MEASURES, Figures, compare, gini
from streams.testbed.simulation.simulation_report import write_report
from streams.testbed.simulation.simulation_run import SimulationPlan, Worlds, read, simulate, write

TINY = Scenario(users=120, warm=100, new=10, days=3, watch=1, shown=60.0)


def plan(folder: Path, seeds: int, arms: Sequence[str] = (ORGANIC,)) -> SimulationPlan:
    return SimulationPlan(TINY, seeds, arms, day_s=1.0, warm_at=2, folder=folder)


def run(worlds: Worlds, path: Path) -> int:
    """Simulate what is missing; how many worlds of an arm that were."""
    kept: list[int] = []

    def keep(done: Worlds) -> None:
        write(done, path)
        kept.append(done.seeds)

    simulate(worlds, Settings(), Console(quiet=True), keep)
    return len(kept)


def figures(**values: float) -> Figures:
    return Figures(values=dict.fromkeys(MEASURES, 1.0) | values, reach=[0.0, 0.1], warm=[0.0, 0.5])


def test_a_run_goes_on_where_another_stopped_and_ends_as_one_that_did_not(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert run(read(plan(tmp_path, 1), path), path) == 1
    assert run(read(plan(tmp_path, 3), path), path) == 2
    assert run(read(plan(tmp_path, 3), path), path) == 0
    whole = tmp_path / "whole.json"
    assert run(read(plan(tmp_path, 3), whole), whole) == 3
    assert path.read_text() == whole.read_text()


def test_worlds_under_other_conditions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write(Worlds(plan(tmp_path, 1), {ORGANIC: {0: figures()}}), path)
    other = plan(tmp_path, 1)
    with pytest.raises(Refused, match="other conditions"):
        read(replace(other, scenario=replace(TINY, budget=7)), path)
    with pytest.raises(Refused, match="other conditions"):
        read(replace(other, day_s=2.0), path)
    path.write_text("[]")
    with pytest.raises(Refused, match="not figures"):
        read(other, path)


def test_arms_are_compared_within_the_worlds_that_both_have_seen() -> None:
    runs = {
        EVIDENCE: {0: figures(reach=5.0), 1: figures(reach=9.0), 2: figures(reach=100.0)},
        ORGANIC: {1: figures(reach=7.0), 0: figures(reach=4.0)},
    }
    found = compare(EVIDENCE, ORGANIC, "reach", runs)
    assert found is not None
    assert found.seeds == 2
    assert found.difference.mean == pytest.approx(1.5)
    # Student's quantile of one degree of freedom, 12.706, times sd / sqrt(2) of the differences 1 and 2.
    assert found.difference.high - 1.5 == pytest.approx(12.7062 * 0.5, rel=1e-4)
    assert found.relative == pytest.approx(1.5 / 5.5)
    assert not found.clear
    assert compare(EVIDENCE, ORGANIC, "reach", runs | {ORGANIC: {}}) is None


def test_the_gini_is_0_for_equals_and_grows_to_1_with_one_who_has_everything() -> None:
    assert gini(np.full(50, 3.0)) == pytest.approx(0)
    assert gini(np.eye(1, 50)[0]) == pytest.approx(49 / 50)


def test_the_report_is_one_page_that_loads_nothing_and_shows_every_arm(tmp_path: Path) -> None:
    both = {ORGANIC: {0: figures(), 1: figures()}, EVIDENCE: {0: figures(), 1: figures(reach=float("nan"))}}
    write_report(Worlds(plan(tmp_path, 2, (ORGANIC, EVIDENCE)), both), tmp_path / "page.html", "coldstart simulate <x>")
    page = (tmp_path / "page.html").read_text()
    assert "evidence − organic" in page
    assert "coldstart simulate &lt;x&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
