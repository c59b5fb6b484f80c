"""Records as inputs of targeting; bad ones as dead letters."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from confluent_kafka import Message

from streams import vectors
from streams.audience.inputs import Records, decode
from streams.envelope import Record, pack
from streams.events import Event, Listen, MatchRequest, Neighbour, UserPreferences
from targeting.types import End, Match, Preferences, Takedown

NOW = 1_800_000_000.0
THEN = datetime.fromtimestamp(NOW - 100, UTC)


def message(topic: str, offset: int, record: Record) -> Message:
    return Message(
        topic=topic, partition=1, offset=offset, key=record.key, value=record.value, headers=list(record.headers),
        timestamp=(1, 1_700_000_000_000 + offset),
    )  # fmt: skip


def packed(event: Event, kind: int = 0, time: float = NOW) -> Record:
    return pack(event, ce_type=event.TYPES[kind], id="1", source="test", time=time)


def listen(user: str, song: str, plays: int = 1, time: float = NOW) -> Record:
    event = Listen(listen_id="l", user_id=user, song_id=song, played_at=THEN, source="organic", plays=plays)
    return packed(event, time=time)


def preferences(user: str, opted_in: bool = True) -> Record:
    return packed(
        UserPreferences(user_id=user, opted_in=opted_in, updated_at=THEN, country="PT", muted_artists=["a-9"])
    )


def request(kind: int = 0, vector: bytes = b"") -> Record:
    event = MatchRequest(
        song_id="s", revision=2, recording="r", title="t", artist_ids=["a"], vector=vector,
        neighbours=[Neighbour("w1", 0.5), Neighbour("w2", 0.25)], budget=7, uploaded_at=THEN,
        expires_at=datetime.fromtimestamp(NOW + 50, UTC), explicit=True, territories=["PT"],
    )  # fmt: skip
    return packed(event, kind)


def never(_: Message) -> bool:
    return False


def test_listens_become_columns_in_order_with_the_time_of_the_event() -> None:
    records = [listen("u1", "s1", 3, NOW - 9), listen("u2", "s2"), listen("u1", "s3")]
    found = decode(Records(listens=[message("l", n, r) for n, r in enumerate(records)]), NOW, never).inputs
    assert found.now == NOW
    assert found.listens is not None
    assert list(found.listens.user_ids) == ["u1", "u2", "u1"]
    assert list(found.listens.song_ids) == ["s1", "s2", "s3"]
    assert found.listens.weights.tolist() == [3, 1, 1]
    assert found.listens.times.tolist() == [NOW - 9, NOW, NOW]


def test_a_batch_of_nothing_is_nothing() -> None:
    found = decode(Records(), NOW, never)
    assert found.inputs.listens is None
    assert (list(found.inputs.commands), list(found.inputs.preferences), found.bad) == ([], [], [])


def test_preferences_and_their_deletion_stay_in_order() -> None:
    gone = Message(topic="p", partition=1, offset=1, key=b"u1", value=None)
    records = [message("p", 0, preferences("u1")), gone, message("p", 2, preferences("u1", opted_in=False))]
    found = decode(Records(preferences=records), NOW, never)
    kept = Preferences("u1", True, "PT", frozenset({"a-9"}), True)
    assert found.inputs.preferences == [
        ("u1", kept),
        ("u1", None),
        ("u1", Preferences("u1", False, "PT", frozenset({"a-9"}), True)),
    ]
    assert found.bad == []


def test_a_request_becomes_a_match() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    records = Records(commands=[message("c", 0, request(vector=vectors.pack("bcl", vector)))])
    (match,) = decode(records, NOW, never).inputs.commands
    assert isinstance(match, Match)
    assert (match.song_id, match.revision, match.recording, match.space, match.budget) == ("s", 2, "r", "bcl", 7)
    assert match.vector.tolist() == vector.tolist()
    assert match.neighbours == ("w1", "w2")
    assert match.similarities.tolist() == [0.5, 0.25]
    assert (match.requested_at, match.expires_at, match.available_from) == (NOW - 100, NOW + 50, 0.0)
    assert (match.explicit, match.territories) == (True, ("PT",))


def test_a_takedown_needs_no_vector() -> None:
    (command,) = decode(Records(commands=[message("c", 0, request(kind=1))]), NOW, never).inputs.commands
    assert command == Takedown("s", 2, End.TAKEN_DOWN)


@pytest.mark.parametrize("vector", [b"", b"CSVE", vectors.pack("bcl", np.ones(2, np.float32))[:-1]])
def test_a_request_with_a_bad_vector_is_buried_and_the_next_is_served(vector: bytes) -> None:
    good = request(vector=vectors.pack("bcl", np.ones(2, np.float32)))
    records = Records(commands=[message("c", 0, request(vector=vector)), message("c", 1, good)])
    found = decode(records, NOW, never)
    assert [command.song_id for command in found.inputs.commands] == ["s"]
    ((_, stage, error),) = found.bad
    assert (stage, error) == ("audience.commands", "Undecodable")


def test_a_bad_record_is_buried_with_its_bytes_and_place_and_its_neighbours_are_served() -> None:
    bad = Record(b"\xff", b"\x00 no json", listen("u", "s").headers)
    records = Records(
        listens=[message("l", 5, listen("u1", "s1")), message("l", 6, bad), message("l", 7, listen("u2", "s2"))]
    )
    found = decode(records, NOW, never)
    assert found.inputs.listens is not None
    assert list(found.inputs.listens.user_ids) == ["u1", "u2"]
    ((letter, stage, error),) = found.bad
    assert (letter.key, letter.value) == (b"\xff", b"\x00 no json")
    said = dict(letter.headers)
    assert (said["dl_topic"], said["dl_partition"], said["dl_offset"]) == (b"l", b"1", b"6")
    assert said["dl_timestamp"] == b"1700000000006"
    assert (stage, error) == ("audience.listens", "Undecodable")


def test_an_event_from_the_future_is_bad_by_the_time_that_is_given() -> None:
    records = Records(listens=[message("l", 0, listen("u", "s", time=NOW + 301))])
    assert [error for _, _, error in decode(records, NOW, never).bad] == ["FromTheFuture"]
    assert decode(records, NOW + 1, never).bad == []


def test_a_bad_preference_answered_in_an_earlier_life_makes_no_second_dead_letter() -> None:
    bad = Record(b"u", b"{}", preferences("u").headers)
    records = Records(preferences=[message("p", offset, bad) for offset in (3, 4)])

    def answered(message: Message) -> bool:
        return (message.offset() or 0) < 4

    assert len(decode(records, NOW, never).bad) == 2
    ((letter, stage, _),) = decode(records, NOW, answered).bad
    assert dict(letter.headers)["dl_offset"] == b"4"
    assert stage == "audience.preferences"
