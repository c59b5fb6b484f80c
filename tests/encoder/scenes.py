"""A world whose answer is known: scenes that share no listener, no tag and no sound."""

import numpy as np
from scipy import sparse

from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.train import TrainingConfig

SCENES = 4
SONGS = 15  # of each scene; the last one is cold
USERS = 30  # of each scene

SMALL = TrainingConfig(dim=16, factors=12, hidden=32, epochs=4, batch=16, targets=5, neighbours=3, seed=3)


def song(scene: int, rng: np.random.Generator) -> SongContent:
    tags = {f"scene{scene}-{t}": 1.0 for t in rng.choice(6, 3, replace=False)} | {"music": 1.0}
    sound = np.eye(SCENES)[scene] * 3 + rng.normal(size=SCENES)
    return SongContent(dense={"audio": sound.tolist()}, bags={"tags": tags})


def world() -> Dataset:
    """15 songs in each of 4 scenes; a user listens to songs of one scene only."""
    rng = np.random.default_rng(0)
    songs = [song(row // SONGS, rng) for row in range(SCENES * SONGS)]
    users = np.repeat(np.arange(SCENES), USERS)
    plays = (rng.random((len(songs), len(users))) < 0.5) & (users[None] == np.arange(len(songs))[:, None] // SONGS)
    return Dataset(
        name="scenes",
        content=ContentTable.from_songs([f"song{i}" for i in range(len(songs))], songs),
        user_ids=tuple(f"user{i}" for i in range(len(users))),
        plays=sparse.csr_matrix(plays.astype(np.float32)),
    )
