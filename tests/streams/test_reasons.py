"""A reason names the field down to the entry, what was found, and what is allowed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.contract.event_base import Event
from streams.contract.events import Listen, SongUpload, UserPreferences
from streams.contract.internal_events import WarmSong
from streams.contract.reasons import reason

TIME = "expected RFC 3339 time with an offset, such as 2026-03-01T10:00:00Z"


def told(cls: type[Event], **changes: Any) -> str:
    value = json.dumps(json.loads(cls.EXAMPLE) | changes).encode()
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(value, type=cls)
    return reason(caught.value, cls, value)


@pytest.mark.parametrize(
    ("cls", "changes", "expected"),
    [
        (SongUpload, {"tags": {"rock": 1, "dream pop": -3, "x": -9}}, 'tags["dream pop"]: -3, expected number > 0.0'),
        (SongUpload, {"tags": {"a": 1, "": 1}}, 'tags: key "", expected string of length >= 1'),
        (SongUpload, {"tags": {"a": None}}, 'tags["a"]: null, expected number'),
        (SongUpload, {"tags": [1]}, "tags: [1], expected object"),
        (SongUpload, {"features": {"a": {"space": "x", "vector": [1]}, "b": {"space": "x", "vector": [1, "2"]}}},
         'features["b"].vector[1]: "2", expected number'),
        (SongUpload, {"features": {"b": {"space": "x"}}}, 'features["b"].vector: missing'),
        (SongUpload, {"artist_ids": ["a", ""]}, 'artist_ids[1]: "", expected string of length >= 1'),
        (SongUpload, {"revision": 1.0}, "revision: 1.0, expected integer"),
        (SongUpload, {"budget": "9"}, 'budget: "9", expected integer or null'),
        (SongUpload, {"expires_at": "2026-03-01T10:00:00"}, f'expires_at: "2026-03-01T10:00:00", {TIME}'),
        (SongUpload, {"expires_at": 5}, f"expires_at: 5, {TIME}"),
        (SongUpload, {"title": "x" * 2000}, 'title: "' + "x" * 79 + "…, expected string of length <= 1024"),
        (Listen, {"source": "radio"}, 'source: "radio", expected one of organic, other, playlist, push, search'),
        (UserPreferences, {"quiet_hours": [{"from": "25:00", "to": "08:00"}]},
         'quiet_hours[0].from: "25:00", expected string matching regex \'^([01][0-9]|2[0-3]):[0-5][0-9]$\''),
        (UserPreferences, {"cap": {"pushes": -1, "hours": 1}}, "cap.pushes: -1, expected integer >= 0"),
    ],
)  # fmt: skip
def test_the_entry_its_value_and_what_is_allowed(cls: type[Event], changes: dict[str, Any], expected: str) -> None:
    assert told(cls, **changes) == expected


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.floats(0.1, 9), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.integers(0, 40),
)
def test_among_any_number_of_tags_the_first_bad_one_is_named(tags: dict[str, float], bad: str, at: int) -> None:
    entries = [(name, weight) for name, weight in tags.items() if name != bad]
    mixed = dict([*entries[:at], (bad, -1), *entries[at:], (bad + "~~~~~~~~~", 0)])
    name = msgspec.json.encode(bad).decode()
    assert told(SongUpload, tags=mixed) == f"tags[{name}]: -1, expected number > 0.0"


def test_of_messagepack_the_field_is_named_too() -> None:
    value = msgspec.msgpack.encode({"song_id": "s", "space": "", "vector": b""})
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.msgpack.decode(value, type=WarmSong)
    assert reason(caught.value, WarmSong, value, packed=True) == 'space: "", expected string of length >= 1'


@given(st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*SongUpload.__struct_fields__, "space", "vector", "x"]), inner, max_size=6),
    max_leaves=30,
))  # fmt: skip
def test_of_any_json_there_is_a_reason_in_one_short_line(value: Any) -> None:
    encoded = msgspec.json.encode(value)
    try:
        msgspec.json.decode(encoded, type=SongUpload)
    except msgspec.ValidationError as error:
        text = reason(error, SongUpload, encoded)
        assert "[...]" not in text
        assert "`" not in text
        assert len(text) < 400
