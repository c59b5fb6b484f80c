"""The folders are the architecture: who may import whom, and where it is written down."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("encoder", "targeting", "streams")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES} | {ROOT / "deploy", ROOT / "tests"})

KAFKA = {"faust", "mode", "aiokafka", "confluent_kafka"}
# What training and reports need; a production image holds none of it.
TRAINING = {"torch", "sklearn", "matplotlib"}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth of its code, by full dotted name."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def breaches(folder: str, forbidden: set[str]) -> list[str]:
    """Imports in ``folder`` of anything in or under the forbidden modules."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.is_relative_to(ROOT / folder)
        for name in imported(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


def test_a_breach_would_be_seen() -> None:
    assert any("imports confluent_kafka" in breach for breach in breaches("streams", KAFKA))
    assert any("encoder/train.py imports torch" in breach for breach in breaches("encoder", TRAINING))
    assert any("imports targeting" in breach for breach in breaches("streams", {"targeting"}))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("encoder", {"targeting", "streams"} | KAFKA), ("targeting", {"encoder", "streams"} | KAFKA | TRAINING)],
)
def test_the_inner_folders_know_nothing_of_streams(folder: str, forbidden: set[str]) -> None:
    assert breaches(folder, forbidden) == []


def test_torch_stays_in_training() -> None:
    where = {breach.split()[0] for package in PACKAGES for breach in breaches(package, {"torch"})}
    training = ("device", "fit", "leave_one_out", "model", "optimiser", "ranks", "resemblance", "supervision", "train")
    assert where <= {*(f"encoder/{name}.py" for name in training), "encoder/evaluation/neural_baselines.py"}


def test_inside_streams_the_verbs_are_outermost() -> None:
    outside = [
        breach
        for breach in breaches("streams", {"streams.cli"})
        if not breach.startswith(("streams/cli/", "streams/__main__.py "))
    ]
    demo = [
        breach
        for breach in breaches("streams", {"streams.testbed.demo"})
        if not breach.startswith(
            (
                "streams/cli/",
                "streams/testbed/demo/",
                "streams/testbed/chaos/",
                "streams/testbed/simulation/",
                "streams/testbed/backtest/",
            )
        )
    ]
    assert outside + demo == []


def test_the_broker_stands_alone() -> None:
    own = {
        "streams.testbed.broker",
        "streams.contract.errors",
        "streams.runtime.settings",
        "streams.runtime.clock",
        "streams.runtime.terminal",
    }
    known = {
        name for path in MODULES if path.parent == ROOT / "streams" / "testbed" / "broker" for name in imported(path)
    }
    ours = {".".join(name.split(".")[:3]) for name in known if name.startswith("streams.")}
    assert ours <= own


def test_serving_loads_nothing_of_training() -> None:
    code = (
        "import sys, streams.cli, streams.songs.main, streams.audience.main\n"
        f"print(*sorted({TRAINING!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_folder_says_what_lives_there(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py", "conftest.py"}
    if folder.name != "tests":
        assert {name for name in files if f"`{name}`" not in readme} == set()
