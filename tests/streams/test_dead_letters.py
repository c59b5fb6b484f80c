"""A dead letter is the original, and the reason."""

from __future__ import annotations

import pytest

from streams import errors
from streams.dead_letters import Origin, dead_letter
from streams.errors import BadRecord, InvalidField

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


@pytest.mark.parametrize("name", ["Undecodable", "UnknownEventType", "InvalidField", "KeyMismatch", "FromTheFuture"])
def test_bad_records_make_dead_letters_and_are_not_tried_again(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, BadRecord)
    assert error.dead_letter
    assert not error.retriable
