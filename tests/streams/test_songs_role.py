"""A song's life as the songs role leads it, on a real broker; the test itself answers for the audience partitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from itertools import count

import msgspec
import numpy as np
import pytest
from aiokafka.errors import RequestTimedOutError
from confluent_kafka import Message
from installation import PRODUCERS, Installation, copies

from encoder import artifact
from encoder.artifact import load_encoder
from encoder.data.layout import read_dataset
from encoder.data.split import split
from streams.contract import vector_codec
from streams.contract.cloudevents import ReceivedEvent, Record, decoded, pack
from streams.contract.errors import Refused, Unavailable
from streams.contract.events import Campaign, Counts, DenseFeature, SongUpload
from streams.contract.internal_events import CampaignReport, LiveModel, MatchRequest, WarmSong
from streams.contract.record_size import MAX_VALUE_BYTES
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    MATCH_REQUESTS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    WARM_SONGS,
    Topic,
)
from streams.kafka.clients import producer
from streams.kafka.partitioner import partition_of
from streams.models.publish import publish
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import REFUSED, RESTART, UNEXPECTED
from streams.runtime.settings import KafkaSettings
from streams.songs.agents import exit_code
from streams.songs.matcher import encoded
from streams.songs.song_record import content_of, entry, report_key, write
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.dataset_events import upload_record

PARTITIONS = 4
SONGS_PARTITIONS = 2
REQUESTED, TAKEN_DOWN, PROMOTED, RE_ANCHORED = MatchRequest.TYPES


def first(name: str) -> str:
    """An id like this whose records belong in partition 0."""
    return next(id for n in count() if partition_of((id := f"{name}-{n}").encode(), SONGS_PARTITIONS) == 0)


class Role:
    """The running role and what can be seen of it."""

    def __init__(self, stage: Environment, first: LiveModel, second: LiveModel) -> None:
        self.stage = stage
        self.first, self.second = first, second
        self._topics = Installation(stage.kafka, stage.naming)
        self._version = 0

    def song(self, name: str, number: int = 0, **more: object) -> SongUpload:
        return msgspec.structs.replace(self.stage.songs[number], song_id=name, **more)

    def upload(self, song: SongUpload) -> None:
        self.stage.upload([song])

    def take_down(self, song: SongUpload) -> None:
        id = f"{song.song_id}/{song.revision}"
        record = pack(song, ce_type=SongUpload.TAKEN_DOWN, id=id, source="test", time=time.time())
        self.stage.send(SONG_UPLOADS, [record])

    def requested(self, song: SongUpload) -> MatchRequest:
        """Upload and wait for the request."""
        self.upload(song)
        self.wait(lambda: REQUESTED in dict(self.commands(song.song_id)), "no request")
        return dict(self.commands(song.song_id))[REQUESTED]

    def report(self, song_id: str, revision: int = 1, everywhere: bool = True, **more: object) -> None:
        """Every partition's account, one listener each where nothing else is said."""
        for record in self.reports(song_id, revision, everywhere, **more):
            self.send(CAMPAIGN_REPORTS, record)

    def reports(self, song_id: str, revision: int = 1, everywhere: bool = True, **more: object) -> list[Record]:
        self._version += 1
        records = []
        for partition in range(PARTITIONS if everywhere else 1):
            known = {
                "song_id": song_id, "revision": revision, "partition": partition, "partitions": PARTITIONS,
                "version": self._version, "space": self.first.space, "started_at": datetime.now(UTC),
                "counts": Counts(pushed=9, distinct_listeners=1),
            }  # fmt: skip
            event = CampaignReport(**known | more)  # type: ignore[arg-type]
            id = f"{song_id}/{partition}/{self._version}"
            records.append(pack(event, id=id, source="test", time=time.time()))
        return records

    def send(self, topic: Topic, record: Record, partition: int = -1, compression: str = "lz4") -> None:
        self._topics.send(topic, record, partition, compression)

    def send_with_bad_header_name(self, topic: Topic, record: Record, compression: str) -> None:
        self._topics.send_with_bad_header_name(topic, record, 0, compression)

    def letters(self) -> list[Message]:
        return self._topics.read(DEAD_LETTERS)

    def behind(self, partition: int) -> int:
        """Offsets of uploads between what the group has committed and the end."""
        end = self._topics.end(SONG_UPLOADS, partition)
        return end - self._topics.committed("songs", SONG_UPLOADS, partition)

    def commands(self, song_id: str, partition: int = 0) -> list[tuple[str, MatchRequest]]:
        """Type and content of what one audience partition was told of a song."""
        found = [m for m in self._topics.read(MATCH_REQUESTS, partition) if m.key() == song_id.encode()]
        return [(header(m, "ce_type"), decoded(MatchRequest, m.value() or b"", dict(m.headers() or ()))) for m in found]

    def told(self, song_id: str) -> list[str]:
        """Types of the commands, if all partitions were told the same."""
        lists = {tuple(what for what, _ in self.commands(song_id, each)) for each in range(PARTITIONS)}
        return list(lists.pop()) if len(lists) == 1 else []

    def views(self, song_id: str) -> list[Campaign | None]:
        records = [m.value() for m in self._topics.read(CAMPAIGNS) if m.key() == song_id.encode()]
        return [msgspec.json.decode(value, type=Campaign) if value else None for value in records]

    def view(self, song_id: str) -> Campaign | None:
        return ([None, *self.views(song_id)])[-1]

    def buried(self, song_id: str) -> list[str]:
        """Why records of a song are in dead-letters."""
        letters = [m for m in self._topics.read(DEAD_LETTERS) if m.key() == song_id.encode()]
        return [header(letter, "dl_message") for letter in letters]

    def warm(self, song_id: str) -> dict[str, WarmSong]:
        """By space."""
        found: dict[str, WarmSong] = {}
        for message in self._topics.read(WARM_SONGS):
            space, _, id = (message.key() or b"").decode().partition(" ")
            if id == song_id:
                found.pop(space, None)
                if value := message.value():
                    found[space] = msgspec.json.decode(value, type=WarmSong)
        return found

    def newest(self, topic: object, about: str) -> list[bytes | None]:
        """The newest value of each key that names a song."""
        found: dict[bytes, bytes | None] = {}
        for message in self._topics.read(topic):  # type: ignore[arg-type]
            key = message.key() or b""
            if key.split(b" ")[-1] == about.encode():
                found[key] = message.value()
        return list(found.values())

    def wait(self, done: Callable[[], bool], what: str) -> None:
        self.stage.wait_until(done, lambda: what)

    def wait_for_end(self, song_id: str, reason: str) -> Campaign:
        self.wait(
            lambda: (found := self.view(song_id)) is not None and found.end_reason == reason,
            f"{song_id} did not end by {reason}",
        )
        found = self.view(song_id)
        assert found is not None
        assert found.status == "ended"
        return found

    def promoted(self, song: SongUpload) -> Campaign:
        self.requested(song)
        self.report(song.song_id, counts=Counts(pushed=9, distinct_listeners=5))
        return self.wait_for_end(song.song_id, "promoted")

    def live(self, model: LiveModel) -> None:
        """Publish a model again and wait until it serves."""
        publish(self.folder(model), self.stage.kafka, self.stage.naming, SystemClock())
        marker = self.song(f"marker-{time.time_ns()}")
        numbers = iter(range(10**6))

        def serves() -> bool:
            song = msgspec.structs.replace(marker, song_id=f"{marker.song_id}-{next(numbers)}")
            return space_of(self.requested(song).vector) == model.space

        self.wait(serves, f"{model.space} does not serve")

    def folder(self, model: LiveModel) -> object:
        return self.stage.folder / ("model" if model is self.first else "second")


