"""The numpy encoder is the torch one, whatever a song lacks, alone or in a table, without torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import SMALL

from encoder import artifact
from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.model import NetworkBatch, QueryTower
from encoder.serving import Encoder
from encoder.train import Trained, train

SONGS = {
    "whole": SongContent(dense={"audio": [3.0, 0, 0, 0]}, bags={"tags": {"scene0-1": 2, "music": 1}}),
    "no sound": SongContent(bags={"tags": {"scene1-0": 1}}),
    "no tags": SongContent(dense={"audio": [0, 0, 3.0, 0]}),
    "partly unseen": SongContent(bags={"tags": {"scene2-0": 1, "unheard of": 3}}),
    "extreme": SongContent(dense={"audio": [1e9, -1e9, 0, 0]}, bags={"tags": {"scene3-1": 1e9}}),
}
NOTHING = {"empty": SongContent(), "all unseen": SongContent(bags={"tags": {"unheard of": 3}})}


def table(songs: dict[str, SongContent]) -> ContentTable:
    return ContentTable.from_songs(list(songs), list(songs.values()))


def by_torch(encoder: Encoder, songs: ContentTable) -> np.ndarray:
    features = encoder.schema.transform(songs)
    bags = encoder.network_bags(features)
    net = encoder.network
    tower = QueryTower(len(net["bag"]), len(net["side"]), len(net["context"]), len(net["first.bias"]), encoder.dim)
    tower.load_state_dict({name: torch.from_numpy(value) for name, value in net.items()})
    batch = NetworkBatch(
        torch.from_numpy(bags.indices.astype(np.int64)),
        torch.from_numpy(bags.indptr[:-1].astype(np.int64)),
        torch.from_numpy(bags.data),
        torch.from_numpy(features.side),
        torch.from_numpy(encoder.memory.context(features)),
    )
    with torch.no_grad():
        query = tower(batch)
        if encoder.projection is None:
            return query.numpy()
        unit = torch.nn.functional.normalize
        closed = unit(batch.context[:, : encoder.memory.vectors.shape[1]], dim=1)
        return unit(torch.cat([query, closed], dim=1) @ torch.from_numpy(encoder.projection), dim=1).numpy()


@pytest.mark.parametrize("closed", [0.0, SMALL.closed[0]])
def test_numpy_equals_torch(trained: Trained, scenes: Dataset, warm_rows: np.ndarray, closed: float) -> None:
    if not closed:
        trained = train(scenes, warm_rows, replace(SMALL, closed=(0.0,), epochs=1))
    assert (trained.encoder.projection is None) == (closed == 0)
    for songs in (table(SONGS), scenes.content):
        np.testing.assert_allclose(trained.encoder.encode(songs), by_torch(trained.encoder, songs), atol=1e-5)


@pytest.mark.parametrize("name", SONGS)
def test_a_song_alone_equals_itself_in_a_table(trained: Trained, name: str) -> None:
    together = trained.encoder.encode(table(SONGS))[list(SONGS).index(name)]
    alone = trained.encoder.encode(table({name: SONGS[name]}))
    assert alone.dtype == np.float32
    assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(alone[0], together, atol=1e-5)


def test_a_song_of_which_nothing_is_known_gets_the_mean_direction(trained: Trained) -> None:
    vectors = trained.encoder.encode(table(NOTHING))
    mean = trained.warm_vectors.mean(axis=0)
    np.testing.assert_allclose(vectors, np.tile(mean / np.linalg.norm(mean), (2, 1)), atol=1e-5)


def test_what_was_known_and_unseen_is_told(trained: Trained) -> None:
    features = trained.encoder.schema.transform(table(SONGS | NOTHING))
    assert features.known.tolist() == [True] * 5 + [False] * 2
    assert features.unseen.tolist() == [0, 0, 0, 1, 0, 0, 1]


def test_no_songs_give_no_rows(trained: Trained) -> None:
    assert trained.encoder.encode(table({})).shape == (0, trained.encoder.dim)


def test_serving_does_not_import_torch(trained: Trained, tmp_path: Path) -> None:
    artifact.save(trained, tmp_path / "model")
    program = (
        "import sys; from pathlib import Path; from encoder import ContentTable, SongContent, load_encoder;"
        f"e = load_encoder(Path({str(tmp_path / 'model')!r}));"
        "e.encode(ContentTable.from_songs(['s'], [SongContent(bags={'tags': {'music': 1}})]));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
