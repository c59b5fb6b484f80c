"""Records as inputs of targeting; bad ones as dead letters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from confluent_kafka import Message
from hypothesis import example, given
from hypothesis import strategies as st

from streams.audience.decode import Decoded, Decoder, Records, SpaceInUse, counted
from streams.audience.deduplication import WINDOW, Deduplication
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.event_base import Event
from streams.contract.events import Cap as EventCap
from streams.contract.events import Listen, PushOutcome, QuietHours, UserPreferences
from streams.contract.internal_events import MatchRequest, Neighbour
from streams.kafka.partitioner import partition_of
from targeting.types import (
    EndReason,
    FrequencyCap,
    Mark,
    Match,
    OutsideVectors,
    Preferences,
    QuietSpan,
    Reanchor,
    Takedown,
)

NOW = 1_800_000_000.0
THEN = datetime.fromtimestamp(NOW - 100, UTC)


def message(topic: str, offset: int, record: Record) -> Message:
    return Message(
        topic=topic, partition=0, offset=offset, key=record.key, value=record.value, headers=list(record.headers),
        timestamp=(2, int(NOW * 1000) + offset),
    )  # fmt: skip


def packed(event: Event, kind: int = 0, time: float = NOW) -> Record:
    return pack(event, ce_type=event.TYPES[kind], id="1", source="test", time=time)


def listen(user: str, song: str, plays: int = 1, time: float = NOW, id: str = "", **more: bool) -> Record:
    event = Listen(
        listen_id=id or f"{user} {song}", user_id=user, song_id=song, played_at=THEN, source="organic", plays=plays,
        **more,
    )  # fmt: skip
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


def decode(
    records: Records,
    now: float = NOW,
    answered: Callable[[Message], bool] = never,
    space: SpaceInUse | None = None,
    repeats: Deduplication | None = None,
) -> Decoded:
    return Decoder(now, answered, 1).decode(records, space, repeats or Deduplication(0))


def test_listens_become_columns_in_order_with_the_time_of_the_event() -> None:
    records = [listen("u1", "s1", 3, NOW - 9), listen("u2", "s2"), listen("u1", "s3")]
    found = decode(Records(listens=[message("l", n, r) for n, r in enumerate(records)])).inputs
    assert found.now == NOW
    assert found.listens is not None
    assert list(found.listens.user_ids) == ["u1", "u2", "u1"]
    assert list(found.listens.song_ids) == ["s1", "s2", "s3"]
    assert found.listens.weights.tolist() == [3, 1, 1]
    assert found.listens.times.tolist() == [NOW - 9, NOW, NOW]


def test_a_batch_of_nothing_is_nothing() -> None:
    found = decode(Records())
    assert found.inputs.listens is None
    assert (list(found.inputs.commands), list(found.inputs.preferences), found.bad) == ([], [], [])


def test_preferences_and_their_deletion_stay_in_order() -> None:
    gone = Message(topic="p", partition=0, offset=1, key=b"u1", value=None)
    records = [message("p", 0, preferences("u1")), gone, message("p", 2, preferences("u1", opted_in=False))]
    found = decode(Records(preferences=records))
    kept = Preferences(True, "PT", frozenset({"a-9"}), True)
    assert found.inputs.preferences == [
        ("u1", kept),
        ("u1", None),
        ("u1", Preferences(False, "PT", frozenset({"a-9"}), True)),
    ]
    assert found.bad == []


USERS = [f"u{number}" for number in range(8)]
PARTITIONS = 4
HERE = [user for user in USERS if partition_of(user.encode(), PARTITIONS) == 0]
"""Those of them whose partition is the one that all messages of these tests come from."""


def misplaced(records: Records, space: SpaceInUse | None = None) -> Decoded:
    """Decoded where there are four partitions."""
    assert 0 < len(HERE) < len(USERS)
    return Decoder(NOW, never, PARTITIONS).decode(records, space, Deduplication(0))


def test_a_deletion_of_preferences_in_another_partition_than_its_users_is_buried() -> None:
    gone = [Message(topic="p", partition=0, offset=n, key=user.encode(), value=None) for n, user in enumerate(USERS)]
    found = misplaced(Records(preferences=gone))
    assert found.inputs.preferences == [(user, None) for user in HERE]
    assert [letter.key for letter, _, _ in found.bad] == [user.encode() for user in USERS if user not in HERE]
    assert {tuple(each) for _, *each in found.bad} == {("audience.preferences", "WrongPartition")}


def test_a_vector_in_another_partition_than_its_users_is_buried() -> None:
    sent = [outside(n, user.encode(), packed_vector(n, 1)) for n, user in enumerate(USERS)]
    found = misplaced(Records(vectors=sent), LIVE)
    assert found.inputs.vectors is not None
    assert list(found.inputs.vectors.user_ids) == HERE
    assert list(found.inputs.vectors.withdrawn) == []
    assert [letter.key for letter, _, _ in found.bad] == [user.encode() for user in USERS if user not in HERE]
    assert {tuple(each) for _, *each in found.bad} == {("audience.vectors", "WrongPartition")}


def test_a_request_becomes_a_match() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    records = Records(commands=[message("c", 0, request(vector=vector_codec.pack("bcl", vector)))])
    (match,) = decode(records).inputs.commands
    assert isinstance(match, Match)
    assert (match.song_id, match.revision, match.recording, match.space, match.budget) == ("s", 2, "r", "bcl", 7)
    assert match.vector.tolist() == vector.tolist()
    assert match.neighbours == ("w1", "w2")
    assert match.similarities.tolist() == [0.5, 0.25]
    assert (match.requested_at, match.expires_at, match.available_from) == (NOW - 100, NOW + 50, 0.0)
    assert (match.explicit, match.territories) == (True, ("PT",))


def test_a_takedown_needs_no_vector() -> None:
    for kind, reason in ((1, EndReason.TAKEN_DOWN), (2, EndReason.PROMOTED)):
        (command,) = decode(Records(commands=[message("c", 0, request(kind))])).inputs.commands
        assert command == Takedown("s", 2, reason)


def test_a_song_is_anchored_anew_in_another_space() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    records = Records(commands=[message("c", 0, request(3, vector_codec.pack("next", vector)))])
    (command,) = decode(records).inputs.commands
    assert isinstance(command, Reanchor)
    assert (command.song_id, command.revision, command.space, command.neighbours) == ("s", 2, "next", ("w1", "w2"))
    assert command.vector.tolist() == vector.tolist()
    assert command.similarities.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("vector", [b"", b"CSVE", vector_codec.pack("bcl", np.ones(2, np.float32))[:-1]])
def test_a_request_with_a_bad_vector_is_buried_and_the_next_is_served(vector: bytes) -> None:
    good = request(vector=vector_codec.pack("bcl", np.ones(2, np.float32)))
    records = Records(commands=[message("c", 0, request(vector=vector)), message("c", 1, good)])
    found = decode(records)
    assert [command.song_id for command in found.inputs.commands] == ["s"]
    ((_, stage, error),) = found.bad
    assert (stage, error) == ("audience.commands", "Undecodable")


def test_a_bad_record_is_buried_with_its_bytes_and_place_and_its_neighbours_are_served() -> None:
    bad = Record(b"\xff", b"\x00 no json", listen("u", "s").headers)
    records = Records(
        listens=[message("l", 5, listen("u1", "s1")), message("l", 6, bad), message("l", 7, listen("u2", "s2"))]
    )
    found = decode(records)
    assert found.inputs.listens is not None
    assert list(found.inputs.listens.user_ids) == ["u1", "u2"]
    ((letter, stage, error),) = found.bad
    assert (letter.key, letter.value) == (b"\xff", b"\x00 no json")
    said = dict(letter.headers)
    assert (said["dl_topic"], said["dl_partition"], said["dl_offset"]) == (b"l", b"0", b"6")
    assert said["dl_timestamp"] == b"1800000000006"
    assert (stage, error) == ("audience.listens", "Undecodable")


@pytest.mark.parametrize("clock", [NOW - 400, NOW, NOW + 400], ids=["behind", "right", "ahead"])
def test_an_event_is_ahead_by_when_the_broker_appended_it_whatever_the_clock_says(clock: float) -> None:
    records = Records(
        listens=[message("l", 0, listen("u", "s", time=NOW + 301)), message("l", 1, listen("u", "s2", time=NOW + 299))],
        commands=[message("c", 0, packed_at(NOW + 301)), message("c", 1, packed_at(NOW + 299))],
        preferences=[message("p", 0, preferences("u"))],
    )
    found = decode(records, clock)
    assert [error for _, _, error in found.bad] == ["FromTheFuture", "FromTheFuture"]
    assert found.inputs.listens is not None
    assert list(found.inputs.listens.song_ids) == ["s2"]
    assert (len(found.inputs.commands), len(found.inputs.preferences)) == (1, 1)


def packed_at(time: float) -> Record:
    event = MatchRequest(song_id="s", revision=2, uploaded_at=THEN, expires_at=THEN)
    return packed(event, kind=1, time=time)


def test_a_bad_preference_answered_in_an_earlier_life_makes_no_second_dead_letter() -> None:
    bad = Record(b"u", b"{}", preferences("u").headers)
    records = Records(preferences=[message("p", offset, bad) for offset in (3, 4)])

    def answered(message: Message) -> bool:
        return (message.offset() or 0) < 4

    assert len(decode(records).bad) == 2
    ((letter, stage, _),) = decode(records, NOW, answered).bad
    assert dict(letter.headers)["dl_offset"] == b"4"
    assert stage == "audience.preferences"


def test_preferences_bring_zone_quiet_hours_cap_and_erasure() -> None:
    event = UserPreferences(
        user_id="u", opted_in=True, updated_at=THEN, timezone="Asia/Kolkata", cap=EventCap(pushes=0, hours=12.0),
        quiet_hours=[QuietHours("22:30", "08:00"), QuietHours("00:00", "23:59")], erase_requested_at=THEN,
    )  # fmt: skip
    inputs = decode(Records(preferences=[message("p", 0, packed(event))])).inputs
    quiet = (QuietSpan(1350, 480), QuietSpan(0, 1439))
    assert inputs.preferences == [("u", Preferences(timezone="Asia/Kolkata", quiet=quiet, cap=FrequencyCap(0, 12.0)))]
    assert inputs.erasures == [("u", NOW - 100)]


def test_listens_say_what_was_completed_and_collected() -> None:
    records = [
        listen("u", "s1", completed=True), listen("u", "s2", collected=True),
        listen("u", "s3", completed=True, collected=True), listen("u", "s4", completed=False),
    ]  # fmt: skip
    found = decode(Records(listens=[message("l", n, r) for n, r in enumerate(records)])).inputs.listens
    assert found is not None
    assert found.marks is not None
    assert found.marks.tolist() == [Mark.COMPLETED, Mark.COLLECTED, Mark.COMPLETED | Mark.COLLECTED, 0]
    plain = decode(Records(listens=[message("l", 0, listen("u", "s"))])).inputs.listens
    assert plain is not None
    assert plain.marks is None


def test_a_listen_that_comes_again_is_left_out_and_counted() -> None:
    sent = [listen("u", "s1"), listen("u", "s2"), listen("u", "s1")]
    records = Records(listens=[message("l", n, r) for n, r in enumerate(sent)])
    repeats = Deduplication(0)
    found = decode(records, repeats=repeats)
    assert found.inputs.listens is not None
    assert list(found.inputs.listens.song_ids) == ["s1", "s2"]
    assert found.repeated == 1
    # Until the batch is committed, it is as if it had not been read.
    assert decode(records, repeats=repeats).repeated == 1
    assert found.seen is not None
    repeats.remember(found.seen)
    again = decode(Records(listens=[message("l", 3, listen("u", "s2"))]), repeats=repeats)
    assert (again.inputs.listens, again.repeated, again.bad) == (None, 1, [])


# Steps between offsets, ids, who stamped the time (a producer, the broker), and whether the record can be read.
TOPIC = st.lists(
    st.tuples(
        st.sampled_from([1, 2, WINDOW - 1, WINDOW]), st.sampled_from("ab"), st.sampled_from([1, 2]), st.booleans()
    )
)


@given(TOPIC, st.integers(0, 9))
@example([(1, "a", 2, True), (WINDOW, "a", 2, True)], 1)
@example([(1, "a", 2, True), (1, "b", 2, True), (WINDOW, "a", 2, True)], 1)
def test_which_listens_are_repeats_follows_from_the_topic_also_after_a_restart(
    topic: list[tuple[int, str, int, bool]], restart: int
) -> None:
    messages, expected, before, offset = [], [], dict[str, int](), -1
    for step, id, kind, good in topic:
        offset += step
        record = listen("u", str(offset), id=id)
        messages.append(Message(
            topic="l", partition=0, offset=offset, key=record.key, value=record.value if good else b"{}",
            headers=list(record.headers), timestamp=(kind, int(NOW * 1000)),
        ))  # fmt: skip
        if good:
            if len(messages) > restart and (id not in before or offset - before[id] > WINDOW):
                expected.append(str(offset))
            before[id] = offset
    repeats = Deduplication(0)
    repeats.remember(counted(messages[:restart], NOW, repeats, 1))
    found = decode(Records(listens=messages[restart:]), repeats=repeats)
    assert list(found.inputs.listens.song_ids if found.inputs.listens else []) == expected
    assert found.repeated == sum(good for *_, good in topic[restart:]) - len(expected)


def test_outcomes_become_marks() -> None:
    named = ("delivered", "failed", "opened", "dismissed", "expired")
    records = [
        packed(PushOutcome(push_id="p", user_id=f"u{n}", song_id="s", outcome=each, at=THEN), time=NOW - n)
        for n, each in enumerate(named)
    ]
    found = decode(Records(outcomes=[message("o", n, r) for n, r in enumerate(records)])).inputs.outcomes
    assert found is not None
    assert list(found.user_ids) == ["u0", "u1", "u2", "u3", "u4"]
    assert list(found.song_ids) == ["s"] * 5
    assert [Mark(each) for each in found.marks.tolist()] == [Mark[each.upper()] for each in named]
    assert found.times.tolist() == [THEN.timestamp()] * 5
    assert found.push_ids == ["p"] * 5


def test_the_records_of_outcomes_come_with_them_without_the_bad_ones() -> None:
    good = packed(PushOutcome(push_id="p", user_id="u", song_id="s", outcome="opened", at=THEN))
    bad = Record(b"u", b"{", good.headers)
    sent = [message("o", n, record) for n, record in enumerate([good, bad, good])]
    assert list(decode(Records(outcomes=sent)).outcomes) == [sent[0], sent[2]]
    assert list(decode(Records()).outcomes) == []


LIVE = SpaceInUse("bcl", 2)


def outside(offset: int, user: bytes, value: bytes | None, time: float = NOW) -> Message:
    return Message(topic="v", partition=0, offset=offset, key=user, value=value, timestamp=(1, int(1000 * time)))


def packed_vector(*values: float, space: str = "bcl") -> bytes:
    return vector_codec.pack(space, np.array(values, np.float32))


def taken(messages: list[Message], space: SpaceInUse | None = LIVE) -> tuple[OutsideVectors | None, list[str]]:
    found = decode(Records(vectors=messages), space=space)
    return found.inputs.vectors, [error for _, _, error in found.bad]


def test_of_a_user_the_last_good_vector_counts() -> None:
    found, bad = taken([
        outside(0, b"u1", packed_vector(1, 2)), outside(1, b"u2", packed_vector(3, 4), NOW - 5),
        outside(2, b"u1", packed_vector(5, 6), NOW - 7), outside(3, b"u1", b"CSVE"),
    ])  # fmt: skip
    assert found is not None
    told = dict(zip(found.user_ids, zip(found.vectors.tolist(), found.times.tolist(), strict=True), strict=True))
    assert told == {"u1": ([5, 6], NOW - 7), "u2": ([3, 4], NOW - 5)}
    assert (found.space, list(found.withdrawn), bad) == ("bcl", [], ["Undecodable"])


def test_a_deletion_and_a_vector_of_another_space_withdraw() -> None:
    found, bad = taken([
        outside(0, b"u1", packed_vector(1, 2)), outside(1, b"u2", packed_vector(1, 2)),
        outside(2, b"u1", None), outside(3, b"u2", packed_vector(1, 2, 3, space="other")),
        outside(4, b"u3", None), outside(5, b"u3", packed_vector(7, 8)),
    ])  # fmt: skip
    assert found is not None
    assert (list(found.user_ids), found.vectors.tolist()) == (["u3"], [[7, 8]])
    assert (sorted(found.withdrawn), bad) == (["u1", "u2"], [])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (outside(0, b"u", packed_vector(1, 2, 3)), "InvalidField"),
        (outside(0, b"u", packed_vector(0, 0)), "InvalidField"),
        (outside(0, b"u", packed_vector(1, float("nan"))), "InvalidField"),
        (outside(0, b"\xff", packed_vector(1, 2)), "InvalidField"),
        (outside(0, b"", packed_vector(1, 2)), "InvalidField"),
        (outside(0, b"x" * 129, packed_vector(1, 2)), "InvalidField"),
        (outside(0, b"u", packed_vector(1, 2)[:-1]), "Undecodable"),
        (outside(0, b"u", packed_vector(1, 2), NOW + 86_401), "FromTheFuture"),
        # In seconds, which as milliseconds are of 1970; and not set at all.
        (outside(0, b"u", packed_vector(1, 2), NOW / 1000), "InvalidField"),
        (Message(topic="v", partition=0, offset=0, key=b"u", value=packed_vector(1, 2)), "InvalidField"),
    ],
)
def test_a_bad_vector_is_buried_and_the_next_is_taken(message: Message, error: str) -> None:
    found, bad = taken([message, outside(1, b"v", packed_vector(3, 4))])
    assert found is not None
    assert (list(found.user_ids), list(found.withdrawn), bad) == (["v"], [], [error])
    assert taken([message])[0] is None


@pytest.mark.parametrize("time", [0.0, NOW / 1000, NOW + 1e9])
def test_a_vector_is_withdrawn_at_any_time(time: float) -> None:
    found, bad = taken([outside(0, b"u", packed_vector(1, 2)), outside(1, b"u", None, time)])
    assert found is not None
    assert (list(found.user_ids), list(found.withdrawn), bad) == ([], ["u"], [])


def test_before_there_is_a_model_vectors_from_outside_say_nothing() -> None:
    assert taken([outside(0, b"u", packed_vector(1, 2))], space=None) == (None, [])
