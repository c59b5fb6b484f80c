"""Whatever stands on an internal topic: it is used, skipped with its reason, or refused with its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from decoders import written
from hostile import Parts, records, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installation import Installation
from prometheus_client import CollectorRegistry

from streams.audience.changelog_reader import RestoredExtras, read_changelog
from streams.audience.decode import Decoder, Records, SpaceInUse
from streams.audience.deduplication import Deduplication
from streams.audience.disk_recovery import refusal, restore
from streams.audience.local_store import Entry, StoreCorrupted
from streams.audience.positions import OFFSETS_KEY, InputOffsets, offsets_value
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack, unpack
from streams.contract.errors import BadRecord, PartitionMismatch, Refused, Unavailable
from streams.contract.event_base import Event
from streams.contract.events import Campaign, CampaignCounts
from streams.contract.internal_events import CampaignReport, LiveModel, MatchRequest, WarmSong
from streams.contract.topics import AUDIENCE_STATE, CAMPAIGNS, MODELS, SONGS_LEDGER, WARM_SONGS
from streams.kafka.skipped_records import Skipped
from streams.models.registry import LiveView, read_model, read_song
from streams.operations.campaigns import current, read_campaign
from streams.operations.uplift import uplift
from streams.runtime.clock import SystemClock
from streams.runtime.health import Readiness
from streams.runtime.metrics import AudienceMetrics
from streams.songs import song_record, song_store
from streams.songs.song_store import CompactedCache
from targeting.catalogue.catalogue import Catalogue
from targeting.partition import changelog
from targeting.partition.partition import Partition
from targeting.types import Listens, PartitionInputs

CLOCK = SystemClock()
# When the examples were made.
NOW = datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC).timestamp()
SPACE = SpaceInUse("bcl", 2)


def example(cls: type[Event], kind: int = 0) -> Record:
    event = msgspec.json.decode(cls.EXAMPLE.encode(), type=cls)
    return pack(event, ce_type=cls.TYPES[kind], id="1", source="test", time=NOW)


def song(song_id: str, *values: float, space: str = "x") -> Record:
    vector = np.array(values, np.float32)
    event = WarmSong(song_id=song_id, space=space, vector=vector_codec.pack(space, vector))
    return pack(event, id=song_id, source="test", time=NOW)


def model(space: str = "x", dim: int = 2, **more: Any) -> Record:
    event = LiveModel(
        **{
            "name": "encoder", "uri": "file:///m", "manifest_sha256": "5e", "space": space, "dim": dim,
            "warm_songs": 1, "published_at": datetime(2026, 3, 1, tzinfo=UTC),
        } | more
    )  # fmt: skip
    return pack(event, id="m", source="test", time=NOW)


# -- whatever bytes


@given(records(example(WarmSong)))
def test_any_record_of_warm_songs_is_a_song_with_a_direction_or_bad(record: Parts) -> None:
    try:
        found, vector = read_song(*record)
    except BadRecord:
        return
    assert np.isfinite(vector).all()
    assert vector.any()
    assert record[0] == f"{found.space} {found.song_id}".encode()


@given(records(example(LiveModel)))
def test_any_record_of_models_is_a_model_or_bad(record: Parts) -> None:
    try:
        assert read_model(*record).dim > 0
    except BadRecord:
        return


@given(records(example(CampaignReport)))
def test_any_report_can_be_dated_or_is_bad(record: Parts) -> None:
    try:
        report = unpack(CampaignReport, *record, NOW).event
    except BadRecord:
        return
    assert report.started_at.timestamp() < 1e12
    assert (
        song_store.check_report(song_store.report_key(report.song_id, report.partition), msgspec.json.encode(report))
        is None
    )


@given(st.binary(max_size=20), values().filter(lambda value: value is not None))
def test_any_entry_of_songs_reports_or_the_ledger_is_usable_or_bad(key: bytes, value: bytes) -> None:
    for check in (song_store.check_report, song_record.check):
        try:
            check(key, value)
        except BadRecord:
            continue


@given(records(example(Campaign)))
def test_any_record_of_campaigns_is_shown_or_bad(record: Parts) -> None:
    try:
        _, campaign = read_campaign(*record[:2])
    except BadRecord:
        return
    if campaign is not None:
        assert len(uplift(campaign.counts)) == 3


def test_more_listeners_than_pushes_have_a_lift() -> None:
    assert uplift(CampaignCounts(pushed=1, listened=5, held_out=1, held_out_listened=9))[0].treated == 1


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(records(*[example(MatchRequest, kind) for kind in range(4)]), max_size=6))
def test_any_match_requests_are_served_or_buried_once(found: list[Parts]) -> None:
    messages = [
        Message(topic="match-requests", partition=0, offset=at, key=key, value=value, headers=headers, timestamp=(1, 0))
        for at, (key, value, headers) in enumerate(found)
    ]
    decoded = Decoder(NOW, lambda _: False, 1).decode(Records(commands=messages), SPACE, Deduplication(0))
    assert len(decoded.inputs.commands) + len(decoded.bad) == len(messages)
    state = partition(with_songs())
    listens = Listens(["u"], ["s-2"], np.ones(1, np.float32), np.full(1, NOW - 9), None)
    for inputs in (PartitionInputs(now=NOW, listens=listens), decoded.inputs, PartitionInputs(now=NOW + 1)):
        state.apply(state.stage(inputs))
    again = partition(with_songs())
    again.restore((key, value) for key, value in changelog.records(state._state))
    assert again.digest() == state.digest()


# -- the changelog


def partition(songs: Catalogue | None = None) -> Partition:
    return Partition(0, 2, songs or Catalogue())


def with_songs() -> Catalogue:
    songs = Catalogue()
    songs.set_vectors("bcl", ["s-2", "s-3"], np.eye(2, dtype=np.float32))
    return songs


GOOD = written(partition(with_songs()), 30)


def taken(entries: list[Entry]) -> Partition:
    state = partition(with_songs())
    restore(
        state, entries, RestoredExtras(), False,
        lambda error: refusal("audience-state", 0, entries, lambda _: partition(with_songs()), {}, error),
    )  # fmt: skip
    return state


def refused(entries: list[Entry]) -> str:
    with pytest.raises(Refused) as caught:
        taken(entries)
    assert not isinstance(caught.value, PartitionMismatch)
    return str(caught.value)


KINDS = sorted({entry.key[:1] for entry in GOOD})


@settings(deadline=None)
@given(st.lists(st.tuples(
    st.one_of(st.binary(max_size=9), st.tuples(st.sampled_from([*KINDS, b"e", b"i", b"o"]),
              st.binary(max_size=5)).map(b"".join), st.sampled_from([entry.key for entry in GOOD])),
    st.one_of(st.none(), st.binary(max_size=60), st.sampled_from([entry.value for entry in GOOD])),
), min_size=1, max_size=4))  # fmt: skip
def test_any_changelog_is_restored_or_refused_with_a_place(found: list[tuple[bytes, bytes | None]]) -> None:
    entries = [*GOOD, *(Entry(len(GOOD) + at, key, value) for at, (key, value) in enumerate(found))]
    try:
        state = taken(entries)
    except PartitionMismatch:
        return
    except Refused:
        said = refused(entries)
        assert "audience-state[0] at offset" in said
        assert "audience.skip_state_records" in said
        return
    assert len(state.digest()) == 32
    assert state.stage(PartitionInputs(now=NOW + 2)) is not None


def test_what_a_partition_wrote_is_restored() -> None:
    assert {b"c", b"k", b"m", b"n", b"p", b"u"} <= set(KINDS)
    assert taken(GOOD).users == 30


@pytest.mark.parametrize("entry", [
    (b"z-unknown", b"1"), (b"", b"1"), (b"u\xff", b"\x01"), (b"uA", b"\x09"), (b"uA", b"\x01123"), (b"pA", b"\x01123"),
    (b"iA", b"\x01"), (b"e0123456789abcdef", b"\x01"), (b"cs", b"\x02\xc1"),
    (b"ns", b"\x02"), (b"cs\xff", b"\x02"), (b"ks-81", b"\x03bcl\x01"), (OFFSETS_KEY, b"{"),
    (OFFSETS_KEY, b'{"moon":1}'), (OFFSETS_KEY, b'{"listens":"1"}'), (OFFSETS_KEY, b"\xff"),
], ids=repr)  # fmt: skip
def test_a_broken_changelog_record_is_refused_with_its_offset(entry: tuple[bytes, bytes | None]) -> None:
    at = len(GOOD) + 5
    said = refused([*GOOD, Entry(at, *entry)])
    assert f"audience-state[0] at offset {at}: " in said
    assert f'audience.skip_state_records = "0:{at}"' in said


def test_a_request_without_its_account_is_refused_with_the_requests_offset() -> None:
    without = [entry for entry in GOOD if entry.key[:1] != b"n"]
    (request,) = [entry.offset for entry in GOOD if entry.key[:1] == b"c"]
    said = refused(without)
    assert f"at offset {request}: " in said
    assert "the other is missing" in said


def test_another_partitions_changelog_is_refused_by_name() -> None:
    with pytest.raises(PartitionMismatch, match="partition"):
        taken([Entry(0, b"m", msgspec.json.encode({"version": 2, "partition": 1, "partitions": 2}))])


def test_a_broken_record_on_disk_has_the_copy_made_anew() -> None:
    with pytest.raises(StoreCorrupted):
        restore(partition(), [Entry(0, b"z", b"")], RestoredExtras(), True, lambda error: Refused(str(error)))


def test_what_reading_the_changelog_raises_is_not_taken_for_a_record() -> None:
    def failing() -> Iterator[Entry]:
        yield GOOD[0]
        raise Unavailable("no broker")

    with pytest.raises(Unavailable):
        restore(partition(with_songs()), failing(), RestoredExtras(), False, lambda error: Refused(str(error)))


# -- on the broker


def test_a_changelog_with_a_broken_record_is_read_again_once_it_is_left_out(here: Installation) -> None:
    name = here.naming.name(AUDIENCE_STATE)
    here.send_all(
        AUDIENCE_STATE,
        [Record(b"z", b"?", []), Record(OFFSETS_KEY, offsets_value(InputOffsets(), {}), [])],
        partition=0,
    )

    def entries(*without: int) -> Iterator[Entry]:
        return read_changelog(here.kafka, here.naming, 0, CLOCK, lambda *_: None, 0, without)

    with pytest.raises(Refused) as caught:
        restore(
            partition(), entries(), RestoredExtras(), False,
            lambda error: refusal(name, 0, entries(), lambda _: partition(), {1: [7]}, error),
        )  # fmt: skip
    assert f"{name}[0] at offset 0: key b'z'" in str(caught.value)
    # What is left out already stays so.
    assert 'skip_state_records = "1:7,0:0"' in str(caught.value)
    state = partition()
    restore(state, entries(0), RestoredExtras(), False, lambda error: Refused(str(error)))
    assert state.users == 0


def test_what_cannot_be_read_on_a_cached_topic_is_skipped_and_shown_and_the_rest_is_served(here: Installation) -> None:
    bad_songs = [
        Record(b"\xff", b"?", []),
        Record(b"x a", b"?", song("a", 1, 0).headers),
        Record(b"x a", song("b", 1, 0).value, song("b", 1, 0).headers),
        song("zero", 0, 0),
        song("huge", 1e30, 1e30),
        song("nan", float("nan"), 1),
    ]  # fmt: skip
    here.send_all(WARM_SONGS, [song("a", 0, 1), song("misfit", 1, 0, 0), *bad_songs, song("c", 1, 0)])
    chances = msgspec.json.decode(b'{"scores":[1,0],"chances":[0,1],"means":"x"}')
    bad_models = [Record(b"encoder", b"?", []), model(chances=chances)]
    here.send_all(MODELS, [model(), *bad_models])
    registry, readiness = CollectorRegistry(), Readiness()
    skipped = Skipped(AudienceMetrics(registry).skipped_records, readiness, bury=True)
    with closing(LiveView(here.kafka, here.naming, CLOCK, skipped)) as view:
        space = view.warm()
        while space is None:
            view.poll(0.1)
            space = view.warm()
        assert dict(zip(space.ids, space.vectors.tolist(), strict=True)) == {"a": [0, 1], "c": [1, 0]}
        # A model of this space with another dimension is none; a song of another dimension fits no more.
        before = view.version
        here.send(MODELS, model(dim=3))
        here.send(WARM_SONGS, song("late", 1, 2, 3))
        while skipped.count < 11:
            view.poll(0.1)
        assert (view.version, view.model and view.model.dim) == (before, 2)
    counted = {
        topic: sum(
            registry.get_sample_value("coldstart_skipped_records_total", {"topic": name, "error": error}) or 0
            for error in ("InvalidField", "Undecodable", "KeyMismatch")
        )
        for topic, name in (("songs", here.naming.name(WARM_SONGS)), ("models", here.naming.name(MODELS)))
    }
    assert counted == {"songs": 8, "models": 3}
    assert "11 records" in readiness.notes()["skipped"]
    # The misfit was read before it was known to be one; all others wait for their dead letter.
    assert len(skipped.take(range(2))) == 10
    assert skipped.take(range(2)) == []


def test_an_entry_of_the_ledger_that_cannot_be_read_is_refused_until_it_is_left_out(here: Installation) -> None:
    upload = b'{"song_id":"a","revision":1,"title":"t"}'
    good = b'{"revision":1,"id":"1","asked":1,"at":1,"expires_at":2,"upload":' + upload + b"}"
    records = [Record(b"a", good, []), Record(b"a", b"?", []), Record(b"b", good, []), Record(b"c", b"?", []),
               Record(b"c", None, [])]  # type: ignore[arg-type]  # fmt: skip
    here.send_all(SONGS_LEDGER, records, 1)
    name = here.naming.name(SONGS_LEDGER)
    store = CompactedCache(here.kafka, name, CLOCK, song_record.check)
    with pytest.raises(Refused) as caught:
        asyncio.run(store.partition(1))
    assert f"{name}[1] at offset 1: " in str(caught.value)
    assert f"{name}[1] at offset 2: key" in str(caught.value)
    assert 'songs.skip_ledger_records = "1:1,1:2"' in str(caught.value)
    left_out = CompactedCache(here.kafka, name, CLOCK, song_record.check, without={1: [1, 2]})
    # What the song said before stands again.
    assert asyncio.run(left_out.partition(1)) == {b"a": good}


def test_a_report_in_store_that_cannot_be_read_is_missing_and_waits_for_its_dead_letter(here: Installation) -> None:
    here.send_all(SONGS_LEDGER, [Record(b"0 a", b"?", [])], 0)
    skipped = Skipped(bury=True)
    store = CompactedCache(here.kafka, here.naming.name(SONGS_LEDGER), CLOCK, song_store.check_report, skipped)
    assert asyncio.run(store.partition(0)) == {}
    ((found, error),) = skipped.take([0])
    assert (found.key, found.value, type(error).__name__) == (b"0 a", b"?", "Undecodable")


def test_campaigns_are_shown_beside_records_that_cannot_be_read(here: Installation) -> None:
    good = example(Campaign)
    here.send_all(CAMPAIGNS, [Record(b"\xff", b"?", []), Record(b"[/x]", b"{}", []), good])
    skipped = Skipped()
    assert list(current(here.kafka, here.naming, CLOCK, skipped)) == ["s-81"]
    assert skipped.count == 2
