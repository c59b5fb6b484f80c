"""What others may import: named here, so that taking a name away or adding one is a decision."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from targeting.index import MissingIndexError

ROOT = Path(__file__).parents[1]

SURFACE = {
    "encoder": """ArtifactError Bag ContentTable Encoder Manifest SongContent WarmSongs load_encoder load_warm
        read_manifest""",
    "targeting": """Account Calibration Catalogue ExactIndex FrequencyCap HnswIndex Listens Match Outcomes
        OutsideVectors Partition PartitionInputs PartitionOutputs Policy Preferences Push QuietSpan Staged Takedown
        TargetingConfig WarmIndex""",
    "targeting.index": """ExactIndex HnswIndex HnswSettings IndexKind Labels MissingIndexError UnusableIndexError
        WarmIndex make_index""",
    "targeting.evaluation": "DEFAULT Case evaluate fitted",
}

# Of an extra that not every machine can build.
COMPILED = {"HnswIndex", "HnswSettings"}


@pytest.mark.parametrize("package", SURFACE)
def test_the_exported_names_are_these(package: str) -> None:
    assert sorted(import_module(package).__all__) == sorted(SURFACE[package].split())


@pytest.mark.parametrize(("package", "name"), [(p, name) for p, names in SURFACE.items() for name in names.split()])
def test_every_name_is_there_and_a_class_or_function_says_what_it_is(package: str, name: str) -> None:
    if name in COMPILED and find_spec("hnswlib") is None:
        with pytest.raises(MissingIndexError, match="pip install"):
            getattr(import_module(package), name)
        return
    exported = getattr(import_module(package), name)
    if isinstance(exported, type) or callable(exported):
        assert (exported.__doc__ or "").strip()


def test_a_name_that_is_not_exported_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="Partitions"):
        import_module("targeting").Partitions  # noqa: B018


@pytest.mark.parametrize("package", ["encoder", "significance", "targeting", "streams"])
def test_types_are_published(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_the_wire_contract_loads_no_scipy() -> None:
    code = "import sys, streams.contract.events; print('scipy' in sys.modules, 'hnswlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]
