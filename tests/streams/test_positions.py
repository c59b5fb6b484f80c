"""A position is nothing without its topic: from where a partition reads on, and when it refuses to."""

from __future__ import annotations

import msgspec
import pytest

from streams.audience.positions import (
    ADOPTED_PREFIX,
    OFFSETS_KEY,
    TOPIC_OF,
    Positions,
    Recorded,
    offsets_value,
    reconcile,
    within,
)
from streams.contract.errors import RecreatedTopic, Refused

IDS = {name: f"id-{name}" for name in TOPIC_OF}
ENDS = dict.fromkeys(TOPIC_OF, 100)
SOME, ALL = Positions(3, 4, 5), Positions(3, 4, 5, 6, 7)


def recorded(positions: Positions, ids: dict[str, str] | None = None, **adopted: str) -> Recorded:
    return Recorded(positions, dict(IDS) if ids is None else ids, adopted)


def go_on(committed: Positions, known: Recorded, **now: str) -> Positions:
    return reconcile(6, committed, known, IDS | now, ENDS)


@pytest.mark.parametrize("positions", [Positions(), SOME, Positions(preferences=0)], ids=["none", "all", "one"])
def test_positions_and_topic_ids_come_back_as_they_were_written(positions: Positions) -> None:
    found = Recorded()
    assert found.take(OFFSETS_KEY, offsets_value(positions, IDS))
    assert found == Recorded(positions, IDS)


def test_a_record_of_the_former_format_has_offsets_and_no_ids() -> None:
    found = Recorded()
    assert found.take(OFFSETS_KEY, msgspec.json.encode({"listens": 3, "commands": 4}))
    assert found == Recorded(Positions(3, 4), {})
    assert go_on(Positions(3, 4), found) == Positions(3, 4)


@pytest.mark.parametrize("stored", [Positions(), SOME])
def test_lost_offsets_of_the_group_are_taken_from_the_state(stored: Positions) -> None:
    assert go_on(Positions(), recorded(stored)) == stored
    assert go_on(Positions(), recorded(stored, {})) == stored


def test_one_lost_offset_of_the_group_is_taken_from_the_state() -> None:
    assert go_on(Positions(preferences=5), recorded(SOME)) == SOME


def test_equal_histories_go_on() -> None:
    assert go_on(SOME, recorded(SOME)) == SOME


@pytest.mark.parametrize(
    ("committed", "stored"),
    [(SOME, Positions(3, 4, 6)), (SOME, Positions(3, 4)), (SOME, Positions())],
)
def test_different_histories_are_refused_with_both(committed: Positions, stored: Positions) -> None:
    with pytest.raises(Refused, match="topics adopt audience-state") as caught:
        go_on(committed, recorded(stored))
    assert "partition 6" in str(caught.value)
    assert str(committed.known()) in str(caught.value)
    assert str(stored.known()) in str(caught.value)


@pytest.mark.parametrize("name", TOPIC_OF)
@pytest.mark.parametrize("group", ["whole", "without", "lost"])
def test_an_input_that_was_created_anew_is_refused_by_name_until_it_is_adopted(name: str, group: str) -> None:
    known = recorded(ALL)
    committed = {"whole": ALL.known(), "without": {n: at for n, at in ALL.known().items() if n != name}, "lost": {}}
    theirs = Positions(**committed[group])
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


@pytest.mark.parametrize("committed", [Positions(commands=4), Positions(300, 4)], ids=["offset gone", "behind the end"])
def test_without_ids_a_recreated_topic_shows_by_what_the_group_lost_or_by_its_end(committed: Positions) -> None:
    known = recorded(Positions(300, 4), {})
    with pytest.raises(RecreatedTopic, match="adopt listens"):
        go_on(committed, known)
    known.adopted["listens"] = IDS["listens"]
    assert go_on(committed, known) == Positions(commands=4)


def test_positions_outside_their_logs_go_to_the_nearest_record_and_say_what_is_lost() -> None:
    ranges = {"listens": (10, 20), "commands": (0, 4), "preferences": (9, 9), "vectors": (0, 5), "outcomes": (7, 90)}
    at, gaps = within(Positions(3, 6, 5, 6, 7), ranges, ("preferences", "vectors"))
    assert at == Positions(10, 4, 5, 5, 7)
    assert {gap.input: gap.lost for gap in gaps} == {"listens": 7, "commands": 2, "vectors": 1}
    assert within(Positions(), ranges, ())[1] == []
