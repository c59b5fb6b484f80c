"""A checker that finds nothing proves nothing: each bug planted in the product must break the promise that names it."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_bugs import ABORTS, PLANTED, Edit, Planted, changed, plant

from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.chaos_run import SETTINGS, ChaosRun, drive
from streams.testbed.chaos.environment import set_up
from streams.testbed.chaos.faults import FAULTS, Fault, Scene
from streams.testbed.chaos.promises import PROMISES, name_of
from streams.testbed.demo.follow import Follower

ROOT = Path(__file__).parents[2]
NOTHING = Fault("nothing", lambda _: None)
# What must come comes within this, or never.
PATIENCE_S = 30.0
CROWD = 200


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated world and its trained models, made once."""
    return tmp_path_factory.mktemp("world")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def run(bug: Planted, kafka: KafkaSettings, prefix: str, place: Path, world: Path) -> ChaosRun:
    """A short one, with workers that run the changed source; driver and checker are as they are."""
    source = place / "source"
    plant(ROOT, bug.edits, source)
    told = {**SETTINGS, "audience": {**SETTINGS["audience"], **dict(bug.settings)}}
    stage = set_up(kafka, prefix, place, models=2, settings=told, world=world)
    # Safe path: this process's folder would come first otherwise, and the bug would never run.
    stage.environment |= {"PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}
    follower = Follower(stage.kafka, stage.naming)
    try:
        stage.start("songs", "songs")
        stage.start("audience-0", "audience", "--slot", "0")
        stage.start("audience-1", "audience", "--slot", "1")
        # Three processes that start on a busy machine may take longer.
        stage.wait_until_ready()
        stage.patience_s = PATIENCE_S
        scene = Scene(stage, kafka, random.Random(1))
        known = {**FAULTS, "none": NOTHING}
        faults = {f"{number} {name}": known[name] for number, name in enumerate(bug.faults)}
        seconds = bug.between_s * (len(faults) - 0.5)
        return drive(scene, follower, 1, seconds, lambda _: None, faults, bug.between_s, CROWD)
    finally:
        stage.stop()
        follower.close()


def test_every_promise_has_a_bug_that_breaks_it() -> None:
    assert {bug.promise for bug in PLANTED} == set(PROMISES)


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name.replace(" ", "-"))
def test_every_planted_bug_still_has_its_place(bug: Planted) -> None:
    assert bug.promise in PROMISES
    assert changed(ROOT, bug.edits)


def test_a_bug_whose_place_has_moved_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times, it must be once"):
        changed(ROOT, [("targeting/campaigns/budget.py", "no such text", "")])


@pytest.mark.long
@pytest.mark.parametrize(
    "edits", [pytest.param([], id="as-it-is"), pytest.param([ABORTS], id="with-transactions-that-abort")]
)
def test_without_a_bug_every_promise_is_kept(
    edits: list[Edit], kafka: KafkaSettings, prefix: str, place: Path, world: Path
) -> None:
    healthy = Planted("", "", edits, ("all", "none"))
    assert run(healthy, kafka, prefix, place, world).verdict.violations == []


@pytest.mark.long
@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_breaks_the_promise_that_names_it(
    bug: Planted, kafka: KafkaSettings, prefix: str, place: Path, world: Path
) -> None:
    began = time.monotonic()
    violations = run(bug, kafka, prefix, place, world).verdict.violations
    found = Counter(name_of(each) for each in violations)
    print(f"\n{bug.name}: {time.monotonic() - began:.0f} s, {dict(found)}")
    assert bug.promise in found, violations[:5]
