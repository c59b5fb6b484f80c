"""Which model is live and which warm songs it retrieves, as the topics tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import PATIENCE_S, Installation

from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.internal_events import LiveModel, WarmSong
from streams.contract.topics import MODELS, WARM_SONGS
from streams.models.registry import ENCODER, LiveView, WarmSpace
from streams.runtime.clock import SystemClock

CLOCK = SystemClock()


def unit(*values: float) -> vector_codec.F32:
    return np.array(values, np.float32)


def song(space: str, song_id: str, vector: vector_codec.F32) -> Record:
    event = WarmSong(song_id=song_id, space=space, vector=vector_codec.pack(space, vector))
    return pack(event, id=song_id, source="test", time=0)


def model(space: str, warm_songs: int, name: str = ENCODER) -> Record:
    event = LiveModel(
        name=name, uri="file:///m", manifest_sha256="5e", space=space, dim=2, warm_songs=warm_songs,
        published_at=datetime(2026, 3, 1, tzinfo=UTC),
    )  # fmt: skip
    return pack(event, id=name, source="test", time=0)


def deleted(record: Record) -> Record:
    return Record(record.key, None, [])  # type: ignore[arg-type]


@pytest.fixture
def view(here: Installation) -> Iterator[LiveView]:
    with closing(LiveView(here.kafka, here.naming, CLOCK)) as view:
        yield view


def follow(view: LiveView, done: Callable[[], bool]) -> None:
    deadline = CLOCK.monotonic() + PATIENCE_S
    while not done():
        assert CLOCK.monotonic() < deadline
        view.poll(0.2)


def warm(view: LiveView) -> dict[str, list[float]] | None:
    space = view.warm()
    return None if space is None else dict(zip(space.ids, space.vectors.tolist(), strict=True))


def test_a_model_is_live_with_all_songs_published_before_it(here: Installation, view: LiveView) -> None:
    assert (view.model, view.warm(), view.version) == (None, None, 0)
    # More than one poll takes, over both partitions, so that the model can be seen before the last of them.
    here.send_all(WARM_SONGS, [song("x", f"s{number}", unit(number, 1)) for number in range(3000)])
    here.send(MODELS, model("x", 3000))
    follow(view, lambda: view.warm() is not None)
    found = warm(view)
    assert found is not None
    assert len(found) == 3000
    before = view.version
    assert not view.poll()
    assert view.version == before


def test_songs_that_went_or_came_since_do_not_hold_a_model_back(here: Installation) -> None:
    here.send_all(WARM_SONGS, [song("x", "a", unit(1, 0)), song("x", "b", unit(0, 1))])
    here.send(MODELS, model("x", 2))
    here.send(WARM_SONGS, deleted(song("x", "a", unit(1, 0))))
    with closing(LiveView(here.kafka, here.naming, CLOCK)) as later:
        follow(later, lambda: later.warm() is not None)
        assert warm(later) == {"b": [0, 1]}
        here.send(WARM_SONGS, song("x", "promoted", unit(1, 0)))
        follow(later, lambda: later.spaces_of("promoted") == ["x"])
        assert warm(later) == {"b": [0, 1], "promoted": [1, 0]}


def test_a_swap_changes_the_space_as_a_whole_and_back(here: Installation, view: LiveView) -> None:
    here.send_all(
        WARM_SONGS, [song("old", "a", unit(1, 0)), song("new", "a", unit(0, 1)), song("new", "b", unit(0, 1))]
    )
    for space, expected in (("old", {"a": [1, 0]}), ("new", {"a": [0, 1], "b": [0, 1]}), ("old", {"a": [1, 0]})):
        here.send(MODELS, model(space, len(expected)))
        follow(view, lambda s=space: view.model is not None and view.model.space == s)  # type: ignore[misc]
        follow(view, lambda: view.warm() is not None)
        assert warm(view) == expected


def test_of_former_models_only_the_ids_are_kept_and_they_come_back_whole(here: Installation, view: LiveView) -> None:
    here.send_all(
        WARM_SONGS, [song("old", "a", unit(1, 0)), song("old", "b", unit(1, 0)), song("old", "c", unit(1, 0))]
    )
    here.send(MODELS, model("old", 3))
    follow(view, lambda: view.warm() is not None)
    here.send_all(WARM_SONGS, [song("new", "a", unit(0, 1)), song("next", "a", unit(0, 1))])
    here.send(MODELS, model("new", 1))
    follow(view, lambda: view.model is not None and view.model.space == "new" and view.warm() is not None)
    assert {name for name, _ in view._spaces} <= {"new", "next"}
    assert view.spaces_of("b") == ["old"]
    # Meanwhile songs go, come and move in the former space, and in the one in use.
    here.send_all(WARM_SONGS, [deleted(song("old", "b", unit(1, 0))), song("old", "d", unit(0, 1))])
    here.send_all(WARM_SONGS, [song("old", "c", unit(0, 1)), song("new", "d", unit(0, 1))])
    follow(view, lambda: view.spaces_of("d") == ["old", "new"])
    assert view.spaces_of("b") == []
    assert sum(space.vectors.size for (name, _), space in view._spaces.items() if name == "old") == 0
    for space, expected in (("old", {"a": [1, 0], "c": [0, 1], "d": [0, 1]}), ("new", {"a": [0, 1], "d": [0, 1]})):
        here.send(MODELS, model(space, len(expected)))
        follow(view, lambda s=space: view.model is not None and view.model.space == s)  # type: ignore[misc]
        follow(view, lambda: view.warm() is not None)
        assert warm(view) == expected
        assert sorted(view.spaces_of("a")) == ["new", "next", "old"]


def test_who_starts_later_sees_the_same(here: Installation) -> None:
    here.send_all(
        WARM_SONGS,
        [
            song("x", "a", unit(1, 0)),
            song("x", "b", unit(1, 0)),
            song("x", "a", unit(0, 1)),
            song("x", "c", unit(1, 0)),
        ],
    )
    here.send(WARM_SONGS, deleted(song("x", "b", unit(1, 0))))
    here.send_all(MODELS, [model("x", 2), model("y", 9, name="another")])
    with closing(LiveView(here.kafka, here.naming, CLOCK)) as later:
        assert later.model is not None
        assert later.model.space == "x"
        assert warm(later) == {"a": [0, 1], "c": [1, 0]}
        here.send(MODELS, deleted(model("x", 2)))
        follow(later, lambda: later.model is None)
        assert later.warm() is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_a_space_holds_what_was_put_and_not_dropped(steps: list[tuple[bool, int]]) -> None:
    space, expected = WarmSpace(), {}
    for number, (put, song_number) in enumerate(steps):
        if put:
            space.put(str(song_number), unit(number, song_number))
            expected[str(song_number)] = [number, song_number]
        else:
            space.drop(str(song_number))
            expected.pop(str(song_number), None)
        assert dict(zip(space.ids, space.vectors.tolist(), strict=True)) == expected


def test_a_space_tells_what_changed_and_only_that() -> None:
    space = WarmSpace()
    for song_id in "abc":
        space.put(song_id, unit(1, 0))
    assert space.changes() == {"a", "b", "c"}
    space.put("a", unit(1, 0))
    space.put("b", unit(0, 1))
    space.drop("c")
    space.drop("never")
    assert space.changes() == {"b", "c"}
    assert space.changes() == set()
    assert space.vector("b").tolist() == [0, 1]
    assert "c" not in space


def test_a_space_grows_with_its_songs() -> None:
    space = WarmSpace()
    for number in range(3000):
        space.put(f"s{number}", unit(number, -number))
    assert space.vectors.shape == (3000, 2)
    assert space.vectors.dtype == np.float32
    assert space.vectors[:, 0].tolist() == list(range(3000))
    assert space.ids[1024] == "s1024"
