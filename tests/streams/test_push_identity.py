"""A recording never twice for a user, unless they asked to be erased in between: then the push_id is another."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from streams.audience.encode import push_record
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.types import Listens, Match, PartitionInputs, Tier, push_id

NOW = 1_800_000_000.0
ASKED = NOW - 50.123457
ONE = np.ones(1, np.float32)
SONG = Match("s", 1, "rec", "", (), "space", np.eye(1, 4, dtype=np.float32)[0], ("w",), ONE, 9, NOW, NOW + 9)


class Driver:
    """A partition with its changelog. Preferences are said again at every start, as their topic is read again."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.erased: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        songs = Catalogue()
        songs.set_vectors("space", ["w"], np.eye(1, 4, dtype=np.float32))
        self.partition = Partition(0, 1, songs)
        self.partition.restore(self.log)
        self.does(erasures=list(self.erased.items()))

    def does(self, **inputs: Any) -> list[tuple[str, str]]:
        """User and push_id of every push."""
        staged = self.partition.stage(PartitionInputs(NOW, **inputs))
        self.partition.apply(staged)
        self.log += staged.outputs.changelog
        pushes = [msgspec.json.decode(push_record(push, NOW, 0).value) for push in staged.outputs.pushes]
        return [(push["user_id"], push["push_id"]) for push in pushes]

    def listens(self, *users: str) -> list[tuple[str, str]]:
        count = len(users)
        return self.does(listens=Listens(users, ["w"] * count, np.ones(count, np.float32), np.full(count, NOW)))

    def erases(self, user: str, at: float) -> None:
        self.erased[user] = at
        self.does(erasures=[(user, at)])


@pytest.mark.parametrize("restarts", [(), (0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_what_is_pushed_again_after_an_erasure_has_another_id_and_the_same_one_after_a_restart(
    restarts: tuple[int, ...],
) -> None:
    driver, ids = Driver(), []
    driver.listens("anna", "ben")
    ids.append(dict(driver.does(commands=[SONG])))
    for number, asked in enumerate((ASKED, ASKED + 1e-6)):
        if number in restarts:
            driver.restart()
        driver.erases("anna", asked)
        if number + 1 in restarts:
            driver.restart()
        # Coming back may be enough, with the song alive; with another song of the recording it is.
        back = driver.listens("anna")
        back += driver.does(commands=[structs.replace(SONG, song_id=f"again-{number}")])
        assert len(back) == 1
        ids.append(dict(back))
    assert ids == [
        {"anna": push_id("anna", "rec"), "ben": push_id("ben", "rec")},
        {"anna": push_id("anna", "rec", ASKED)},
        {"anna": push_id("anna", "rec", ASKED + 1e-6)},
    ]
    assert len({each["anna"] for each in ids}) == 3


def test_who_comes_near_a_song_later_has_the_id_of_the_generation_too() -> None:
    driver = Driver()
    driver.listens("ben")
    driver.does(commands=[SONG])
    # Unknown so far, erased and heard in one batch.
    asked = [("anna", ASKED)]
    listens = Listens(["anna"], ["w"], ONE, np.full(1, NOW))
    staged = driver.partition.stage(PartitionInputs(NOW, erasures=asked, listens=listens))
    assert [(push.user_id, push.tier, push.erased_at) for push in staged.outputs.pushes] == [("anna", Tier.LIVE, ASKED)]


def test_an_erasure_of_before_all_time_is_one() -> None:
    driver, ids = Driver(), []
    driver.listens("anna")
    ids += driver.does(commands=[SONG])
    driver.erases("anna", -62_135_596_800.0)
    driver.restart()
    ids += driver.listens("anna")
    ids += driver.does(commands=[structs.replace(SONG, song_id="again")])
    assert len({each for _, each in ids}) == len(ids) == 2


@given(st.integers(1, 253_402_300_799_999_999), st.integers(1, 5))
def test_microseconds_are_told_apart(moment: int, later: int) -> None:
    # Beyond the year 2255 a float64 holds no single microseconds.
    if moment < 2**53:
        assert push_id("u", "r", moment / 1e6) != push_id("u", "r", (moment + later) / 1e6)
    assert push_id("u", "r", moment / 1e6) == push_id("u", "r", moment / 1e6) != push_id("u", "r")
