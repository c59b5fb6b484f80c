"""Any sequence of uploads, reports, warm songs and swaps, whatever is wrong with them: each record is served or buried
once, and a role that is started again knows what the former one knew.

The role's own parts, from the decoding of records to what they send, over topics that are lists.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
from confluent_kafka import Message
from hostile_traffic import Sent, Traffic
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry
from scipy import sparse

from encoder import artifact
from encoder import train as training
from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from streams.contract import vector_codec
from streams.contract.cloudevents import LOG_APPEND_TIME, pack, unpack
from streams.contract.dead_letters import headers
from streams.contract.events import SongUpload
from streams.contract.internal_events import CampaignReport, LiveModel, MatchRequest, WarmSong
from streams.contract.record_size import record_size
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    MATCH_REQUESTS,
    MODELS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    WARM_SONGS,
    Naming,
    Topic,
)
from streams.kafka.partitioner import partition_of
from streams.kafka.skipped_records import Skipped
from streams.models.registry import LiveView, read_song
from streams.operations.campaigns import read_campaign
from streams.runtime.bad_record_burst import BadBursts
from streams.runtime.broker_clock import BrokerClock
from streams.runtime.clock import ManualClock
from streams.runtime.dead_letter_log import DeadLetterLog
from streams.runtime.health import Readiness
from streams.runtime.metrics import SongsMetrics
from streams.runtime.settings import SongsSettings
from streams.songs import reports, uploads
from streams.songs.agents import _count
from streams.songs.burials import bury_skipped
from streams.songs.main import _check_report, _check_song
from streams.songs.model_swap import LiveMatcher
from streams.songs.producer import AwaitedProducer
from streams.songs.reconcile import Reconciler
from streams.songs.song_store import CompactedCache, SongStore

START = 1_800_000_000.0
AUDIENCE, SONGS = 2, 2
NAMING = Naming("hostile.", AUDIENCE, SONGS)
WARM = 20
Place = tuple[str, int]


class Lost(Exception):
    """A record was not acknowledged."""


class Log:
    """All topics, as a broker keeps them."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.records: dict[Place, list[Message]] = {}
        self.until_lost: int | None = None

    def copy(self) -> Log:
        other = Log(self.clock)
        other.records = {place: list(messages) for place, messages in self.records.items()}
        return other

    def append(self, topic: Topic, sent: Sent, partition: int | None = None) -> None:
        key, value, said = sent
        if partition is None:
            partition = partition_of(key or b"", NAMING.partitions(topic))
        name = NAMING.name(topic)
        here = self.records.setdefault((name, partition), [])
        more: dict[str, Any] = {"headers": said} if said else {}
        stamp = LOG_APPEND_TIME, int(self.clock.now() * 1000)
        here.append(
            Message(topic=name, partition=partition, offset=len(here), key=key, value=value, timestamp=stamp, **more)
        )

    def of(self, topic: Topic) -> Iterator[Message]:
        for (name, _), messages in list(self.records.items()):
            if name == NAMING.name(topic):
                yield from messages


class Reading:
    """What :class:`streams.kafka.compacted_topic.Snapshot` is, of a log."""

    def __init__(self, log: Log, topics: Sequence[str], _: object, partition: int | None = None) -> None:
        self._log = log
        self._topics = set(topics)
        self._partition = partition
        self._read: dict[Place, int] = {}

    def read_to_end(self) -> Iterator[Message]:
        yield from self.poll(0)

    def poll(self, _: float) -> list[Message]:
        found: list[Message] = []
        for place, messages in self._log.records.items():
            if place[0] in self._topics and self._partition in (None, place[1]):
                found += messages[self._read.get(place, 0) :]
                self._read[place] = len(messages)
        return found

    def ends(self, topic: str) -> dict[int, int]:
        return {number: len(messages) for (name, number), messages in self._log.records.items() if name == topic}

    def reached(self, topic: str, ends: Mapping[int, int]) -> bool:
        return all(self._read.get((topic, number), 0) >= end for number, end in ends.items())

    def close(self) -> None:
        pass


class Acknowledged:
    """What Faust gives for a record that was handed over."""

    def __init__(self, lost: bool) -> None:
        self._lost = lost

    def __await__(self) -> Generator[None, None, None]:
        if self._lost:
            raise Lost
        yield