def header(message: Message, name: str) -> str:
    value = dict(message.headers() or ()).get(name)
    return value.decode() if isinstance(value, bytes) else ""


def same(one: bytes, other: bytes) -> bool:
    """Whether two vectors are equal but for rounding, which depends on the rows encoded beside one."""
    (space, left), (other_space, right) = vector_codec.unpack(one), vector_codec.unpack(other)
    return space == other_space and np.allclose(left, right, atol=1e-5)


def space_of(vector: bytes) -> str:
    return vector_codec.unpack(vector)[0]


LONG_PAST = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))


def told_long_ago(here: Installation) -> None:
    """What the topics say of a song whose campaign's life ended more than two weeks ago."""
    song = SongUpload(song_id="long-ago", revision=1, title="Long Ago", genres=["fado"])
    then = datetime.now(UTC) - timedelta(days=45)
    known = entry(
        ReceivedEvent(song, "test", "long-ago/1", SongUpload.UPLOADED, 0.0), then.timestamp(), then.timestamp() + 86_400
    )
    report = CampaignReport(
        song_id="long-ago", revision=1, partition=0, partitions=PARTITIONS, version=1, space="x", started_at=then,
        counts=Counts(pushed=9),
    )  # fmt: skip
    partition = partition_of(b"long-ago", here.naming.songs_partitions)
    here.send(SONGS_LEDGER, Record(b"long-ago", write(known), []), partition)
    here.send(SONGS_REPORTS, Record(report_key("long-ago", 0), msgspec.json.encode(report), []), partition)


