"""The truth of a generated world: who likes which song, who is shown which song, and when.

Songs and tastes are unit vectors in a latent space of 16 dimensions. Scenes are points in it, artists lie around their
scene, songs around their artist. A user has a few tastes, each drifting along a great circle. Two separate processes
make a listen:

- **exposure** depends on the song alone: songs are shown in proportion to rank^-``popularity`` (a power
  law; an artist's songs rank near each other), each at most once to a user, at a time uniform over the
  part of the world's life in which both exist;
- **taste** depends on both: P(listen | shown at time t) = sigmoid(20 (max_k cos(taste_k(t), song) - 0.65) + appeal),
  where appeal ~ N(0, 0.5) belongs to the song and is in no content.

Everything is recomputed from the seed: :func:`affinity` answers for any user, song and time without stored truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import get_type_hints

import numpy as np
from numpy.typing import NDArray

from encoder.content import F32

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

DIMENSION = 16
SCENES = 16
SONGS_PER_ARTIST = 8
# Users per random stream and per generated chunk. Part of what a seed means: another size gives another world.
CHUNK = 1000
# A cosine of 0.75 is liked by 88 %, of 0.65 by half, of 0.5 by 5 %: about one showing in twenty is heard. So listeners
# reflect taste, and methods rank as on real data.
SHARPNESS = 20.0
THRESHOLD = 0.65
APPEAL = 0.5
DAY = 86_400.0
# Pairs scored at once: the gathered vectors (12 MB for 3 tastes) stay in the cache.
BLOCK = 32_768


@dataclass(frozen=True, slots=True)
class World:
    """The parameters of a world; equal parameters give equal worlds, to the bit.

    Attributes:
        users, songs: how many exist. Users who like nothing are in no data set.
        seed: of everything random.
        history: mean number of songs that a user listened to; users vary (log-normal, sigma 0.8).
        tastes: a user has 1 to this many, equally likely.
        drift: mean angle, in radians, that a taste turns over the whole life of the world; a user's own
            is uniform between 0 and twice that.
        popularity: exponent of the power law of exposure; 0 shows every song equally.
        missing: share of the songs that lack the audio vector, and again tags, genre, and so on.
        late: share of users who join, and of songs that appear, at a uniform time instead of at the start.
        start: Unix seconds; days: how long the world lives.
    """

    users: int = 1000
    songs: int = 2000
    seed: int = 0
    history: float = 50.0
    tastes: int = 3
    drift: float = 0.6
    popularity: float = 0.8
    missing: float = 0.15
    late: float = 0.3
    start: float = 1_672_531_200.0
    days: float = 365.0

    def __post_init__(self) -> None:
        kinds = get_type_hints(World)
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _ALLOWED[field.name]
            whole = kinds[field.name] is int
            if (whole and not isinstance(value, int)) or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"{field.name}={value!r}: must be {kind} from {low:g} to {high:g}")

    @property
    def end(self) -> float:
        return self.start + self.days * DAY


# Ids have 32 bits; the catalogue is held in memory, users are not.
_ALLOWED: dict[str, tuple[float, float]] = {
    "users": (1, 1e9),
    "songs": (SONGS_PER_ARTIST, 1e7),
    "seed": (0, 2**63),
    "history": (1, 10_000),
    "tastes": (1, 16),
    "drift": (0, np.pi),
    "popularity": (0, 3),
    "missing": (0, 0.9),
    "late": (0, 1),
    "start": (0, 1e11),
    "days": (1, 36_500),
}


@dataclass(frozen=True, slots=True)
class WorldSongs:
    """The catalogue of n songs.

    Attributes:
        taste: float32 (n, 16), unit rows: where a song lies.
        appeal: float32 (n,), added to the logit of a listen.
        exposure: float64 (n,), the share of all showings; sums to 1.
        released: float64 (n,), Unix seconds.
        scene, artist, album: int64 (n,), numbers; an artist belongs to one scene, an album to one artist.
    """

    taste: F32
    appeal: F32
    exposure: F64
    released: F64
    scene: I64
    artist: I64
    album: I64


@dataclass(frozen=True, slots=True)
class WorldUsers:
    """A chunk of n users. Taste k of a user at phase p in [0, 1] is ``here`` cos(p turn) + ``there`` sin(p turn).

    Attributes:
        here, there: float32 (n, tastes, 16), unit and orthogonal; tastes that a user lacks repeat the first.
        turn: float32 (n,), radians over the life of the world.
        joined: float64 (n,), Unix seconds.
        activity: float64 (n,), mean 1: a user is shown this multiple of the average number of songs.
    """

    here: F32
    there: F32
    turn: F32
    joined: F64
    activity: F64


def stream(world: World, purpose: int, part: int = 0) -> np.random.Generator:
    """An independent random stream; ``purpose``: 0 scenes, 1 songs, 2 users, 3 listens, 4 content, 5 pilot."""
    return np.random.default_rng([world.seed, purpose, part])


@lru_cache(maxsize=2)
def scenes(world: World) -> tuple[F32, F64]:
    """The scenes' unit vectors, float32 (16, 16), and their shares of artists and tastes, float64 (16,)."""
    centres = _unit(stream(world, 0).standard_normal((SCENES, DIMENSION)))
    return centres, _power_law(SCENES, 0.7)


