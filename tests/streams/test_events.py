"""Events: each example holds, and each rule that spans fields refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.contract import vector_codec
from streams.contract.errors import InvalidField
from streams.contract.event_base import Event, Language
from streams.contract.events import PUBLIC_EVENTS, DenseFeature, SongUpload
from streams.contract.internal_events import INTERNAL_EVENTS, MatchRequest, WarmSong
from streams.contract.topics import TOPICS

UPLOADED, UPDATED, TAKEN_DOWN = SongUpload.TYPES


NOW = 1_800_000_000.0


def upload(**more: Any) -> SongUpload:
    return SongUpload(**{"song_id": "s", "revision": 1, "title": "t"} | more)


@pytest.mark.parametrize("cls", [*PUBLIC_EVENTS, *INTERNAL_EVENTS], ids=lambda cls: cls.__name__)
def test_example_decodes_passes_its_rules_and_comes_back(cls: type[Event]) -> None:
    event = msgspec.json.decode(cls.EXAMPLE, type=cls)
    event.check(cls.TYPES[0], NOW)
    assert msgspec.json.decode(msgspec.json.encode(event), type=cls) == event


@pytest.mark.parametrize("cls", [*PUBLIC_EVENTS, *INTERNAL_EVENTS], ids=lambda cls: cls.__name__)
def test_key_is_made_of_the_fields_it_names(cls: type[Event]) -> None:
    event = msgspec.json.decode(cls.EXAMPLE, type=cls)
    fields = cls.KEY.split(", ")
    assert event.record_key() == " ".join(str(getattr(event, name)) for name in fields)
    assert cls.TOPIC in TOPICS
    # The table says the same, in its words.
    assert sorted(cls.TOPIC.key.split(" and ")) == sorted(fields)


def test_types_are_unique_named_alike_and_versioned() -> None:
    types = [name for cls in (*PUBLIC_EVENTS, *INTERNAL_EVENTS) for name in cls.TYPES]
    assert len(set(types)) == len(types)
    assert all(name.startswith("coldstart.") and name.endswith(".v1") for name in types)


def test_examples_hold_real_vectors() -> None:
    for cls in (MatchRequest, WarmSong):
        space, vector = vector_codec.unpack(msgspec.json.decode(cls.EXAMPLE, type=cls).vector)
        assert space == "bcl"
        assert vector.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("ce_type", [UPLOADED, UPDATED])
def test_an_upload_without_content_is_refused(ce_type: str) -> None:
    with pytest.raises(InvalidField, match="features, tags, genres, artist_ids"):
        upload(duration_ms=1000, album_id="a").check(ce_type, NOW)


@pytest.mark.parametrize(
    "content", [{"tags": {"a": 1.0}}, {"genres": ["a"]}, {"artist_ids": ["a"]}], ids=lambda content: next(iter(content))
)
def test_one_kind_of_content_is_enough(content: dict[str, Any]) -> None:
    upload(**content).check(UPLOADED, NOW)


def test_a_takedown_needs_no_content() -> None:
    upload().check(TAKEN_DOWN, NOW)
    assert SongUpload.taken_down(TAKEN_DOWN)
    assert not SongUpload.taken_down(UPDATED)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1.1e18])
def test_numbers_that_the_encoder_cannot_take_are_refused_by_name(number: float) -> None:
    with pytest.raises(InvalidField, match=r'features\["audio"\]\.vector'):
        upload(features={"audio": DenseFeature("m", [0.0, -number])}).check(UPLOADED, NOW)
    with pytest.raises(InvalidField, match=r'tags\["pop"\]'):
        upload(tags={"pop": number}).check(UPLOADED, NOW)


@pytest.mark.parametrize(
    ("language", "taken"),
    [
        ("en", True), ("pt-BR", True), ("zh-Hant-TW", True), ("de-CH-1996", True), ("sl-rozaj-biske-1994", True),
        ("en-u-ca-gregory", True), ("x-mine", True), ("X-Mine-2", True), ("i-klingon", True), ("en-x-b", True),
        ("es-419", True), ("x", False), ("i", False), ("e", False), ("en-", False), ("pt_BR", False),
        ("en-toolongsubtag", False), ("", False),
    ],
)  # fmt: skip
def test_a_language_is_any_tag_of_bcp_47(language: str, taken: bool) -> None:
    if taken:
        assert msgspec.convert(language, Language) == language
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(language, Language)
