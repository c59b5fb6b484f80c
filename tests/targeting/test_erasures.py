from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from targeting.arrays.id_table import hash64
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.partition.state_keys import ERASED, SHAPE
from targeting.types import Listens, Match, OutsideVectors, PartitionInputs, Preferences
from targeting.users.erasures import Erasures, ForeignKeyError, Marker, fingerprint


def test_the_moment_is_remembered_and_the_name_is_not() -> None:
    erasures = Erasures(b"key")
    assert erasures.since(["anna", "ben"]).tolist() == [-math.inf, -math.inf]
    erasures.set(erasures.marker("anna"), Marker(1_700_000_000.25))
    assert erasures.since(["ben", "anna"]).tolist() == [-math.inf, 1_700_000_000.25]
    assert len(erasures) == 1
    for marker, record in erasures.records():
        assert len(marker) == 16
        assert b"anna" not in marker + record


def test_a_later_erasure_takes_the_place_of_an_earlier_one() -> None:
    erasures = Erasures(b"key")
    for time in (5.0, 9.0):
        erasures.set(erasures.marker("anna"), Marker(time))
    assert erasures.since(["anna"]).tolist() == [9.0]
    assert len(erasures.records()) == 1


def test_it_comes_back_from_its_records_under_its_own_key_alone() -> None:
    erasures, again, foreign = Erasures(b"key"), Erasures(b"key"), Erasures(b"other")
    for number in range(20):
        erasures.set(erasures.marker(f"u{number}"), Marker(float(number)))
    for marker, record in erasures.records():
        again.load(marker, record)
        foreign.load(marker, record)
    everybody = [f"u{number}" for number in range(20)]
    assert again.since(everybody).tolist() == [float(number) for number in range(20)]
    assert again.records() == erasures.records()
    assert set(foreign.since(everybody).tolist()) == {-math.inf}
    with pytest.raises(ForeignKeyError) as caught:
        foreign.loaded()
    assert caught.value.found == {fingerprint(b"key"): 20}
    assert caught.value.known == [fingerprint(b"other")]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x01",
        b"\x02" + b"x" * 8,
        b"\x01" + b"x" * 9,
        b"\x01" + b"x" * 16,
        b"\x03" + b"x" * 16,
        b"\x03" + b"x" * 24,
    ],
)
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="erasure record"):
        Erasures(b"key").load(b"m" * 16, record)


# -- what an erased user leaves in the prototypes of a campaign

NOW = 1_700_000_000.0
WARM = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
USERS = [f"u{number}" for number in range(40)]


class Told:
    """A partition of 40 users with a campaign that they are the audience of, and what it told its changelog."""

    def __init__(self) -> None:
        self.changelog: list[tuple[bytes, bytes | None]] = []
        self.state = Partition(0, 1, self._songs())
        users = [user for user in USERS for _ in range(5)]
        heard = [f"w{(at + 7 * more) % 50}" for at in range(len(USERS)) for more in range(5)]
        self.does(listens=Listens(users, heard, np.ones(len(users), np.float32), np.full(len(users), NOW)))

    @staticmethod
    def _songs() -> Catalogue:
        songs = Catalogue()
        songs.set_vectors("space", [f"w{number}" for number in range(50)], WARM)
        return songs

    def does(self, **inputs: Any) -> None:
        staged = self.state.stage(PartitionInputs(NOW, **inputs))
        self.changelog += staged.outputs.changelog
        self.state.apply(staged)

    def asks(self) -> None:
        similar = np.linspace(0.9, 0.5, 10).astype(np.float32)
        self.does(
            commands=[
                Match(
                    "s", 1, "r", "", (), "space", np.full(8, 8**-0.5, np.float32), tuple(f"w{n}" for n in range(10)),
                    similar, 10_000, NOW, NOW + 1e6,
                )
            ]
        )  # fmt: skip

    def erases(self, user: str) -> None:
        self.does(erasures=[(user, NOW + 1)])

    def restarts(self) -> None:
        self.state = Partition(0, 1, self._songs())
        self.state.restore(iter(self.changelog))

    @property
    def shape(self) -> bytes:
        """The last record of the campaign's prototypes."""
        return dict(self.changelog)[SHAPE + b"s"] or b""

    def names(self, user: str) -> bool:
        return hash64([user]).tobytes() in self.shape


