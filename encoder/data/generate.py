"""Generates a data set from a world: content that reflects taste indirectly, and listens.

The truth behind it is :mod:`encoder.data.world`. Users are generated and written chunk by chunk, so memory is bounded
by the catalogue and one chunk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import F32, Bag, ContentTable
from encoder.data.layout import DURATION
from encoder.data.world import (
    CHUNK,
    DIMENSION,
    SCENES,
    World,
    affinity,
    catalogue,
    liking,
    people,
    scenes,
    song_id,
    stream,
    user_id,
)
from encoder.data.write import open_interactions, write_songs

__all__ = ["World", "affinity", "generate", "read_world", "showings_per_user"]

WORLD = "world.json"
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

AUDIO = 64
HIDDEN = 128
TAGS = 300
LANGUAGES = ("en", "pt", "es", "ja", "fr", "de")
# Songs per chunk of drawn tags: 10,000 x 300 probabilities are 24 MB.
SONG_BLOCK = 10_000


def generate(world: World, path: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the data set of a world in the neutral layout, and the world itself as ``world.json``.

    Listens are grouped by user and dated when the song was shown. The number of songs shown is chosen to make the
    mean history ``world.history``.

    Args:
        path: a directory; it is created, and existing files are overwritten.
        progress: called as (users done, users) after each chunk.

    Raises:
        ValueError: the catalogue is too small for this history.
    """
    shown = showings_per_user(world)
    path.mkdir(parents=True, exist_ok=True)
    write_songs(path, content(world), [f"Song {row}" for row in range(world.songs)])
    song_ids = np.array([song_id(row) for row in range(world.songs)], object)
    with open_interactions(path, dated=True) as interactions:
        for chunk in range(-(-world.users // CHUNK)):
            user, song, plays, at = _listens(world, chunk, shown, stream(world, 3, chunk))
            names = np.array([user_id(chunk * CHUNK + place) for place in range(CHUNK)], object)
            interactions.append(names[user].tolist(), song_ids[song].tolist(), plays, at)
            if progress is not None:
                progress(min((chunk + 1) * CHUNK, world.users), world.users)
    # Written last: a directory with a world in it is complete.
    (path / WORLD).write_text(json.dumps(asdict(world), indent=1) + "\n", encoding="utf-8")


def read_world(path: Path) -> World:
    """The world behind a generated data set; its truth is :func:`encoder.data.world.affinity`.

    Raises:
        FileNotFoundError: the directory was not generated, or not completely.
    """
    return World(**json.loads((path / WORLD).read_text(encoding="utf-8")))


def _listens(
    world: World, chunk: int, shown: float, rng: np.random.Generator
) -> tuple[I64, I64, NDArray[np.float32], F64]:
    """The listens of a chunk of users: user's place in the chunk, song, plays and Unix seconds, each (n,)."""
    some, songs = people(world, chunk), catalogue(world)
    counts = rng.poisson(shown * some.activity)
    user = np.repeat(np.arange(len(counts)), counts)
    # Ascending for each user: lookups in the table of shares are sequential, which is three times faster, and repeats
    # are adjacent.
    draws = user + rng.uniform(size=len(user))
    draws.sort()
    song = np.searchsorted(np.cumsum(songs.exposure), draws - user, side="right")
    np.minimum(song, world.songs - 1, out=song)
    # A song is shown to a user at most once, so P(listen | shown) is the affinity itself.
    once = np.diff(user * world.songs + song, prepend=-1) > 0
    user, song = user[once], song[once]
    since = np.maximum(some.joined[user], songs.released[song])
    at = np.floor(rng.uniform(since, world.end))
    chance = liking(world, some, user, song, at)
    heard = rng.uniform(size=len(user)) < chance
    user, song, at, chance = user[heard], song[heard], at[heard], chance[heard]
    # Heavy-tailed, and larger for songs that are liked more.
    plays = 1 + np.floor(4 * chance * np.exp(1.2 * rng.standard_normal(len(user))))
    return user, song, plays.astype(np.float32), at


def showings_per_user(world: World) -> float:
    """Mean number of showings, repeats included, of a user of activity 1 that gives the mean history.

    Found on a pilot of the first users, within a few per cent. Showings are a Poisson
    process: a song with share w is shown to a user of activity a with probability 1 - exp(-showings a w).

    Raises:
        ValueError: the catalogue is too small for this history.
    """
    n = min(CHUNK, world.users)
    shown, heard = world.history, 0.0
    for trial in range(12):
        # Bounds the showings of a pilot for any history.
        if shown > 50 * world.songs:
            break
        heard = len(_listens(world, 0, shown, stream(world, 5, trial))[0]) / n
        if abs(heard - world.history) < 0.01 * world.history:
            return shown
        shown *= min(4.0, world.history / max(heard, 0.1))
    else:
        # A pilot of few users is noisy and may never come within 1 %; close is good enough.
        return shown
    raise ValueError(
        f"history={world.history:g} of {world.songs} songs: users like only about {heard:.0f} of them; "
        "lower history or raise songs"
    )


def content(world: World) -> ContentTable:
    """The songs' content: audio, duration, tags, genre, language, artist and album, with parts missing."""
    songs = catalogue(world)
    rng = stream(world, 4)
    n = world.songs
    place = np.arange(n)
    duration = np.log(210) + 0.15 * rng.standard_normal(SCENES)[songs.scene] + 0.25 * rng.standard_normal(n)
    dense = {"audio": _audio(world, rng), DURATION: duration.astype(np.float32)[:, None]}
    for values in dense.values():
        values[_missing(world, rng)] = np.nan
    # Two unrelated scenes share a genre; one label in ten is wrong.
    genre = np.where(rng.uniform(size=n) < 0.9, songs.scene, rng.integers(0, SCENES, n)) // 2
    n_artists = int(songs.artist.max()) + 1
    scene_language = rng.integers(0, len(LANGUAGES), SCENES)
    artist_language = rng.integers(0, len(LANGUAGES), n_artists)
    own = rng.uniform(size=n_artists)[songs.artist] < 0.3
    language = np.where(own, artist_language[songs.artist], scene_language[songs.scene])
    albums, album = np.unique(songs.album, return_inverse=True)
    bags = {
        "tags": _tags(world, rng),
        "genres": _labels([f"genre{g}" for g in range(SCENES // 2)], genre, ~_missing(world, rng)),
        "language": _labels(LANGUAGES, language, ~_missing(world, rng)),
        "artists": _labels([f"a{a}" for a in range(n_artists)], songs.artist, place >= 0),
        "album": _labels([f"b{b}" for b in albums], album, ~_missing(world, rng)),
    }
    return ContentTable(tuple(song_id(row) for row in range(n)), dense, bags)


def _audio(world: World, rng: np.random.Generator) -> F32:
    """A wavy function of taste plus variation unrelated to taste, float32 (n, 64).

    Near songs sound alike, far songs may too: sines fold the space, so no linear map undoes it. A song's production
    (6 dimensions, in part the artist's habit) moves its vector as far as taste does.
    """
    songs = catalogue(world)
    n = world.songs
    inner = rng.standard_normal((DIMENSION, HIDDEN), np.float32) * 2
    outer = rng.standard_normal((HIDDEN, AUDIO), np.float32) / HIDDEN**0.5
    habit = rng.standard_normal((int(songs.artist.max()) + 1, 6), np.float32)[songs.artist]
    production = 0.7 * habit + 0.7 * rng.standard_normal((n, 6), np.float32)
    mixing = rng.standard_normal((6, AUDIO), np.float32) * 0.3
    phase = rng.uniform(0, 2 * np.pi, HIDDEN).astype(np.float32)
    audio: F32 = production @ mixing
    for start in range(0, n, SONG_BLOCK):
        part = slice(start, start + SONG_BLOCK)
        audio[part] += np.sin(songs.taste[part] @ inner + phase) @ outer
    audio += 0.2 * rng.standard_normal((n, AUDIO), np.float32)
    return audio


def _tags(world: World, rng: np.random.Generator) -> Bag:
    """Tag assignments, 12 a song on average: most tags reflect taste, a fifth are noise."""
    songs = catalogue(world)
    centres, _ = scenes(world)
    towards = centres[rng.integers(0, SCENES, TAGS)] + rng.standard_normal((TAGS, DIMENSION)) * 0.25
    towards *= (rng.uniform(6, 12, TAGS) * (rng.uniform(size=TAGS) < 0.8))[:, None]
    usual = np.log(rng.permutation(np.arange(1, TAGS + 1))) * -0.8
    counts = np.where(_missing(world, rng), 0, rng.poisson(12, world.songs))
    cells = []
    for start in range(0, world.songs, SONG_BLOCK):
        part = slice(start, start + SONG_BLOCK)
        logits = songs.taste[part] @ towards.T + usual
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        # One ascending array: the cumulative shares of song i lie in (i, i + 1].
        steps = np.cumsum(chance / chance.sum(axis=1, keepdims=True), axis=1)
        steps += np.arange(len(steps))[:, None]
        song = np.repeat(np.arange(len(steps)), counts[part])
        drawn = np.searchsorted(steps.ravel(), song + rng.uniform(size=len(song)), side="right")
        cells.append(start * TAGS + np.minimum(drawn, song * TAGS + TAGS - 1))
    assigned, taggers = np.unique(np.concatenate(cells), return_counts=True)
    matrix = sparse.csr_matrix(
        (taggers.astype(np.float32), (assigned // TAGS, assigned % TAGS)), shape=(world.songs, TAGS)
    )
    return Bag(tuple(f"tag{t}" for t in range(TAGS)), matrix)


def _labels(terms: tuple[str, ...] | list[str], label: I64, present: NDArray[np.bool_]) -> Bag:
    """A bag with one term for each song that has it."""
    song = np.flatnonzero(present)
    cells = (np.ones(len(song), np.float32), (song, label[song]))
    return Bag(tuple(terms), sparse.csr_matrix(cells, shape=(len(label), len(terms))))


def _missing(world: World, rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.uniform(size=world.songs) < world.missing
