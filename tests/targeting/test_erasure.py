from __future__ import annotations

import math

import pytest

from targeting.erasure import Erasures


def test_the_moment_is_remembered_and_the_name_is_not() -> None:
    erasures = Erasures(b"key")
    assert erasures.since(["anna", "ben"]).tolist() == [-math.inf, -math.inf]
    erasures.set(erasures.marker("anna"), 1_700_000_000.25)
    assert erasures.since(["ben", "anna"]).tolist() == [-math.inf, 1_700_000_000.25]
    assert len(erasures) == 1
    for marker, record in erasures.records():
        assert len(marker) == 16
        assert b"anna" not in marker + record


def test_a_later_erasure_takes_the_place_of_an_earlier_one() -> None:
    erasures = Erasures(b"key")
    for time in (5.0, 9.0):
        erasures.set(erasures.marker("anna"), time)
    assert erasures.since(["anna"]).tolist() == [9.0]
    assert len(erasures.records()) == 1


def test_it_comes_back_from_its_records_under_its_own_key_alone() -> None:
    erasures, again, foreign = Erasures(b"key"), Erasures(b"key"), Erasures(b"other")
    for number in range(20):
        erasures.set(erasures.marker(f"u{number}"), float(number))
    for marker, record in erasures.records():
        again.load(marker, record)
        foreign.load(marker, record)
    everybody = [f"u{number}" for number in range(20)]
    assert again.since(everybody).tolist() == [float(number) for number in range(20)]
    assert again.records() == erasures.records()
    assert set(foreign.since(everybody).tolist()) == {-math.inf}


@pytest.mark.parametrize("record", [b"", b"\x01", b"\x02" + b"x" * 8, b"\x01" + b"x" * 9])
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="erasure record"):
        Erasures(b"key").load(b"m" * 16, record)
