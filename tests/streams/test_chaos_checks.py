"""The checker's judges of dead letters, and of how late a withdrawal was obeyed by the broker's clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import Undecodable
from streams.contract.events import UserPreferences
from streams.contract.topics import LISTENS, Naming
from streams.testbed.chaos import dead_letter_check, unexpected_stops, withdrawal_delay
from streams.testbed.chaos.evidence import Evidence, Said, TopicRecord
from streams.testbed.chaos.promises import PROMISES, broken, name_of, violations
from streams.testbed.chaos.rules import Rules
from streams.testbed.chaos.withdrawal_delay import percentile, withdrawals

NAMING = Naming("test.", 2, 2)
RULES = Rules(latest_s=10.0)
PLACE = NAMING.name(LISTENS), 0, 7
BAD = TopicRecord(b"k", b"{", [("ce_id", b"1"), ("torture_expects", b"buried")])


def letter(found: TopicRecord) -> TopicRecord:
    """The dead letter that the roles write."""
    origin = Origin(*PLACE, 0, found.key, found.value, found.headers or [])
    made = dead_letter(origin, "audience.listens", Undecodable("x"))
    return TopicRecord(made.key, made.value, made.headers)


def buried(bad: TopicRecord, *letters: TopicRecord) -> list[str]:
    evidence = Evidence(dead={PLACE: list(letters)}, bad={PLACE: bad}, expected={PLACE: "buried"})
    return [name_of(each) for each in violations(dead_letter_check.judge(evidence, NAMING))]


def test_a_dead_letter_with_every_byte_is_right() -> None:
    assert buried(BAD, letter(BAD)) == []


def test_a_dead_letter_of_a_record_too_large_for_it_is_right_by_size_and_sum() -> None:
    large = replace(BAD, value=bytes(5_000_000))
    assert buried(large, letter(large)) == []
    assert buried(large, letter(replace(large, value=b"1" + bytes(4_999_999)))) == ["dead-letter-wrong"] * 2
    assert dict(letter(large).headers or ())["dl_value_sha256"] == sha256(bytes(5_000_000)).hexdigest().encode()


@pytest.mark.parametrize("part", [{"key": b"other"}, {"value": None}, {"headers": [("ce_id", b"2")]}])
def test_a_dead_letter_with_other_bytes_is_found(part: dict[str, Any]) -> None:
    assert buried(BAD, letter(replace(BAD, **part))) == ["dead-letter-wrong"]


def test_two_dead_letters_of_one_record_are_found() -> None:
    assert buried(BAD, letter(BAD), letter(BAD)) == ["dead-letter-twice"]


@pytest.mark.parametrize(
    ("evidence", "name"),
    [
        (Evidence(expected={PLACE: "buried"}), "refused-unburied"),
        (Evidence(expected={PLACE: "kept"}, dead={PLACE: [letter(BAD)]}, bad={PLACE: BAD}), "good-buried"),
        (Evidence(dead={PLACE: [letter(BAD)]}), "dead-letter-wrong"),
    ],
)
def test_a_record_that_became_something_else_than_it_should_is_found(evidence: Evidence, name: str) -> None:
    assert [name_of(each) for each in violations(dead_letter_check.judge(evidence, NAMING))] == [name]


def said(event: UserPreferences | None, appended: float, offset: int = 0) -> Said[Any]:
    return Said(0, offset, "u", "", appended, event, appended)


def wish(opted_in: bool, appended: float, erase: float | None = None) -> Said[Any]:
    asked = datetime.fromtimestamp(erase, UTC) if erase is not None else None
    at = datetime.fromtimestamp(appended, UTC)
    event = UserPreferences(user_id="u", opted_in=opted_in, updated_at=at, erase_requested_at=asked)
    return said(event, appended, int(appended))


def story(wishes: list[Said[Any]], pushed: list[float], heard: list[float] | None = None) -> Evidence:
    return Evidence(
        preferences=wishes, pushes=[said(None, at) for at in pushed], listens=[said(None, at) for at in heard or []]
    )


def test_an_opt_out_is_late_by_the_last_push_until_the_user_opts_in_again() -> None:
    (found,) = withdrawals(story([wish(False, 100), wish(False, 105), wish(True, 110)], [99, 100, 103, 120]))
    assert (found.what, found.at, found.until, found.late) == ("opt-out", 100, 110, 3)


def test_an_erasure_is_late_until_the_user_comes_back() -> None:
    erased = [wish(True, 100, erase=99)]
    assert [each.late for each in withdrawals(story(erased, [101, 130]))] == [30]
    assert [each.late for each in withdrawals(story(erased, [101, 130], heard=[98, 120]))] == [1]


def test_a_withdrawal_beyond_the_bound_is_found_and_one_within_is_not() -> None:
    assert list(withdrawal_delay.judge(story([wish(False, 100)], [110]), RULES)) == [("opt-out-late", None)]
    (found,) = violations(withdrawal_delay.judge(story([wish(False, 100)], [110.5]), RULES))
    assert found == "opt-out-late: u: pushed 10.5 s after the opt-out, 10 s allowed"


def test_many_slow_withdrawals_are_found_though_none_is_beyond_the_hard_bound() -> None:
    wishes = [each for n in range(0, 1000, 10) for each in (wish(False, n), wish(True, n + 5))]
    (found,) = violations(withdrawal_delay.judge(story(wishes, [2, 12]), RULES))
    assert found == "opt-out-late: p99 of 100 withdrawals is 2.00 s, 1 s allowed"
    assert violations(withdrawal_delay.judge(story(wishes, [2]), RULES)) == []


def test_what_is_written_of_an_erased_user_after_the_erasure_is_found() -> None:
    evidence = story([wish(True, 100, erase=99)], [])
    evidence.written.extend([(0, b"uu", 109.0), (0, b"uu", 111.0), (1, b"uu", 111.0), (0, b"uv", 111.0)])
    assert [name_of(each) for each in violations(withdrawal_delay.judge(evidence, RULES))] == ["erased-written"]


def test_an_end_by_itself_is_found_unless_what_the_role_needs_was_missing() -> None:
    def stopped(how: str, at: float = 100.0) -> list[str]:
        return violations(unexpected_stops.judge([(at, "songs", how)], [90.0], running=2))

    assert stopped("was killed by SIGKILL") == stopped("ended with code 75: no broker answers") == []
    assert stopped("ended with code 75: {}", at=151.0) == ["stopped: songs ended with code 75: {}"]
    # An exception that nobody expected is none of the broker's doing.
    assert stopped("ended with code 1: KeyError: 'x'") == ["stopped: songs ended with code 1: KeyError: 'x'"]


def test_the_percentile_is_a_value_that_so_many_stay_within() -> None:
    assert percentile([], 0.99) == 0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert percentile(list(map(float, range(1, 101))), 0.99) == 99


def test_every_promise_is_judged_somewhere_under_its_name() -> None:
    sources = [
        path.read_text() for path in Path(withdrawal_delay.__file__).parent.glob("*.py") if path.stem != "promises"
    ]
    assert [name for name in PROMISES if not any(f'"{name}"' in source for source in sources)] == []
    with pytest.raises(ValueError, match="'x' is no promise"):
        broken("x", "y")
