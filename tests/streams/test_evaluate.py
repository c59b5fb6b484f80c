"""`coldstart evaluate` on a generated world: both halves, the promised keys, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from encoder.data.generate import World, generate
from encoder.evaluation.tables import TABLES
from streams.cli import app
from streams.cli.evaluate import finite


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with its figures in it."""
    path = tmp_path_factory.mktemp("evaluate")
    generate(World(users=500, songs=600, history=20), path / "data")
    options = "--no-search --seeds 2 --first-seed 7 --variants random,ridge,ceiling --processes 1"
    evaluated = run(path, *options.split())
    assert evaluated.exit_code == 0, evaluated.output
    return path


def run(folder: Path, *options: str) -> Any:
    where = ["--data", folder / "data", "--json", folder / "figures.json", "--report", folder / "report.html"]
    return CliRunner().invoke(app, ["evaluate", *map(str, where), *options])


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    text = (folder / "figures.json").read_text()
    assert "NaN" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_encoders_keys(figures: dict[str, Any]) -> None:
    assert figures["arms"].keys() == {"random", "ridge", "ceiling", figures["default_arm"]}
    for arm in figures["arms"].values():
        for measure in ("recall_50", "ndcg_50"):
            assert 0 <= arm[measure]["mean"] <= 1
            assert len(arm[measure]["quartiles"]) == 4
    assert figures["train_seconds"] > 0


def test_the_seeds_are_those_asked_for(figures: dict[str, Any]) -> None:
    assert figures["seeds"] == [7, 8]


def test_every_truth_is_there_with_what_it_allows(figures: dict[str, Any]) -> None:
    """Content finds a generated world's tastes, and the listeners' own audience is no better than all of them."""
    known = figures["truths"]
    assert known["agreement"]["mean"] < known["ceiling_half"]["mean"] < known["ceiling"]["mean"] < 1
    random, ridge = figures["arms"]["random"], figures["arms"]["ridge"]
    # Without a space there is no cosine.
    assert "audience_precision_50" not in random
    assert ridge["audience_precision_50"]["mean"] > 0
    for measure in ("held_out_recall_50", "taste_recall_50", "evidence_precision_50"):
        assert len(ridge[measure]["quartiles"]) == 4
        assert random[measure]["mean"] < ridge[measure]["mean"]
        ahead = figures["paired"][f"{figures['default_arm']}-random"][measure]
        assert ahead["mean"] == pytest.approx(figures["arms"]["bcl"][measure]["mean"] - random[measure]["mean"])
    assert figures["arms"]["ceiling"]["evidence_precision_50"]["mean"] < known["audience"]["mean"]
    # All tables of a page can be made of it.
    assert all(len(table(figures)) > 2 for name, table in TABLES.items() if name not in ("paper", "search"))


def test_the_targetings_keys(figures: dict[str, Any]) -> None:
    assert figures["targeting_default"] in figures["targeting"]
    for arm in figures["targeting"].values():
        assert {"50", "100", "200"} <= arm["precision"].keys()
        assert {"recall_200", "auc"} <= arm.keys()


def test_both_halves_differences_are_there_and_kept_apart(figures: dict[str, Any]) -> None:
    encoder = {name for name in figures["paired"] if not name.startswith("targeting:")}
    assert encoder == {f"{figures['default_arm']}-{name}" for name in ("random", "ridge", "ceiling")}
    assert len(figures["paired"]) == len(encoder) + len(figures["targeting"]) - 1


def test_what_is_better_by_construction_comes_out_better(figures: dict[str, Any]) -> None:
    recall = {name: arm["recall_50"]["mean"] for name, arm in figures["arms"].items()}
    assert recall["random"] < recall["ridge"] < recall["ceiling"]
    assert recall["random"] < recall[figures["default_arm"]] < recall["ceiling"]
    assert figures["targeting"]["random"]["auc"] == pytest.approx(0.5, abs=1e-9)
    assert figures["targeting"][figures["targeting_default"]]["auc"] > 0.6


def test_the_page_shows_both_halves(folder: Path, figures: dict[str, Any]) -> None:
    page = (folder / "report.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in (*figures["arms"], *figures["targeting"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--variants", "ridge,riddle"], "riddle"),
        (["--json", "/nowhere/figures.json"], "no folder /nowhere"),
        (["--data", "/nowhere"], "/nowhere is not a directory"),
    ],
)
def test_what_cannot_be_is_said_with_exit_code_2(folder: Path, options: list[str], words: str) -> None:
    refused = run(folder, *options)
    assert refused.exit_code == 2
    assert words in refused.output.replace("\n", " ")


def test_json_has_no_nan() -> None:
    assert finite({"a": [float("nan"), 1.0], "b": "nan"}) == {"a": [None, 1.0], "b": "nan"}
