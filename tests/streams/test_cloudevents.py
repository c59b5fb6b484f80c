"""Records of events: there and back, and why a bad one is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.contract.cloudevents import append_time, decoded, pack, unpack, unpack_many
from streams.contract.errors import (
    BadRecord,
    FromTheFuture,
    InvalidField,
    KeyMismatch,
    TooLarge,
    Undecodable,
    UnknownEventType,
    UnknownMediaType,
)
from streams.contract.event_base import Event
from streams.contract.event_time import MAX_AHEAD_SECONDS
from streams.contract.events import PUBLIC_EVENTS, Listen, SongTakedown, SongUpload, UserPreferences
from streams.contract.internal_events import INTERNAL_EVENTS, MatchRequest, WarmSong
from streams.contract.record_size import MAX_VALUE_BYTES
from streams.contract.unreadable import UNREADABLE

NOW = 1_800_000_000.0
LISTEN = Listen(
    listen_id="l", user_id="u", song_id="s", played_at=datetime(2026, 3, 1, tzinfo=UTC), source="organic", plays=3
)
GOOD = pack(LISTEN, id="l", source="test", time=NOW)
HEADERS: dict[str, bytes | None] = dict(GOOD.headers)
ID_FIELDS = ("song_id", "user_id", "listen_id", "push_id", "recording_id")

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
weights = st.floats(min_value=1e-6, max_value=1e6)


@given(
    song_id=ids, revision=st.integers(0, 2**31), title=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    tags=st.dictionaries(ids, weights, min_size=1, max_size=5), artist_ids=st.lists(ids, max_size=3),
    ce_type=st.sampled_from(SongUpload.TYPES), id=ids,
    time=st.datetimes(datetime(1990, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)  # fmt: skip
def test_what_is_packed_is_unpacked(
    song_id: str, revision: int, title: str, tags: Any, artist_ids: Any, ce_type: str, id: str, time: datetime
) -> None:
    event = SongUpload(song_id=song_id, revision=revision, title=title, tags=tags, artist_ids=artist_ids)
    record = pack(event, ce_type=ce_type, id=id, source="test", time=time.timestamp())
    received = unpack(SongUpload, record.key, record.value, record.headers, NOW)
    read = SongTakedown(song_id=song_id, revision=revision).complete() if ce_type == SongUpload.TAKEN_DOWN else event
    assert (received.event, received.id, received.type) == (read, id, ce_type)
    assert received.time == pytest.approx(time.timestamp(), abs=1e-6)


def listen(
    value: bytes | None = GOOD.value, key: bytes | None = GOOD.key, appended: float = NOW, **headers: bytes | None
) -> Listen:
    return unpack(Listen, key, value, list((HEADERS | headers).items()), appended).event


def test_unknown_fields_and_headers_are_ignored() -> None:
    assert listen(b'{"new":[{"deep":1}],' + GOOD.value[1:], traceparent=b"00-1", x=b"\xff") == LISTEN


@pytest.mark.parametrize(
    ("header", "value", "error", "part"),
    [
        ("ce_id", None, InvalidField, "ce_id: header missing"),
        ("ce_id", b"", InvalidField, "ce_id: header missing"),
        ("ce_id", b"\xff", InvalidField, "ce_id: .*not UTF-8"),
        ("ce_source", None, InvalidField, "ce_source: header missing"),
        ("ce_type", None, InvalidField, "ce_type: header missing"),
        (
            "ce_type",
            b"coldstart.song.uploaded.v1",
            UnknownEventType,
            r"ce_type: .*uploaded.* none of coldstart\.listen",
        ),
        ("ce_specversion", None, InvalidField, "ce_specversion: header missing"),
        ("ce_specversion", b"0.3", InvalidField, "ce_specversion: '0.3'"),
        ("ce_time", None, InvalidField, "ce_time: header missing"),
        ("ce_time", b"yesterday", InvalidField, "ce_time: 'yesterday' is not an RFC 3339 time"),
        ("ce_time", b"2026-03-01T10:00:00", InvalidField, "ce_time: .* has no offset"),
        ("ce_time", b"9998-01-01T00:00:00Z", FromTheFuture, "ce_time: .* ahead of the broker's clock, 300 allowed"),
        ("ce_time", b"0001-01-01T00:00:00+14:00", InvalidField, "ce_time: .* year 1 in UTC"),
    ],
)
def test_a_bad_header_is_named(header: str, value: bytes | None, error: type[BadRecord], part: str) -> None:
    with pytest.raises(BadRecord, match=part) as caught:
        listen(**{header: value})
    assert type(caught.value) is error


def test_lower_case_letters_in_a_time_are_rfc_3339_too() -> None:
    assert listen(ce_time=b"2026-03-01t10:00:00z") == listen()


def test_of_an_unknown_type_the_known_ones_are_named() -> None:
    headers: dict[str, bytes | None] = HEADERS | {"ce_type": b"x"}
    with pytest.raises(UnknownEventType, match=rf"^ce_type: 'x' is none of {', '.join(SongUpload.TYPES)}$"):
        unpack(SongUpload, GOOD.key, GOOD.value, list(headers.items()), NOW)


def test_no_headers_at_all() -> None:
    with pytest.raises(InvalidField, match="ce_type"):
        unpack(Listen, GOOD.key, GOOD.value, None, NOW)


@given(st.none() | st.binary())
@example(b"\xff")
def test_what_a_client_could_not_read_is_refused_for_the_reason_that_stands_in_its_place(reason: bytes | None) -> None:
    with pytest.raises(Undecodable) as caught:
        unpack(Listen, GOOD.key, GOOD.value, [(UNREADABLE, reason)], NOW)
    assert str(caught.value) == (reason or b"").decode("utf-8", "backslashreplace")
    # An event may have a header of that name.
    assert listen(**{UNREADABLE: reason}) == LISTEN


def replaced(old: bytes, new: bytes) -> bytes:
    assert old in GOOD.value
    return GOOD.value.replace(old, new)


@pytest.mark.parametrize(
    ("value", "error", "part"),
    [
        (None, Undecodable, "^value: empty; this topic knows no deletion$"),
        (GOOD.value.ljust(MAX_VALUE_BYTES + 1), TooLarge, "^value: 1048577 bytes uncompressed, 1048576 allowed$"),
        (b"", Undecodable, "value: "),
        (GOOD.value[:-5], Undecodable, "value: "),
        (b"\x00\xff\xfe", Undecodable, "value: "),
        (replaced(b'"s"', b'"\xff"'), Undecodable, "value: "),
        (b'{"new":' + b"[" * 100_000, Undecodable, "value: "),
        (b"[]", InvalidField, "^value: array, expected object$"),
        (replaced(b'"plays":3', b'"plays":"3"'), InvalidField, '^plays: "3", expected integer$'),
        (replaced(b'"plays":3', b'"plays":0'), InvalidField, "^plays: .*>= 1"),
        (replaced(b'"plays":3', b'"plays":2147483648'), InvalidField, "^plays: "),
        (replaced(b'"listen_id":"l",', b""), InvalidField, "^listen_id: .*missing"),
        (replaced(b'"organic"', b'"radio"'), InvalidField, "^source: .*radio"),
        (
            replaced(b"2026-03-01T00:00:00Z", b"2026-03-01T00:00:00"),
            InvalidField,
            "^played_at: .*expected RFC 3339 time with an offset",
        ),
        (replaced(b'"song_id":"s"', b'"song_id":""'), InvalidField, "^song_id: "),
        (replaced(b'"song_id":"s"', b'"song_id":"' + b"x" * 129 + b'"'), InvalidField, "^song_id: "),
    ],
)
def test_a_bad_value_is_refused_and_its_field_named(value: bytes | None, error: type[BadRecord], part: str) -> None:
    with pytest.raises(BadRecord, match=part) as caught:
        listen(value)
    assert type(caught.value) is error


def test_a_field_deep_inside_is_named_by_its_path() -> None:
    value = b'{"song_id":"s","revision":1,"title":"t","features":{"audio":{"space":"m","vector":[1,"2"]}}}'
    headers = HEADERS | {"ce_type": SongUpload.UPLOADED.encode()}
    with pytest.raises(InvalidField, match=r"^features.*vector"):
        unpack(SongUpload, b"s", value, list(headers.items()), NOW)


@pytest.mark.parametrize("field", [b"song_id", b"listen_id", b"user_id"])
def test_ids_are_measured_in_characters(field: bytes) -> None:
    letter = field[:1]
    fits, too_long = ("ö" * 128).encode(), ("ö" * 129).encode()
    old = b'"' + field + b'":"' + letter + b'"'
    key = fits if field == b"user_id" else GOOD.key
    assert getattr(listen(replaced(old, old[:-2] + fits + b'"'), key), field.decode()) == "ö" * 128
    with pytest.raises(InvalidField, match=f"^{field.decode()}: .*length <= 128"):
        listen(replaced(old, old[:-2] + too_long + b'"'))


@pytest.mark.parametrize("key", [None, b"", b"v", b"\xff"])
def test_a_key_that_is_not_the_id_is_refused(key: bytes | None) -> None:
    with pytest.raises(KeyMismatch, match="user_id 'u'"):
        listen(key=key)


def test_five_minutes_after_the_broker_appended_it_are_allowed_and_not_a_moment_more() -> None:
    assert listen(appended=NOW - MAX_AHEAD_SECONDS) == LISTEN
    with pytest.raises(FromTheFuture):
        listen(appended=NOW - MAX_AHEAD_SECONDS - 1)


# Appended now, five minutes ago and half an hour ago; then what producers stamped before the broker did.
STAMPS = [(2, int(NOW * 1000)), (2, int(NOW * 1000) - 300_000), (2, int(NOW * 1000) - 1_800_000), (1, 0), (0, -1)]
TIMES = st.sampled_from(
    [
        b"2027-01-15T08:00:00+00:00",
        b"2027-01-15T08:00:00Z",
        b"2027-01-15T08:00:00",
        b"2030-01-01T00:00:00Z",
        b"2027-01-15T08:05:00Z",
        b"0001-01-01T00:00:00+14:00",
        b"\xff",
        b"x",
    ]
)
VALUES = st.sampled_from(
    [
        Listen.EXAMPLE.encode(),
        *(
            Listen.EXAMPLE.encode().replace(b"2026-03-01T10:00:00Z", time)
            for time in (b"0001-01-01T00:00:00+14:00", b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59-14:00")
        ),
        b'{"listen_id":"l","user_id":"u-5","song_id":"s","played_at":"2026-03-01T10:00:00Z","source":"nobody"}',
        '{"listen_id":"é","user_id":"u-5","song_id":"s","played_at":"2026-03-01T10:00:00Z","source":"other"}'.encode(),
        b'{"listen_id":"' + b"\\u00e9" * 100 + b'","user_id":"u-5","song_id":"s","played_at":"2026-03-01T10:00:00Z",'
        b'"source":"other"}',
        b'{"specversion":"1.0","id":"2","source":"there","type":"coldstart.listen.v1","time":"2026-03-01T10:00:00Z",'
        b'"data":' + Listen.EXAMPLE.encode() + b"}",
        b"{}", b"\x00", b"", None,
    ]
)  # fmt: skip
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "ce_id": st.sampled_from([b"1", b"", b"\xff", None]),
        "ce_source": st.sampled_from([b"here", b"", b"\xff", None]),
        "ce_type": st.sampled_from([Listen.TYPES[0].encode(), b"coldstart.other.v1", None]),
        "ce_specversion": st.sampled_from([b"1.0", b"0.3", None]),
        "ce_time": TIMES,
        "more": st.just(b"x"),
        "content-type": st.sampled_from([b"application/json", b"application/cloudevents+json", b"text/plain", None]),
    },
)
GOOD_HEADERS = {
    "ce_id": b"1", "ce_source": b"here", "ce_type": Listen.TYPES[0].encode(), "ce_specversion": b"1.0",
    "ce_time": b"2027-01-15T08:00:00Z",
}  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"u-5", b"u-6", b"\xff", None]), VALUES, ATTRIBUTES, st.booleans(), st.sampled_from(STAMPS)
        ),
        max_size=6,
    )
)
def test_many_read_as_each_does(
    drawn: list[tuple[bytes | None, bytes | None, dict[str, bytes | None], bool, tuple[int, int]]],
) -> None:
    now = 1_800_000_000.0
    records = [
        (key, value, list((GOOD_HEADERS | headers if whole else headers).items()), stamp)
        for key, value, headers, whole, stamp in drawn
    ]
    # Good ones in between: attributes that were found good must not vouch for what differs.
    good = (b"u-5", Listen.EXAMPLE.encode(), list(GOOD_HEADERS.items()), STAMPS[0])
    records = [each for record in records for each in (good, record)]
    found = unpack_many(Listen, records, now)
    told = {
        at: (event, time) for at, event, time in zip(found.at, found.events, found.times, strict=True)
    } | {at: (type(error), str(error)) for at, error in found.bad}  # fmt: skip
    assert len(told) == len(records)
    for at, (key, value, headers, stamp) in enumerate(records):
        expected: object
        try:
            received = unpack(Listen, key, value, headers, append_time(stamp, now))
            expected = received.event, received.time
        except BadRecord as error:
            expected = type(error), str(error)
        assert told[at] == expected


def test_a_value_nested_too_deeply_is_one_bad_record_on_both_ways() -> None:
    deep = Listen.EXAMPLE.encode()[:-1] + b',"x":' + b"[" * 3000 + b"]" * 3000 + b"}"
    headers = list(GOOD_HEADERS.items())
    records = [(b"u-5", value, headers, STAMPS[0]) for value in (deep, Listen.EXAMPLE.encode(), deep)]
    found = unpack_many(Listen, records, NOW)
    assert [(at, type(error)) for at, error in found.bad] == [(0, Undecodable), (2, Undecodable)]
    assert found.at == [1]


@pytest.mark.parametrize(
    "field", [{"budget": 2**64}, {"revision": 10**400}, {"duration_ms": 2**31}, {"budget": 0}], ids=str
)
def test_a_number_too_large_to_compute_with_is_refused_by_name(field: dict[str, int]) -> None:
    value = json.dumps(json.loads(SongUpload.EXAMPLE) | field).encode()
    headers = list((GOOD_HEADERS | {"ce_type": SongUpload.UPLOADED.encode()}).items())
    with pytest.raises(InvalidField, match=next(iter(field))):
        unpack(SongUpload, b"s-81", value, headers, NOW)


def test_many_are_refused_of_an_event_whose_key_is_made_of_several_fields() -> None:
    with pytest.raises(ValueError, match="several fields"):
        unpack_many(WarmSong, [], 0.0)


def test_errors_of_many_records_hold_no_frames_and_so_no_records() -> None:
    stamp = (2, round(NOW * 1000))
    found = unpack_many(Listen, [(b"u", b"{", [], stamp), (b"u", b"x" * 2_000_000, None, stamp)], NOW)
    assert [(error.__traceback__, error.__context__) for _, error in found.bad] == [(None, None)] * 2


def test_the_attributes_of_a_record_are_those_of_cloudevents_in_binary_mode() -> None:
    assert pack(LISTEN, id="l", source="test", time=NOW).headers == [
        ("ce_id", b"l"), ("ce_source", b"test"), ("ce_type", Listen.TYPES[0].encode()), ("ce_specversion", b"1.0"),
        ("ce_time", b"2027-01-15T08:00:00+00:00"), ("content-type", b"application/json"),
    ]  # fmt: skip


def test_of_a_batch_of_good_records_only_the_first_takes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    long_way: list[bytes | None] = []

    def counted(*given: Any) -> Any:
        long_way.append(given[2])
        return unpack(*given)

    monkeypatch.setattr("streams.contract.cloudevents.unpack", counted)
    value, headers = Listen.EXAMPLE.encode(), dict(GOOD_HEADERS)
    edges = [
        (value, {}),
        (value.ljust(MAX_VALUE_BYTES), {}),
        (value, {"ce_time": b"2027-01-15T08:05:00Z"}),
        (value, {"ce_time": b"1000-01-01T00:00:00Z"}),
        (value, {"ce_id": b"another"}),
    ]
    edges += [(value.replace(b"2026-03-01", day), {}) for day in (b"0003-01-01", b"9997-12-31")]
    records = [(b"u-5", value, list((headers | more).items()), (2, int(NOW * 1000))) for value, more in edges]
    found = unpack_many(Listen, records, NOW)
    assert (found.bad, found.at) == ([], list(range(len(edges))))
    assert long_way == [value]


def test_what_an_event_checks_is_checked_on_both_ways() -> None:
    early, late = (
        Listen.EXAMPLE.encode().replace(b"2026-03-01T10:00:00Z", time)
        for time in (b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00")
    )
    ahead = json.dumps(json.loads(UserPreferences.EXAMPLE) | {"erase_requested_at": "2027-01-15T08:05:01Z"}).encode()
    for cls, key, bad, error in (
        (Listen, b"u-5", early, InvalidField),
        (Listen, b"u-5", late, InvalidField),
        (UserPreferences, json.loads(UserPreferences.EXAMPLE)["user_id"].encode(), ahead, FromTheFuture),
    ):
        headers = list((GOOD_HEADERS | {"ce_type": cls.TYPES[0].encode()}).items())
        records = [(key, value, headers, (2, int(NOW * 1000))) for value in (cls.EXAMPLE.encode(), bad)]
        found = unpack_many(cls, records, NOW)
        assert (found.at, [(at, type(each)) for at, each in found.bad]) == ([0], [(1, error)])


@pytest.mark.parametrize(
    ("cls", "field"),
    [(cls, name) for cls in (*PUBLIC_EVENTS, *INTERNAL_EVENTS) for name in cls.__struct_fields__ if name in ID_FIELDS],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_an_id_of_128_characters_is_taken_and_one_more_is_not(cls: type[Event], field: str) -> None:
    headers = list((HEADERS | {"ce_type": cls.TYPES[0].encode()}).items())
    for id, good in (("é" * 128, True), ("é" * 129, False), ("𝄞" * 128, True), ("𝄞" * 129, False)):
        value = json.dumps(json.loads(cls.EXAMPLE) | {field: id}).encode()
        if good:
            key = msgspec.json.decode(value, type=cls).record_key().encode()
            assert getattr(unpack(cls, key, value, headers, NOW).event, field) == id
        else:
            with pytest.raises(InvalidField, match=rf"^{field}: .*length <= 128"):
                unpack(cls, id.encode(), value, headers, NOW)


def test_the_earliest_time_and_the_largest_value_that_are_allowed_are_taken() -> None:
    assert listen(GOOD.value.ljust(MAX_VALUE_BYTES), ce_time=b"0001-01-01T00:00:00Z") == LISTEN


OURS = msgspec.json.decode(MatchRequest.EXAMPLE, type=MatchRequest)


def in_both_forms(**changes: object) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Key, value and headers of an event of ours with these fields: as it is written, and in JSON as it was before."""
    record = pack(OURS, ce_type=MatchRequest.REQUESTED, id="1", source="songs", time=NOW)
    former = [(name, b"application/json" if name == "content-type" else value) for name, value in record.headers]
    fields = msgspec.structs.asdict(OURS) | changes
    return [
        (record.key, msgspec.msgpack.encode(fields), record.headers),
        (record.key, msgspec.json.encode(fields), former),
    ]


