"""Every field of a record reaches targeting, and what is refused is told with its stage, its value and its bound."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from confluent_kafka import Message
from test_decode import LIVE, NOW, THEN, decode, listen, message, outside, packed, packed_vector, request

from streams.audience.decode import Records
from streams.audience.deduplication import Deduplication
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Listen, PushOutcome, UserPreferences
from streams.contract.internal_events import MatchRequest, Neighbour
from targeting.types import Match, Preferences

LATER = NOW + 1000


def told(records: Records) -> list[tuple[str, str]]:
    """Stage and text of each dead letter."""
    return [
        (stage, dict(letter.headers)["dl_message"].decode()) for letter, stage, _ in decode(records, space=LIVE).bad
    ]


def test_all_that_a_request_says_of_its_song_is_in_the_match() -> None:
    event = MatchRequest(
        song_id="s", revision=2, recording="r", title="Small Hours", artist_ids=["a-1", "a-2"],
        vector=packed_vector(1, 2), other_vectors=[packed_vector(3, 4), packed_vector(5, 6, 7, space="next")],
        neighbours=[Neighbour("w", 0.3)], budget=7, uploaded_at=THEN,
        expires_at=datetime.fromtimestamp(LATER, UTC), available_from=datetime.fromtimestamp(NOW + 9, UTC),
    )  # fmt: skip
    (match,) = decode(Records(commands=[message("c", 0, packed(event))]), space=LIVE).inputs.commands
    assert isinstance(match, Match)
    assert (match.title, match.artist_ids, match.available_from) == ("Small Hours", ("a-1", "a-2"), NOW + 9)
    assert match.similarities.dtype == np.float32
    assert [(space, vector.tolist()) for space, vector in match.others] == [("bcl", [3, 4]), ("next", [5, 6, 7])]


@pytest.mark.parametrize("which", ["vector", "other_vectors"])
def test_a_vector_of_the_space_in_use_with_another_dimension_is_refused_with_both(which: str) -> None:
    wrong = packed_vector(1, 2, 3)
    given = {"vector": wrong} if which == "vector" else {"vector": packed_vector(1, 2), "other_vectors": [wrong]}
    event = MatchRequest(song_id="s", revision=1, uploaded_at=THEN, expires_at=THEN, **given)  # type: ignore[arg-type]
    records = Records(commands=[message("c", 0, packed(event)), message("c", 1, request(vector=packed_vector(1, 2)))])
    assert told(records) == [("audience.commands", "vector: dimension 3, space 'bcl' has 2")]
    assert len(decode(records, space=LIVE).inputs.commands) == 1
    # Of another space, or before there is one, nobody knows its dimension.
    elsewhere = request(vector=vector_codec.pack("next", np.ones(3, np.float32)))
    assert told(Records(commands=[message("c", 0, elsewhere)])) == []
    assert len(decode(records).inputs.commands) == 2


def test_what_preferences_allow_is_what_they_say() -> None:
    for allowed in (True, False):
        event = UserPreferences(user_id="u", opted_in=True, allow_explicit=allowed, updated_at=THEN)
        ((_, wish),) = decode(Records(preferences=[message("p", 0, packed(event))])).inputs.preferences
        assert wish is not None
        assert wish.allow_explicit is allowed


def test_a_key_of_1_to_128_characters_is_a_users_id_also_beside_a_bad_one() -> None:
    for others in ([], [outside(9, b"", packed_vector(1, 2))], [outside(9, None, packed_vector(1, 2))]):  # type: ignore[arg-type]
        keys = [b"x", b"y" * 128, ("ö" * 128).encode()]
        messages = [outside(at, key, packed_vector(at + 1, 2)) for at, key in enumerate(keys)]
        found = decode(Records(vectors=[*messages, *others]), space=LIVE)
        assert found.inputs.vectors is not None
        assert list(found.inputs.vectors.user_ids) == ["x", "y" * 128, "ö" * 128]
        assert len(found.bad) == len(others)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (outside(0, b"", packed_vector(1, 2)), "key: 0 characters, 1 to 128 allowed"),
        (outside(0, b"x" * 129, packed_vector(1, 2)), "key: 129 characters, 1 to 128 allowed"),
        (outside(0, b"\xff", packed_vector(1, 2)), "key: b'\\xff' is not UTF-8"),
        (outside(0, b"u", b"CSVE"), "vector: 4 bytes, shorter than its 40-byte header"),
        (outside(0, b"u", packed_vector(1, 2), NOW + 86_500), "timestamp: 86500 s ahead of the clock, 86400 allowed"),
        (outside(0, b"u", packed_vector(1, 2), NOW / 1000), "timestamp: 1800000000 ms is no time"),
    ],
)
def test_a_bad_vector_is_told_with_what_is_wrong(bad: Message, text: str) -> None:
    for beside in ([], [outside(1, b"v", packed_vector(3, 4))]):
        ((stage, said),) = told(Records(vectors=[bad, *beside]))
        assert stage == "audience.vectors"
        assert said.startswith(text)


@pytest.mark.parametrize("time", [datetime(2001, 1, 1, tzinfo=UTC).timestamp(), NOW, NOW + 86_400])
def test_a_vector_may_have_been_made_at_the_very_first_and_last_of_the_times_that_are_allowed(time: float) -> None:
    assert told(Records(vectors=[outside(0, b"u", packed_vector(1, 2), time)])) == []


def test_vectors_stay_with_their_users_whatever_stands_between_them() -> None:
    given = [outside(at, b"u%d" % at, packed_vector(at + 1, 2)) for at in range(5)]
    for replaced, instead in ((0, None), (2, None), (4, None), (1, b"CSVE"), (3, packed_vector(1, 2, 3, space="x"))):
        messages = [*given[:replaced], outside(replaced, b"u%d" % replaced, instead), *given[replaced + 1 :]]
        found = decode(Records(vectors=messages), space=LIVE).inputs.vectors
        assert found is not None
        assert dict(zip(found.user_ids, found.vectors[:, 0].tolist(), strict=True)) == {
            f"u{at}": at + 1 for at in range(5) if at != replaced
        }
    # The first user's later vector stands behind the second's.
    found = decode(Records(vectors=[*given[:2], outside(5, b"u0", packed_vector(9, 2))]), space=LIVE).inputs.vectors
    assert found is not None
    assert dict(zip(found.user_ids, found.vectors[:, 0].tolist(), strict=True)) == {"u0": 9, "u1": 2}
    assert decode(Records(vectors=[outside(0, b"u", None)]), space=LIVE).inputs.vectors is not None


def test_a_batch_is_as_long_as_its_inputs_together_and_each_is_known_by_its_name() -> None:
    lists = {name: [message("t", at, listen("u", "s")) for at in range(count)] for count, name in enumerate(
        ("preferences", "commands", "listens", "vectors", "outcomes"), 1)}  # fmt: skip
    records = Records(**lists)
    assert records.by_input() == lists
    assert len(records) == 15


def test_good_records_tell_who_sent_them_and_listens_their_offsets() -> None:
    event = Listen(listen_id="l", user_id="u", song_id="s", played_at=THEN, source="organic")
    records = [
        pack(event, id=str(number), source=source, time=NOW)
        for number, source in enumerate(("app", "web", "app", "\u2603"))
    ]
    bad = Record(b"u", b"no json", records[0].headers)
    found = decode(
        Records(listens=[message("l", at, each) for at, each in enumerate([*records[:2], bad, *records[2:]])]),
        repeats=Deduplication(0),
    )
    assert found.sources == {"listens": {"app", "web", "\u2603"}}
    assert found.seen is not None
    assert (found.seen.listens, found.repeated) == (4, 3)


def test_a_record_that_its_producer_stamped_is_judged_by_the_clock() -> None:
    def stamped(record: Record) -> Message:
        return Message(
            topic="t", partition=0, offset=0, key=record.key, value=record.value, headers=list(record.headers),
            timestamp=(1, 5),
        )  # fmt: skip

    asks = UserPreferences(user_id="u", opted_in=True, updated_at=THEN, erase_requested_at=THEN)
    refused = Record(b"u", packed(asks).value.replace(b"true", b"17"), packed(asks).headers)
    records = Records(
        listens=[stamped(listen("u", "s"))], commands=[stamped(request(vector=packed_vector(1, 2)))],
        preferences=[stamped(refused)],
    )  # fmt: skip
    found = decode(records)
    assert found.inputs.listens is not None
    assert len(found.inputs.commands) == 1
    assert found.inputs.preferences == [("u", Preferences(opted_in=False))]
    assert found.inputs.erasures == [("u", NOW - 100)]
    assert [stage for _, stage, _ in found.bad] == ["audience.preferences"]


def test_who_sent_what_and_where_it_was_refused_is_told_by_input() -> None:
    outcome = PushOutcome(push_id="p", user_id="u", song_id="s", outcome="opened", at=THEN)
    good = {"commands": request(vector=packed_vector(1, 2)), "outcomes": packed(outcome), "listens": listen("u", "s")}
    found = decode(Records(**{name: [message("t", 0, record)] for name, record in good.items()}))
    assert found.sources == {name: {"test"} for name in good}
    for name, record in good.items():
        bad = Record(record.key, b"no json", record.headers)
        assert [stage for stage, _ in told(Records(**{name: [message("t", 0, bad)]}))] == [f"audience.{name}"]
    assert decode(Records()).repeated == 0
