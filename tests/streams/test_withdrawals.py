"""A withdrawal never falls with the record that carries it: opt-outs, erasures and objections to profiling in records
that are refused."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from streams.audience.decode import Decoded, Decoder, Records
from streams.audience.deduplication import Deduplication
from streams.audience.withdrawals import erasure_asked, objection, user_of
from streams.contract.cloudevents import Headers, pack
from streams.contract.events import UserPreferences
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.types import Listens, Match, PartitionInputs, Preferences

NOW = 1_800_000_000.0
ASKED = NOW - 50
USERS = ("anna", "ben")
SAID = {
    "user_id": "anna", "opted_in": False, "updated_at": "2027-01-15T07:00:00Z", "timezone": "Europe/Lisbon",
    "quiet_hours": [{"from": "22:00", "to": "08:00"}], "country": "PT", "muted_artists": ["a-9"],
    "allow_explicit": False, "cap": {"pushes": 2, "hours": 24},
    "erase_requested_at": datetime.fromtimestamp(ASKED, UTC).isoformat(),
}  # fmt: skip
HEADERS = pack(
    UserPreferences(user_id="anna", opted_in=True, updated_at=datetime.now(UTC)),
    id="1", source="test", time=NOW,
).headers  # fmt: skip


def said(without: str = "", **changes: object) -> bytes:
    return json.dumps({name: value for name, value in (SAID | changes).items() if name != without}).encode()


def structured(**attributes: object) -> bytes:
    return json.dumps({"specversion": "1.0"} | attributes).encode()


def record(
    value: bytes | None, headers: Headers = HEADERS, offset: int = 0, key: bytes = b"anna", at: float = NOW
) -> Message:
    return Message(
        topic="preferences", partition=0, offset=offset, key=key, value=value, headers=list(headers),
        timestamp=(2, int(at * 1000)),
    )  # fmt: skip


def decoded(*records: Message, answered: bool = False) -> Decoded:
    return Decoder(NOW, lambda _: answered, 1).decode(Records(preferences=list(records)), None, Deduplication(0))


class Driver:
    """A partition in which anna and ben like the same song."""

    def __init__(self) -> None:
        songs = Catalogue()
        songs.set_vectors("space", ["w"], np.eye(1, 4, dtype=np.float32))
        self.partition = Partition(0, 1, songs)
        self.does(listens=Listens(USERS, ["w", "w"], np.ones(2, np.float32), np.full(2, NOW - 100)))

    def does(self, **inputs: Any) -> list[str]:
        staged = self.partition.stage(PartitionInputs(NOW, **inputs))
        self.partition.apply(staged)
        return sorted(push.user_id for push in staged.outputs.pushes)

    def obeys(self, *records: Message) -> None:
        inputs = decoded(*records).inputs
        self.does(preferences=inputs.preferences, erasures=inputs.erasures, profiling=inputs.profiling)

    def pushes(self) -> list[str]:
        """Who gets a song that both would like."""
        one = np.ones(1, np.float32)
        return self.does(
            commands=[
                Match("s", 1, "s", "", (), "space", np.eye(1, 4, dtype=np.float32)[0], ("w",), one, 9, NOW, NOW + 9)
            ]
        )

    def listens_again(self) -> None:
        self.does(listens=Listens(USERS[:1], ["w"], np.ones(1, np.float32), np.full(1, NOW)))


REFUSED = {
    "a zone that is none": said(timezone="Etc/Unknown"),
    "an empty zone": said(timezone=""),
    "a zone that is gone from tzdb": said(timezone="US/Pacific-New"),
    "a country that is none": said(country="UK2"),
    "a cap of text": said(cap="two a day"),
    "no updated_at": said(without="updated_at"),
    "an opt-out in words": said(opted_in="no"),
    "no opt-out": said(without="opted_in"),
    "another user": said(user_id="carla"),
    "no user": said(without="user_id"),
    "half of it": said()[: said().index(b'"erase')],
    "in a structured event": b'{"specversion":"1.0","data":' + said() + b"}",
    "in one that is encoded": b'{"specversion":"1.0","data_base64":"' + b64encode(said()) + b'"}',
    "in a structured event without data": b'{"specversion":"1.0"}',
    "no JSON": b"\x00\xff",
    "another JSON": b"[1]",
    "nothing": b"",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_a_user_whose_preferences_are_refused_is_not_pushed_and_the_other_is(value: bytes) -> None:
    driver, refused = Driver(), record(value)
    assert len(decoded(refused).bad) == 1
    assert decoded(refused, answered=True).bad == []
    driver.obeys(refused)
    driver.listens_again()
    assert driver.pushes() == ["ben"]


def test_a_user_who_listens_for_the_first_time_after_a_refused_record_is_not_pushed() -> None:
    driver = Driver()
    driver.obeys(record(said(user_id="carla", timezone="Etc/Unknown", erase_requested_at=None), key=b"carla"))
    driver.does(listens=Listens(["carla"], ["w"], np.ones(1, np.float32), np.full(1, NOW)))
    assert driver.pushes() == ["anna", "ben"]


def test_pushes_go_on_with_the_next_record_that_can_be_read_or_with_a_deletion() -> None:
    good = said(without="erase_requested_at", opted_in=True, quiet_hours=[], allow_explicit=True)
    for after in (record(good, offset=1), record(None, offset=1)):
        for together in (True, False):
            driver, refused = Driver(), record(b"no JSON")
            for batch in [[refused, after]] if together else [[refused], [after]]:
                driver.obeys(*batch)
            assert driver.pushes() == ["anna", "ben"]


def test_of_several_records_in_a_batch_the_last_stands_and_an_erasure_in_any_of_them_is_done() -> None:
    driver = Driver()
    later = said(without="erase_requested_at", opted_in=True)
    driver.obeys(record(said(timezone="Etc/Unknown")), record(later, offset=1), record(b"{", offset=2))
    assert decoded(record(later), record(b"{", offset=1)).inputs.preferences[1] == (
        "anna",
        Preferences(opted_in=False),
    )
    driver.obeys(record(later, offset=3))
    assert driver.pushes() == ["ben"]  # erased: nothing is known that weights for a push
    driver.listens_again()
    assert driver.partition.stage(PartitionInputs(NOW)).changes.markers == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (said(timezone=""), ASKED),
        (said(without="erase_requested_at"), None),
        (said(erase_requested_at=None), None),
        (said(erase_requested_at=False), None),
        (said(erase_requested_at=""), None),
        (said(erase_requested_at=True), NOW),
        (said(erase_requested_at="yesterday"), NOW),
        (said(erase_requested_at=1_800_000_000), NOW),
        (said(erase_requested_at="2027-01-15T07:00:00"), NOW),
        (said(erase_requested_at="2122-01-01T00:00:00Z"), NOW),
        (said(erase_requested_at="0001-01-01T00:00:00+14:00"), 0.0),
        (said()[:-1], ASKED),
        (said() + b"}", ASKED),
        (said()[:-5], NOW),
        (said(without="erase_requested_at")[:-1] + b', "erase_requested_at" : "2027-01-15T07:59:10Z", \xff', ASKED),
        (said(erase_requested_at=None)[:-1], None),
        (json.dumps({"note": said().decode()}).encode()[:-1], None),
        (b'[{"erase_requested_at": "2027-01-15T07:59:10Z"}]', None),
        (b"[" * 100_000, None),
        (structured(data=json.loads(said())), ASKED),
        (structured(data_base64=b64encode(said()).decode()), ASKED),
        (structured(data=None, erase_requested_at="soon"), None),
        # No data that can be read: what stands beside it is all there is.
        (structured(erase_requested_at="soon"), NOW),
        (structured(data_base64=7, erase_requested_at="soon"), NOW),
        (structured(data_base64="abc", erase_requested_at="soon"), NOW),
        (structured(data_base64=b64encode(b"{").decode(), erase_requested_at="soon"), NOW),
        (structured(data_base64=b64encode(b'"\xff"').decode(), erase_requested_at="soon"), NOW),
        (structured(data_base64=b64encode(b"[" * 100_000).decode(), erase_requested_at="soon"), NOW),
        (structured(data_base64=b64encode(b"[" * 100_000).decode(), more={"erase_requested_at": "soon"}), None),
        (structured(), None),
        (json.dumps({"data": {"erase_requested_at": "soon"}}).encode(), None),
    ],
)
def test_an_erasure_is_read_as_far_as_it_can_be(value: bytes, expected: float | None) -> None:
    assert erasure_asked(value, NOW) == expected


def test_an_erasure_asked_for_five_minutes_ahead_is_done_as_of_then() -> None:
    for ahead, expected in ((300, NOW + 300), (301, NOW)):
        time = datetime.fromtimestamp(NOW + ahead, UTC).isoformat()
        assert erasure_asked(said(erase_requested_at=time), NOW) == expected


def test_a_key_that_is_nobodys_id_withholds_nobody() -> None:
    assert user_of(b"x" * 128) == "x" * 128
    for key in (None, b"", b"\xff", b"x" * 129):
        assert user_of(key) is None
    for value in (said(), None):
        inputs = decoded(record(value, key=b"\xff")).inputs
        assert (inputs.preferences, inputs.erasures) == ([], [])


def test_an_erasure_in_a_refused_record_is_done_once_though_it_is_read_at_every_start() -> None:
    driver, refused = Driver(), record(said(timezone="US/Pacific-New", erase_requested_at="soon"), at=ASKED)
    driver.obeys(refused)
    driver.listens_again()
    inputs = decoded(refused, answered=True).inputs
    assert inputs.erasures == [("anna", ASKED)]
    staged = driver.partition.stage(inputs)
    assert staged.changes.markers == {}
    assert len(staged.changes.erased) == 0


UPDATED = datetime(2027, 1, 15, 7, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (said(profiling=False), UPDATED),
        (said(profiling="false"), UPDATED),
        (said(profiling=" False "), UPDATED),
        (said(profiling=0), UPDATED),
        (said(), None),
        (said(profiling=True), None),
        (said(profiling=None), None),
        (said(profiling="no"), None),
        (said(profiling=""), None),
        (said(profiling=[]), None),
        (said(profiling=1), None),
        (said(profiling=False, updated_at="yesterday"), NOW),
        (said(profiling=False, updated_at=None), NOW),
        (said(profiling=False, updated_at=7), NOW),
        (said(profiling=False, without="updated_at"), NOW),
        (said(profiling=False, updated_at="2122-01-01T00:00:00Z"), NOW + 300),
        (said(profiling=False, updated_at="0001-01-01T00:00:00+14:00"), 0.0),
        (said(profiling=False)[:-1], UPDATED),
        (said(profiling=False)[:-2], None),
        (said(profiling=False)[:-1] + b', "profiling":true, \xff', None),
        (said(profiling=True)[:-1] + b', "profiling" : false, \xff', UPDATED),
        (json.dumps({"note": said(profiling=False).decode()}).encode()[:-1], None),
        (structured(data=json.loads(said(profiling=False))), UPDATED),
        (structured(data_base64=b64encode(said(profiling=False)).decode()), UPDATED),
        (b"[" * 100_000, None),
        (b"\x00\xff", None),
        (b"", None),
    ],
)
def test_an_objection_to_profiling_is_read_as_far_as_it_can_be(value: bytes, expected: float | None) -> None:
    assert objection(value, NOW) == expected


def wants(updated_at: float, profiling: bool | None, **changes: object) -> bytes:
    told = {} if profiling is None else {"profiling": profiling}
    good = {"erase_requested_at": None, "opted_in": True, "quiet_hours": [], "allow_explicit": True}
    return said(updated_at=datetime.fromtimestamp(updated_at, UTC).isoformat(), **{**good, **told, **changes})


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_a_refused_record_that_says_nothing_of_profiling_changes_nothing_of_it(value: bytes) -> None:
    refused = record(value, offset=5)
    assert decoded(refused).inputs.profiling == []
    for before in (True, False):
        driver = Driver()
        driver.obeys(record(wants(NOW - 40, before)))
        users = driver.partition.users
        driver.obeys(refused)
        driver.obeys(record(wants(NOW - 50, True), offset=6))
        driver.listens_again()
        assert driver.partition.users == users == (2 if before else 1)


def test_an_objection_in_a_refused_record_is_obeyed_until_a_later_one_allows_profiling() -> None:
    driver = Driver()
    driver.obeys(record(wants(NOW - 40, False, timezone="Etc/Unknown")))
    driver.listens_again()
    assert driver.partition.users == 1
    # Neither a deletion, nor what is refused, nor what was said before ends it.
    driver.obeys(record(None, offset=1))
    driver.obeys(record(wants(NOW - 30, True, timezone="Etc/Unknown"), offset=2))
    driver.obeys(record(wants(NOW - 41, True), offset=3))
    driver.listens_again()
    assert driver.pushes() == ["ben"]
    driver.obeys(record(wants(NOW - 30, None), offset=4))
    driver.listens_again()
    assert driver.partition.users == 2


def test_what_a_good_record_says_of_profiling_is_as_of_its_updated_at() -> None:
    def read(value: bytes, answered: bool = False) -> list[tuple[str, float, bool]]:
        return list(decoded(record(value), answered=answered).inputs.profiling)

    assert read(wants(NOW - 9, False)) == [("anna", NOW - 9, False)]
    assert read(wants(NOW - 9, True)) == read(wants(NOW - 9, None)) == [("anna", NOW - 9, True)]
    # A clock that is wrong must not make everything that is said later outdated.
    assert read(wants(NOW + 9_000, False)) == [("anna", NOW + 300, False)]
    # Read again at a start: an objection stands, and what allows profiling did so already.
    assert read(wants(NOW - 9, False), answered=True) == [("anna", NOW - 9, False)]
    assert read(wants(NOW - 9, True), answered=True) == []


def test_what_is_said_of_profiling_in_a_batch_comes_in_the_order_of_its_records() -> None:
    records = [
        record(wants(NOW - 9, True)), record(wants(NOW - 8, False, country="UK2"), offset=1), record(b"{", offset=2),
        record(wants(NOW - 7, True), offset=3), record(None, offset=4), record(wants(NOW - 6, False), offset=5),
    ]  # fmt: skip
    assert decoded(*records).inputs.profiling == [
        ("anna", NOW - 9, True), ("anna", NOW - 8, False), ("anna", NOW - 7, True), ("anna", NOW - 6, False),
    ]  # fmt: skip


garbage: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "Etc/Unknown", "US/Pacific-New", "UK2", -1, 2**70, 1e308, True, [], {}, [{}], [None], {"pushes": -1}]
) | st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
enveloped = st.dictionaries(
    st.sampled_from(["specversion", "data", "data_base64", "erase_requested_at", "user_id", "profiling", "updated_at"]),
    garbage | st.binary(max_size=9).map(lambda raw: b64encode(raw).decode()) | st.dictionaries(st.text(), garbage),
)


@given(enveloped, st.integers(0, 400) | st.none())
def test_whatever_a_refused_record_is_it_is_read_for_a_withdrawal(event: dict[str, Any], cut: int | None) -> None:
    for found in (read(msgspec.json.encode(event)[:cut], NOW) for read in (erasure_asked, objection)):
        assert found is None or 0 <= found <= NOW + 300


others = st.dictionaries(st.sampled_from(sorted(set(SAID) - {"opted_in", "erase_requested_at"})), garbage, max_size=4)
headers = st.lists(st.sampled_from([*HEADERS, ("ce_type", b"x"), ("ce_time", None), ("ce_time", b"\xff")]), max_size=8)


WITHDRAWALS: dict[str, dict[str, object]] = {
    "opt-out": {"opted_in": False, "erase_requested_at": None},
    "erasure": {"opted_in": True, "erase_requested_at": SAID["erase_requested_at"]},
    "objection": {"opted_in": True, "profiling": False},
}


@given(others, st.just(HEADERS) | headers, st.sampled_from(sorted(WITHDRAWALS)), st.integers(0, 400) | st.none())
def test_no_push_follows_a_withdrawal_whatever_the_rest_of_the_record_is(
    changes: dict[str, Any], sent: Headers, what: str, cut: int | None
) -> None:
    value = msgspec.json.encode(WITHDRAWALS[what])
    value = value[:-1] + b"," + msgspec.json.encode({"user_id": "anna"} | changes)[1:]
    driver = Driver()
    driver.obeys(record(value if cut is None else value[:cut], sent))
    assert driver.pushes() == ["ben"]
    if what != "opt-out" and cut is None:
        assert driver.partition.users == 1
        assert len(driver.partition._state.erasures) == 1