@pytest.fixture(scope="module")
def role(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    reach = kafka
    stage = set_up(reach, "test-songs.", tmp_path_factory.mktemp("songs"), partitions=PARTITIONS)
    from encoder import train as training

    dataset = read_dataset(stage.folder / "data")
    parts = split(dataset, 0)
    artifact.save(
        training.train(dataset, parts.warm, training.TrainingConfig(seed=1, epochs=1, dim=64)), stage.folder / "second"
    )
    clock = SystemClock()
    second = publish(stage.folder / "second", reach, stage.naming, clock)
    first = publish(stage.folder / "model", reach, stage.naming, clock)
    told_long_ago(Installation(reach, stage.naming))
    stage.start("songs", "songs")
    stage.wait_until_ready()
    yield Role(stage, first, second)
    stage.stop()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("no model is live"), REFUSED),
        (Unavailable("no broker answers"), RESTART),
        (RequestTimedOutError(), RESTART),
        (TimeoutError(), RESTART),
        (KeyError("song_id"), UNEXPECTED),
    ],
)
def test_a_batch_fails_with_the_code_for_a_restart_only_where_something_was_missing(
    error: Exception, code: int
) -> None:
    assert exit_code(error) == code


def test_enough_listeners_make_a_song_warm_and_end_its_campaign(role: Role) -> None:
    song = role.song("grows-warm", title="Grows Warm")
    role.requested(song)
    # 4 x 4 are not enough; what another partition says again does not add up.
    for _ in range(2):
        role.report("grows-warm", counts=Counts(pushed=9, distinct_listeners=4))
    role.wait(lambda: (v := role.view("grows-warm")) is not None and v.counts.distinct_listeners == 16, "not merged")
    assert role.warm("grows-warm") == {}

    role.report("grows-warm", everywhere=False, counts=Counts(pushed=9, distinct_listeners=8))
    ended = role.wait_for_end("grows-warm", "promoted")
    assert ended.counts.distinct_listeners == 20
    assert role.told("grows-warm") == [REQUESTED, PROMOTED]
    (space, warm), *others = role.warm("grows-warm").items()
    assert (space, others, warm.title) == (role.first.space, [], "Grows Warm")
    (vector,) = encoded(load_encoder(role.stage.folder / "model"), [content_of(song)])
    assert same(warm.vector, vector)

    # The next upload of the same content retrieves it, nearest of all.
    def retrieved() -> bool:
        twin = role.requested(role.song(f"twin-{time.time_ns()}"))
        return twin.neighbours[0].song_id == "grows-warm" and twin.neighbours[0].similarity > 0.99

    role.wait(retrieved, "not retrieved")


