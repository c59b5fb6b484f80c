"""A dead letter is the original, and the reason."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.contract import errors
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadRecord, InvalidField
from streams.contract.record_size import beginning, full_size, record_size
from streams.contract.topics import DEAD_LETTERS

BYTES = b"\x00\xff{not json"


def test_original_bytes_and_headers_come_first_and_untouched() -> None:
    headers = [("ce_id", b"7"), ("x", None), ("ce_id", b"again")]
    letter = dead_letter(Origin("mine.listens", 3, 41, 1_700_000_000_123, b"\xfe", BYTES, headers), "s", InvalidField())
    assert (letter.key, letter.value) == (b"\xfe", BYTES)
    assert letter.headers[:3] == headers


def test_the_reason_names_place_stage_class_and_message() -> None:
    origin = Origin("mine.listens", 3, 41, 1_700_000_000_123, b"k", BYTES, [])
    letter = dead_letter(origin, "audience.listens", InvalidField("plays: schön"))
    assert dict(letter.headers) == {
        "dl_topic": b"mine.listens",
        "dl_partition": b"3",
        "dl_offset": b"41",
        "dl_timestamp": b"1700000000123",
        "dl_stage": b"audience.listens",
        "dl_error": b"InvalidField",
        "dl_message": "plays: schön".encode(),
    }


def test_a_record_without_key_and_value_can_be_buried() -> None:
    letter = dead_letter(Origin("t", 0, 0, 0, None, None, []), "s", InvalidField("value: empty"))
    assert (letter.key, letter.value) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "Undecodable", "TooLarge", "UnknownEventType", "UnknownMediaType", "InvalidField", "KeyMismatch",
        "WrongPartition", "OutdatedRevision", "FromTheFuture",
    ],
)  # fmt: skip
def test_bad_records_make_dead_letters_and_are_not_tried_again(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, BadRecord)
    assert error.dead_letter
    assert not error.retriable


# Pieces that are repeated until they reach a size, from nothing to beyond the topic's limit.
SIZES = st.one_of(st.integers(0, 300), st.integers(0, 6_000_000))
PARTS = st.builds(
    lambda piece, size: (piece * (size // len(piece) + 1))[:size], st.binary(min_size=1, max_size=5), SIZES
)
NAMES = st.one_of(st.text(max_size=5), st.builds(lambda size: "é" * size, st.integers(0, 1_500_000)))


@given(st.none() | PARTS, st.none() | PARTS, st.lists(st.tuples(NAMES, st.none() | PARTS), max_size=3), st.text())
def test_the_letter_of_any_record_fits_its_topic_and_changes_no_byte_of_one_that_fits(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], message: str
) -> None:
    letter = dead_letter(Origin("t", 1, 2, 3, key, value, headers), "s", InvalidField(message))
    assert record_size(letter.key, letter.value, letter.headers) <= DEAD_LETTERS.largest
    said = dict(letter.headers)
    assert (said["dl_topic"], said["dl_partition"], said["dl_offset"]) == (b"t", b"1", b"2")
    if record_size(key, value, headers) <= DEAD_LETTERS.largest - 16_384:
        assert (letter.key, letter.value, letter.headers[: len(headers)]) == (key, value, headers)
        assert "dl_value_size" not in said
    if "dl_value_size" in said:
        assert (said["dl_key_size"], said["dl_value_size"]) == (b"%d" % len(key or b""), b"%d" % len(value or b""))
        assert said["dl_value_sha256"] == sha256(value or b"").hexdigest().encode()
        assert (key or b"").startswith(letter.key or b"")
        assert (value or b"").startswith(letter.value or b"")
        assert said["dl_headers"] == b"%d" % len(headers)


def test_the_letter_of_a_huge_value_is_full_of_its_first_bytes() -> None:
    value = bytes(range(256)) * 20_000
    letter = dead_letter(Origin("t", 1, 2, 3, b"k", value, [("ce_id", b"7")]), "s", InvalidField("x"))
    assert record_size(letter.key, letter.value, letter.headers) == DEAD_LETTERS.largest
    assert letter.value == value[: len(letter.value or b"")]
    assert letter.headers[0] == ("ce_id", b"7")


@pytest.mark.parametrize("parts", [(b"k" * 9_000_000, b"v"), (b"k", b"v" * 9_000_000)])
def test_a_huge_key_takes_no_room_from_the_value_and_a_huge_value_none_from_the_key(parts: tuple[bytes, bytes]) -> None:
    letter = dead_letter(Origin("t", 1, 2, 3, *parts, []), "s", InvalidField("x"))
    assert {letter.key, letter.value} & set(parts)


@pytest.mark.parametrize("size", [10, DEAD_LETTERS.largest, DEAD_LETTERS.largest + 1, 9_000_000])
def test_what_is_kept_of_a_huge_record_makes_the_letter_that_the_whole_would(size: int) -> None:
    value = (bytes(range(256)) * (size // 256 + 1))[:size]
    kept = beginning(value)
    assert len(kept) <= DEAD_LETTERS.largest
    assert full_size(kept) == size
    whole = dead_letter(Origin("t", 1, 2, 3, b"k", value, [("ce_id", b"7")]), "s", InvalidField("x"))
    assert dead_letter(Origin("t", 1, 2, 3, b"k", kept, [("ce_id", b"7")]), "s", InvalidField("x")) == whole