def test_an_event_of_ours_is_read_in_either_form() -> None:
    packed, former = in_both_forms()
    assert OURS.vector in packed[1]
    for key, value, headers in (packed, former):
        assert unpack(MatchRequest, key, value, headers, NOW).event == OURS


def test_an_event_of_others_is_json_and_what_says_that_it_is_not_is_refused() -> None:
    headers = [(name, b"application/msgpack" if name == "content-type" else value) for name, value in GOOD.headers]
    for value in (GOOD.value, msgspec.msgpack.encode(LISTEN)):
        with pytest.raises(UnknownMediaType, match=r"^content-type: 'application/msgpack' is not read; read are "):
            unpack(Listen, GOOD.key, value, headers, NOW)


def test_a_value_is_decoded_without_attributes_too() -> None:
    assert decoded(Listen, GOOD.value, {}) == decoded(Listen, GOOD.value, HEADERS) == LISTEN


@pytest.mark.parametrize(("written", "read"), [(b"3.0", 3), (b"3e0", 3), (b"30e-1", 3), (b"9007199254740992.0", 2**53)])
def test_a_whole_number_is_an_integer_however_it_is_written(written: bytes, read: int) -> None:
    value = b'{"song_id":"s","revision":%s,"title":"x","genres":["a","b"],"tags":{"a":1.5}}' % written
    upload = decoded(SongUpload, value, {})
    assert (upload.revision, upload.genres, upload.tags) == (read, ["a", "b"], {"a": 1.5})