class FaustTopic:
    def __init__(self, log: Log, topic: Topic) -> None:
        self._log = log
        self._topic = topic

    async def send(
        self, *, key: Any, value: Any, headers: list[tuple[str, Any]], partition: int | None, force: bool
    ) -> Acknowledged:
        assert force
        if self._log.until_lost is not None:
            self._log.until_lost -= 1
            if self._log.until_lost < 0:
                # What is handed over after it may arrive.
                self._log.until_lost = None
                return Acknowledged(lost=True)
        assert record_size(key, value, headers) <= self._topic.largest
        if value is not None:
            understood(self._topic, key, value, headers, self._log.clock.now())
        self._log.append(self._topic, (key, value, headers), partition)
        return Acknowledged(lost=False)


def understood(topic: Topic, key: bytes, value: bytes, said: list[tuple[str, Any]], now: float) -> None:
    """What the role says, its readers can read."""
    if topic is MATCH_REQUESTS:
        vector_codec.unpack_direction(unpack(MatchRequest, key, value, said, now).event.vector or GONE)
    elif topic is WARM_SONGS:
        read_song(key, value, said)
    elif topic is CAMPAIGNS:
        read_campaign(key, value)


GONE = vector_codec.pack("none", np.ones(1, np.float32))


class FaustApp:
    def __init__(self, log: Log) -> None:
        self._log = log

    def topic(self, name: str, **_: object) -> FaustTopic:
        return FaustTopic(self._log, NAMING.by_name()[name])


class Role:
    """A songs process on a log."""

    def __init__(self, log: Log, clock: ManualClock) -> None:
        self.log = log
        config = SongsSettings(warm_listeners=5, campaign_days=10, swap_both_s=30)
        metrics = SongsMetrics(CollectorRegistry())
        self.skipped = Skipped(bury=True)
        self.view = LiveView(log, NAMING, clock, self.skipped)  # type: ignore[arg-type]
        self.live = LiveMatcher(self.view, metrics, clock, config.swap_both_s)
        self.live.wait()
        self.store = SongStore(
            NAMING, config, metrics, clock, self.live,
            AwaitedProducer(FaustApp(log), NAMING, DeadLetterLog(metrics.dead_letters, clock)),
            CompactedCache(log, NAMING.name(SONGS_LEDGER), clock, _check_song),  # type: ignore[arg-type]
            CompactedCache(log, NAMING.name(SONGS_REPORTS), clock, _check_report, self.skipped),  # type: ignore[arg-type]
            self.skipped,
            BadBursts(0.5, 1000, "songs.stop_at_bad_share", clock),
            BrokerClock(clock, Readiness().condition("clock", "not known yet")),
        )  # fmt: skip
        self.reconciler = Reconciler(self.store)

    def follow(self) -> None:
        """Take over what came, a whole swap of models too: a former model's songs are read again."""
        for _ in range(3):
            self.view.poll(0)
            self.live.wait()
        assert self.view.model is not None
        assert self.live().space == self.view.model.space

    async def remembered(self) -> dict[tuple[str, int, bytes], bytes]:
        """Its own state."""
        return {
            (store.topic, number, key): value
            for store in (self.store.song_records, self.store.reports)
            for number in range(SONGS)
            for key, value in (await store.partition(number)).items()
        }

    def warm(self) -> dict[str, bytes]:
        """The warm songs in the space in use."""
        warm = self.view.warm()
        assert warm is not None
        return {f"{self.live().space} {song}": warm.vector(song).tobytes() for song in warm.ids}

    def said(self) -> dict[str, dict[tuple[int, bytes], bytes]]:
        """What its readers see: views, and commands by their id."""
        views = {(0, each.key() or b""): each.value() or b"" for each in self.log.of(CAMPAIGNS)}
        told = {
            (each.partition() or 0, dict(headers(each))["ce_id"] or b""): each.key() or b""
            for each in self.log.of(MATCH_REQUESTS)
        }
        return {"views": views, "told": told}


SERVED: dict[Topic, Callable[[SongStore, Sequence[Any]], Coroutine[Any, Any, None]]] = {
    SONG_UPLOADS: uploads.serve, CAMPAIGN_REPORTS: reports.merge,
}  # fmt: skip


