"""The checker finds every broken promise; a short ordeal keeps them all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from installation import Installation

from streams.clock import SystemClock
from streams.demo.events import upload_record
from streams.envelope import pack
from streams.events import CampaignReport, PushTarget, Reason, SongUpload, UserPreferences
from streams.settings import load_settings
from streams.topics import CAMPAIGN_REPORTS, PREFERENCES, PUSH_TARGETS, SONG_UPLOADS
from streams.torture.checker import Verdict, check
from streams.torture.run import torture

NOW = 1_700_000_000.0
THEN = datetime.fromtimestamp(NOW, UTC)
SONG = SongUpload(
    song_id="s", revision=1, title="t", tags={"a": 1.0}, artist_ids=["artist"], explicit=True, territories=["PT"],
    budget=10,
)  # fmt: skip
REPORT = CampaignReport(
    song_id="s", revision=1, partition=0, partitions=2, version=1, space="x", started_at=THEN, candidates=0, pushed=0,
    listened=0,
)  # fmt: skip
PUSH = PushTarget(
    push_id="p", campaign_id="s", user_id="u", song_id="s", revision=1, title="t", artist_ids=["artist"],
    decided_at=THEN, not_before=THEN, expires_at=THEN, score=0.5, calibrated=False, tier="initial",
    reason=Reason(why="direct"), space="x", policy_version=1, preferences_offset=0,
)  # fmt: skip
WILLING = UserPreferences(user_id="u", opted_in=True, updated_at=THEN, country="PT")


def judged(
    here: Installation, pushes: Sequence[PushTarget] = (), wishes: Sequence[UserPreferences] = (), answers: int = 2
) -> Verdict:
    """The verdict on these records, all of one user's in partition 0."""
    here.send(SONG_UPLOADS, upload_record(SONG, NOW))
    for partition in range(answers):
        event = msgspec.structs.replace(REPORT, partition=partition)
        here.send(CAMPAIGN_REPORTS, pack(event, ce_type=CampaignReport.TYPES[0], id="r", source="t", time=NOW))
    for wish in wishes:
        here.send(PREFERENCES, pack(wish, ce_type=UserPreferences.TYPES[0], id="w", source="t", time=NOW), 0)
    for push in pushes:
        here.send(PUSH_TARGETS, pack(push, ce_type=PushTarget.TYPES[0], id="p", source="t", time=NOW), 0)
    return check(here.kafka, here.naming, SystemClock())


def test_kept_promises_are_no_violation(here: Installation) -> None:
    later = msgspec.structs.replace(WILLING, opted_in=False)
    # The opt-out at offset 1 was not read yet when the push was decided.
    push = msgspec.structs.replace(PUSH, preferences_offset=1)
    verdict = judged(here, [push], [WILLING, later])
    assert verdict.violations == []
    assert (verdict.uploads, verdict.pushes, verdict.preferences) == (1, 1, 2)


@pytest.mark.parametrize(
    ("changed", "wish", "found"),
    [
        ({}, {"opted_in": False}, "had opted out"),
        ({}, {"muted_artists": ["artist"]}, "had muted artist"),
        ({}, {"allow_explicit": False}, "explicit"),
        ({}, {"country": "BR"}, "not for BR"),
        ({"song_id": "unknown"}, {}, "never uploaded"),
    ],
)
def test_a_push_against_the_users_will_is_found(
    here: Installation, changed: dict[str, object], wish: dict[str, object], found: str
) -> None:
    push = msgspec.structs.replace(PUSH, preferences_offset=1, **changed)
    (violation,) = judged(here, [push], [msgspec.structs.replace(WILLING, **wish)]).violations
    assert found in violation


def test_what_stands_twice_is_found(here: Installation) -> None:
    violations = judged(here, [PUSH, PUSH, msgspec.structs.replace(PUSH, push_id="q")]).violations
    assert sum("stands twice" in violation for violation in violations) == 1
    assert sum("pushed to this user before" in violation for violation in violations) == 2


def test_a_budget_that_is_exceeded_is_found(here: Installation) -> None:
    pushes = [msgspec.structs.replace(PUSH, push_id=f"p{n}", user_id=f"u{n}") for n in range(8)]
    (violation,) = judged(here, pushes).violations
    assert violation == "s: 8 pushes, 7 allowed at once"


def test_an_upload_that_a_partition_did_not_answer_is_found(here: Installation) -> None:
    (violation,) = judged(here, answers=1).violations
    assert violation == "upload of s: not answered by partitions [1]"


@pytest.mark.long
def test_an_ordeal_is_survived() -> None:
    said: list[str] = []
    ordeal = torture(load_settings(), seed=0, seconds=90, say=said.append)
    assert ordeal.verdict.violations == []
    assert len(ordeal.struck) >= 3
    assert ordeal.verdict.pushes > 0
    assert ordeal.verdict.dead_letters == len(ordeal.struck)
