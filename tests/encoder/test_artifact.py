"""Saved is what loads; anything else is refused with the file, what was expected and what was found."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import SMALL

from encoder import artifact
from encoder.artifact import ArtifactError, load_encoder, load_warm, read_manifest
from encoder.data.dataset import Dataset
from encoder.train import Trained, train


@pytest.fixture(scope="module")
def saved(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model"
    artifact.save(trained, path)
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_the_loaded_encoder_is_the_saved_one(scenes: Dataset, trained: Trained, saved: Path) -> None:
    loaded = load_encoder(saved)
    np.testing.assert_array_equal(loaded.encode(scenes.content), trained.encoder.encode(scenes.content))
    assert loaded.dim == trained.encoder.dim
    assert loaded.space == read_manifest(saved).space


def test_warm_songs_come_back_whole(trained: Trained, saved: Path) -> None:
    warm = load_warm(saved)
    np.testing.assert_array_equal(warm.vectors, trained.warm_vectors)
    assert warm.content.song_ids == trained.warm_content.song_ids
    assert all(warm.content.song(i) == trained.warm_content.song(i) for i in range(len(warm.content)))
    assert warm.space == read_manifest(saved).space


def test_warm_songs_can_be_encoded_again(trained: Trained, saved: Path) -> None:
    vectors = load_encoder(saved).encode(load_warm(saved).content)
    np.testing.assert_array_equal(vectors, trained.encoder.encode(trained.warm_content))


def test_the_space_is_named_after_the_content(trained: Trained, saved: Path, tmp_path: Path) -> None:
    again = artifact.save(trained, tmp_path / "again")
    assert again.space == read_manifest(saved).space
    assert again.space.startswith("bcl-")
    assert len(again.space) <= 32
    assert artifact.save(trained, tmp_path / "other", "other").space.startswith("other-")


def test_nothing_is_overwritten(trained: Trained, saved: Path) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    with pytest.raises(ArtifactError, match="expected nothing there"):
        artifact.save(trained, saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("name", ["", "a" * 20, "a b", "ä"])
def test_a_name_that_does_not_fit_a_space_is_refused(trained: Trained, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 19 characters"):
        artifact.save(trained, tmp_path / "new", name)


def read_all(path: Path) -> None:
    load_encoder(path)
    load_warm(path)


@pytest.mark.parametrize("name", ["schema.json", "model.safetensors", "warm.safetensors", "warm_songs.json.gz"])
def test_a_flipped_bit_a_cut_or_a_lost_file_is_refused(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (copy / name).write_bytes(flipped)
    with pytest.raises(ArtifactError, match=rf"{name}: expected {len(whole)} bytes with sha256 \w+, found"):
        read_all(copy)
    (copy / name).write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=rf"{name}: .* found {len(whole) - 1} bytes .* Train it again"):
        read_all(copy)
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: .* found no such file"):
        read_all(copy)


def rewrite(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_another_format_is_refused(copy: Path) -> None:
    rewrite(copy, format="recipe")
    with pytest.raises(ArtifactError, match="expected format 'coldstart-encoder', found 'recipe'"):
        load_encoder(copy)


def test_a_newer_version_is_refused(copy: Path) -> None:
    rewrite(copy, version=artifact.VERSION + 1)
    with pytest.raises(ArtifactError, match=r"expected version 2 or older, found 3\. Install the coldstart that wrote"):
        load_encoder(copy)


def test_an_artifact_of_version_1_is_an_encoder_of_the_network_alone(
    scenes: Dataset, warm_rows: np.ndarray, tmp_path: Path
) -> None:
    alone = train(scenes, warm_rows, replace(SMALL, closed=(0.0,), epochs=1))
    artifact.save(alone, tmp_path / "old")
    rewrite(tmp_path / "old", version=1)
    loaded = load_encoder(tmp_path / "old")
    assert loaded.projection is None
    np.testing.assert_array_equal(loaded.encode(scenes.content), alone.encoder.encode(scenes.content))


def test_another_dimension_is_refused(copy: Path) -> None:
    rewrite(copy, dim=7)
    with pytest.raises(ArtifactError, match=r"expected dimension 7, found \[16\]"):
        load_encoder(copy)
    with pytest.raises(ArtifactError, match=r"expected vectors of shape \(56, 7\), found \(56, 16\)"):
        load_warm(copy)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "coldstart-encoder", "version": 1}'])
def test_a_torn_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json: expected .* found"):
        load_encoder(copy)


def test_an_empty_folder_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: .* found no such file"):
        load_encoder(tmp_path)
