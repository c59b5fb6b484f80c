"""The audience worker over several lives: what it commits is what it finds again."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from installation import PATIENCE_S, Installation, recreate
from prometheus_client import CollectorRegistry

from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.changelog_reader import RestoredExtras, read_changelog, state_records
from streams.audience.local_store import LocalStore, LocalStores, StoreCorrupted
from streams.audience.positions import OFFSETS_KEY, read_offsets
from streams.audience.worker import Worker
from streams.audience.worker_context import WorkerContext
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.errors import BadBurst, RecreatedTopic, Refused
from streams.contract.events import Listen, UserPreferences
from streams.contract.internal_events import Answers, Chances, LiveModel, WarmSong
from streams.contract.topics import (
    AUDIENCE_STATE,
    AUDIENCE_VECTORS,
    DEAD_LETTERS,
    LISTENS,
    MATCH_REQUESTS,
    MODELS,
    PREFERENCES,
    WARM_SONGS,
    Naming,
    Topic,
)
from streams.kafka.clients import admin, consumer
from streams.kafka.topic_admin import create_topics
from streams.models.registry import LiveView
from streams.operations.adopt_topic import adopt
from streams.operations.state_digest import digest
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import Clock, ManualClock, SystemClock
from streams.runtime.health import Condition, Heartbeat, Readiness
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from targeting.calibration import Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.rules.policy import Policy

CLOCK = SystemClock()
# No folder can be made in it: the state lives in memory and in the changelog.
NO_DISK = Path(os.devnull)


class Life:
    """One worker in this process, from start to close."""

    def __init__(
        self,
        here: Installation,
        folder: Path = NO_DISK,
        clock: Clock = CLOCK,
        settings: AudienceSettings | None = None,
        bursts: BadBursts | None = None,
    ) -> None:
        self.registry, self.readiness = CollectorRegistry(), Readiness()
        self.view = LiveView(here.kafka, here.naming, CLOCK)
        self.states: list[Partition] = []
        self.clock_condition = Condition("not known yet")
        self.songs = songs = Catalogue()
        partitions = here.naming.audience_partitions

        def new_partition(number: int) -> Partition:
            self.states.append(Partition(number, partitions, songs, TargetingConfig(policy=Policy())))
            return self.states[-1]

        chosen = settings or AudienceSettings()
        self.worker = Worker(
            WorkerContext(here.kafka, here.naming, chosen, clock, AudienceMetrics(self.registry), Heartbeat(CLOCK, 60)),
            0,
            CatalogueSync(self.view, songs, chosen.objective),
            new_partition,
            LocalStores(folder, "test", CLOCK),
            self.readiness.condition("restored", "not yet"),
            bursts=bursts,
            broker_clock=BrokerClock(clock, self.clock_condition),
        )

    def until(self, done: Callable[[], bool]) -> None:
        deadline = CLOCK.monotonic() + PATIENCE_S
        while not done():
            assert CLOCK.monotonic() < deadline
            self.worker.round()

    def digest(self) -> str:
        return self.states[-1].digest()

    def end(self) -> None:
        self.worker.close()
        self.view.close()


@pytest.fixture
def here(kafka: KafkaSettings, prefix: str) -> Installation:
    """One partition; records of preferences and of the state can be deleted, as compaction may delete them."""
    naming = Naming(prefix, 1, 1)
    reach = kafka
    client = admin(reach)
    both = {"cleanup.policy": "compact,delete"}
    erasable = [
        NewTopic(naming.name(topic), 1, 1, config=topic.config() | both) for topic in (PREFERENCES, AUDIENCE_STATE)
    ]
    for future in client.create_topics(erasable).values():
        future.result(PATIENCE_S)
    create_topics(client, naming, 1)
    return Installation(reach, naming)


def listen(here: Installation, number: int, id: str = "") -> None:
    now = CLOCK.now()
    event = Listen(
        listen_id=id or f"l-{number}", user_id="u", song_id=f"s-{number}", played_at=datetime.fromtimestamp(now, UTC),
        source="organic",
    )  # fmt: skip
    here.send(LISTENS, pack(event, id=event.listen_id, source="test", time=now))


def prefer(here: Installation) -> None:
    now = CLOCK.now()
    event = UserPreferences(user_id="u", opted_in=False, updated_at=datetime.fromtimestamp(now, UTC))
    here.send(PREFERENCES, pack(event, id="p", source="test", time=now))


def committed(here: Installation) -> dict[str, int]:
    return {t.name: here.committed("audience", t, 0) for t in (LISTENS, MATCH_REQUESTS, PREFERENCES)}


def stated(here: Installation) -> dict[str, int]:
    """What the changelog says of the inputs."""
    beside = RestoredExtras()
    list(state_records(read_changelog(here.kafka, here.naming, 0, CLOCK, lambda *_: None), beside))
    at = beside.inputs.positions
    return {"listens": at.listens, "match-requests": at.commands, "preferences": at.preferences}


def test_group_and_changelog_agree_though_preferences_are_gone_when_they_are_read_again(here: Installation) -> None:
    prefer(here)
    listen(here, 0)
    first = Life(here)
    first.until(lambda: committed(here)["preferences"] == 1 and committed(here)["listens"] == 1)
    first.end()
    client = admin(here.kafka)
    for future in client.delete_records([TopicPartition(here.naming.name(PREFERENCES), 0, 1)]).values():
        future.result(PATIENCE_S)

    for life, number in enumerate((1, 2)):
        listen(here, number)
        worker = Life(here)
        worker.until(lambda end=life + 2: committed(here)["listens"] == end)  # type: ignore[misc]
        worker.end()
        known = {name: offset for name, offset in committed(here).items() if offset >= 0}
        assert known == {name: offset for name, offset in stated(here).items() if offset >= 0}
        assert known == {"listens": life + 2, "preferences": 1}


def test_a_worker_comes_back_from_the_changelog_and_from_its_disk_to_the_same_state(
    here: Installation, tmp_path: Path
) -> None:
    first = Life(here, tmp_path)
    for number in range(5):
        listen(here, number)
    first.until(lambda: committed(here)["listens"] == 5)
    told = first.digest()
    first.end()

    from_changelog = Life(here)
    from_changelog.until(lambda: bool(from_changelog.states))
    assert from_changelog.digest() == told
    from_changelog.end()

    # Now the disk alone has the state.
    client, place = admin(here.kafka), TopicPartition(here.naming.name(AUDIENCE_STATE), 0)
    (future,) = client.delete_records([TopicPartition(place.topic, 0, OFFSET_END)]).values()
    future.result(PATIENCE_S)
    from_disk = Life(here, tmp_path)
    from_disk.until(lambda: bool(from_disk.states))
    assert from_disk.digest() == told
    from_disk.end()


def repeated(life: Life) -> float:
    return life.registry.get_sample_value("coldstart_listens_repeated_total") or 0.0


def test_a_changelog_with_a_record_that_nobody_wrote_is_refused_by_place_and_served_without_it_once_told(
    here: Installation,
) -> None:
    listen(here, 0)
    first = Life(here)
    first.until(lambda: committed(here)["listens"] == 1)
    told = first.digest()
    first.end()
    here.send(AUDIENCE_STATE, Record(b"zebra", b"?", []), 0)
    offset = here.read(AUDIENCE_STATE)[-1].offset()
    refused = Life(here)
    with pytest.raises(Refused) as caught:
        refused.until(lambda: False)
    refused.end()
    assert f"{here.naming.name(AUDIENCE_STATE)}[0] at offset {offset}: key b'zebra'" in str(caught.value)
    without = Life(here, settings=AudienceSettings(skip_state_records=f"0:{offset}"))
    without.until(lambda: bool(without.worker.partitions))
    assert without.digest() == told
    without.end()


def test_a_burst_of_bad_listens_stops_the_worker_with_all_of_them_committed_and_buried_until_it_is_told(
    here: Installation,
) -> None:
    here.send_all(LISTENS, [Record(b"u", b"?", [("ce_source", b"acme")])] * 50, 0)

    def bursts(resume: bool) -> BadBursts:
        return BadBursts(0.5, 20, "audience.stop_at_bad_share", CLOCK, resume)

    first = Life(here, bursts=bursts(resume=False))
    with pytest.raises(BadBurst, match=r"listens: .* of the last .* records were bad, from 'acme'"):
        first.until(lambda: False)
    first.end()
    buried = len(here.read(DEAD_LETTERS))
    assert 20 <= buried == committed(here)["listens"]
    # Another burst, and good ones behind it.
    here.send_all(LISTENS, [Record(b"u", b"?", [("ce_source", b"acme")])] * 50, 0)
    listen(here, 1)
    again = Life(here, bursts=bursts(resume=True))
    again.until(lambda: committed(here)["listens"] == 101)
    again.end()
    assert len(here.read(DEAD_LETTERS)) == 100


def test_a_listen_sent_again_is_counted_once_before_and_after_a_restart(here: Installation) -> None:
    first = Life(here)
    listen(here, 0)
    listen(here, 0)
    first.until(lambda: committed(here)["listens"] == 2)
    assert repeated(first) == 1
    told = first.digest()
    first.end()
    second = Life(here)
    listen(here, 0)
    second.until(lambda: committed(here)["listens"] == 3)
    assert repeated(second) == 1
    assert second.digest() == told
    second.end()


def test_an_idle_partition_writes_its_offsets_once_a_minute_so_that_compaction_goes_on(here: Installation) -> None:
    clock = ManualClock(CLOCK.now())
    listen(here, 0)
    life = Life(here, clock=clock)
    life.until(lambda: committed(here)["listens"] == 1)
    written = len(here.read(AUDIENCE_STATE))
    for _ in range(5):
        life.worker.round()
    assert len(here.read(AUDIENCE_STATE)) == written
    clock.advance(61)
    life.worker.round()
    (beat,) = here.read(AUDIENCE_STATE)[written:]
    assert beat.key() == OFFSETS_KEY
    assert stated(here)["listens"] == committed(here)["listens"] == 1
    life.end()


@pytest.mark.parametrize("behind_from_the_start", [True, False])
def test_a_worker_whose_clock_is_400_s_behind_consumes_nothing_until_it_is_right(
    here: Installation, behind_from_the_start: bool
) -> None:
    clock = ManualClock(CLOCK.now() + 10)
    life = Life(here, clock=clock)
    consumed = 0
    if not behind_from_the_start:
        listen(here, 0)
        life.until(lambda: committed(here)["listens"] == 1)
        consumed = 1
    clock.wall = CLOCK.now() - 400
    listen(here, 1)
    listen(here, 2)
    prefer(here)
    life.until(lambda: life.clock_condition.reason is not None)
    reason = life.clock_condition.reason
    assert reason is not None
    assert re.match(r"this machine's clock is [34]\d\d s behind the broker's: .*NTP", reason)
    before = committed(here)
    for _ in range(5):
        life.worker.round()
    assert committed(here) == before
    assert max(before["listens"], 0) == consumed
    clock.wall = CLOCK.now()
    life.until(lambda: committed(here)["listens"] == consumed + 2 and committed(here)["preferences"] == 1)
    assert life.clock_condition.reason is None
    assert here.read(DEAD_LETTERS) == []
    life.end()
    # What was read twice counts once.
    assert life.registry.get_sample_value("coldstart_listens_applied_total") == consumed + 2


def test_what_changelog_and_disk_say_is_the_state_and_the_disk_stays_as_it_is(
    here: Installation, tmp_path: Path
) -> None:
    for number in range(3):
        listen(here, number)
    life = Life(here, tmp_path)
    life.until(lambda: committed(here)["listens"] == 3)
    told = life.digest()
    stores = LocalStores(tmp_path, "test", CLOCK)

    def new_partition(number: int) -> Partition:
        return Partition(number, 1, Catalogue())

    from_changelog = digest(here.kafka, here.naming, 0, CLOCK, new_partition)
    assert from_changelog is not None
    assert (from_changelog.digest, from_changelog.at) == (told, {"listens": 3})
    # A worker holds the database.
    assert digest(here.kafka, here.naming, 0, CLOCK, new_partition, stores) is None
    life.end()
    assert digest(here.kafka, here.naming, 0, CLOCK, new_partition, stores) == from_changelog
    assert digest(here.kafka, here.naming, 0, CLOCK, new_partition, LocalStores(tmp_path / "no", "test", CLOCK)) is None


def outside(here: Installation, user: str, vector: list[float] | None, space: str = "a") -> None:
    value = None if vector is None else vector_codec.pack(space, np.array(vector, np.float32))
    sender = Producer(here.kafka.confluent())
    sender.produce(here.naming.name(AUDIENCE_VECTORS), value, user.encode(), 0)
    assert sender.flush(PATIENCE_S) == 0


def publish(here: Installation, space: str, songs: dict[str, list[float]], chances: Chances | None = None) -> None:
    now = datetime.fromtimestamp(CLOCK.now(), UTC)
    for song_id, vector in songs.items():
        song = WarmSong(song_id=song_id, space=space, vector=vector_codec.pack(space, np.array(vector, np.float32)))
        here.send(WARM_SONGS, pack(song, id=song_id, source="test", time=CLOCK.now()), 0)
    model = LiveModel(
        name="encoder",
        uri="file:///no",
        manifest_sha256="0",
        space=space,
        dim=2,
        warm_songs=len(songs),
        published_at=now,
        chances=chances,
    )
    here.send(MODELS, pack(model, id=space, source="test", time=CLOCK.now()), 0)


def count(life: Life, change: str) -> float:
    return life.registry.get_sample_value("coldstart_vectors_applied_total", {"change": change}) or 0.0


def test_a_bad_record_of_any_size_that_a_topic_takes_is_buried_untouched(here: Installation) -> None:
    # One fills what the topic allows; the other is larger, and was only small enough as it was compressed.
    for value in (random.Random(0).randbytes(1_048_300), b"x" * 1_500_000):
        here.send(LISTENS, Record(b"k" * 100, value, []), 0)
    life = Life(here)
    life.until(lambda: here.committed("audience", LISTENS, 0) == 2)
    life.end()
    letters = here.read(DEAD_LETTERS)
    assert sorted(len(letter.value() or b"") for letter in letters) == [1_048_300, 1_500_000]


SMALL = {"user_id": "u", "song_id": "s", "played_at": "2026-03-01T10:00:00Z", "source": "organic"}


def test_a_listen_of_5_megabytes_that_zstd_brings_under_the_limit_is_one_dead_letter(here: Installation) -> None:
    huge = msgspec.json.encode({"listen_id": "huge", **SMALL, "note": "x" * 5_000_000})
    here.send(LISTENS, listen_record(huge), 0, compression="zstd")
    here.send(LISTENS, listen_record(msgspec.json.encode({"listen_id": "next", **SMALL})), 0)
    life = Life(here)
    life.until(lambda: here.committed("audience", LISTENS, 0) == 2)
    assert life.registry.get_sample_value("coldstart_listens_applied_total") == 1
    life.end()
    (letter,) = here.read(DEAD_LETTERS)
    said = dict(letter.headers() or ())
    assert said["dl_error"] == b"TooLarge"
    assert said["dl_message"] == b"value: %d bytes uncompressed, 1048576 allowed" % len(huge)
    assert said["dl_value_sha256"] == sha256(huge).hexdigest().encode()
    assert huge.startswith(letter.value() or b"-")


@pytest.mark.parametrize("topic", [LISTENS, PREFERENCES])
def test_records_that_no_client_can_read_are_one_dead_letter_each(here: Installation, topic: Topic) -> None:
    good = listen_record(msgspec.json.encode({"listen_id": "1", **SMALL}))
    if topic is PREFERENCES:
        event = UserPreferences(user_id="u", opted_in=True, updated_at=datetime.now(UTC))
        good = pack(event, id="1", source="t", time=CLOCK.now())
    huge = Record(good.key, b"{" + bytes(70_000_000), good.headers)
    here.send(topic, good, 0)
    here.send_with_bad_header_name(topic, good, 0, "lz4")
    for record in (huge, good, huge, good):
        here.send(topic, record, 0, "zstd")
    life = Life(here)
    life.until(lambda: here.committed("audience", topic, 0) == 6)
    life.end()
    letters = [dict(letter.headers() or ()) for letter in here.read(DEAD_LETTERS)]
    found = [((said["dl_offset"] or b"").decode(), (said["dl_message"] or b"").decode()) for said in letters]
    why = "the batch cannot be read, it unpacks into more than 67,108,864 bytes"
    assert found == [
        ("1", "headers: the name of one is not UTF-8"),
        ("2", f"offset 2: {why}"),
        ("4", f"offset 4: {why}"),
    ]


def listen_record(value: bytes) -> Record:
    headers = pack(
        Listen(listen_id="-", user_id="u", song_id="s", played_at=datetime.now(UTC), source="organic"),
        id="-", source="test", time=CLOCK.now(),
    ).headers  # fmt: skip
    return Record(b"u", value, headers)


def test_vectors_from_outside_are_read_again_at_every_start_and_when_the_space_changes(here: Installation) -> None:
    publish(here, "a", {"s-0": [1, 0], "s-1": [0, 1]})
    outside(here, "u", [1, 1])
    outside(here, "v", [1, 1], "b")
    outside(here, "w", [1, 1, 1])
    first = Life(here)
    first.until(lambda: here.committed("audience", AUDIENCE_VECTORS, 0) == 3)
    assert (count(first, "taken"), count(first, "withdrawn")) == (1, 1)
    assert len(here.read(DEAD_LETTERS)) == 1
    first.end()
    second = Life(here)
    second.until(lambda: count(second, "taken") == 1)
    publish(here, "b", {"s-0": [1, 0], "s-1": [0, 1]})
    # Now v has the vector of the space in use, and the others have one of another space.
    second.until(lambda: (count(second, "taken"), count(second, "withdrawn")) == (2, 3))
    outside(here, "v", None)
    second.until(lambda: here.committed("audience", AUDIENCE_VECTORS, 0) == 4)
    assert (count(second, "taken"), count(second, "withdrawn")) == (2, 4)
    # The bad one had its dead letter in the first life.
    assert len(here.read(DEAD_LETTERS)) == 1
    second.end()


def test_the_objective_says_by_which_of_a_models_chances_a_worker_scores(here: Installation) -> None:
    answers = Answers(activity=0.25, scores=[0.0, 1.0], chances=[0.0, 0.5])
    publish(here, "a", {"s-0": [1, 0], "s-1": [0, 1]}, Chances([0.0, 1.0], [0.0, 0.4], "x", answers))
    for settings, best, power in (
        (AudienceSettings(), 0.5, 0.25),
        (AudienceSettings(objective="answers"), 0.5, 0.25),
        (AudienceSettings(objective="liking"), 0.4, 0.0),
    ):
        life = Life(here, settings=settings)
        life.until(lambda life=life: life.songs.calibration is not None)  # type: ignore[misc]
        assert life.songs.calibration == Calibration((0.0, 1.0), (0.0, best), power)
        life.end()


def applied(life: Life) -> float:
    return life.registry.get_sample_value("coldstart_listens_applied_total") or 0.0


def test_listens_deleted_and_created_anew_are_refused_by_name_and_all_counted_once_adopted(here: Installation) -> None:
    first = Life(here)
    for number in range(3):
        listen(here, number)
    first.until(lambda: committed(here)["listens"] == 3)
    first.end()
    recreate(here, LISTENS)
    at = datetime.fromtimestamp(CLOCK.now(), UTC)
    events = [
        Listen(listen_id=f"m-{n}", user_id="u", song_id=f"t-{n}", played_at=at, source="organic") for n in range(120)
    ]
    records = [pack(e, id=e.listen_id, source="test", time=at.timestamp()) for e in events]
    here.send_all(LISTENS, records)
    second = Life(here)
    with pytest.raises(RecreatedTopic, match="coldstart topics adopt listens"):
        second.until(lambda: False)
    second.end()
    assert adopt(here.kafka, here.naming, "listens", CLOCK, 0).startswith(here.naming.name(LISTENS))
    third = Life(here)
    third.until(lambda: committed(here)["listens"] == 120)
    assert applied(third) == 120
    assert third.states[-1].users == 1
    third.end()
    fourth = Life(here)
    listen(here, 200)
    fourth.until(lambda: committed(here)["listens"] == 121)
    assert applied(fourth) == 1
    fourth.end()


def test_listens_that_retention_took_before_they_were_read_are_told(here: Installation) -> None:
    first = Life(here)
    listen(here, 0)
    first.until(lambda: committed(here)["listens"] == 1)
    first.end()
    for number in range(1, 6):
        listen(here, number)
    client, name = admin(here.kafka), here.naming.name(LISTENS)
    for future in client.delete_records([TopicPartition(name, 0, 4)]).values():
        future.result(PATIENCE_S)
    second = Life(here)
    second.until(lambda: committed(here)["listens"] == 6)
    assert applied(second) == 2
    assert second.registry.get_sample_value("coldstart_records_lost_total", {"topic": name}) == 3
    second.end()


def test_offsets_that_no_transaction_wrote_are_refused_and_kept_while_a_worker_runs(
    here: Installation,
) -> None:
    by_hand = consumer(here.kafka, f"{here.naming.prefix}audience")
    by_hand.commit(offsets=[TopicPartition(here.naming.name(LISTENS), 0, 1)], asynchronous=False)
    by_hand.close()
    life = Life(here)
    with pytest.raises(Refused, match="coldstart offsets reset audience --to-state"):
        life.until(lambda: False)
    with pytest.raises(Refused, match="workers are running"):
        adopt(here.kafka, here.naming, "audience-state", CLOCK, 0)
    assert committed(here)["listens"] == 1
    life.end()


def test_the_offsets_of_an_empty_group_are_dropped_for_those_of_the_state(here: Installation) -> None:
    by_hand = consumer(here.kafka, f"{here.naming.prefix}audience")
    by_hand.commit(offsets=[TopicPartition(here.naming.name(LISTENS), 0, 1)], asynchronous=False)
    by_hand.close()
    adopt(here.kafka, here.naming, "audience-state", CLOCK, 0)
    assert committed(here)["listens"] < 0
    listen(here, 0)
    life = Life(here)
    life.until(lambda: committed(here)["listens"] == 1)
    assert applied(life) == 1
    life.end()


def test_a_disk_that_takes_nothing_while_a_restore_is_tried_again_is_done_without(
    here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Life(here)
    listen(here, 0)
    first.until(lambda: committed(here)["listens"] == 1)
    before = first.digest()
    first.end()

    def full(*_: object) -> None:
        raise StoreCorrupted("No space left on device")

    monkeypatch.setattr(LocalStore, "write", full)
    second = Life(here, tmp_path)
    try:
        second.until(lambda: bool(second.states))
        assert second.digest() == before
    finally:
        second.end()


def prefer_all(here: Installation, count: int) -> None:
    now = CLOCK.now()
    at = datetime.fromtimestamp(now, UTC)
    events = [UserPreferences(user_id=f"u-{n}", opted_in=n % 2 == 0, updated_at=at) for n in range(count)]
    records = [pack(e, id=e.user_id, source="test", time=now) for e in events]
    here.send_all(PREFERENCES, records)


def test_many_preferences_come_in_pieces_before_anything_that_could_push(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.audience.consumers._PREFERENCES_AT_ONCE", 100)
    prefer_all(here, 1000)
    here.send(MATCH_REQUESTS, Record(b"no", b"request", []), 0)
    listen(here, 0)
    life, seen = Life(here), set()

    def done() -> bool:
        seen.add(life.readiness.reasons().get("restored", "ready"))
        return committed(here)["match-requests"] == 1

    life.until(done)
    assert "preferences of partition 0: 500 of 1,000" in seen
    assert "ready" in seen
    # So do those that come while it serves, before the request that came with them.
    prefer_all(here, 1000)
    here.send(MATCH_REQUESTS, Record(b"no", b"request", []), 0)
    life.until(lambda: committed(here)["match-requests"] == 2)
    life.end()
    together = [read_offsets(m.value())[0] for m in here.read(AUDIENCE_STATE) if m.key() == OFFSETS_KEY]
    for commands, preferences in ((1, 1000), (2, 2000)):
        assert next(at for at in together if at.commands == commands).preferences == preferences
    assert next(at for at in together if at.listens == 1).preferences == 1000
    assert max(b.preferences - a.preferences for a, b in pairwise(together)) == 100


def test_the_gauges_show_nothing_behind_where_only_ends_of_transactions_are_left(here: Installation) -> None:
    listen(here, 1)
    sender = Producer(here.kafka.confluent() | {"transactional.id": f"{here.naming.prefix}player"})
    sender.init_transactions(PATIENCE_S)
    sender.begin_transaction()
    sender.produce(here.naming.name(LISTENS), b"never", b"u")
    sender.flush(PATIENCE_S)
    sender.abort_transaction(PATIENCE_S)
    life = Life(here)
    labels = {"topic": here.naming.name(LISTENS), "partition": "0"}

    def shown(name: str) -> float | None:
        return life.registry.get_sample_value(f"coldstart_{name}", labels)

    life.until(lambda: here.committed("audience", LISTENS, 0) == 1 and shown("lag_records") == 0)
    assert shown("lag_seconds") == 0
    life.end()
