"""Several processes train one encoder, started by torchrun and speaking by gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import SONGS

from encoder.data.dataset import Dataset
from encoder.train import Trained

HERE = Path(__file__).parent


def together(folder: Path, config: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """What each of two processes ends with: weights, and the vectors of warm and cold songs."""
    folder.mkdir(exist_ok=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    subprocess.run(
        [*launch, str(HERE / "process.py"), str(folder), json.dumps(config)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("change", [{}, {"catalogue": 10, "sampled": 40}], ids=["whole softmax", "sampled softmax"])
def test_two_processes_end_with_equal_weights_that_are_as_good_as_one_s(
    scenes: Dataset,
    trained: Trained,
    warm_rows: np.ndarray,
    cold_rows: np.ndarray,
    tmp_path: Path,
    change: dict[str, Any],
) -> None:
    one, two = together(tmp_path, change)
    assert one.keys() == two.keys() > trained.encoder.network.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
    # They have not trained the same: each has drawn for itself, and met half of each batch.
    assert not np.array_equal(one["warm_vectors"], trained.warm_vectors)
    scene = warm_rows // SONGS
    best = np.argsort(-(one["cold_vectors"] @ one["warm_vectors"].T), axis=1)[:, : SONGS - 1]
    np.testing.assert_array_equal(scene[best], np.repeat(cold_rows // SONGS, SONGS - 1).reshape(best.shape))
    # How far apart cold songs lie from their own scene's, beside one process.
    alone = trained.encoder.encode(scenes.content.rows(cold_rows)) @ trained.warm_vectors.T
    same = scene[None] == (cold_rows // SONGS)[:, None]
    assert (one["cold_vectors"] @ one["warm_vectors"].T)[same].mean() == pytest.approx(alone[same].mean(), abs=0.1)


@pytest.mark.long
def test_two_processes_resume_from_what_the_first_one_wrote(tmp_path: Path) -> None:
    whole = together(tmp_path / "whole", {})[0]
    # What another number of processes or another config wrote is refused; this is found complete.
    again = together(tmp_path / "whole", {})
    for name, value in whole.items():
        np.testing.assert_array_equal(value, again[0][name])
        np.testing.assert_array_equal(value, again[1][name])
