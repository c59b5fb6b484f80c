"""Listens in the order of time, and what of them was known at a moment."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.data.history import History
from encoder.data.layout import LayoutError, read_dataset, read_history


def told(*listens: tuple[str, str, float]) -> History:
    """A history of (user, song, time), in the order of time."""
    songs = tuple(sorted({song for _, song, _ in listens}))
    users = tuple(sorted({user for user, _, _ in listens}))
    content = ContentTable.from_songs(songs, [SongContent()] * len(songs))
    return History(
        Dataset("told", content, users, sparse.csr_matrix((len(songs), len(users)), dtype=np.float32)),
        np.array([songs.index(song) for _, song, _ in listens], np.int32),
        np.array([users.index(user) for user, _, _ in listens], np.int32),
        np.ones(len(listens), np.float32),
        np.array([at for _, _, at in listens]),
    )


def test_what_was_known_is_what_is_older() -> None:
    history = told(("u", "a", 10), ("v", "a", 20), ("u", "b", 20), ("v", "b", 30), ("u", "a", 40))
    known = history.known(20)
    assert (known.song_ids, known.user_ids, known.plays.toarray().tolist()) == (("a",), ("u",), [[1]])
    known = history.known(31)
    assert (known.song_ids, known.user_ids) == (("a", "b"), ("u", "v"))
    assert known.plays.toarray().tolist() == [[1, 1], [1, 1]]
    assert known.played_at is not None
    assert known.played_at.tolist() == [10, 20, 20, 30]
    assert len(history.until(20)) == 3
    assert history.first().tolist() == [10, 20]


def lay(path: Path, rows: str) -> Path:
    (path / "songs.csv.gz").write_bytes(gzip.compress(b"song_id\na\nb\nc\n"))
    (path / "interactions.csv.gz").write_bytes(gzip.compress(f"user_id,song_id,play_count,played_at\n{rows}".encode()))
    return path


def test_listens_are_read_one_by_one_in_the_order_of_time_without_those_of_unknown_date(tmp_path: Path) -> None:
    rows = "u,b,2,30\nv,a,1,10\nu,a,1,\nu,b,1,20\nv,c,1,30\nu,c,0,5\n"
    history = read_history(lay(tmp_path, rows))
    names = [history.dataset.song_ids[row] for row in history.song]
    users = [history.dataset.user_ids[row] for row in history.user]
    assert list(zip(users, names, history.plays.tolist(), history.at.tolist(), strict=True)) == [
        ("v", "a", 1, 10), ("u", "b", 1, 20), ("u", "b", 2, 30), ("v", "c", 1, 30),
    ]  # fmt: skip
    # The data set is the one that is read without times; a listen of unknown date is in it.
    np.testing.assert_array_equal(history.dataset.plays.toarray(), read_dataset(tmp_path).plays.toarray())
    assert history.known(100).plays.sum() == history.dataset.plays.sum() - 1


def test_without_a_date_there_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no listen has a date.*give it the column played_at"):
        read_history(lay(tmp_path, "u,a,1,\n"))