def test_late_reports_and_a_replayed_upload_revive_nothing(role: Role) -> None:
    song = role.song("stays-ended", 1)
    role.promoted(song)
    commands = role.told("stays-ended")
    role.upload(song)
    role.report("stays-ended", counts=Counts(pushed=9, distinct_listeners=7))
    role.wait(lambda: (v := role.view("stays-ended")) is not None and v.counts.distinct_listeners == 28, "not counted")
    last = role.view("stays-ended")
    assert last is not None
    assert (last.status, last.end_reason) == ("ended", "promoted")
    assert role.told("stays-ended") == commands == [REQUESTED, PROMOTED]
    statuses = [view.status for view in role.views("stays-ended") if view]
    assert statuses == sorted(statuses), "active after the end"


def test_an_upload_of_an_aborted_transaction_is_never_served_and_one_of_a_committed_is(role: Role) -> None:
    stage, topic = role.stage, role.stage.naming.name(SONG_UPLOADS)
    sender = producer(stage.kafka, f"{stage.naming.prefix}uploader")
    sender.init_transactions(60)

    def transaction(*names: str) -> None:
        sender.begin_transaction()
        for name in names:
            record = upload_record(role.song(name), time.time())
            sender.produce(topic, key=record.key, value=record.value, headers=list(record.headers), partition=0)
        # In the log, where a reader of uncommitted records sees them at once.
        sender.flush(60)

    transaction(first("aborted-1"), first("aborted-2"))
    sender.abort_transaction(60)
    transaction(first("committed"))
    sender.commit_transaction(60)
    role.wait(lambda: role.told(first("committed")) == [REQUESTED], "a committed upload is not served")
    transaction(first("aborted-3"))
    sender.abort_transaction(60)
    # Served after all of these: the marker of an abort ends the log until then.
    last = upload_record(role.song(first("after-aborts")), time.time())
    stage.wait_until(lambda: role.behind(0) <= 3, lambda: f"the group stands {role.behind(0)} behind the last abort")
    role.send(SONG_UPLOADS, last, 0)
    role.wait(lambda: role.told(first("after-aborts")) == [REQUESTED], "nothing is served after an abort")
    role.wait(lambda: role.behind(0) == 0, "not committed past an abort")
    assert [role.told(first(f"aborted-{number}")) for number in (1, 2, 3)] == [[], [], []]


def test_an_upload_is_served_whatever_its_producers_codec_and_kind(role: Role) -> None:
    here = Installation(role.stage.kafka, role.stage.naming)
    for kind in PRODUCERS:
        here.send_as(kind, SONG_UPLOADS, [upload_record(role.song(f"by-{kind}", title="x" * 900), time.time())])
    for kind in PRODUCERS:
        role.wait(lambda: role.told(f"by-{kind}") == [REQUESTED], f"not served: {kind}")  # noqa: B023


def test_an_upload_of_5_megabytes_that_zstd_brings_under_the_limit_is_one_dead_letter(role: Role) -> None:
    good = upload_record(role.song(first("after-huge")), time.time())
    huge = Record(b"huge", b'{"song_id":"huge","title":"' + b"x" * 5_000_000 + b'"}', good.headers)
    process = role.stage.workers[0].pid
    role.send(SONG_UPLOADS, huge, 0, "zstd")
    role.send(SONG_UPLOADS, good, 0)
    role.wait(lambda: role.told(first("after-huge")) == [REQUESTED], "nothing is served after a huge upload")
    (letter,) = [m for m in role.letters() if m.key() == b"huge"]
    assert header(letter, "dl_message") == f"value: {len(huge.value)} bytes uncompressed, 1048576 allowed"
    assert header(letter, "dl_value_sha256") == sha256(huge.value).hexdigest()
    assert huge.value.startswith(letter.value() or b"-")
    assert role.stage.workers[0].pid == process