class Singing(RuleBasedStateMachine):
    """The role from records to records, as its agents drive it."""

    models: ClassVar[Sequence[Sequence[tuple[Topic, Sent]]]]

    @initialize(seed=st.integers(0, 2**32), wrong=st.sampled_from([0.1, 0.5, 0.9]))
    def begin(self, seed: int, wrong: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(START, 0)
        self.traffic = Traffic(seed, self.clock.now, wrong=wrong, uploads=3, partitions=AUDIENCE)
        self.log = Log(self.clock)
        self.done: Counter[Place] = Counter()
        self.broken: set[tuple[str, int, int]] = set()
        self.publish(0)
        self.role = self.started(self.log)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def started(self, log: Log) -> Role:
        return Role(log, self.clock)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def arrive(self, topic: Topic, count: int) -> list[SimpleNamespace]:
        """Records come, and all that are not done are given out, as Faust gives them."""
        for _ in range(count):
            self.log.append(topic, self.traffic.of(topic))
        events = []
        for number in range(SONGS):
            place = NAMING.name(topic), number
            events += [event(message) for message in self.log.records.get(place, [])[self.done[place] :]]
        return events

    def acknowledge(self, topic: Topic) -> None:
        for number in range(SONGS):
            place = NAMING.name(topic), number
            self.done[place] = len(self.log.records.get(place, []))

    @rule(topic=st.sampled_from(list(SERVED)), count=st.integers(1, 12), seconds=st.integers(0, 90_000))
    def batch(self, topic: Topic, count: int, seconds: int) -> None:
        self.clock.advance(seconds)
        events = self.arrive(topic, count)
        self.run(SERVED[topic](self.role.store, events))
        self.accounted(topic, events)
        _count(self.role.store, events)
        self.acknowledge(topic)

    def accounted(self, topic: Topic, events: Sequence[SimpleNamespace]) -> None:
        """Every record of a batch is remembered, known already, or buried."""
        store = self.role.store
        buried = set(store.producer._buried)
        for message in (each.message for each in events):
            if (message.topic, message.partition, message.offset) in buried:
                continue
            sent, at = (message.key, message.value, message.headers), message.timestamp
            if topic is SONG_UPLOADS:
                upload = unpack(SongUpload, *sent, at).event
                song = self.run(store.song(message.partition, upload.song_id))
                assert song.revision >= upload.revision
                if song.revision == upload.revision and song.ended is None:
                    assert self.asked(song.asked, upload.song_id) == set(range(AUDIENCE))
            else:
                report = unpack(CampaignReport, *sent, at).event
                found = self.run(store.reports_of(message.partition, report.song_id)).values()
                newest = [(each.revision, each.version) for each in found if each.partition == report.partition]
                assert newest
                assert newest[0] >= (report.revision, report.version)

    def asked(self, revision: int, song_id: str) -> set[int]:
        """The audience partitions that were asked for it."""
        id = f"{song_id}/{revision}".encode()
        return {each.partition() or 0 for each in self.log.of(MATCH_REQUESTS) if ("ce_id", id) in headers(each)}

    @rule(topic=st.sampled_from(list(SERVED)), count=st.integers(1, 12), after=st.integers(0, 10) | st.integers(0, 60))
    def interrupted(self, topic: Topic, count: int, after: int) -> None:
        """A record is not acknowledged, the process ends, and the next one serves the batch again."""
        events = self.arrive(topic, count)
        twin = self.started(self.log.copy())
        self.run(SERVED[topic](twin.store, events))
        twin.follow()
        self.log.until_lost = after
        with suppress(Lost):
            self.run(SERVED[topic](self.role.store, events))
        # Nothing of it was acknowledged: it may have its dead letters once more.
        self.broken |= {(each.message.topic, each.message.partition, each.message.offset) for each in events}
        self.log.until_lost = None
        self.role = self.started(self.log)
        self.run(SERVED[topic](self.role.store, events))
        self.role.follow()
        assert self.run(self.role.remembered()) == self.run(twin.remembered())
        assert self.role.said() == twin.said()
        # A vector depends, in its last digits, on what is encoded beside it.
        assert self.role.warm().keys() == twin.warm().keys()
        self.acknowledge(topic)

    @rule(count=st.integers(1, 6), seconds=st.integers(0, 30))
    def others_say(self, count: int, seconds: int) -> None:
        """Songs and models come, readable or not."""
        self.clock.advance(seconds)
        for _ in range(count):
            self.log.append(WARM_SONGS, self.traffic.of(WARM_SONGS))
            # Without one, a role that starts would wait.
            self.log.append(MODELS, (b"encoder", self.traffic.of(WARM_SONGS)[1] or b"?", []))
        self.role.follow()
        self.run(bury_skipped(self.role.store, range(SONGS)))

    @rule(which=st.integers(0, 1))
    def publish(self, which: int) -> None:
        for topic, sent in self.models[which]:
            self.log.append(topic, sent)
        if hasattr(self, "role"):
            self.role.follow()

    @rule(days=st.sampled_from([0, 1, 12]))
    def keep_up(self, days: int) -> None:
        self.clock.advance(days * 86_400)
        self.run(self.role.reconciler.run(range(SONGS)))
        self.run(bury_skipped(self.role.store, range(SONGS)))
        self.role.follow()

    @rule()
    def restart(self) -> None:
        self.role.follow()
        before = self.run(self.role.remembered()), self.role.warm()
        self.role = self.started(self.log)
        assert (self.run(self.role.remembered()), self.role.warm()) == before
        # It met what is skipped once more.
        self.run(bury_skipped(self.role.store, range(SONGS)))

    @invariant()
    def a_fresh_start_finds_what_is_remembered(self) -> None:
        if not hasattr(self, "role"):
            return
        for store, check in ((self.role.store.song_records, _check_song), (self.role.store.reports, _check_report)):
            fresh = CompactedCache(self.log, store.topic, self.clock, check, Skipped())  # type: ignore[arg-type]
            for number in range(SONGS):
                assert fresh._read(number) == self.run(store.partition(number))

    @invariant()
    def nothing_is_buried_twice(self) -> None:
        if not hasattr(self, "log"):
            return
        places: Counter[tuple[str, int, int]] = Counter()
        for letter in self.log.of(DEAD_LETTERS):
            said = {name: (value or b"").decode("utf-8", "replace") for name, value in headers(letter)}
            places[said["dl_topic"], int(said["dl_partition"]), int(said["dl_offset"])] += 1
        assert {place for place, count in places.items() if count > 1} <= self.broken


def event(message: Message) -> SimpleNamespace:
    """A record as Faust gives it."""
    kind, milliseconds = message.timestamp()
    return SimpleNamespace(
        message=SimpleNamespace(
            topic=message.topic(), partition=message.partition(), offset=message.offset(), key=message.key(),
            value=message.value(), headers=headers(message), timestamp=milliseconds / 1000, timestamp_type=kind - 1,
        )
    )  # fmt: skip


def published(folder: Path) -> list[tuple[Topic, Sent]]:
    """What ``coldstart publish`` says of a model."""
    manifest, warm = artifact.read_manifest(folder), artifact.load_warm(folder)
    out: list[tuple[Topic, Sent]] = []
    for row, song_id in enumerate(warm.content.song_ids):
        vector = vector_codec.pack(manifest.space, warm.vectors[row])
        song = WarmSong(song_id=song_id, space=manifest.space, vector=vector)
        record = pack(song, id=song_id, source="publish", time=START)
        out.append((WARM_SONGS, (record.key, record.value, list(record.headers))))
    summed = sha256((folder / "manifest.json").read_bytes()).hexdigest()
    model = LiveModel(
        name="encoder", uri=folder.as_uri(), manifest_sha256=summed,
        space=manifest.space, dim=manifest.dim, warm_songs=WARM, published_at=datetime.fromtimestamp(START, UTC),
    )  # fmt: skip
    record = pack(model, id=manifest.space, source="publish", time=START)
    return [*out, (MODELS, (record.key, record.value, list(record.headers)))]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[Topic, Sent]]]:
    """Two spaces."""
    rng = np.random.default_rng(0)
    songs = [
        SongContent({"audio": rng.normal(size=3).tolist()}, {"tags": {f"t{row % 4}": 1.0, "t9": 0.5}})
        for row in range(WARM)
    ]
    dataset = Dataset(
        name="small",
        content=ContentTable.from_songs([f"s{row}" for row in range(WARM)], songs),
        user_ids=tuple(f"user{row}" for row in range(60)),
        plays=sparse.csr_matrix((rng.random((WARM, 60)) < 0.3).astype(np.float32)),
    )
    config = training.TrainingConfig(seed=0, dim=8, factors=6, hidden=8, epochs=1, batch=16, targets=5, neighbours=3)
    trained = training.train(dataset, np.arange(WARM), config)
    folder = tmp_path_factory.mktemp("models")
    for name in ("one", "other"):
        artifact.save(trained, folder / name, name)
    return [published(folder / name) for name in ("one", "other")]


def test_any_sequence_is_served_or_buried_once_and_known_after_a_restart(
    models: list[list[tuple[Topic, Sent]]],
) -> None:
    class OfModels(Singing):
        pass

    OfModels.models = models
    with (
        mock.patch("streams.models.registry.Snapshot", Reading),
        mock.patch("streams.songs.song_store.Snapshot", Reading),
    ):
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            OfModels,
            settings=settings(
                max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
