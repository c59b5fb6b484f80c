"""Workers of an earlier release are replaced by this one's under load: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.deploy
def test_an_upgrade_from_an_earlier_release_loses_and_doubles_nothing() -> None:
    bench = [sys.executable, str(ROOT / "tests" / "bench" / "bench_upgrade.py")]
    world = ["--users", "500", "--songs", "800", "--partitions", "4", "--between", "3"]
    done = subprocess.run([*bench, *world], capture_output=True, text=True, check=False)
    if "does not have the former release" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answered by every partition"] == found["uploads"] > 0
    assert (found["pushed twice"], found["users pushed a song twice"], found["dead letters"]) == (0, 0, 0)
    for what, each in found["counts"].items():
        assert each["sent"] == each["counted"] > 0, (what, each)
        assert each["songs that differ"] == 0, (what, each)
