"""Whatever a user's record says, it is obeyed where the user's state is, or refused by name: never taken elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from installation import Installation
from test_erased import CLOCK, USER, Scene
from town import USERS, Service, Town, new_partition

from streams.audience.decode import Decoded, Decoder, Records, SpaceInUse
from streams.audience.deduplication import Deduplication
from streams.audience.placement import strangers
from streams.audience.positions import OFFSETS_KEY, TOPIC_OF
from streams.audience.withdrawals import WITHHELD
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Listen, PushOutcome, UserPreferences
from streams.contract.topics import (
    AUDIENCE_STATE,
    DEAD_LETTERS,
    LISTENS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
)
from streams.kafka.partitioner import partition_of, partitions_of
from targeting.types import Listens, PartitionInputs

NOW = 1_800_000_000.0
WHEN = datetime.fromtimestamp(NOW - 60, UTC)
SPACE = SpaceInUse("bcl", 2)
KINDS = ("listens", "preferences", "erasure", "deletion", "outcomes", "vectors", "vector deletion")
WRONG = "WrongPartition"
users = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=128)


def said(kind: str, user: str, number: int, when: datetime = WHEN) -> Record:
    """A good record of a user."""
    packed = partial(pack, id=f"{kind}-{number}", source="test", time=when.timestamp())
    if kind == "listens":
        return packed(Listen(listen_id=f"l-{number}", user_id=user, song_id="s", played_at=when, source="organic"))
    if kind in ("preferences", "erasure"):
        asked = when if kind == "erasure" else None
        return packed(UserPreferences(user_id=user, opted_in=False, updated_at=when, erase_requested_at=asked))
    if kind == "outcomes":
        return packed(PushOutcome(push_id="p", user_id=user, song_id="s", outcome="opened", at=when))
    value = vector_codec.pack("bcl", np.array([0.6, 0.8], np.float32)) if kind == "vectors" else None
    return Record(user.encode(), value, [])  # type: ignore[arg-type]


def decoded(sent: list[tuple[str, str]], partition: int, partitions: int) -> tuple[Decoded, dict[int, str]]:
    """What a worker makes of users' good records in its partition; and, of each that it buries, why."""
    records = Records()
    for number, (kind, user) in enumerate(sent):
        record = said(kind, user, number)
        name = {"erasure": "preferences", "deletion": "preferences", "vector deletion": "vectors"}.get(kind, kind)
        message = Message(
            topic=TOPIC_OF[name].name, partition=partition, offset=number, key=record.key, value=record.value,
            headers=list(record.headers), timestamp=(1 if name == "vectors" else 2, int(NOW * 1000)),
        )  # fmt: skip
        getattr(records, name).append(message)
    found = Decoder(NOW, lambda _: False, partitions).decode(records, SPACE, Deduplication(0))
    letters = {int(dict(letter.headers)["dl_offset"] or b""): error for letter, _, error in found.bad}
    assert len(letters) == len(found.bad)
    return found, letters


def taken(found: Decoded) -> Iterator[tuple[str, str]]:
    """Every kind of input, and the user in whose state it takes effect."""
    inputs = found.inputs
    yield from (("listens", user) for user in (inputs.listens.user_ids if inputs.listens else ()))
    yield from (("outcomes", user) for user in (inputs.outcomes.user_ids if inputs.outcomes else ()))
    yield from (("preferences", user) for user, wish in inputs.preferences if wish is not None)
    yield from (("deletion", user) for user, wish in inputs.preferences if wish is None)
    yield from (("erasure", user) for user, _ in inputs.erasures)
    if inputs.vectors:
        yield from (("vectors", user) for user in inputs.vectors.user_ids)
        yield from (("vector deletion", user) for user in inputs.vectors.withdrawn)


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), users), max_size=12, unique_by=lambda each: each[1]),
    st.integers(1, 7).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count))),
)
def test_a_record_of_a_user_is_obeyed_in_the_users_partition_or_refused_by_name(
    sent: list[tuple[str, str]], place: tuple[int, int]
) -> None:
    partition, partitions = place
    found, letters = decoded(sent, partition, partitions)
    there = {(kind, user) for kind, user in sent if partition_of(user.encode(), partitions) == partition}
    elsewhere = {number for number, each in enumerate(sent) if each not in there}
    assert letters == dict.fromkeys(elsewhere, WRONG)
    # An erasure says what its user allows, too. Of what is refused it is done all the same, as of every refused record.
    also = {("preferences", user) for kind, user in sent if kind == "erasure"}
    done = {each for each in taken(found) if partition_of(each[1].encode(), partitions) == partition}
    assert there <= done <= there | also
    assert {kind for kind, user in taken(found) if (kind, user) not in done} <= {"preferences", "erasure"}
    strange = [wish for user, wish in found.inputs.preferences if partition_of(user.encode(), partitions) != partition]
    assert all(wish == WITHHELD for wish in strange)