def test_uploads_that_no_client_can_read_are_one_dead_letter_each(role: Role) -> None:
    one, other = (upload_record(role.song(first(f"among-unreadable-{n}")), time.time()) for n in (1, 2))
    huge = Record(b"unpacks", b"{" + bytes(70_000_000), one.headers)
    process = role.stage.workers[0].pid
    for good, codec in ((one, "gzip"), (other, "zstd")):
        role.send_with_bad_header_name(SONG_UPLOADS, good, codec)
        role.send(SONG_UPLOADS, huge, 0, codec)
        role.send(SONG_UPLOADS, good, 0)
    for n in (1, 2):
        role.wait(lambda n=n: role.told(first(f"among-unreadable-{n}")) == [REQUESTED], "nothing is served after them")  # type: ignore[misc]
    said = [header(m, "dl_message") for m in role.letters() if header(m, "dl_error") == "Undecodable"]
    assert said.count("headers: the name of one is not UTF-8") == 2
    assert len([each for each in said if "unpacks into more than 67,108,864 bytes" in each]) == 2
    assert role.stage.workers[0].pid == process


def test_an_upload_at_the_bounds_of_the_contract_is_served_and_grows_warm(role: Role) -> None:
    features = {f"model-{n}": DenseFeature("nobody", [1e15] * 4096) for n in range(32)}
    # As short as they can be written: in the role's own records they take more.
    value = msgspec.json.encode(role.song("largest", features=features)).replace(b"1000000000000000.0", b"1e15")
    assert 650_000 < len(value) <= MAX_VALUE_BYTES
    headers = upload_record(role.song("largest"), time.time()).headers
    role.send(SONG_UPLOADS, Record(b"largest", value, headers), compression="gzip")
    role.wait(lambda: role.told("largest") == [REQUESTED], "the largest upload is not served")
    role.report("largest", counts=Counts(pushed=9, distinct_listeners=5))
    role.wait_for_end("largest", "promoted")
    warm = role.warm("largest")[role.first.space]
    assert len(warm.features["model-31:nobody"]) == 4 * 4096


def test_a_report_of_an_aborted_transaction_is_not_counted(role: Role) -> None:
    stage = role.stage
    role.requested(role.song("reported"))
    sender = producer(stage.kafka, f"{stage.naming.prefix}reporter")
    sender.init_transactions(60)
    sender.begin_transaction()
    for record in role.reports("reported", counts=Counts(pushed=9, distinct_listeners=5)):
        sender.produce(
            stage.naming.name(CAMPAIGN_REPORTS), key=record.key, value=record.value, headers=list(record.headers)
        )
    sender.flush(60)
    sender.abort_transaction(60)
    role.report("reported", counts=Counts(pushed=1, distinct_listeners=1))
    role.wait(lambda: (v := role.view("reported")) is not None and v.counts.pushed == 4, "not merged")
    assert [view.counts.pushed for view in role.views("reported") if view and view.counts.pushed > 4] == []
    assert role.warm("reported") == {}


def test_new_content_of_a_warm_song_moves_it_and_asks_nobody(role: Role) -> None:
    song = role.song("changes", 2)
    role.promoted(song)
    before = role.warm("changes")[role.first.space]
    content = {"tags": role.song("", 3).tags, "genres": role.song("", 3).genres, "features": role.song("", 3).features}
    role.upload(msgspec.structs.replace(song, revision=2, title="Changed", **content))
    role.wait(lambda: role.warm("changes")[role.first.space].title == "Changed", "not encoded again")
    assert not same(role.warm("changes")[role.first.space].vector, before.vector)
    assert role.told("changes") == [REQUESTED, PROMOTED]

    # Another recording is another song, whatever its id; the listeners of the former one do not make it warm.
    role.upload(msgspec.structs.replace(song, revision=3, recording_id="another"))
    role.wait(lambda: len(role.told("changes")) == 3, "no campaign for another recording")
    assert role.told("changes")[-1] == REQUESTED
    role.wait(lambda: role.warm("changes") == {}, "the former recording is still retrieved")
    role.report("changes", revision=3, counts=Counts(pushed=9, distinct_listeners=6))
    role.wait(lambda: (v := role.view("changes")) is not None and v.counts.answered == [0, 1, 2, 3], "not merged")
    again = role.view("changes")
    assert again is not None
    assert (again.status, again.revision) == ("active", 3)
    role.report("changes", revision=3, counts=Counts(pushed=9, distinct_listeners=10))
    role.wait_for_end("changes", "promoted")


