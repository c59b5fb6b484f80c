from __future__ import annotations

import numpy as np
import pytest

from targeting.arrays.id_table import hash64
from targeting.catalogue.catalogue import Catalogue
from targeting.catalogue.whitening import axes

A, B = np.eye(3, dtype=np.float32)[:2]


def test_vectors_come_to_unit_length_and_along_the_axes() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a", "b", "c", "d"], np.stack([A * 7, B * 0, A, B * 2]))
    stretch = axes(np.stack([A, A, B]))
    np.testing.assert_allclose(songs.vectors(songs.slots(["a", "b", "c", "d"])), np.stack([A, B * 0, A, B]) @ stretch)
    new = songs.along_axes(np.asarray([3, 4, 0], np.float32))
    np.testing.assert_allclose(new, [3, 4, 0] @ stretch / np.linalg.norm([3, 4, 0] @ stretch), rtol=1e-6)
    assert not songs.along_axes(A * 0).any()


def test_a_song_known_by_listens_has_no_vector_until_it_comes() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a"], A[None])
    slot = songs.slots(["b"])
    assert not songs.vectors(slot).any()
    songs.set_vectors("s", ["b"], B[None])
    # The axes stay those of the songs that came with the space.
    np.testing.assert_allclose(songs.vectors(slot), B[None] @ axes(A[None]))


def test_a_song_is_its_hash() -> None:
    songs = Catalogue()
    slots = songs.slots_of_hashes(hash64(["a", "b", "a"]))
    assert slots.tolist() == songs.slots(["a", "b", "a"]).tolist()
    assert songs.hashes(slots).tolist() == hash64(["a", "b", "a"]).tolist()
    restored = Catalogue()
    restored.slots_of_hashes(hash64(["a"]))
    assert restored.find(["a", "b"]).tolist() == [0, -1]
    assert len(restored) == 1


def test_changes_are_told_once() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a"], A[None])
    seen = songs.version
    assert songs.in_use.changed_since(seen).tolist() == []
    songs.set_vectors("s", ["b"], B[None])
    assert songs.in_use.changed_since(seen).tolist() == songs.slots(["b"]).tolist()


def test_a_catalogue_set_again_changes_only_what_is_new() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a", "b"], np.stack([A, B]))
    seen = songs.version
    songs.set_vectors("s", ["a", "b", "c"], np.stack([A * 3, -B, A]))
    assert songs.in_use.changed_since(seen).tolist() == songs.slots(["b", "c"]).tolist()


def test_a_new_space_drops_the_old_vectors() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a", "b"], np.stack([A, B]))
    before = songs.in_use
    songs.set_vectors("t", ["b"], np.ones((1, 5), np.float32))
    assert songs.space == "t"
    assert songs.dimension == 5
    assert not songs.vectors(songs.slots(["a"])).any()
    assert songs.in_use is not before


def test_a_song_is_added_to_the_space_in_use_or_the_coming_one() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a", "b"], np.stack([A, B]))
    songs.prepare("t", ["a"], np.ones((1, 5), np.float32))
    in_use, coming, seen = songs.in_use, songs.to_come, songs.version
    songs.add("s", ["c"], A[None] * 2)
    songs.add("t", ["c"], np.ones((1, 5), np.float32))
    assert (songs.in_use, songs.to_come) == (in_use, coming)
    np.testing.assert_allclose(songs.vectors(songs.slots(["c"])), songs.vectors(songs.slots(["a"])))
    for space in (in_use, coming):
        assert space.changed_since(seen).tolist() == songs.slots(["c"]).tolist()  # type: ignore[union-attr]
    for space, vector in (("u", A), ("t", A), ("s", np.ones(5, np.float32))):
        with pytest.raises(ValueError, match="space"):
            songs.add(space, ["d"], vector[None])
    assert songs.find(["d"]).tolist() == [-1]


def test_a_coming_space_is_seen_once_it_is_switched_to() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a", "b"], np.stack([A, B]))
    before = songs.vectors(songs.slots(["a", "b"]))
    songs.prepare("t", ["a"], np.ones((1, 5), np.float32))
    assert (songs.space, songs.coming, songs.dimension) == ("s", "t", 3)
    slot = songs.slots(["late"])  # known in both
    np.testing.assert_array_equal(songs.vectors(songs.slots(["a", "b"])), before)
    songs.switch()
    assert (songs.space, songs.coming, songs.dimension) == ("t", None, 5)
    assert songs.vectors(songs.slots(["a"])).any()
    assert not songs.vectors(np.append(songs.slots(["b"]), slot)).any()


def test_another_coming_space_takes_the_place_of_the_first() -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a"], A[None])
    songs.prepare("t", ["a"], np.ones((1, 5), np.float32))
    first = songs.to_come
    songs.prepare("t", ["a", "b"], np.ones((2, 5), np.float32))
    assert songs.to_come is first
    songs.prepare("u", ["a"], np.ones((1, 6), np.float32))
    assert songs.coming == "u"
    songs.set_vectors("v", ["a"], A[None])
    assert (songs.space, songs.coming) == ("v", None)


@pytest.mark.parametrize("vectors", [np.ones((1, 3)), np.ones(3), np.ones((2, 4)), np.full((2, 3), np.nan)], ids=str)
def test_what_does_not_fit_is_refused_whole(vectors: np.ndarray) -> None:
    songs = Catalogue()
    songs.set_vectors("s", ["a"], A[None])
    seen = songs.version
    with pytest.raises(ValueError, match="vectors"):
        songs.set_vectors("s", ["a", "b"], vectors.astype(np.float32))
    assert songs.version == seen
    assert len(songs) == 1