@lru_cache(maxsize=2)
def catalogue(world: World) -> WorldSongs:
    """All songs of the world."""
    rng = stream(world, 1)
    centres, share = scenes(world)
    n_artists = max(1, world.songs // SONGS_PER_ARTIST)
    artist_scene = rng.choice(SCENES, n_artists, p=share)
    artist_taste = _unit(_near(rng, centres[artist_scene], 0.8))
    artist = np.sort(rng.choice(n_artists, world.songs, p=_power_law(n_artists, 0.7)))
    place = np.arange(world.songs) - np.searchsorted(artist, artist)
    # Rank by fame, mostly the artist's; the shares are then an exact power law.
    fame = rng.standard_normal(n_artists)[artist] + 0.7 * rng.standard_normal(world.songs)
    exposure = np.empty(world.songs)
    exposure[np.argsort(-fame)] = _power_law(world.songs, world.popularity)
    return WorldSongs(
        taste=_unit(_near(rng, artist_taste[artist], 0.5)),
        appeal=(APPEAL * rng.standard_normal(world.songs)).astype(np.float32),
        exposure=exposure,
        released=_arrivals(rng, world, world.songs),
        scene=artist_scene[artist],
        artist=artist,
        album=artist * 1000 + place // 10,
    )


@lru_cache(maxsize=64)
def people(world: World, chunk: int) -> WorldUsers:
    """Users ``chunk * CHUNK`` to ``(chunk + 1) * CHUNK``, the last chunk cut at the number of users."""
    n = min(CHUNK, world.users - chunk * CHUNK)
    rng = stream(world, 2, chunk)
    centres, share = scenes(world)
    shape = (n, world.tastes)
    here = _unit(_near(rng, centres[rng.choice(SCENES, shape, p=share)], 0.8))
    there = _near(rng, centres[rng.choice(SCENES, shape, p=share)], 0.8)
    there -= (there * here).sum(axis=2, keepdims=True) * here
    absent = np.arange(world.tastes) >= rng.integers(1, world.tastes + 1, n)[:, None]
    there = _unit(there)
    for vectors in (here, there):
        vectors[absent] = np.broadcast_to(vectors[:, :1], vectors.shape)[absent]
    return WorldUsers(
        here=here,
        there=there,
        turn=(world.drift * rng.uniform(0, 2, n)).astype(np.float32),
        joined=_arrivals(rng, world, n),
        activity=np.exp(0.8 * rng.standard_normal(n) - 0.32),
    )


def affinity(world: World, user_rows: I64, song_rows: I64, at: F64 | float) -> F64:
    """P(listen | shown at time ``at``) of n pairs of a user and a song.

    Args:
        user_rows, song_rows: int64 (n,) numbers in the world; :func:`rows` makes them from ids.
        at: Unix seconds, (n,) or one for all; before the start and after the end, tastes stand still.

    Returns:
        float64 (n,), in (0, 1).

    Raises:
        IndexError: a number is not in the world.
    """
    user_rows, song_rows = np.broadcast_arrays(np.asarray(user_rows, np.int64), np.asarray(song_rows, np.int64))
    times = np.broadcast_to(np.asarray(at, np.float64), user_rows.shape)
    for what, numbers, count in (("user", user_rows, world.users), ("song", song_rows, world.songs)):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
            raise IndexError(f"{what} rows from {numbers.min()} to {numbers.max()}; the world has {count}")
    out = np.empty(len(user_rows))
    order = np.argsort(user_rows // CHUNK, kind="stable")
    chunks, starts = np.unique(user_rows[order] // CHUNK, return_index=True)
    for chunk, pairs in zip(chunks, np.split(order, starts[1:]), strict=True):
        some = people(world, int(chunk))
        out[pairs] = liking(world, some, user_rows[pairs] % CHUNK, song_rows[pairs], times[pairs])
    return out


def liking(world: World, some: WorldUsers, user: I64, song: I64, at: F64) -> F64:
    """:func:`affinity` for users given by their place in a chunk: all arrays (n,), float64 (n,) out."""
    songs = catalogue(world)
    out = np.empty(len(user))
    for start in range(0, len(user), BLOCK):
        part = slice(start, start + BLOCK)
        who, what = user[part], songs.taste[song[part]]
        angle = some.turn[who] * np.clip((at[part] - world.start) / (world.end - world.start), 0, 1)
        near = np.full(len(who), -1.0)
        for k in range(world.tastes):
            here = np.einsum("ij,ij->i", some.here[who, k], what)
            there = np.einsum("ij,ij->i", some.there[who, k], what)
            np.maximum(near, here * np.cos(angle) + there * np.sin(angle), out=near)
        out[part] = 1 / (1 + np.exp(-(SHARPNESS * (near - THRESHOLD) + songs.appeal[song[part]])))
    return out


def user_id(row: int) -> str:
    """The id, in the data set, of a user of the world."""
    return f"u{row}"


def song_id(row: int) -> str:
    """The id, in the data set, of a song of the world."""
    return f"s{row}"


def rows(ids: Sequence[str]) -> I64:
    """The numbers in the world of users' or songs' ids, int64 (n,)."""
    return np.fromiter((int(text[1:]) for text in ids), np.int64, len(ids))


def _arrivals(rng: np.random.Generator, world: World, n: int) -> F64:
    # None in the last tenth, so newcomers have time to be shown something.
    when = world.start + rng.uniform(0, 0.9, n) * (world.end - world.start)
    return np.where(rng.uniform(size=n) < world.late, when, world.start)


def _near(rng: np.random.Generator, centre: F32, spread: float) -> F32:
    noise = rng.standard_normal(centre.shape, np.float32)
    return centre + np.float32(spread / DIMENSION**0.5) * noise


def _unit(vectors: NDArray[np.floating]) -> F32:
    unit: F32 = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def _power_law(n: int, exponent: float) -> F64:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    shares: F64 = weights / weights.sum()
    return shares