def test_a_takedown_ends_the_view_at_once_and_cools_a_warm_song_down(role: Role) -> None:
    song = role.song("goes-down", 4)
    role.promoted(song)
    role.take_down(msgspec.structs.replace(song, revision=2))
    role.wait_for_end("goes-down", "taken-down")
    role.wait(lambda: role.warm("goes-down") == {}, "still retrieved")
    assert role.told("goes-down") == [REQUESTED, PROMOTED, TAKEN_DOWN]
    role.report("goes-down", counts=Counts(pushed=9, distinct_listeners=30))
    role.wait(lambda: (v := role.view("goes-down")) is not None and v.counts.distinct_listeners == 120, "not counted")
    assert role.warm("goes-down") == {}


def test_a_takedown_of_the_current_revision_takes_down(role: Role) -> None:
    song = role.song("withdrawn", 6)
    role.requested(song)
    role.take_down(song)
    role.wait_for_end("withdrawn", "taken-down")
    role.wait(lambda: role.told("withdrawn") == [REQUESTED, TAKEN_DOWN], "not told")
    # Again, and by somebody else: there is nothing left to do.
    role.take_down(song)
    again = pack(song, ce_type=SongUpload.TAKEN_DOWN, id="another", source="test", time=time.time())
    role.stage.send(SONG_UPLOADS, [again])
    back = msgspec.structs.replace(song, revision=2)
    role.upload(back)
    role.wait(lambda: role.told("withdrawn") == [REQUESTED, TAKEN_DOWN, REQUESTED], "a higher revision is not served")
    assert [m for m in role.letters() if m.key() == b"withdrawn"] == []


def test_whoever_comes_late_is_answered_and_a_retry_is_not(role: Role) -> None:
    song = role.song("corrected", 7)
    role.requested(song)
    role.upload(song)  # the same content in another event
    stale = pack(
        msgspec.structs.replace(song, title="Other", budget=9), ce_type=SongUpload.UPDATED, id="stale", source="test",
        time=time.time(),
    )  # fmt: skip
    role.stage.send(SONG_UPLOADS, [stale, stale])
    role.upload(msgspec.structs.replace(song, revision=3))
    late = pack(song, ce_type=SongUpload.UPLOADED, id="late", source="test", time=time.time())
    role.wait(lambda: role.told("corrected") == [REQUESTED, REQUESTED], "a higher revision is not served")
    role.stage.send(SONG_UPLOADS, [late])

    def answers() -> list[tuple[str, str]]:
        found = [m for m in role.letters() if m.key() == b"corrected"]
        return [(header(m, "dl_error"), header(m, "dl_message")) for m in found]

    role.wait(lambda: len(answers()) >= 3, "not answered")
    other = "revision: 1, it was served with other content (title, budget); send a higher one to change the song"
    lower = "revision: 1, 3 was served before; send a higher one to change the song"
    assert answers() == [("OutdatedRevision", other)] * 2 + [("OutdatedRevision", lower)]
    assert role.told("corrected") == [REQUESTED, REQUESTED]


def test_an_upload_in_a_partition_where_its_song_would_not_be_known_is_refused_by_name(role: Role) -> None:
    id = first("elsewhere")
    record = upload_record(role.song(id), time.time())
    role.send(SONG_UPLOADS, record, 1)
    role.send(SONG_UPLOADS, record, 0)
    role.wait(lambda: role.told(id) == [REQUESTED], "not served where it belongs")
    role.wait(lambda: any(m.key() == record.key for m in role.letters()), "not refused")
    (letter,) = [m for m in role.letters() if m.key() == record.key]
    assert (header(letter, "dl_error"), header(letter, "dl_message")) == (
        "WrongPartition",
        f"partition: 1, key '{id}' belongs in 0 of 2 by murmur2; librdkafka clients need partitioner=murmur2_random",
    )


