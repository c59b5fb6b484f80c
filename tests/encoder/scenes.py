"""A world whose answer is known: scenes that share no listener, no tag and no sound."""

import numpy as np

from encoder.content import SongContent
from encoder.train import Config

SCENES = 4
SONGS = 15  # of each scene; the last one is cold
USERS = 30  # of each scene

SMALL = Config(dim=16, factors=12, hidden=32, epochs=4, batch=16, targets=5, neighbours=3, seed=3)


def song(scene: int, rng: np.random.Generator) -> SongContent:
    tags = {f"scene{scene}-{t}": 1.0 for t in rng.choice(6, 3, replace=False)} | {"music": 1.0}
    sound = np.eye(SCENES)[scene] * 3 + rng.normal(size=SCENES)
    return SongContent(dense={"audio": sound.tolist()}, bags={"tags": tags})
