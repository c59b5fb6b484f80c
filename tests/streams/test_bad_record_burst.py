"""Bad records stop a role when nobody's are good any more, and only then."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadBurst, InvalidField
from streams.runtime.bad_record_burst import Bad, BadBursts, bad_of
from streams.runtime.clock import ManualClock
from streams.runtime.health import Readiness
from streams.runtime.metrics import SongsMetrics

TOPIC = "t.song-uploads"


class Judge:
    """A judge of 100 records within a minute, and what it shows."""

    def __init__(self, share: float = 0.5, resume: bool = False) -> None:
        self.clock = ManualClock()
        self.registry, self.readiness = CollectorRegistry(), Readiness()
        metric = SongsMetrics(self.registry).bad_bursts
        self.bursts = BadBursts(share, 100, "songs.stop_at_bad_share", self.clock, resume, metric, self.readiness)

    def batch(self, good: dict[str, int], bad: dict[str, int], topic: str = TOPIC) -> None:
        refused = [
            Bad(name, "songs.validate", "InvalidField", "tags: is wrong") for name in bad for _ in range(bad[name])
        ]
        for source, count in good.items():
            self.bursts.note(topic, count, [source], [])
        self.bursts.note(topic, 0, [], refused)
        self.bursts.judge()

    def counted(self, outcome: str) -> float:
        found = self.registry.get_sample_value("coldstart_bad_bursts_total", {"topic": TOPIC, "outcome": outcome})
        return found or 0.0

    @property
    def note(self) -> str:
        return self.readiness.notes().get(f"bad records of {TOPIC}", "")


@pytest.fixture
def judge() -> Judge:
    return Judge()


def test_a_burst_of_the_only_source_stops_the_role_with_topic_stage_reason_counts_and_way_out(judge: Judge) -> None:
    judge.batch({"acme": 30}, {"acme": 60})
    with pytest.raises(BadBurst) as caught:
        judge.batch({}, {"acme": 15})
    said = str(caught.value)
    assert "t.song-uploads: 75 of the last 105 records were bad, from 'acme' (75)" in said
    assert "songs.validate: InvalidField (75), such as 'tags: is wrong'" in said
    assert "--resume-with-bad" in said
    assert "songs.stop_at_bad_share = 0" in said
    assert judge.counted("stopped") == 1


def test_several_sources_that_are_all_mostly_bad_stop_the_role(judge: Judge) -> None:
    with pytest.raises(BadBurst, match=r"'b' \(40\), 'a' \(35\)"):
        judge.batch({"a": 25, "b": 20}, {"a": 35, "b": 40})


def test_a_burst_of_one_source_beside_good_records_of_another_is_named_and_stops_nothing(judge: Judge) -> None:
    judge.batch({"label": 20}, {"acme": 500})
    assert "from 'acme' (500)" in judge.note
    assert "because the records of 'label' (20) are good" in judge.note
    # Said once a minute, however many batches there are.
    judge.clock.advance(30)
    judge.batch({"label": 20}, {"acme": 500})
    assert judge.counted("went-on") == 1
    judge.clock.advance(31)
    judge.batch({"label": 20}, {"acme": 500})
    assert (judge.counted("went-on"), judge.counted("stopped")) == (2, 0)
    judge.clock.advance(61)
    judge.batch({"label": 100}, {})
    assert judge.note == ""


def test_one_producer_under_a_thousand_names_stops_nobody_else(judge: Judge) -> None:
    judge.bursts.note(TOPIC, 0, [], [Bad(f"name-{number}", "s", "e", "t") for number in range(2000)])
    judge.batch({"label": 10}, {})
    assert "'label' (10) are good" in judge.note
    assert judge.counted("stopped") == 0


def test_nine_good_records_say_nothing_of_a_role_that_reads_thousands_wrongly(judge: Judge) -> None:
    with pytest.raises(BadBurst):
        judge.batch({"label": 9}, {"acme": 5000})


@pytest.mark.parametrize(
    ("good", "bad"), [(0, 99), (50, 50), (1000, 900)], ids=["too few", "half", "less than half"]
)  # fmt: skip
def test_fewer_or_no_more_than_half_bad_is_no_burst(judge: Judge, good: int, bad: int) -> None:
    judge.batch({"acme": good}, {"acme": bad})
    assert judge.note == ""


def test_bad_records_that_are_spread_over_longer_than_a_minute_are_no_burst(judge: Judge) -> None:
    for _ in range(20):
        judge.batch({}, {"acme": 10})
        judge.clock.advance(7)


def test_inputs_are_judged_by_themselves(judge: Judge) -> None:
    judge.batch({}, {"acme": 60})
    judge.batch({}, {"acme": 60}, "t.campaign-reports")
    judge.batch({"acme": 500}, {}, "t.campaign-reports")
    with pytest.raises(BadBurst, match="song-uploads"):
        judge.batch({}, {"acme": 60})


def test_a_share_of_zero_switches_it_off() -> None:
    Judge(share=0).batch({}, {"acme": 100_000})


def test_who_resumes_gets_past_the_burst_and_the_rule_holds_again_after_a_minute_without_one() -> None:
    judge = Judge(resume=True)
    for _ in range(20):
        judge.batch({}, {"acme": 200})
        judge.clock.advance(30)
    assert "told to resume" in judge.note
    assert judge.counted("resumed") > 1
    judge.batch({"acme": 2000}, {})
    judge.clock.advance(61)
    judge.batch({"acme": 10}, {})
    with pytest.raises(BadBurst):
        judge.batch({}, {"acme": 200})


def test_good_records_of_a_batch_are_shared_among_its_sources(judge: Judge) -> None:
    judge.bursts.note(TOPIC, 21, ["a", "b"], [Bad("c", "s", "e", "t")] * 200)
    judge.bursts.judge()
    assert "'a' (11), 'b' (10) are good" in judge.note


def test_a_dead_letter_tells_who_sent_it_and_why() -> None:
    found = Origin("t", 0, 1, 2, b"k", b"v", [("ce_source", b"a\x1b[31m\xff"), ("ce_source", b"second")])
    bad = bad_of(dead_letter(found, "songs.validate", InvalidField("tags: wrong")), "songs.validate", "InvalidField")
    assert bad == ("a\x1b[31m\\xff", "songs.validate", "InvalidField", "tags: wrong")
    nobody = bad_of(dead_letter(Origin("t", 0, 1, 2, None, None, []), "s", InvalidField("x")), "s", "InvalidField")
    assert nobody.source == "no ce_source"


def test_what_a_source_calls_itself_reaches_no_terminal_as_it_is(judge: Judge) -> None:
    with pytest.raises(BadBurst) as caught:
        judge.batch({}, {"a\x1b[31m": 200})
    assert "\x1b" not in str(caught.value)
