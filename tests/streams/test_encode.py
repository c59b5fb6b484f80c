"""Decisions as records."""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import structs

from streams.audience.encode import push_record, report_record
from streams.contract import vector_codec
from streams.contract.cloudevents import unpack
from streams.contract.events import Learned, PushTarget, Reason, Terms
from streams.contract.internal_events import CampaignReport
from targeting.calibration import STRONGEST
from targeting.ranking.activity import factors
from targeting.types import Account, EndReason, Match, OutcomeCounts, Prototypes, Push, PushReason, Tier, push_id

NOW = 1_800_000_000.0
MATCH = Match(
    song_id="song", revision=3, recording="rec", title="Small Hours", artist_ids=("a-1",), space="bcl",
    vector=np.array([1, 0], np.float32), neighbours=("w",), similarities=np.array([0.5], np.float32), budget=10,
    requested_at=NOW - 5, expires_at=NOW + 1000,
)  # fmt: skip
PUSH = Push(MATCH, "user", 0.1234567, PushReason.EVIDENCE, ("w",), not_before=NOW)


def pushed(push: Push, now: float = NOW) -> PushTarget:
    record = push_record(push, now, preferences_offset=17)
    return unpack(PushTarget, record.key, record.value, record.headers, NOW + 10).event


def test_push_carries_the_decision() -> None:
    event = pushed(PUSH)
    assert (event.user_id, event.song_id, event.campaign_id, event.revision) == ("user", "song", "song", 3)
    assert (event.score, event.reason.why, event.reason.songs) == (0.123457, "evidence", ["w"])
    assert event.preferences_offset == 17
    assert (event.decided_at.timestamp(), event.expires_at.timestamp()) == (NOW, NOW + 1000)


def test_push_id_depends_on_user_and_recording_alone() -> None:
    same = [
        PUSH,
        structs.replace(PUSH, score=0.9, why=PushReason.DIRECT, songs=()),
        structs.replace(PUSH, match=structs.replace(MATCH, song_id="other", revision=9, title="", space="x", budget=1)),
    ]
    assert len({pushed(each).push_id for each in same}) == 1
    assert {pushed(each, NOW + 5).push_id for each in same} == {pushed(PUSH).push_id}
    assert pushed(structs.replace(PUSH, user_id="u2")).push_id != pushed(PUSH).push_id
    assert pushed(structs.replace(PUSH, match=structs.replace(MATCH, recording="r2"))).push_id != pushed(PUSH).push_id


def test_push_id_is_also_the_records_id() -> None:
    record = push_record(PUSH, NOW, 0)
    assert dict(record.headers)["ce_id"].decode() == push_id("user", "rec")


def test_ids_do_not_run_together() -> None:
    assert len({push_id("ab", "c"), push_id("a", "bc"), push_id("abc", ""), push_id("", "abc")}) == 4


def test_a_push_says_when_it_may_arrive_and_which_comparison_it_is_part_of() -> None:
    event = pushed(structs.replace(PUSH, not_before=NOW + 60, tier=Tier.LIVE, score_threshold=1.25))
    assert (event.not_before.timestamp(), event.tier, event.reason.boundary) == (NOW + 60, "live", 1.25)
    assert event.experiment is None
    record = push_record(PUSH, NOW, 0, "holdout-1")
    told = unpack(PushTarget, record.key, record.value, record.headers, NOW).event.experiment
    assert told is not None
    assert (told.name, told.arm) == ("holdout-1", "treated")


def test_a_push_tells_what_each_term_gave() -> None:
    event = pushed(structs.replace(PUSH, evidence=0.31, direct=0.28, activity=0.6951234567))
    assert event.reason.terms == Terms(evidence=0.31, taste=0.28, activity=0.695123)
    # The smallest that can be is more than nothing, as the contract says, also to who reads it.
    least = float(factors(np.zeros(1, np.int64), STRONGEST)[0])
    told = pushed(structs.replace(PUSH, activity=least)).reason.terms
    assert told is not None
    assert 0 < told.activity < 1e-5
    # Pushes of the former code tell none.
    assert msgspec.json.decode(b'{"why":"direct"}', type=Reason).terms is None


def test_a_push_tells_what_answers_made_of_its_chance() -> None:
    event = pushed(structs.replace(PUSH, offset=-0.69314718, slope=0.87654321))
    assert event.reason.learned == Learned(offset=-0.693147, slope=0.876543)
    assert pushed(PUSH).reason.learned is None


def account(members: list[int], ended: EndReason | None = None) -> Account:
    rows = np.eye(2, dtype=np.float32)[np.arange(len(members)) % 2]
    return Account(
        song_id="song", revision=3, space="bcl", counts=OutcomeCounts(candidates=50, pushed=7, held_out=2),
        prototypes=Prototypes(rows, np.array(members, np.int64)), ended=ended, started_at=NOW - 5, ended_at=NOW - 1,
    )  # fmt: skip


def reported(account: Account) -> CampaignReport:
    record = report_record(account, 3, 4, version=9123, now=NOW)
    return unpack(CampaignReport, record.key, record.value, record.headers, NOW).event


def test_fewer_than_ten_members_are_never_shown() -> None:
    event = reported(account([9, 10, 81, 0]))
    assert [each.members for each in event.prototypes] == [10, 81]
    # Shares are of the whole sample, the hidden members too.
    assert [each.weight for each in event.prototypes] == [0.1, 0.81]
    assert [vector_codec.unpack(each.vector)[1].tolist() for each in event.prototypes] == [[0, 1], [1, 0]]


def test_report_without_prototypes_can_be_made() -> None:
    event = reported(account([]))
    assert event.prototypes == []
    assert (event.partition, event.partitions, event.version) == (3, 4, 9123)
    assert (event.counts.candidates, event.counts.pushed, event.counts.held_out) == (50, 7, 2)


def test_the_end_is_told_with_its_time_and_only_then() -> None:
    alive, over = reported(account([])), reported(account([], EndReason.TAKEN_DOWN))
    assert (alive.ended, alive.ended_at) == (None, None)
    assert over.ended == "taken-down"
    assert over.ended_at is not None
    assert over.ended_at.timestamp() == NOW - 1