@given(st.lists(st.binary(max_size=80), max_size=40), st.integers(1, 2**31 - 1))
def test_keys_belong_where_other_clients_put_them(keys: list[bytes], partitions: int) -> None:
    theirs = [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]
    assert partitions_of(keys, partitions).tolist() == theirs
    assert [partition_of(key, partitions) for key in keys] == theirs


@given(st.lists(users, max_size=30), st.integers(1, 5))
def test_strangers_are_those_who_belong_elsewhere(some: list[str], partitions: int) -> None:
    for partition in range(partitions):
        elsewhere = [user for user in some if partition_of(user.encode(), partitions) != partition]
        assert strangers(some, partition, partitions) == elsewhere


# -- a real worker's state


def elsewhere(user: str) -> int:
    """The partition of two in which a user does not belong."""
    return 1 - partition_of(user.encode(), 2)


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path, session_s=6.0)


def test_a_worker_takes_nothing_of_a_user_elsewhere_and_buries_each_record_by_name(scene: Scene) -> None:
    here, wrong, when = scene.here, elsewhere(USER), datetime.fromtimestamp(CLOCK.now(), UTC)
    sent = {"listens": LISTENS, "preferences": PREFERENCES, "erasure": PREFERENCES, "outcomes": PUSH_OUTCOMES}
    for kind, topic in sent.items():
        here.send(topic, said(kind, USER, 0, when), wrong)
    here.send(PREFERENCES, said("deletion", USER, 0, when), wrong)
    scene.work(
        lambda: (
            [here.committed("audience", topic, wrong) for topic in (LISTENS, PREFERENCES, PUSH_OUTCOMES)] == [1, 3, 1]
        )
    )
    letters = [dict(message.headers() or []) for message in here.read(DEAD_LETTERS)]
    assert [letter["dl_error"] for letter in letters] == [WRONG.encode()] * 5
    words = b"partition: %d, key '%s' belongs in %d of 2 by murmur2" % (wrong, USER.encode(), 1 - wrong)
    assert all(letter["dl_message"].startswith(words) for letter in letters)
    keys = [message.key() for message in here.read(AUDIENCE_STATE)]
    assert not [key for key in keys if key[:1] != b"x" and USER.encode() in key], keys
    code, told = scene.run()
    assert code == 0
    assert "lies in the wrong partition, and is not obeyed: send it again" in told
    # Once more, as the message says: now it is obeyed.
    here.send(PREFERENCES, said("erasure", USER, 1, when))
    scene.work(scene.consumed(PREFERENCES, 1))
    assert "was obeyed" in scene.run()[1]


def test_whoever_is_known_elsewhere_from_before_gets_no_push_from_there(here: Installation) -> None:
    town = Town(here)
    town.listen(10 * USERS)
    residents = [f"u-{n}" for n in range(USERS) if elsewhere(f"u-{n}") == 1]
    wrong = next(f"stranger-{n}" for n in range(99) if elsewhere(f"stranger-{n}") == 0)
    heard = Listens([wrong] * 8, [f"s-{n}" for n in range(8)], np.ones(8, np.float32), np.full(8, CLOCK.now()), None)
    before = new_partition(here)(0).stage(PartitionInputs(CLOCK.now(), listens=heard)).outputs.changelog
    here.send_all(AUDIENCE_STATE, [Record(key, value, []) for key, value in before], 0)  # type: ignore[arg-type]
    here.send(AUDIENCE_STATE, Record(OFFSETS_KEY, b"{}", []), 0)
    for _ in range(2):
        service = Service(here, here.kafka)
        service.until(town.everything_read)
        town.ask()
        service.until(town.everything_read)
        assert wrong in set(service.states[0].user_ids())
        service.stop()
    pushed = {(message.key() or b"").decode() for message in here.read(PUSH_TARGETS, 0)}
    assert pushed == set(residents)
    town.close()
