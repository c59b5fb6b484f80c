"""One of the processes that torchrun starts: it trains on the scenes and leaves the weights in a folder.

python process.py FOLDER CONFIG, a dictionary in JSON over the small config.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scenes import SMALL, SONGS, world

from encoder.train import train

scenes = world()
rows = np.arange(len(scenes.song_ids))
config = replace(SMALL, **json.loads(sys.argv[2]))
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
checkpoint = folder / "state.safetensors"
found = train(scenes, rows[rows % SONGS != SONGS - 1], config, checkpoint=checkpoint)
cold = found.encoder.encode(scenes.content.rows(rows[rows % SONGS == SONGS - 1]))
np.savez(folder / f"{rank}.npz", warm_vectors=found.warm_vectors, cold_vectors=cold, **found.encoder.network)
