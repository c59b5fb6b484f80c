"""The chaos checker's judge of users who allow no profiling, by what it reads from topics alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from test_chaos import LISTEN, MARKER, NOW, PUSH, THEN, WILLING, Story, another, changed, songs

from streams.contract.events import Reason, UserPreferences
from streams.testbed.chaos import erasure_check, withdrawal_delay
from streams.testbed.chaos.evidence import Evidence, Said
from streams.testbed.chaos.promises import name_of, violations
from streams.testbed.chaos.push_check import Wishes
from streams.testbed.chaos.rules import Rules


def says(seconds: float, profiling: bool, **more: object) -> UserPreferences:
    wish: UserPreferences = changed(
        WILLING, updated_at=THEN + timedelta(seconds=seconds), profiling=profiling, **more
    )  # fmt: skip
    return wish


def pushed(*offsets: int) -> Story:
    """A push after each of these offsets, each of a song of its own."""
    uploads, reports = songs(len(offsets))
    pushes = [another(at, preferences_offset=offset) for at, offset in enumerate(offsets)]
    return Story(uploads, pushes=pushes, reports=reports)


def test_a_push_to_a_user_without_profiling_is_found_and_one_before_or_after_is_not() -> None:
    story = pushed(0, 1, 2)
    story.wishes = [says(0, False), says(1, True)]
    story.listens = [(LISTEN, NOW), (changed(LISTEN, listen_id="l2"), NOW + 2)]
    story.state = {MARKER: b"1", b"uu": b"1"}
    assert story.judged() == ["push p1 of s1 to u: the user allowed no profiling"]


@pytest.mark.parametrize(
    ("wishes", "profiled"),
    [
        ([(0, True)], True),
        ([(0, False)], False),
        ([(0, False), (1, True)], True),
        # What is outdated turns nothing back, and of two at once the objection stands.
        ([(0, False), (-1, True)], False),
        ([(0, False), (0, True)], False),
        ([(0, False), (2, True), (1, False)], True),
        ([(0, False), (2, True), (3, True), (2.5, False)], True),
        ([(0, False), (2, True), (2, False)], False),
        # Of who never objected no time is known.
        ([(5, True), (0, False)], False),
    ],
)
def test_the_latest_word_counts_wherever_it_stands(wishes: list[tuple[float, bool]], profiled: bool) -> None:
    evidence = Story(wishes=[says(*each) for each in wishes]).evidence()
    assert Wishes(evidence.preferences).profiled((0, "u"), len(wishes)) is profiled
    assert Wishes(evidence.preferences).profiled((0, "u"), 0)


def test_neither_a_deletion_nor_a_refused_record_ends_an_objection() -> None:
    said: list[Said[Any]] = [Said(0, at, "u", "", NOW, says(at, at > 0), NOW, refused=True) for at in range(2)]
    said.append(Said(0, 2, "u", "", NOW, None, NOW))
    assert not Wishes(said).profiled((0, "u"), 3)
    assert Wishes(said[1:]).words((0, "u")) == []


def test_what_was_heard_before_profiling_was_allowed_again_leads_to_no_push() -> None:
    push = changed(PUSH, preferences_offset=2, reason=Reason(why="evidence", songs=["warm"]))
    story = Story(pushes=[push], wishes=[says(0, False), says(5, True)], listens=[(LISTEN, NOW + 4)])
    assert len(story.judged()) == 2
    story.listens = [(LISTEN, NOW + 6)]
    assert story.judged() == []


def test_a_recording_may_come_again_once_profiling_is_allowed_again() -> None:
    pushes = [changed(PUSH, preferences_offset=offset, push_id=f"p{offset}") for offset in (0, 2)]
    story = Story(pushes=pushes, wishes=[says(0, False), says(5, True)], listens=[(LISTEN, NOW + 6)])
    assert story.judged() == []
    story.wishes = [WILLING, WILLING]
    assert [each for each in story.judged() if "pushed to this user before" in each]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({}, "no marker of it"),
        ({MARKER: b"1", b"uu": b"1"}, "a history"),
        ({MARKER: b"1", b"pu": b"1", b"iu": b"1"}, "pushes, a score threshold"),
    ],
)
def test_what_the_state_has_of_a_user_without_profiling_is_found(state: dict[bytes, bytes], found: str) -> None:
    story = Story(wishes=[says(0, False)], listens=[(LISTEN, NOW + 9)], state=state)
    assert story.judged() == [f"u allows no profiling: the state of partition 0 has {found}"]
    story.state = {MARKER: b"1"}
    assert story.judged() == []


def test_an_erased_user_without_profiling_is_not_expected_back() -> None:
    asked = {"erase_requested_at": THEN}

    def judged(last_allows: bool, time: float, appended: float) -> list[str]:
        wishes = [says(0, False, **asked), says(20, last_allows, **asked)]
        evidence = Story(wishes=wishes, listens=[(LISTEN, NOW + time)], state={MARKER: b"1"}).evidence()
        evidence.listens[0] = replace(evidence.listens[0], appended=appended)
        return violations(erasure_check.judge(evidence, Rules(latest_s=10.0)))

    assert judged(False, 22, 30) == judged(True, 19, 30) == []
    # It may have been read before the objection.
    assert judged(True, 22, 9) == []
    assert judged(True, 22, 11) == ["returned: u listened after the erasure: the state of partition 0 has no history"]


def objection(appended: float, profiling: bool) -> Said[Any]:
    return Said(0, int(appended), "u", "", appended, says(appended, profiling), appended)


def test_pushes_and_records_after_an_objection_are_found_by_the_brokers_clock() -> None:
    wishes = [objection(100, False), objection(200, True)]
    pushes: list[Said[Any]] = [Said(0, at, "u", "", at, None, at) for at in (99, 112, 201)]
    written = [(0, b"uu", float(at)) for at in (99, 109, 111, 201)]
    evidence = Evidence(preferences=wishes, pushes=pushes, written=written)
    found = violations(withdrawal_delay.judge(evidence, Rules(latest_s=10.0)))
    assert [name_of(each) for each in found] == ["opt-out-late", "profiled-state"]
    assert found[0] == "opt-out-late: u: pushed 12.0 s after the objection, 10 s allowed"