def test_a_budget_is_spent_once_it_is_in_every_partition_and_the_song_can_still_grow_warm(role: Role) -> None:
    role.requested(role.song("spent", 5))
    spent = {"ended": "budget", "ended_at": datetime.now(UTC)}
    role.report("spent", everywhere=False, **spent)
    role.wait(lambda: role.view("spent") is not None, "not merged")
    view = role.view("spent")
    assert view is not None
    assert view.status == "active"
    role.report("spent", **spent)
    role.wait_for_end("spent", "budget")
    role.report("spent", **spent, counts=Counts(pushed=9, distinct_listeners=5))
    role.wait_for_end("spent", "promoted")
    assert list(role.warm("spent")) == [role.first.space]


def test_a_higher_revision_supersedes_the_running_one(role: Role) -> None:
    song = role.song("revised", 6)
    role.requested(song)
    role.report("revised")
    role.wait(lambda: role.view("revised") is not None, "not merged")
    role.upload(msgspec.structs.replace(song, revision=2))
    role.wait(lambda: (v := role.view("revised")) is not None and v.revision == 2, "not revised")
    told = [(view.revision, view.status, view.end_reason) for view in role.views("revised") if view]
    assert told[-2:] == [(1, "ended", "superseded"), (2, "active", None)]
    role.report("revised", ended="superseded", ended_at=datetime.now(UTC))
    role.report("revised", revision=2)
    role.wait(lambda: (v := role.view("revised")) is not None and len(v.counts.answered) == PARTITIONS, "not merged")
    view = role.view("revised")
    assert view is not None
    assert (view.revision, view.status) == (2, "active")


def test_an_expired_campaign_ends_and_is_forgotten_when_no_record_of_it_can_return(role: Role) -> None:
    now = datetime.now(UTC)
    role.requested(role.song("soon", 7, expires_at=now + timedelta(seconds=3)))
    ended = role.wait_for_end("soon", "expired")
    assert ended.ended_at is not None
    assert abs((ended.ended_at - now).total_seconds() - 3) < 0.001

    role.wait(lambda: set(role.newest(SONGS_LEDGER, "long-ago")) == {None}, "still in the ledger")
    assert role.view("long-ago") is None
    assert "expired" in {view.end_reason for view in role.views("long-ago") if view}
    assert set(role.newest(SONGS_REPORTS, "long-ago")) == {None}
    # A report that turns up now brings nothing back.
    role.report("long-ago", started_at=now - timedelta(days=30))
    role.report("soon")
    role.wait(lambda: (v := role.view("soon")) is not None and v.counts.pushed == 36, "not merged")
    assert role.view("long-ago") is None
    assert set(role.newest(SONGS_REPORTS, "long-ago")) == {None}


