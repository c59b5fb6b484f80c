"""What a replay says beforehand of a letter is what the role says that reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Message
from hostile_traffic import Traffic
from hypothesis import given
from hypothesis import strategies as st
from installation import Installation
from test_dead_letter_verbs import CLOCK, Scene, bury, verb

from streams.audience.decode import Decoder, Records, SpaceInUse
from streams.audience.deduplication import Deduplication
from streams.audience.positions import TOPIC_OF
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack, unpack
from streams.contract.errors import BadRecord, WrongPartition
from streams.contract.events import SongUpload
from streams.contract.internal_events import LiveModel
from streams.contract.topics import AUDIENCE_VECTORS, MATCH_REQUESTS, MODELS, PREFERENCES, SONG_UPLOADS, Naming
from streams.kafka.partitioner import partition_of
from streams.operations.buried_records import BuriedRecord
from streams.operations.letter_verdict import live_space, refusal

NOW = 1_800_000_000.0
NAMING = Naming("", 2, 2)
SPACE = SpaceInUse("bcl", 4)

ages = st.sampled_from([0.0, 299.0, 301.0, 86_399.0, 86_401.0, -5.0, -NOW, -NOW + 1_800_000.0, -NOW + 978_307_201.0])
keys = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8"), max_size=140).map(str.encode),
    st.sampled_from([b"", b"\xff", b"u", "ä".encode() * 128, "ä".encode() * 129, b"x" * 128, b"x" * 129]),
)


def letter(
    topic: str, partition: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]],
    timestamp_ms: int, offset: int = 0,
) -> BuriedRecord:  # fmt: skip
    return BuriedRecord(
        0, NOW, topic, partition, offset, timestamp_ms, "s", "E", "r", "src", "", key, value, headers, False
    )


def buried(letters: list[BuriedRecord], name: str) -> set[int]:
    """Which of these records, sent again together, the broker does not take or a worker buries."""
    topic = TOPIC_OF[name]
    late = [each for each in letters if topic is AUDIENCE_VECTORS and each.timestamp_ms > 1000 * (NOW + 300)]
    letters = [each for each in letters if each not in late]
    found = {each.record_offset for each in late}
    for partition in range(NAMING.audience_partitions):
        messages = [
            Message(
                topic=each.topic, partition=partition, offset=each.record_offset, key=each.key, value=each.value,
                headers=list(each.headers),
                timestamp=(1, each.timestamp_ms) if topic is AUDIENCE_VECTORS else (2, int(NOW * 1000)),
            )
            for each in letters
            if topic is MATCH_REQUESTS or partition_of(each.key or b"", NAMING.audience_partitions) == partition
        ]  # fmt: skip
        records = Records(**{name: messages})
        decoded = Decoder(NOW, lambda _: False, NAMING.audience_partitions).decode(records, SPACE, Deduplication(0))
        found |= {int(dict(each.headers)["dl_offset"] or b"") for each, _, _ in decoded.bad}
    return found


@given(st.sampled_from(sorted(TOPIC_OF)), st.integers(0, 2**32), st.lists(st.tuples(ages, keys), max_size=8))
def test_a_letter_would_be_refused_if_and_only_if_it_is_refused(
    name: str, seed: int, more: list[tuple[float, bytes | None]]
) -> None:
    topic, traffic = TOPIC_OF[name], Traffic(seed, lambda: NOW, space=(SPACE.name, SPACE.dimension))
    sent = [(*traffic.of(topic), NOW) for _ in range(8)]
    # The same with other keys, made at other times.
    sent += [(key, value, headers, NOW + age) for (age, key), (_, value, headers, _) in zip(more, sent, strict=False)]
    letters = [
        letter(topic.name, number % 2, key, value, headers, max(0, int(at * 1000)), number)
        for number, (key, value, headers, at) in enumerate(sent)
    ]
    refused = {each.record_offset for each in letters if refusal(topic, each, NAMING, SPACE, NOW)}
    assert refused == buried(letters, name)


@given(st.integers(0, 2**32))
def test_an_upload_would_be_refused_for_what_its_record_says(seed: int) -> None:
    traffic = Traffic(seed, lambda: NOW)
    for _ in range(8):
        key, value, headers = traffic.of(SONG_UPLOADS)
        try:
            unpack(SongUpload, key, value, headers, NOW)
            why = ""
        except BadRecord as error:
            why = str(error)
        assert refusal(SONG_UPLOADS, letter("", 0, key, value, headers, 0), NAMING, None, NOW) == why


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path, session_s=6.0)


def test_a_vector_is_judged_by_the_live_models_space_and_the_workers_limits(scene: Scene) -> None:
    here, now = scene.here, CLOCK.now()
    assert live_space(here.kafka, here.naming, CLOCK) is None
    model = LiveModel(
        name="encoder", uri="file:///no", manifest_sha256="0", space="a", dim=2, warm_songs=0,
        published_at=datetime.fromtimestamp(now, UTC),
    )  # fmt: skip
    here.send(MODELS, pack(model, id="a", source="t", time=now), 0)
    assert live_space(here.kafka, here.naming, CLOCK) == SpaceInUse("a", 2)
    vectors = [
        ("ä".encode() * 128, 2, now + 200), (b"u-1", 3, now), (b"u-2", 2, now + 600), (b"x" * 129, 2, now),
    ]  # fmt: skip
    for offset, (key, size, made) in enumerate(vectors):
        value = vector_codec.pack("a", np.eye(size, dtype=np.float32)[0])
        bury(here, AUDIENCE_VECTORS, Record(key, value, []), offset, stage="audience.vectors", made=made)
    # A deletion needs no such time, but the broker asks for it.
    bury(here, AUDIENCE_VECTORS, Record(b"u-3", None, []), 4, stage="audience.vectors", made=now + 600)  # type: ignore[arg-type]
    said = verb(scene, "dead-letters", "replay", "--topic", "audience-vectors", "--apply")[1]
    assert "1 sent again" in said
    assert "4 would be refused again" in said
    assert [message.key() for message in here.read(AUDIENCE_VECTORS)] == ["ä".encode() * 128]


def test_what_lay_in_the_wrong_partition_goes_where_it_belongs_unless_its_user_said_more_since(scene: Scene) -> None:
    here = scene.here
    for number, newer in ((0, False), (1, True)):
        user = f"user-{number}".encode()
        right = partition_of(user, 2)
        wish = Record(user, None, [])  # type: ignore[arg-type]
        here.send(PREFERENCES, wish, right)
        here.send(PREFERENCES, wish, 1 - right)
        (stray,) = [each for each in here.read(PREFERENCES, 1 - right) if each.key() == user]
        bury(
            here, PREFERENCES, wish, stray.offset() or 0, WrongPartition("partition: elsewhere"),
            stage="audience.preferences", made=stray.timestamp()[1] / 1000, partition=1 - right,
        )  # fmt: skip
        if newer:
            here.send(PREFERENCES, wish, right)
    said = verb(scene, "dead-letters", "replay", "--reason", "WrongPartition", "--apply")[1]
    assert "1 sent again" in said
    assert "1 is outdated" in said
    counts = {
        number: len([1 for each in here.read(PREFERENCES) if each.key() == b"user-%d" % number]) for number in (0, 1)
    }
    assert counts == {0: 3, 1: 3}
