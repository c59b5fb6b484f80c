"""The checker finds every broken promise; a short run keeps them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import pytest
from installation import Installation

from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import Undecodable
from streams.contract.event_base import Event
from streams.contract.events import (
    Campaign,
    CampaignCounts,
    Cap,
    Counts,
    Experiment,
    Listen,
    PushTarget,
    QuietHours,
    Reason,
    SongUpload,
    UserPreferences,
)
from streams.contract.internal_events import CampaignReport, LiveModel, MatchRequest, WarmSong
from streams.contract.topics import (
    AUDIENCE_STATE,
    AUDIENCE_VECTORS,
    DEAD_LETTERS,
    LISTENS,
    PREFERENCES,
    SONG_UPLOADS,
    Naming,
)
from streams.runtime.clock import SystemClock
from streams.runtime.settings_sources import load_settings
from streams.testbed.chaos.chaos_run import ChaosRun, run_chaos
from streams.testbed.chaos.evidence import Evidence, Said, space_of
from streams.testbed.chaos.faults import FAULTS
from streams.testbed.chaos.promise_checker import check, judge
from streams.testbed.chaos.promises import PROMISES
from streams.testbed.chaos.push_check import fullest, held_out, is_quiet
from streams.testbed.chaos.rules import AtMost, Rules
from targeting.arrays.id_table import hash64
from targeting.rules.policy import Policy
from targeting.rules.policy import held_out as decided

NOW = 1_700_000_000.0
# A Tuesday, 22:13 in UTC.
THEN = datetime.fromtimestamp(NOW, UTC)
SONG = SongUpload(
    song_id="s", revision=1, title="t", tags={"a": 1.0}, artist_ids=["artist"], explicit=True, territories=["PT"],
    budget=10,
)  # fmt: skip
REPORT = CampaignReport(
    song_id="s", revision=1, partition=0, partitions=2, version=1, space="x", started_at=THEN, counts=Counts()
)
PUSH = PushTarget(
    push_id="p", campaign_id="s", user_id="u", song_id="s", revision=1, title="t", artist_ids=["artist"],
    decided_at=THEN, not_before=THEN, expires_at=THEN + timedelta(days=1), score=0.5, calibrated=False, tier="initial",
    reason=Reason(why="direct"), space="x", policy_version=1, preferences_offset=0,
)  # fmt: skip
WILLING = UserPreferences(user_id="u", opted_in=True, updated_at=THEN, country="PT")
VIEW = Campaign(song_id="s", revision=1, status="active", started_at=THEN, counts=CampaignCounts(), space="x")
MODEL = LiveModel(
    name="encoder", uri="file:///m", manifest_sha256="0", space="x", dim=2, warm_songs=1, published_at=THEN
)
LISTEN = Listen(listen_id="l", user_id="u", song_id="warm", played_at=THEN, source="organic")
ERASE = msgspec.structs.replace(WILLING, erase_requested_at=THEN)
MARKER = b"e" + blake2b(b"u", digest_size=16, key=b"coldstart").digest()


NAMING = Naming("test.", 2, 2)
FIELDS: dict[type[Event], str] = {
    SongUpload: "uploads", LiveModel: "models", CampaignReport: "reports", Campaign: "campaigns", WarmSong: "warm",
    MatchRequest: "requests", UserPreferences: "preferences", PushTarget: "pushes", Listen: "listens",
}  # fmt: skip


@dataclass
class Story:
    """What stands in the topics, all of it in partition 0."""

    uploads: Sequence[SongUpload] = (SONG,)
    answers: int = 2
    pushes: Sequence[PushTarget] = ()
    wishes: Sequence[UserPreferences] = ()
    listens: Sequence[tuple[Listen, float]] = ()
    reports: Sequence[CampaignReport] = ()
    views: Sequence[Campaign] = ()
    warm: Sequence[WarmSong] = ()
    requests: Sequence[MatchRequest] = ()
    state: dict[bytes, bytes] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)

    def events(self) -> list[tuple[Event, float]]:
        """All of it, each with its time, in the order of its offsets."""
        reports = list(self.reports)
        if not reports:
            of_zero = Counts(pushed=sum(push.song_id == "s" for push in self.pushes))
            reports = [
                changed(REPORT, partition=n, counts=of_zero if n == 0 else Counts()) for n in range(self.answers)
            ]
        untimed = (*self.uploads, MODEL, *reports, *self.views, *self.warm, *self.requests, *self.wishes, *self.pushes)
        return [*((event, NOW) for event in untimed), *self.listens]

    def evidence(self) -> Evidence:
        evidence = Evidence(state={(0, key): value for key, value in self.state.items()})
        for event, time in self.events():
            said: list[Said[Any]] = getattr(evidence, FIELDS[type(event)])
            said.append(Said(0, len(said), event.record_key(), event.TYPES[0], time, event))
        return evidence

    def judged(self) -> list[str]:
        """What is broken, in words, without the names of the promises."""
        return [each.partition(": ")[2] for each in judge(self.evidence(), NAMING, self.rules).violations]

    def send(self, here: Installation) -> None:
        for event, time in self.events():
            here.send(event.TOPIC, pack(event, ce_type=event.TYPES[0], id="i", source="t", time=time), 0)
        for key, value in self.state.items():
            here.send(AUDIENCE_STATE, Record(key, value, []), 0)


def changed(event: Any, **fields: object) -> Any:
    return msgspec.structs.replace(event, **fields)


def another(number: int, **fields: object) -> PushTarget:
    """A push of another recording to the same user."""
    return changed(PUSH, push_id=f"p{number}", song_id=f"s{number}", campaign_id=f"s{number}", **fields)


def songs(count: int) -> tuple[list[SongUpload], list[CampaignReport]]:
    """Uploads s0, s1 and so on, and the reports that answer them, each with one push in partition 0."""
    uploads = [changed(SONG, song_id=f"s{n}") for n in range(count)]
    reports = [
        changed(REPORT, song_id=each.song_id, partition=p, counts=Counts(pushed=1 - p))
        for each in uploads
        for p in (0, 1)
    ]
    return uploads, reports


def test_kept_promises_are_no_violation() -> None:
    later = changed(WILLING, opted_in=False)
    # The opt-out at offset 1 was not read yet when the push was decided.
    push = changed(PUSH, preferences_offset=1)
    verdict = judge(Story(pushes=[push], wishes=[WILLING, later]).evidence(), NAMING, Rules())
    assert verdict.violations == []
    assert (verdict.uploads, verdict.pushes, verdict.preferences, verdict.spaces) == (1, 1, 2, 1)


def test_a_promise_is_judged_only_where_it_could_have_been_broken() -> None:
    uploads, reports = songs(2)
    muting = changed(WILLING, muted_artists=["another"])
    pushes = [another(0, preferences_offset=1), another(1, preferences_offset=1)]
    rules = Rules(cap=AtMost(2, 60), artist_cap=AtMost(3, 60))
    story = Story(uploads, pushes=pushes, reports=reports, wishes=[muting], rules=rules)
    judged = judge(story.evidence(), NAMING, rules).judged
    assert {name: judged[name] for name in ("push-twice", "muted", "explicit", "territory", "unanswered")} == {
        "push-twice": 2, "muted": 2, "explicit": 2, "territory": 2, "unanswered": 2,
    }  # fmt: skip
    # One of them fills the cap, none the artist's; nobody has quiet hours, and each song has budget left.
    assert (judged["cap"], judged["artist-cap"], judged["quiet-hours"], judged["budget"]) == (1, 0, 0, 0)


def test_everything_is_read_from_its_topic(here: Installation) -> None:
    """What is judged elsewhere in memory stands here in a real Kafka, one violation of each kind of promise with it."""
    before = (LISTEN, NOW - 1)
    view = changed(VIEW, counts=CampaignCounts(distinct_listeners=3))
    pushes = [changed(PUSH, preferences_offset=1), changed(PUSH, push_id="q", space="y", preferences_offset=1)]
    story = Story(
        pushes=pushes,
        wishes=[ERASE],
        listens=[before],
        views=[view],
        state={b"uu": b"1"},
        rules=Rules(warm_listeners=3),
    )
    story.send(here)
    here.send(AUDIENCE_VECTORS, Record(b"v", vector_codec.pack("x", np.ones(2, np.float32)), []))
    buried = dead_letter(
        Origin(here.naming.name(LISTENS), 0, 7, 0, b"k", b"{", []), "audience.listens", Undecodable("x")
    )
    for _ in range(2):
        here.send(DEAD_LETTERS, Record(b"k", b"{", [(name, value or b"") for name, value in buried.headers]))
    here.send(SONG_UPLOADS, Record(b"bad", b"{", []), 1)
    whole = pack(SONG, ce_type=SONG.TYPES[0], id="i", source="t", time=NOW)
    headers = [(name, b"soon" if name == "ce_time" else value) for name, value in whole.headers]
    here.send(SONG_UPLOADS, Record(whole.key, whole.value, headers), 1)
    here.send(SONG_UPLOADS, Record(b"\xff", whole.value, whole.headers), 1)
    # Refused, and it asks to forget its user, at the record's own time.
    here.send(PREFERENCES, Record(b"w", b'{"erase_requested_at":"soon"}', []), 0)
    refused = dead_letter(
        Origin(here.naming.name(PREFERENCES), 0, 1, 0, b"w", b"", []), "audience.preferences", Undecodable("x")
    )
    here.send(DEAD_LETTERS, Record(b"w", b"", [(name, value or b"") for name, value in refused.headers]))
    verdict = check(here.kafka, here.naming, SystemClock(), story.rules)
    assert [each.partition(" (")[0] for each in verdict.violations] == [
        *(f"unburied: song-uploads[1] at {n}: bad, and no dead letter says so" for n in range(3)),
        "dead-letter-twice: listens[0] at 7: 2 dead letters",
        "dead-letter-wrong: listens[0] at 7: has a dead letter, and is not there",
        "dead-letter-wrong: preferences[0] at 1: its dead letter has another value",
        "unpromoted: s: 3 listeners, and not promoted",
        "spaces: push q: of space 'y', which was never published",
        "erased-pushed: push p of s to u: the user was erased, and neither listened nor has a vector since",
        "recording-twice: push q of s to u: the recording was pushed to this user before",
        "erased-pushed: push q of s to u: the user was erased, and neither listened nor has a vector since",
        "erased-marker: u asked to be forgotten: partition 0 has no marker of it",
        "erased-state: u asked to be forgotten and did not come back: the state still has a history",
        "erased-marker: w asked to be forgotten: partition 0 has no marker of it",
    ]
    assert (verdict.uploads, verdict.pushes, verdict.listens, verdict.erased, verdict.dead_letters) == (1, 2, 1, 2, 2)


@pytest.mark.parametrize(
    ("push", "wish", "found"),
    [
        ({}, {"opted_in": False}, "had opted out"),
        ({}, {"muted_artists": ["artist"]}, "had muted artist"),
        ({}, {"allow_explicit": False}, "explicit"),
        ({}, {"country": "BR"}, "not for BR"),
        ({}, {"country": None}, "not for an unknown country"),
        ({}, {"cap": Cap(0, 1.0)}, "1 pushes in 3600 s, the cap is 0"),
        ({}, {"quiet_hours": [QuietHours("22:00", "08:00")]}, "quiet hours (UTC)"),
        # 22:13 UTC is 3:58 in Kathmandu.
        ({}, {"timezone": "Asia/Kathmandu", "quiet_hours": [QuietHours("03:58", "04:00")]}, "(Asia/Kathmandu)"),
        ({"not_before": THEN - timedelta(seconds=1)}, {}, "decided at"),
        ({"expires_at": THEN}, {}, "expires at"),
        ({"reason": Reason(why="evidence", songs=["never"])}, {}, "heard never"),
        ({"experiment": Experiment("e")}, {}, "share held out 0"),
    ],
)  # fmt: skip
def test_a_push_against_the_users_will_is_found(push: dict[str, object], wish: dict[str, object], found: str) -> None:
    pushes = [changed(PUSH, preferences_offset=1, **push)]
    (violation,) = Story(pushes=pushes, wishes=[changed(WILLING, **wish)]).judged()
    assert found in violation


def test_the_will_that_was_in_force_counts_before_and_after_it() -> None:
    """Who neither says quiet hours nor is in them is not disturbed."""
    quiet = changed(WILLING, quiet_hours=[QuietHours("22:00", "22:13")])
    # Their end is no quiet minute any more.
    pushes = [changed(PUSH, preferences_offset=2)]
    assert Story(pushes=pushes, wishes=[changed(WILLING, opted_in=False), quiet]).judged() == []


def test_a_song_that_nobody_uploaded_is_found() -> None:
    found = Story(pushes=[another(1)]).judged()
    assert [each for each in found if "never uploaded" in each]
    assert [each for each in found if "never reported on it" in each]


def test_two_pushes_of_a_song_that_nobody_uploaded_are_found_twice() -> None:
    pushes = [PUSH, *(changed(PUSH, push_id=user, user_id=user, song_id="unknown") for user in "vw")]
    view = changed(VIEW, song_id="unknown")
    evidence = Story(pushes=pushes, views=[VIEW, view]).evidence()
    names = [each.split(": ")[0] for each in judge(evidence, NAMING, Rules()).violations]
    assert names.count("never-uploaded") == 3


def test_what_stands_twice_is_found() -> None:
    violations = Story(pushes=[PUSH, PUSH, changed(PUSH, push_id="q")]).judged()
    assert sum("stands twice" in violation for violation in violations) == 1
    assert sum("pushed to this user before" in violation for violation in violations) == 2


def test_more_than_the_cap_in_a_span_is_found_and_no_more_than_that() -> None:
    uploads, reports = songs(4)
    at = [THEN + timedelta(seconds=seconds) for seconds in (0, 40, 60, 99)]
    pushes = [another(n, not_before=moment) for n, moment in enumerate(at)]
    story = Story(uploads, pushes=pushes, reports=reports, rules=Rules(cap=AtMost(2, 60)))
    (violation,) = story.judged()
    # 40, 60 and 99 lie in one minute; 0 and 60 do not.
    assert violation.startswith("push p3 ")
    assert "3 pushes in 60 s, the cap is 2" in violation


def test_the_users_own_cap_stands_over_the_default() -> None:
    uploads, reports = songs(2)
    wish = changed(WILLING, cap=Cap(2, 1.0))
    pushes = [another(n, preferences_offset=1) for n in range(2)]
    story = Story(uploads, pushes=pushes, wishes=[wish], reports=reports, rules=Rules(cap=AtMost(1, 3600)))
    assert story.judged() == []


def test_more_of_one_artist_than_the_cap_is_found() -> None:
    uploads, reports = songs(2)
    story = Story(uploads, pushes=[another(0), another(1)], reports=reports, rules=Rules(artist_cap=AtMost(1, 60)))
    (violation,) = story.judged()
    assert "2 pushes of artist artist in 60 s, the cap is 1" in violation


def test_preferences_that_are_obeyed_less_far_than_before_are_found() -> None:
    uploads, reports = songs(2)
    pushes = [another(0, preferences_offset=1), another(1, preferences_offset=0)]
    (violation,) = Story(uploads, pushes=pushes, wishes=[WILLING], reports=reports).judged()
    assert "obeyed up to 0, by an earlier push of the partition up to 1" in violation


def test_a_push_to_whom_the_lot_holds_out_is_found() -> None:
    rules = Rules(holdout=0.5)
    out, told = (next(f"u{n}" for n in range(99) if held_out(f"u{n}", "s", rules) is held) for held in (True, False))
    named = {"experiment": Experiment("holdout-1")}
    pushes = [changed(PUSH, user_id=user, push_id=user, **named) for user in (out, told)]
    (violation,) = Story(pushes=pushes, rules=rules).judged()
    assert violation == f"push {out} of s to {out}: the lot holds it out"


def test_a_holdout_that_holds_nobody_out_is_found() -> None:
    rules = Rules(holdout=0.5, budget=1000)
    users = [user for n in range(200) if not held_out(user := f"u{n}", "s", rules)][:50]
    named = {"experiment": Experiment("holdout-1")}
    pushes = [changed(PUSH, user_id=user, push_id=user, **named) for user in users]
    story = Story([changed(SONG, budget=None)], pushes=pushes, rules=rules)
    (violation,) = story.judged()
    assert violation == "nobody is held out of 50 pushes, the share is 0.5"


def test_the_lot_written_from_its_documentation_is_the_one_that_is_drawn() -> None:
    users = [f"user-{n}" for n in range(2000)]
    for song, salt in (("s-1", "1"), ("ü", "another")):
        drawn = decided(hash64(users), song, Policy(holdout=0.1, salt=salt)).tolist()
        assert drawn == [held_out(user, song, Rules(holdout=0.1, salt=salt)) for user in users]
        assert 140 < sum(drawn) < 260


def test_a_push_that_rests_on_what_was_erased_is_found() -> None:
    before = (LISTEN, NOW - 1)
    push = changed(PUSH, preferences_offset=1, reason=Reason(why="evidence", songs=["warm"]))
    story = Story(pushes=[push], wishes=[ERASE], listens=[before], state={MARKER: b"1"})
    assert len(story.judged()) == 2


def test_who_listens_again_may_be_pushed_and_even_the_same_again() -> None:
    again = (changed(LISTEN, listen_id="l2"), NOW + 1)
    pushes = [changed(PUSH, preferences_offset=offset, push_id=f"p{offset}") for offset in (0, 1)]
    story = Story(pushes=pushes, wishes=[ERASE], listens=[(LISTEN, NOW - 1), again], state={MARKER: b"1", b"uu": b"1"})
    assert story.judged() == []
    story.pushes = [changed(push, push_id="p") for push in pushes]
    assert story.judged() == ["push p of s to u: stands twice"]


def test_preferences_that_repeat_an_old_request_erase_nothing_more() -> None:
    pushes = [changed(PUSH, preferences_offset=offset) for offset in (1, 2)]
    story = Story(pushes=pushes, wishes=[ERASE, ERASE], listens=[(LISTEN, NOW + 1)], state={MARKER: b"1"})
    assert [each for each in story.judged() if "stands twice" in each]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({}, "has no marker"),
        ({MARKER: b"1", b"uu": b"1"}, "still has a history"),
        ({MARKER: b"1", b"pu": b"1"}, "still has pushes"),
        ({MARKER: b"1", b"iu": b"1"}, "still has a score threshold"),
    ],
)
def test_what_the_state_did_not_forget_is_found(state: dict[bytes, bytes], found: str) -> None:
    (violation,) = Story(wishes=[ERASE], listens=[(LISTEN, NOW - 1)], state=state).judged()
    assert found in violation


def test_who_came_back_and_is_not_known_is_found() -> None:
    back = [(LISTEN, NOW + 1)]
    assert Story(wishes=[ERASE], listens=back, state={MARKER: b"1", b"uu": b"1"}).judged() == []
    (violation,) = Story(wishes=[ERASE], listens=back, state={MARKER: b"1"}).judged()
    assert violation == "u listened after the erasure: the state of partition 0 has no history"


@pytest.mark.parametrize("state", [{}, {b"uu": b"1"}])
def test_who_came_back_within_the_second_of_the_erasure_may_be_known_or_not(state: dict[bytes, bytes]) -> None:
    back = [(LISTEN, NOW + 0.9)]
    assert Story(wishes=[ERASE], listens=back, state={MARKER: b"1", **state}).judged() == []


def test_a_budget_that_is_exceeded_is_found() -> None:
    pushes = [changed(PUSH, push_id=f"p{n}", user_id=f"u{n}") for n in range(8)]
    assert Story(pushes=pushes).judged() == ["s: 8 pushes, 7 allowed at once"]


def test_what_is_pushed_later_counts_towards_the_whole_budget_alone() -> None:
    pushes = [changed(PUSH, push_id=f"p{n}", user_id=f"u{n}", tier="live") for n in range(11)]
    assert Story(pushes=pushes[:10]).judged() == []
    assert Story(pushes=pushes).judged() == ["s: 11 pushes, its budget is 10"]


def test_an_upload_that_a_partition_did_not_answer_is_found() -> None:
    (violation,) = Story(answers=1).judged()
    assert violation == "upload of s: not answered by partitions [1]"


def test_an_answer_to_an_older_revision_is_none() -> None:
    (violation,) = Story([SONG, changed(SONG, revision=2)]).judged()
    assert violation == "upload of s: not answered by partitions [0, 1]"


def test_a_report_that_counts_other_pushes_than_stand_is_found() -> None:
    reports = [changed(REPORT, counts=Counts(pushed=2)), changed(REPORT, partition=1)]
    (violation,) = Story(pushes=[PUSH], reports=reports).judged()
    assert violation == "s: partition 0 reports 2 pushes, 1 stand"


def test_a_report_that_counts_other_listeners_than_listened_is_found() -> None:
    listens = [(changed(LISTEN, song_id="s", user_id=user), NOW) for user in ("u", "u", "v")]
    reports = [changed(REPORT, counts=Counts(distinct_listeners=3)), changed(REPORT, partition=1)]
    (violation,) = Story(listens=listens, reports=reports).judged()
    assert violation == "s: 3 listeners are reported, there were 2"


def test_a_push_after_the_end_is_found() -> None:
    over = changed(REPORT, counts=Counts(pushed=1), ended="expired", ended_at=THEN - timedelta(seconds=1))
    (violation,) = Story(pushes=[PUSH], reports=[over, changed(REPORT, partition=1)]).judged()
    assert "the campaign ended at 2023-11-14 22:13:19+00:00 (expired)" in violation


def test_a_campaign_that_comes_back_is_found_in_reports_and_in_its_view() -> None:
    over = changed(REPORT, ended="expired", ended_at=THEN)
    reports = [over, changed(REPORT, version=2), changed(REPORT, partition=1)]
    views = [changed(VIEW, status="ended", end_reason="expired", ended_at=THEN), VIEW]
    found = Story(reports=reports, views=views).judged()
    assert found == [
        "s: ended in partition 0 (expired), alive again at 2", "s: campaign ended (expired), and is active again"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("view", "rules", "found"),
    [
        (
            changed(VIEW, status="ended", end_reason="promoted", counts=CampaignCounts(distinct_listeners=3)),
            Rules(warm_listeners=3),
            "s: promoted, and not among the warm songs",
        ),
        (
            changed(VIEW, counts=CampaignCounts(distinct_listeners=3)),
            Rules(warm_listeners=3),
            "s: 3 listeners, and not promoted",
        ),
    ],
)
def test_a_song_that_did_not_grow_warm_is_found(view: Campaign, rules: Rules, found: str) -> None:
    over = [changed(REPORT, partition=n, ended=view.end_reason, ended_at=THEN) for n in (0, 1)]
    assert Story(views=[view], rules=rules, reports=over).judged() == [found]


def test_a_song_that_grew_warm_too_early_is_found() -> None:
    view = changed(VIEW, status="ended", end_reason="promoted", counts=CampaignCounts(distinct_listeners=2))
    warm = WarmSong(song_id="s", space="x", vector=vector_codec.pack("x", np.ones(2, np.float32)))
    over = [changed(REPORT, partition=n, ended="promoted", ended_at=THEN) for n in (0, 1)]
    (violation,) = Story(views=[view], warm=[warm], reports=over, rules=Rules(warm_listeners=3)).judged()
    assert violation == "s: promoted with 2 listeners, 3 make a song warm"


def test_a_song_that_goes_on_after_its_takedown_is_found() -> None:
    evidence = Story(views=[VIEW]).evidence()
    evidence.uploads.append(Said(0, 1, "s", SongUpload.TAKEN_DOWN, NOW, changed(SONG, revision=2)))
    assert judge(evidence, NAMING, Rules()).violations == ["taken-down: s: taken down, its campaign is active"]


def test_a_partition_in_which_a_promoted_song_goes_on_is_found() -> None:
    view = changed(VIEW, status="ended", end_reason="promoted", counts=CampaignCounts(distinct_listeners=3))
    warm = WarmSong(song_id="s", space="x", vector=vector_codec.pack("x", np.ones(2, np.float32)))
    reports = [changed(REPORT, ended="promoted", ended_at=THEN), changed(REPORT, partition=1)]
    (violation,) = Story(views=[view], warm=[warm], reports=reports, rules=Rules(warm_listeners=3)).judged()
    assert violation == "s: promoted, and alive in partitions [1]"


def test_an_older_revision_and_a_deletion_among_the_pushes_are_found() -> None:
    uploads = [SONG, changed(SONG, revision=2)]
    reports = [changed(REPORT, partition=n, revision=2, counts=Counts(pushed=2 - 2 * n)) for n in (0, 1)]
    pushes = [changed(PUSH, revision=2), changed(PUSH, push_id="q", user_id="v")]
    evidence = Story(uploads, pushes=pushes, reports=reports).evidence()
    evidence.pushes.append(Said(0, 2, "u", "", NOW, None))
    found = [each.partition(": ")[0] for each in judge(evidence, NAMING, Rules()).violations]
    assert found == ["old-revision", "push-deleted"]


@pytest.mark.parametrize(("shown", "found"), [(1, ["s: revision 1 has the campaign, 2 was uploaded"]), (2, [])])
def test_an_older_revision_that_has_the_campaign_in_the_end_is_found(shown: int, found: list[str]) -> None:
    uploads = [SONG, changed(SONG, revision=2)]
    reports = [changed(REPORT, partition=n, revision=2) for n in range(2)]
    views = [changed(VIEW, revision=2), changed(VIEW, revision=shown)]
    assert Story(uploads, reports=reports, views=views).judged() == found
    # A song that was promoted before needs no campaign for its later revisions.
    warm = changed(VIEW, status="ended", end_reason="promoted", counts=CampaignCounts(distinct_listeners=3))
    over = [changed(REPORT, partition=n, ended="promoted", ended_at=THEN) for n in range(2)]
    known = WarmSong(song_id="s", space="x", vector=vector_codec.pack("x", np.ones(2, np.float32)))
    assert Story(uploads, reports=over, views=[warm], warm=[known], rules=Rules(warm_listeners=3)).judged() == []


def test_vectors_of_other_spaces_are_found() -> None:
    other = vector_codec.pack("y", np.ones(2, np.float32))
    request = MatchRequest(song_id="s", revision=1, vector=other, uploaded_at=THEN, expires_at=THEN)
    warm = WarmSong(song_id="w", space="x", vector=other)
    push = changed(PUSH, space="y")
    found = Story(pushes=[push], requests=[request], warm=[warm]).judged()
    assert [each.split(":")[0] for each in found] == [
        "push p",
        f"request s ({MatchRequest.REQUESTED})",
        "warm song x w",
    ]


def test_the_fullest_span_is_half_open() -> None:
    assert fullest([0.0, 10.0], 10.0, 10.0) == 1
    assert fullest([0.0, 9.9], 9.9, 10.0) == 2
    # A deferred push lies ahead: spans before and after a moment are looked at one by one.
    assert fullest([0.0, 6.0, 12.0], 6.0, 10.0) == 2
    assert fullest([0.0, 3.0, 6.0, 12.0], 6.0, 10.0) == 3


def test_quiet_hours_are_local_and_may_cross_midnight() -> None:
    night = [QuietHours("22:00", "07:00")]
    summer = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)
    assert is_quiet(summer, "Europe/Lisbon", night)
    assert not is_quiet(summer, "UTC", night)
    assert not is_quiet(datetime(2026, 7, 2, 6, 0, tzinfo=UTC), "Europe/Lisbon", night)


def test_the_space_of_a_vector_is_read_from_its_bytes() -> None:
    assert space_of(vector_codec.pack("bcl-1", np.ones(3, np.float32))) == "bcl-1"
    assert space_of(b"CSVE") == ""


def kept(run: ChaosRun) -> None:
    """Every promise, and not because nothing happened."""
    verdict = run.verdict
    assert verdict.violations == []
    assert verdict.dead_letters >= run.poisoned
    assert {"uploads in aborted transactions", "records of 5 MB", "refused withdrawals"} <= set(run.hostile)
    assert verdict.pushes > 0
    assert verdict.deferred > 0
    assert verdict.held_out > 0
    assert verdict.erased > 0


def test_a_short_chaos_run_is_survived() -> None:
    run = run_chaos(load_settings(), seed=0, seconds=1, say=lambda _: None, faults=("all",))
    kept(run)
    assert [words for _, words in run.struck] == [FAULTS["all"].words]


@pytest.mark.long
def test_a_chaos_run_is_survived() -> None:
    run = run_chaos(load_settings(), seed=0, seconds=120, say=lambda _: None)
    kept(run)
    assert len({words for _, words in run.struck}) == len(run.struck) >= 4
    assert run.verdict.live > 0
    # None is kept for want of anything that could have broken it.
    assert [name for name in PROMISES if not run.verdict.judged[name]] == []