def test_so_is_one_inside_of_an_object() -> None:
    value = b'{"user_id":"u","opted_in":true,"updated_at":"2026-03-01T10:00:00Z","cap":{"pushes":3.0,"hours":24}}'
    cap = decoded(UserPreferences, value, {}).cap
    assert cap is not None
    assert cap.pushes == 3


@pytest.mark.parametrize("written", [b"3.5", b"9007199254740994.0", b"1e300"])
def test_a_number_that_is_not_whole_or_not_exact_is_no_integer(written: bytes) -> None:
    value = b'{"song_id":"s","revision":%s,"title":"x","genres":["a"]}' % written
    headers = [(name, SongUpload.UPLOADED.encode() if name == "ce_type" else told) for name, told in GOOD.headers]
    with pytest.raises(InvalidField, match=r"^revision: .*, expected integer"):
        unpack(SongUpload, b"s", value, headers, NOW)


def test_what_is_wrong_in_a_packed_event_is_named_as_in_its_json() -> None:
    for key, value, headers in in_both_forms(budget="many"):
        with pytest.raises(InvalidField, match=r'^budget: "many", expected integer$'):
            unpack(MatchRequest, key, value, headers, NOW)


def test_a_content_type_that_was_found_good_does_not_vouch_for_another() -> None:
    stamp = (2, round(NOW * 1000))
    good = (GOOD.key, GOOD.value, GOOD.headers, stamp)
    other = [(name, b"text/plain" if name == "content-type" else value) for name, value in GOOD.headers]
    found = unpack_many(Listen, [good, good, (GOOD.key, GOOD.value, other, stamp), good], NOW)
    assert (found.at, [(at, type(error)) for at, error in found.bad]) == ([0, 1, 3], [(2, UnknownMediaType)])


def test_many_events_of_ours_are_read_in_either_form() -> None:
    both = [(*each, (2, round(NOW * 1000))) for each in in_both_forms()]
    found = unpack_many(MatchRequest, both * 2, NOW)
    assert (found.events, found.bad, found.sources) == ([OURS] * 4, [], {b"songs"})