def test_an_upload_whose_end_is_past_is_buried_and_its_corrected_resend_of_the_same_revision_is_served(
    role: Role,
) -> None:
    now = datetime.now(UTC)
    for number, wrong in enumerate(
        [
            {"expires_at": now - timedelta(days=1)},
            {"expires_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
            {"expires_at": now + timedelta(days=1), "available_from": now + timedelta(days=2)},
        ]
    ):
        name = f"past-{number}"
        role.upload(role.song(name, **wrong))
        role.wait(lambda name=name: role.buried(name) != [], "not buried")  # type: ignore[misc]
        (reason,) = role.buried(name)
        assert reason.startswith(f"expires_at: {wrong['expires_at'].isoformat()} is not ")
        # The same revision and the same ce_id.
        asked = role.requested(role.song(name, expires_at=now + timedelta(days=1)))
        assert (asked.revision, asked.expires_at) == (1, now + timedelta(days=1))


def test_a_takedown_does_not_fall_by_the_end_that_it_names(role: Role) -> None:
    for number, end in enumerate([datetime.now(UTC) - timedelta(days=1), LONG_PAST, datetime.max.replace(tzinfo=UTC)]):
        song = role.song(f"down-{number}")
        role.requested(song)
        role.take_down(msgspec.structs.replace(song, revision=2, expires_at=end, available_from=end))
        role.wait_for_end(song.song_id, "taken-down")
        role.wait(lambda id=song.song_id: role.told(id) == [REQUESTED, TAKEN_DOWN], "not told")  # type: ignore[misc]


def test_a_warm_song_is_updated_though_its_campaigns_end_is_past(role: Role) -> None:
    song = role.song("warm-past", 2)
    role.promoted(song)
    past = datetime.now(UTC) - timedelta(days=1)
    role.upload(msgspec.structs.replace(song, revision=2, title="Renamed", expires_at=past))
    role.wait(lambda: [warm.title for warm in role.warm("warm-past").values()] == ["Renamed"], "not renamed")
    assert role.buried("warm-past") == []


def test_a_swap_carries_both_spaces_moves_every_song_and_can_be_rolled_back(role: Role) -> None:
    active, warm = role.song("swap-active", 8), role.song("swap-warm", 9)
    role.requested(active)
    role.promoted(warm)
    catalogue = next(iter(artifact.load_warm(role.stage.folder / "second").content.song_ids))
    assert set(role.warm(catalogue)) == {role.first.space, role.second.space}
    role.take_down(role.song(catalogue))
    role.wait(lambda: role.warm(catalogue) == {}, "still retrieved")

    role.live(role.second)
    # Just after the swap, both spaces travel; which one is the main one is the worker's business.
    both = role.requested(role.song("both", 0))
    assert space_of(both.vector) == role.second.space
    assert [space_of(each) for each in both.other_vectors] == [role.first.space]
    (other,) = encoded(load_encoder(role.stage.folder / "model"), [content_of(role.song("both", 0))])
    assert same(both.other_vectors[0], other)
    role.wait(lambda: RE_ANCHORED in role.told("swap-active"), "not re-anchored")
    moved = dict(role.commands("swap-active"))[RE_ANCHORED]
    (vector,) = encoded(load_encoder(role.stage.folder / "second"), [content_of(active)])
    assert same(moved.vector, vector)
    assert moved.neighbours
    assert moved.revision == 1
    role.wait(lambda: role.second.space in role.warm("swap-warm"), "the promoted song was left behind")
    (vector,) = encoded(load_encoder(role.stage.folder / "second"), [content_of(warm)])
    assert same(role.warm("swap-warm")[role.second.space].vector, vector)
    # It was published again with the model, and had been taken down.
    role.wait(lambda: role.second.space not in role.warm(catalogue), "a swap brought a song back")

    role.live(role.first)
    role.wait(lambda: role.told("swap-active").count(RE_ANCHORED) == 2, "not re-anchored by the rollback")
    assert space_of(role.commands("swap-active")[-1][1].vector) == role.first.space


def test_what_a_killed_worker_left_undone_is_done_by_the_next(role: Role) -> None:
    songs = copies(role.stage.songs, 30)
    songs = [msgspec.structs.replace(song, song_id=f"killed-{song.song_id}") for song in songs]
    for song in songs:
        role.upload(song)
    role.wait(lambda: all(role.told(song.song_id) for song in songs), "not requested")
    for number, song in enumerate(songs):
        role.report(song.song_id, counts=Counts(pushed=9, distinct_listeners=5))
        if number % 10 == 9:
            role.stage.workers[0].kill()
    for song in songs:
        role.wait_for_end(song.song_id, "promoted")
        assert set(role.told(song.song_id)) == {REQUESTED, PROMOTED}
        assert list(role.warm(song.song_id)) == [role.first.space]
        statuses = [view.status for view in role.views(song.song_id) if view]
        assert statuses == sorted(statuses), "active after the end"


def test_two_workers_share_songs_with_their_reports(role: Role) -> None:
    role.stage.start("songs-2", "songs")
    role.stage.wait_until_ready()
    songs = [msgspec.structs.replace(song, song_id=f"shared-{song.song_id}") for song in copies(role.stage.songs, 12)]
    for song in songs:
        role.upload(song)
    role.wait(lambda: all(role.told(song.song_id) for song in songs), "not requested")
    for song in songs:
        role.report(song.song_id, counts=Counts(pushed=9, distinct_listeners=5))
    for song in songs:
        role.wait_for_end(song.song_id, "promoted")
    role.stage.workers.pop().stop()