def test_the_record_of_prototypes_forgets_an_erased_user_after_a_restart_too() -> None:
    told = Told()
    told.asks()
    before = {user for user in USERS if told.names(user)}
    assert "u1" in before
    told.erases("u1")
    told.restarts()
    told.does()
    assert {user for user in USERS if told.names(user)} == before - {"u1"}


def test_what_an_erased_user_leaves_does_not_depend_on_vectors_of_before() -> None:
    shapes = []
    for withdrawn in (False, True):
        told = Told()
        told.does(vectors=OutsideVectors("space", ["u1"], np.ones((1, 8), np.float32), np.full(1, NOW)))
        told.asks()
        if withdrawn:
            none = np.zeros(0)
            told.does(vectors=OutsideVectors("space", [], np.zeros((0, 8), np.float32), none, withdrawn=["u1"]))
        told.erases("u1")
        told.does()
        shapes.append(told.shape)
    assert shapes[0] == shapes[1]


# -- keys


class Keyed:
    """A partition over several starts, each with keys of its own. Preferences are read again at every start."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.wishes: list[tuple[str, float | None]] = []

    def start(self, *keys: bytes) -> Partition:
        songs = Catalogue()
        songs.set_vectors("space", [f"w{number}" for number in range(50)], WARM)
        self.state = Partition(0, 1, songs, TargetingConfig(erasure_key=keys[0], former_erasure_keys=keys[1:]))
        self.state.restore(self.log)
        self.says(self.wishes)
        return self.state

    def does(self, **inputs: Any) -> int:
        """How many rows are erased."""
        staged = self.state.stage(PartitionInputs(NOW + 9, **inputs))
        self.state.apply(staged)
        self.log += staged.outputs.changelog
        return len(staged.changes.erased)

    def wishes_to(self, user: str, erase: bool = True) -> int:
        self.wishes.append((user, NOW if erase else None))
        return self.says(self.wishes[-1:])

    def says(self, wishes: list[tuple[str, float | None]]) -> int:
        """What users want who may ask to be forgotten."""
        erasures = [(user, at) for user, at in wishes if at is not None]
        return self.does(preferences=[(user, Preferences()) for user, _ in wishes], erasures=erasures)

    def hears(self, *users: str) -> None:
        count = len(users)
        self.does(listens=Listens(users, ["w1"] * count, np.ones(count, np.float32), np.full(count, NOW + 1)))

    def markers(self) -> dict[bytes, bytes]:
        return {key[1:]: value for key, value in dict(self.log).items() if key[:1] == ERASED and value is not None}

    def restored(self, *keys: bytes) -> str:
        songs = Catalogue()
        songs.set_vectors("space", [f"w{number}" for number in range(50)], WARM)
        again = Partition(0, 1, songs, TargetingConfig(erasure_key=keys[0], former_erasure_keys=keys[1:]))
        again.restore(self.log)
        return again.digest()


def test_another_key_is_refused_as_long_as_somebody_is_remembered_with_the_former() -> None:
    keyed = Keyed()
    keyed.start(b"a")
    keyed.start(b"b")  # nobody is remembered yet
    keyed.wishes_to("anna")
    with pytest.raises(ForeignKeyError):
        keyed.start(b"a")
    keyed.start(b"b")


def test_a_key_is_replaced_without_erasing_anybody_again() -> None:
    keyed = Keyed()
    keyed.start(b"a")
    for user in ("anna", "ben", "carla"):
        keyed.wishes_to(user)
    keyed.wishes_to("ben", erase=False)
    keyed.hears("anna", "ben")
    # Carla's preferences are deleted: nobody can name her.
    keyed.wishes = [each for each in keyed.wishes if each[0] != "carla"]
    state = keyed.start(b"b", b"a")
    assert state.users == 2
    signed = [value[-8:] for value in keyed.markers().values()]
    assert sorted(signed) == sorted([fingerprint(b"b"), fingerprint(b"b"), fingerprint(b"a")])
    assert state.digest() == keyed.restored(b"b", b"a")
    # From before the erasure: nobody comes back by it, whatever key remembers them.
    late = Listens(["anna", "ben", "carla"], ["w2"] * 3, np.ones(3, np.float32), np.full(3, NOW - 1))
    before = state.digest()
    assert keyed.does(listens=late) == 0
    assert state.digest() == before
    with pytest.raises(ForeignKeyError) as caught:
        keyed.start(b"b")
    assert caught.value.found == {fingerprint(b"a"): 1}


def test_when_everybody_was_named_the_former_key_can_go() -> None:
    keyed = Keyed()
    keyed.start(b"a")
    keyed.wishes_to("anna")
    keyed.hears("anna")
    for keys in ((b"b", b"a"), (b"b",), (b"c", b"b", b"a"), (b"c",)):
        state = keyed.start(*keys)
        assert len(keyed.markers()) == 1
        assert state.users == 1
        assert state.digest() == keyed.restored(*keys)
    # A new request, while two keys are valid, is one.
    keyed.start(b"d", b"c")
    keyed.wishes_to("anna")
    assert keyed.does(erasures=[("anna", NOW + 5)]) == 1
    assert [value[-8:] for value in keyed.markers().values()] == [fingerprint(b"d")]


def test_markers_from_before_there_were_fingerprints_are_taken_for_the_keys_own() -> None:
    keyed = Keyed()
    keyed.start(b"a")
    keyed.wishes_to("anna")
    keyed.wishes_to("ben")
    keyed.log = [(key, b"\x01" + value[1:9] if key[:1] == ERASED and value else value) for key, value in keyed.log]
    written = keyed.log
    keyed.hears("anna")
    for keys in ((b"a",), (b"b", b"a")):
        keyed.log = list(written)
        state = keyed.start(*keys)
        assert {value[-8:] for value in keyed.markers().values()} == {fingerprint(keys[0])}
        assert len(keyed.markers()) == 2
        assert state.digest() == keyed.restored(*keys)
    with pytest.raises(ForeignKeyError):
        keyed.start(b"a")


def test_a_marker_of_any_key_can_go_and_its_record_stays_as_it_was_written() -> None:
    erasures = Erasures(b"b", [b"a"])
    written = {
        b"1" * 16: Erasures(b"b").encode(Marker(1.0)),
        b"2" * 16: Erasures(b"a").encode(Marker(2.0)),
        b"3" * 16: Erasures(b"never known").encode(Marker(3.0)),
        b"4" * 16: b"\x01" + Erasures(b"b").encode(Marker(4.0))[1:9],
    }
    for marker, record in written.items():
        erasures.load(marker, record)
    assert dict(erasures.records()) == written
    with pytest.raises(ForeignKeyError, match="1 erased user"):
        erasures.loaded()
    for marker in written:
        erasures.load(marker, None)
        assert marker not in dict(erasures.records())
        assert len(erasures) == len(erasures.records())
    erasures.loaded()
    assert erasures.renewed(["anna"]) == ([], {})


def test_while_a_key_is_replaced_only_markers_of_the_former_are_made_anew() -> None:
    former, erasures = Erasures(b"a"), Erasures(b"b", [b"a"])
    erasures.load(former.marker("anna"), former.encode(Marker(5.0)))
    erasures.set(erasures.marker("ben"), Marker(6.0))
    assert erasures.renewed(["carla", "ben", "anna", "anna"]) == (
        [former.marker("anna")], {erasures.marker("anna"): Marker(5.0)},
    )  # fmt: skip


def test_fingerprints_are_those_of_the_markers_that_are_stored_already() -> None:
    assert fingerprint(b"key").hex() == "cff722bea1ac33d0"


def test_a_record_of_another_version_is_told_by_it() -> None:
    with pytest.raises(ValueError, match=r"of 9 bytes, version b'\\x07'$"):
        Erasures(b"key").load(b"m" * 16, b"\x07" + b"x" * 8)
