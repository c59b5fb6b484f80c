"""A position is nothing without its topic: from where a partition reads on, and when it refuses to."""

from __future__ import annotations

import msgspec
import pytest

from streams.audience.positions import (
    ADOPTED_PREFIX,
    OFFSETS_KEY,
    TOPIC_OF,
    InputOffsets,
    RecordedOffsets,
    offsets_value,
    reconcile,
    within,
)
from streams.contract.errors import RecreatedTopic, Refused

IDS = {name: f"id-{name}" for name in TOPIC_OF}
ENDS = dict.fromkeys(TOPIC_OF, 100)
SOME, ALL = InputOffsets(3, 4, 5), InputOffsets(3, 4, 5, 6, 7)


def recorded(positions: InputOffsets, ids: dict[str, str] | None = None, **adopted: str) -> RecordedOffsets:
    return RecordedOffsets(positions, dict(IDS) if ids is None else ids, adopted)


def go_on(committed: InputOffsets, known: RecordedOffsets, **now: str) -> InputOffsets:
    return reconcile(6, committed, known, IDS | now, ENDS)


@pytest.mark.parametrize("positions", [InputOffsets(), SOME, InputOffsets(preferences=0)], ids=["none", "all", "one"])
def test_positions_and_topic_ids_come_back_as_they_were_written(positions: InputOffsets) -> None:
    found = RecordedOffsets()
    assert found.take(OFFSETS_KEY, offsets_value(positions, IDS))
    assert found == RecordedOffsets(positions, IDS)


def test_a_record_of_the_former_format_has_offsets_and_no_ids() -> None:
    found = RecordedOffsets()
    assert found.take(OFFSETS_KEY, msgspec.json.encode({"listens": 3, "commands": 4}))
    assert found == RecordedOffsets(InputOffsets(3, 4), {})
    assert go_on(InputOffsets(3, 4), found) == InputOffsets(3, 4)


@pytest.mark.parametrize("stored", [InputOffsets(), SOME])
def test_lost_offsets_of_the_group_are_taken_from_the_state(stored: InputOffsets) -> None:
    assert go_on(InputOffsets(), recorded(stored)) == stored
    assert go_on(InputOffsets(), recorded(stored, {})) == stored


def test_one_lost_offset_of_the_group_is_taken_from_the_state() -> None:
    assert go_on(InputOffsets(preferences=5), recorded(SOME)) == SOME


def test_equal_histories_go_on() -> None:
    assert go_on(SOME, recorded(SOME)) == SOME


@pytest.mark.parametrize(
    ("committed", "stored"),
    [(SOME, InputOffsets(3, 4, 6)), (SOME, InputOffsets(3, 4)), (SOME, InputOffsets())],
)
def test_different_histories_are_refused_with_both(committed: InputOffsets, stored: InputOffsets) -> None:
    with pytest.raises(Refused, match="offsets reset audience --to-state") as caught:
        go_on(committed, recorded(stored))
    assert "partition 6" in str(caught.value)
    assert str(committed.known()) in str(caught.value)
    assert str(stored.known()) in str(caught.value)


@pytest.mark.parametrize("name", TOPIC_OF)
@pytest.mark.parametrize("group", ["whole", "without", "lost"])
def test_an_input_that_was_created_anew_is_refused_by_name_until_it_is_adopted(name: str, group: str) -> None:
    known = recorded(ALL)
    committed = {"whole": ALL.known(), "without": {n: at for n, at in ALL.known().items() if n != name}, "lost": {}}
    theirs = InputOffsets(**committed[group])
    with pytest.raises(RecreatedTopic, match=f"topics adopt {TOPIC_OF[name].name}`") as caught:
        go_on(theirs, known, **{name: "new"})
    for part in (f"id-{name}", "new", f"position {getattr(ALL, name)} "):
        assert part in str(caught.value)

    # The word for one new topic is none for the next.
    known.adopted[name] = "other"
    with pytest.raises(RecreatedTopic):
        go_on(theirs, known, **{name: "new"})
    assert known.take(ADOPTED_PREFIX + name.encode(), b"new")
    at = go_on(theirs, known, **{name: "new"})
    assert at.known() == {n: offset for n, offset in ALL.known().items() if n != name}


@pytest.mark.parametrize(
    "committed", [InputOffsets(commands=4), InputOffsets(300, 4)], ids=["offset gone", "behind the end"]
)
def test_without_ids_a_recreated_topic_shows_by_what_the_group_lost_or_by_its_end(committed: InputOffsets) -> None:
    known = recorded(InputOffsets(300, 4), {})
    with pytest.raises(RecreatedTopic, match="adopt listens"):
        go_on(committed, known)
    known.adopted["listens"] = IDS["listens"]
    assert go_on(committed, known) == InputOffsets(commands=4)


def test_positions_outside_their_logs_go_to_the_nearest_record_and_say_what_is_lost() -> None:
    ranges = {"listens": (10, 20), "commands": (0, 4), "preferences": (9, 9), "vectors": (0, 5), "outcomes": (7, 90)}
    at, gaps = within(InputOffsets(3, 6, 5, 6, 7), ranges, ("preferences", "vectors"))
    assert at == InputOffsets(10, 4, 5, 5, 7)
    assert {gap.input: gap.lost for gap in gaps} == {"listens": 7, "commands": 2, "vectors": 1}
    assert within(InputOffsets(), ranges, ())[1] == []
