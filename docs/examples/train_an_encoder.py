# %% [markdown]
# # Train and inspect an encoder
#
# A generated data set, a tenth of its songs held back as cold, an encoder trained on the others, and what it says of
# the cold ones. With your own data, set `DATA` to its folder. Needs the extra `train`.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from encoder.train import TrainingConfig, train

folder = Path(os.environ.get("DATA", tempfile.mkdtemp()))
if not (folder / "interactions.csv.gz").exists():
    generate(World(users=400, songs=400, history=20, seed=1), folder)
data = read_dataset(folder)
parts = split(data, seed=0)
print(f"{len(data.user_ids)} users, {len(parts.warm)} warm songs, {len(parts.cold)} cold ones")

# %% [markdown]
# `train` sees the warm songs alone. Four epochs are enough for a look.

# %%
trained = train(data, parts.warm, TrainingConfig(seed=0, epochs=4))
cold = trained.encoder.encode(data.content.rows(parts.cold))  # float32 (n, dim), unit rows
print(f"{trained.gauges['train_seconds']:.1f} s, vectors of {cold.shape[1]} dimensions")

# %% [markdown]
# The warm songs nearest to a cold one, by the cosine. Their listeners are its candidates.

# %%
similarity = cold @ trained.warm_vectors.T
for row in np.argsort(-similarity[0])[:5]:
    print(f"{similarity[0, row]:.3f}  {data.song_ids[parts.warm[row]]}")

# %% [markdown]
# Is that right? The truth is hidden from training: of the users who really hear a cold song, how many hear one of its
# ten nearest songs, beside how many of all users do?

# %%
hears = (data.plays > 0).toarray()
nearest = np.argsort(-similarity, axis=1)[:, :10]
reached = np.array([hears[parts.warm[near]].any(axis=0) for near in nearest])
listeners = hears[parts.cold]
print(f"listeners reached: {reached[listeners].mean():.0%}; of all users: {reached.mean():.0%}")
assert reached[listeners].mean() > reached.mean()
