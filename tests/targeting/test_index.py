"""One conformance suite for every index, and a test for each hnswlib 0.8.0 trap.

Where hnswlib could not be built its tests are skipped, but not where ``CI`` is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from targeting.index import ExactIndex, IndexKind, UnusableIndexError, WarmIndex, make_index
from targeting.index.recall import recall
from targeting.types import F32

ROOT = Path(__file__).parents[2]
D = 16
COMPILED = find_spec("hnswlib") is not None or "CI" in os.environ
if COMPILED:
    from targeting.index import HnswIndex, HnswSettings
compiled = pytest.mark.skipif(not COMPILED, reason="hnswlib is not installed")


def hnsw(dimension: int) -> WarmIndex:
    return HnswIndex(dimension)


IMPLEMENTATIONS = [pytest.param(ExactIndex, id="exact"), pytest.param(hnsw, id="hnsw", marks=compiled)]


@pytest.fixture(params=IMPLEMENTATIONS)
def index(request: pytest.FixtureRequest) -> WarmIndex:
    made: WarmIndex = request.param(D)
    return made


def unit(n: int, seed: int = 0, d: int = D) -> F32:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_every_vector_finds_itself_first(index: WarmIndex) -> None:
    vectors = unit(500)
    index.add(np.arange(500) * 7, vectors)
    labels, similarities = index.search(vectors, 3)
    np.testing.assert_array_equal(labels[:, 0], np.arange(500) * 7)
    np.testing.assert_allclose(similarities[:, 0], 1, atol=1e-5)
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_similarity_is_the_inner_product(index: WarmIndex) -> None:
    index.add([4, 9], np.eye(D, dtype=np.float32)[:2] * [[1.0], [2.0]])
    labels, similarities = index.search(np.ones((1, D), np.float32), 2)
    assert labels.tolist() == [[9, 4]]
    np.testing.assert_allclose(similarities, [[2, 1]], atol=1e-6)


def test_k_is_clamped_to_what_is_live(index: WarmIndex) -> None:
    index.add(np.arange(5), unit(5))
    index.remove([1, 3])
    labels, similarities = index.search(unit(2, seed=1), 50)
    assert labels.shape == similarities.shape == (2, 3)
    assert {*labels[0].tolist()} == {0, 2, 4}


def test_an_empty_index_answers_with_nothing(index: WarmIndex) -> None:
    labels, similarities = index.search(unit(3), 10)
    assert labels.shape == similarities.shape == (3, 0)
    index.add([1], unit(1))
    index.remove([1])
    assert index.search(unit(3), 10)[0].shape == (3, 0)


def test_no_query_no_answer(index: WarmIndex) -> None:
    index.add([1], unit(1))
    assert index.search(np.empty((0, D), np.float32), 10)[0].shape[0] == 0


def test_adding_a_label_again_replaces_it(index: WarmIndex) -> None:
    axes = np.eye(D, dtype=np.float32)
    index.add([0, 1], axes[:2])
    index.add([0], axes[5:6])
    assert len(index) == 2
    labels, similarities = index.search(axes[[5, 0]], 2)
    assert labels[0].tolist() == [0, 1]
    assert similarities[1].max() == pytest.approx(0, abs=1e-6)


def test_of_a_label_twice_in_one_call_the_last_counts(index: WarmIndex) -> None:
    axes = np.eye(D, dtype=np.float32)
    index.add([3, 3], axes[:2])
    assert len(index) == 1
    assert index.search(axes[1:2], 1)[1][0, 0] == pytest.approx(1)


def test_a_removed_label_can_come_back(index: WarmIndex) -> None:
    axes = np.eye(D, dtype=np.float32)
    index.add([0, 1], axes[:2])
    index.remove([0, 77])
    assert index.search(axes[:1], 2)[0].tolist() == [[1]]
    index.add([0], axes[2:3])
    assert len(index) == 2
    assert index.search(axes[2:3], 1)[0].tolist() == [[0]]
    assert index.search(axes[:1], 2)[1].max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_whole(index: WarmIndex, bad: float) -> None:
    vectors = unit(3)
    vectors[2, 4] = bad
    with pytest.raises(ValueError, match="NaN"):
        index.add([0, 1, 2], vectors)
    assert len(index) == 0
    with pytest.raises(ValueError, match="NaN"):
        index.search(vectors, 1)


def test_wrong_shapes_are_refused(index: WarmIndex) -> None:
    with pytest.raises(ValueError, match="shape"):
        index.add([0], unit(1, d=D + 1))
    with pytest.raises(ValueError, match="labels"):
        index.add([0, 1], unit(1))
    with pytest.raises(ValueError, match=">= 0"):
        index.add([-1], unit(1))
    with pytest.raises(ValueError, match="shape"):
        index.search(unit(1, d=D - 1), 1)
    with pytest.raises(ValueError, match="at least 1"):
        index.search(unit(1), 0)


def test_churn_leaves_exactly_the_live_ones(index: WarmIndex) -> None:
    """Every label replaced several times and half of them removed: past the growth and the rebuild."""
    vectors = unit(2000)
    for start in range(4):
        index.add(np.arange(2000), np.roll(vectors, start, axis=0))
    index.remove(np.arange(0, 2000, 2))
    assert len(index) == 1000
    labels, _ = index.search(np.roll(vectors, 3, axis=0)[1::2], 1)
    assert (labels[:, 0] == np.arange(1, 2000, 2)).mean() > 0.99


def test_growth_does_not_race_a_query(index: WarmIndex) -> None:
    vectors = unit(3000)
    index.add(np.arange(100), vectors[:100])
    done = threading.Event()
    wrong: list[str] = []

    def ask() -> None:
        while not done.is_set():
            labels, similarities = index.search(vectors[:20], 5)
            if (labels[:, 0] != np.arange(20)).any() or similarities.shape != (20, 5):
                wrong.append(f"{labels[:, 0]}")

    thread = threading.Thread(target=ask)
    thread.start()
    for start in range(100, 3000, 100):
        index.add(np.arange(start, start + 100), vectors[start : start + 100])
    done.set()
    thread.join()
    assert wrong == []


def without_hnswlib(code: str) -> str:
    """What Python prints where hnswlib cannot be imported."""
    hidden = "import sys; sys.modules['hnswlib'] = None; "
    names = "from targeting.index import IndexKind, MissingIndexError, make_index\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + names + code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    return done.stdout.strip()


def test_where_hnswlib_is_missing_the_exact_index_is_used() -> None:
    assert without_hnswlib("print(type(make_index(4)).__name__)") == "ExactIndex"


def test_an_index_that_is_asked_for_and_missing_is_an_error_that_says_how_to_get_it() -> None:
    told = without_hnswlib("try: make_index(4, IndexKind.HNSW)\nexcept MissingIndexError as error: print(error)")
    assert "pip install 'coldstart[hnsw]'" in told


def test_the_index_asked_for_is_made() -> None:
    assert isinstance(make_index(D, IndexKind.EXACT), ExactIndex)


def test_where_hnswlib_is_missing_its_names_say_how_it_is_installed() -> None:
    for name in ("targeting.HnswIndex", "targeting.index.HnswSettings"):
        told = without_hnswlib(f"import targeting.index\ntry: {name}\nexcept MissingIndexError as error: print(error)")
        assert "pip install 'coldstart[hnsw]'" in told


@compiled
def test_where_hnswlib_is_there_it_is_used() -> None:
    assert isinstance(make_index(D), HnswIndex)
    assert isinstance(make_index(D, IndexKind.HNSW), HnswIndex)


@compiled
def test_hnsw_agrees_with_exact() -> None:
    vectors, queries = unit(3000), unit(100, seed=1)
    exact, hnsw = ExactIndex(D), HnswIndex(D)
    for each in (exact, hnsw):
        each.add(np.arange(3000), vectors)
    expected, _ = exact.search(queries, 50)
    found, _ = hnsw.search(queries, 50)
    recall = np.mean([len({*a} & {*b}) / 50 for a, b in zip(found.tolist(), expected.tolist(), strict=True)])
    assert recall > 0.99


@compiled
def test_a_cut_graph_is_answered_exactly() -> None:
    """With two links an entry, most of the graph is out of reach once much is deleted; hnswlib raises then."""
    vectors = unit(1500)
    index = HnswIndex(D, HnswSettings(links=2, build_breadth=2, search_breadth=2))
    index.add(np.arange(1500), vectors)
    index.remove(np.arange(700))
    labels, _ = index.search(vectors[700:702], 800)
    assert labels.shape == (2, 800)
    assert {*labels[0].tolist()} == {*range(700, 1500)}


@compiled
def test_saved_and_loaded_it_finds_the_same(tmp_path: Path) -> None:
    vectors, queries = unit(2000), unit(50, seed=1)
    index = HnswIndex(D)
    index.add(np.arange(2000), vectors)
    index.remove([5])
    index.save(tmp_path, "s1")
    loaded = HnswIndex.load(tmp_path, "s1", D)
    # hnswlib's own load forgets `ef`, which would cost a third of the recall here.
    np.testing.assert_array_equal(loaded.search(queries, 50)[0], index.search(queries, 50)[0])
    assert len(loaded) == 1999
    loaded.add(np.arange(2000, 4000), unit(2000, seed=2))
    assert len(loaded) == 3999


@compiled
def test_an_empty_index_is_saved_and_loaded(tmp_path: Path) -> None:
    HnswIndex(D).save(tmp_path, "s1")
    loaded = HnswIndex.load(tmp_path, "s1", D)
    loaded.add([1], unit(1))
    assert loaded.search(unit(1), 1)[0].tolist() == [[1]]


@compiled
def test_saving_again_replaces(tmp_path: Path) -> None:
    index = HnswIndex(D)
    index.add([1], unit(1))
    index.save(tmp_path, "s1")
    index.add([2], unit(1, seed=1))
    index.save(tmp_path, "s1")
    assert len(HnswIndex.load(tmp_path, "s1", D)) == 2
    assert len(list(tmp_path.iterdir())) == 2


@compiled
def test_saving_where_nothing_can_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        HnswIndex(D).save(tmp_path / "file", "s1")


@compiled
@pytest.mark.parametrize(("space", "dimension"), [("s2", D), ("s1", D + 1)])
def test_a_foreign_index_is_refused(tmp_path: Path, space: str, dimension: int) -> None:
    index = HnswIndex(D)
    index.add([1], unit(1))
    index.save(tmp_path, "s1")
    with pytest.raises(UnusableIndexError, match="wanted"):
        HnswIndex.load(tmp_path, space, dimension)


@compiled
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "no manifest"])
def test_a_damaged_index_is_refused(tmp_path: Path, damage: str) -> None:
    index = HnswIndex(D)
    index.add(np.arange(100), unit(100))
    index.save(tmp_path, "s1")
    (graph,) = tmp_path.glob("graph-*.bin")
    whole, manifest = graph.read_bytes(), tmp_path / "manifest.json"
    if damage == "flip":
        middle = len(whole) // 2
        graph.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif damage == "truncate":
        graph.write_bytes(whole[:-1])
    elif damage == "delete":
        graph.unlink()
    elif damage == "manifest":
        outer = json.loads(manifest.read_text())
        outer["body"] = outer["body"].replace('"space": "s1"', '"space": "s3"')
        manifest.write_text(json.dumps(outer))
    else:
        manifest.unlink()
    with pytest.raises(UnusableIndexError):
        HnswIndex.load(tmp_path, "s1", D)


def test_recall_is_1_for_exact_search_and_less_for_an_index_that_misses() -> None:
    vectors = np.random.default_rng(5).normal(size=(300, 8)).astype(np.float32)
    whole, half = ExactIndex(8), ExactIndex(8)
    whole.add(np.arange(300), vectors)
    half.add(np.arange(0, 300, 2), vectors[::2])
    assert recall(whole, vectors) == 1.0
    assert 0.2 < recall(half, vectors) < 0.8
    assert np.isnan(recall(ExactIndex(8), vectors[:0]))
