# %% [markdown]
# # Target one song without Kafka
#
# A partition is a deterministic state machine: `stage` says what a batch of inputs does, `apply` makes it so. Kafka is
# one way to feed it; a notebook is another.

# %%
import time

import numpy as np

from targeting import Catalogue, Listens, Match, Partition, PartitionInputs, Preferences

rng = np.random.default_rng(0)
warm = rng.standard_normal((40, 16)).astype(np.float32)
warm /= np.linalg.norm(warm, axis=1, keepdims=True)
song_ids = [f"s{row}" for row in range(len(warm))]
songs = Catalogue()  # one for all partitions of a process
songs.set_vectors("demo-space", song_ids, warm)
partition = Partition(0, 1, songs)

# %% [markdown]
# 200 users. Each has a favourite song and listens to the eight songs nearest to it; the first of them opted out.

# %%
near = np.argsort(-(warm @ warm.T), axis=1)[:, :8]
heard = [(f"u{user}", song_ids[row]) for user in range(200) for row in near[user % len(warm)]]
now = time.time()
listens = Listens(*map(list, zip(*heard, strict=True)), np.ones(len(heard), np.float32), np.full(len(heard), now))
wishes = [("u0", Preferences(opted_in=False))]
first = partition.stage(PartitionInputs(now, listens=listens, preferences=wishes))
partition.apply(first)
print(partition.users, "users")

# %% [markdown]
# A new song that sounds like `s0` asks for its audience: 20 pushes over its life, 70 % of them now.

# %%
similarity = warm @ warm[0]
nearest = np.argsort(-similarity)[:5]
match = Match(
    "new", 1, "new", "Small Hours", ("a-7",), "demo-space", warm[0], tuple(song_ids[row] for row in nearest),
    similarity[nearest], budget=20, requested_at=now, expires_at=now + 28 * 86_400,
)  # fmt: skip
staged = partition.stage(PartitionInputs(now, commands=[match]))
for push in staged.outputs.pushes:
    print(f"{push.user_id:>5}  {push.score:.3f}  {push.why}  {', '.join(push.songs)}")
partition.apply(staged)

# %% [markdown]
# The changelog rebuilds the same state; preferences are not in it, their topic is their own.

# %%
again = Partition(0, 1, songs)
again.restore([*first.outputs.changelog, *staged.outputs.changelog])
assert again.digest() == partition.digest()
users = [push.user_id for push in staged.outputs.pushes]
assert len(users) == 14
assert "u0" not in users
