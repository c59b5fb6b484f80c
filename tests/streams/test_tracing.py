"""One upload is one trace, over both roles, as an OTLP collector sees it; without one its trace is passed on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from otlp_collector import OtlpCollector, ReceivedSpan

from streams.contract.cloudevents import Record
from streams.contract.dead_letters import headers
from streams.contract.events import PushTarget
from streams.contract.topics import CAMPAIGN_REPORTS, MATCH_REQUESTS, PUSH_TARGETS, SONG_UPLOADS, Topic
from streams.contract.trace_context import traced, traceparent_of
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.dataset_events import upload_record
from streams.testbed.demo.follow import Follower

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.fixture(scope="module")
def town(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    town = set_up(kafka, "test-tracing.", tmp_path_factory.mktemp("tracing"))
    yield town
    town.stop()


@pytest.fixture(scope="module")
def follower(town: Environment) -> Iterator[Follower]:
    follower = Follower(town.kafka, town.naming)
    yield follower
    follower.close()


def start(town: Environment, **environment: str) -> None:
    town.environment |= environment
    town.start("songs", "songs")
    # Without caps, which the songs that came first could have used up.
    town.start("audience", "audience", "--slot", "0", "--policy", "off")
    town.wait_until_ready()


def upload(town: Environment, follower: Follower, parents: dict[str, bytes | None]) -> None:
    """Songs by id, with the trace context of each, in one batch if the role takes them so; until all are answered."""
    songs = [
        (msgspec.structs.replace(town.songs[0], song_id=id, recording_id=None), parent)
        for id, parent in parents.items()
    ]
    town.send(SONG_UPLOADS, [traced(upload_record(song, time.time()), parent) for song, parent in songs])
    town.wait_until_answered(follower.answered, list(parents))


def carried(town: Environment, topic: Topic, song_id: str) -> list[str]:
    """The trace contexts of a topic's records on a song."""

    def about(message: Message) -> bool:
        if topic is PUSH_TARGETS:
            return msgspec.json.decode(message.value() or b"", type=PushTarget).song_id == song_id
        return message.key() == song_id.encode()

    snapshot = Snapshot(town.kafka, [town.naming.name(topic)], SystemClock())
    try:
        return [
            (traceparent_of(headers(message)) or b"").decode() for message in snapshot.read_to_end() if about(message)
        ]
    finally:
        snapshot.close()


def test_without_a_collector_a_trace_is_passed_on_through_every_hop_and_none_begins(
    town: Environment, follower: Follower
) -> None:
    start(town)
    upload(town, follower, {"passed": PARENT, "without": None})
    for topic in (MATCH_REQUESTS, PUSH_TARGETS):
        assert set(carried(town, topic, "passed")) == {PARENT.decode()}
        assert set(carried(town, topic, "without")) == {""}
    assert PARENT.decode() in carried(town, CAMPAIGN_REPORTS, "passed")
    town.stop()
    town.workers.clear()


def test_a_collector_sees_an_upload_as_one_trace_over_both_roles(town: Environment, follower: Follower) -> None:
    with OtlpCollector() as collector:
        start(town, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100")
        upload(town, follower, {f"traced-{n}": PARENT if n == 1 else None for n in range(3)})
        answers = len(town.partitions)

        def merged() -> list[ReceivedSpan]:
            return [span for span in collector.of(TRACE) if span.name == "process campaign-reports"]

        town.wait_until(lambda: len(merged()) >= answers, lambda: f"{collector.spans}")
        _one_trace(town, collector.of(TRACE), "traced-1", SPAN)
        # Without a trace of its own each upload begins one.
        roots = {span.attributes["coldstart.song_id"]: span for span in collector.spans if not span.parent}
        assert roots.keys() == {"traced-0", "traced-2"}
        assert len({root.trace for root in roots.values()}) == 2
        for song, root in roots.items():
            _one_trace(town, collector.of(root.trace), song, "")
        town.stop()


def _one_trace(town: Environment, spans: list[ReceivedSpan], song: str, parent: str) -> None:
    (served,) = [span for span in spans if span.name == "process song-uploads"]
    assert (served.service, served.parent) == ("coldstart-songs", parent)
    assert served.attributes["coldstart.song_id"] == song
    (matched,) = [span for span in spans if span.name == "encode and search"]
    assert matched.parent == served.id
    assert served.start <= matched.start <= matched.end <= served.end
    decided = [span for span in spans if span.name == "process match-requests"]
    assert {span.service for span in decided} == {"coldstart-audience"}
    assert {span.parent for span in decided} == {served.id}
    assert {span.attributes["messaging.destination.partition.id"] for span in decided} == {
        str(number) for number in town.partitions
    }
    assert not any(span.error for span in spans)
    by_id = {span.id for span in decided}
    for merged in (span for span in spans if span.name == "process campaign-reports"):
        assert merged.parent in by_id
    # Every push names the decision that it comes from.
    told = carried(town, PUSH_TARGETS, song)
    assert told
    assert {each.split("-")[1] for each in told} == {served.trace}
    assert {each.split("-")[2] for each in told} <= by_id
    assert {each.split("-")[2] for each in carried(town, MATCH_REQUESTS, song)} == {served.id}


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (PARENT, True),
        (PARENT.replace(b"00-", b"01-") + b"-more", True),
        (PARENT + b"-more", False),
        (PARENT.upper(), False),
        (PARENT.replace(TRACE.encode(), b"0" * 32), False),
        (PARENT.replace(SPAN.encode(), b"0" * 16), False),
        (b"ff" + PARENT[2:], False),
        (PARENT + b"\n", False),
        (b"", False),
        (None, False),
    ],
)
def test_only_what_the_recommendation_allows_is_a_trace(header: bytes | None, taken: bool) -> None:
    assert traceparent_of([("ce_id", b"x"), ("traceparent", header)]) == (header if taken else None)


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "x"]), st.binary(max_size=80) | st.none())))
def test_no_header_breaks_anything(found: list[tuple[str, bytes | None]]) -> None:
    told = traceparent_of(found)
    assert told is None or len(told) >= 55
    assert traced(Record(b"k", b"v", []), told).headers == ([] if told is None else [("traceparent", told)])


def test_without_the_extra_nothing_of_opentelemetry_is_imported_and_a_setting_says_what_to_install() -> None:
    script = """if True:
        import sys
        sys.modules["opentelemetry"] = None  # as if it were not installed
        from streams.contract.errors import Refused
        from streams.runtime.settings import TracingSettings
        from streams.runtime.tracing import Tracing
        from streams.runtime.tracing_choice import tracing_of
        assert type(tracing_of(TracingSettings(), "songs")) is Tracing
        try:
            tracing_of(TracingSettings(endpoint="http://collector:4318"), "songs")
        except Refused as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "tracing.endpoint = http://collector:4318" in done.stdout
    assert "coldstart[tracing]" in done.stdout
