"""Times that events name: whatever is accepted can be computed with."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.contract.cloudevents import Record, unpack, unpack_many
from streams.contract.errors import BadRecord, FromTheFuture, InvalidField
from streams.contract.event_base import Event
from streams.contract.event_time import times_of
from streams.contract.events import PUBLIC_EVENTS, Listen, SongUpload, UserPreferences
from streams.contract.internal_events import INTERNAL_EVENTS
from streams.songs import messages
from streams.songs.matcher import Matched
from streams.songs.song_record import campaign_end, entry, read, write

NOW = 1_800_000_000.0
APPENDED = (2, int(NOW * 1000))
FIELDS = [(cls, name) for cls in (*PUBLIC_EVENTS, *INTERNAL_EVENTS) for name in times_of(cls)]

offsets = st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
texts = st.datetimes(timezones=offsets).map(datetime.isoformat)


def record(cls: type[Event], ce_time: str = "2026-03-01T10:00:00Z", kind: int = 0, **changes: object) -> Record:
    key = msgspec.json.decode(cls.EXAMPLE, type=cls).record_key().encode()
    headers = {
        "ce_id": "1", "ce_source": "test", "ce_type": cls.TYPES[kind], "ce_specversion": "1.0", "ce_time": ce_time,
    }  # fmt: skip
    value = json.dumps(json.loads(cls.EXAMPLE) | changes).encode()
    return Record(key, value, [(name, text.encode()) for name, text in headers.items()])


def compute(time: datetime) -> None:
    """What is done with times, all of it in UTC."""
    assert datetime.fromtimestamp(time.timestamp(), UTC).isoformat()
    assert time.astimezone(UTC).strftime("%c")
    assert msgspec.json.decode(msgspec.json.encode(time), type=datetime) == time


def refused(error: BadRecord, *fields: str) -> None:
    """A dead letter's reason begins with the field."""
    assert str(error).partition(":")[0] in fields


def test_every_event_with_a_time_is_known_by_its_times() -> None:
    assert {(cls.__name__, name) for cls, name in FIELDS} >= {
        ("SongUpload", "available_from"), ("SongUpload", "expires_at"), ("Listen", "played_at"), ("PushOutcome", "at"),
        ("UserPreferences", "updated_at"), ("UserPreferences", "erase_requested_at"), ("MatchRequest", "uploaded_at"),
    }  # fmt: skip


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda each: each if isinstance(each, str) else each.__name__)
@given(text=texts)
@example(text="0001-01-01T00:00:00+14:00")
@example(text="9999-12-31T23:59:59.999999-14:00")
@example(text="9999-12-31T23:59:59.999999+00:00")
@example(text="0001-01-01T00:00:00+00:00")
@example(text="9998-12-31T23:59:59.999999+00:00")
def test_any_moment_in_any_field_is_refused_by_name_or_can_be_computed_with(
    cls: type[Event], name: str, text: str
) -> None:
    given = record(cls, **{name: text})
    try:
        event = unpack(cls, given.key, given.value, given.headers, NOW).event
    except BadRecord as error:
        refused(error, name)
        return
    compute(getattr(event, name))


@given(text=texts)
@example(text="0001-01-01T00:00:00+14:00")
@example(text="9999-12-31T23:59:59-14:00")
def test_any_ce_time_is_refused_by_name_or_can_be_computed_with(text: str) -> None:
    given = record(Listen, ce_time=text)
    try:
        time = unpack(Listen, given.key, given.value, given.headers, NOW).time
    except BadRecord as error:
        refused(error, "ce_time")
        return
    compute(datetime.fromtimestamp(time, UTC))


@given(expires_at=st.none() | texts, available_from=st.none() | texts, kind=st.sampled_from([0, 1, 2]))
@example(expires_at="0001-01-01T00:00:00+14:00", available_from=None, kind=0)
@example(expires_at="0001-01-01T00:00:00+14:00", available_from="9999-12-31T23:59:59-14:00", kind=2)
def test_an_upload_with_any_times_leads_to_its_records_or_is_refused_by_name_and_a_takedown_never_is(
    expires_at: str | None, available_from: str | None, kind: int
) -> None:
    given = record(SongUpload, kind=kind, expires_at=expires_at, available_from=available_from)
    try:
        received = unpack(SongUpload, given.key, given.value, given.headers, NOW)
        taken_down = SongUpload.taken_down(received.type)
        ends = NOW + 1 if taken_down else campaign_end(received.event, NOW, 28)
    except BadRecord as error:
        refused(error, "expires_at", "available_from")
        if kind == 2:
            raise
        return
    song = entry(received, NOW, ends)
    assert read(write(song)) == song
    if taken_down:
        assert messages.taken_down("s-81", song).value
    else:
        assert NOW < ends <= NOW + 365 * 86_400
        assert messages.request(song, song.event(), Matched(b"", []), [], 1).value


def preferences(**changes: object) -> UserPreferences:
    given = record(UserPreferences, **changes)
    return unpack(UserPreferences, given.key, given.value, given.headers, NOW).event


def test_an_erasure_asked_for_in_95_years_is_refused_by_name_and_one_within_five_minutes_is_not() -> None:
    def at(seconds: float) -> str:
        return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()

    assert preferences(erase_requested_at=at(300)).erase_requested_at is not None
    for ahead in (301, 95 * 365 * 86_400):
        with pytest.raises(FromTheFuture, match=r"^erase_requested_at: .* ahead of the broker's clock, 300 allowed"):
            preferences(erase_requested_at=at(ahead))


@pytest.mark.parametrize("cls", [Listen, UserPreferences], ids=lambda cls: cls.__name__)
def test_many_refuse_by_the_append_time_of_each(cls: type[Event]) -> None:
    early = record(cls, ce_time=datetime.fromtimestamp(NOW - 900, UTC).isoformat())
    late = record(cls, ce_time=datetime.fromtimestamp(NOW + 200, UTC).isoformat())
    stamps = (APPENDED, (2, APPENDED[1] - 301_000))
    given = [(each.key, each.value, each.headers, stamp) for each in (early, late) for stamp in stamps]
    # The worker's own clock, far behind or far ahead, changes nothing.
    for clock in (NOW - 1e6, NOW + 1e6):
        found = unpack_many(cls, given, clock)
        assert found.at == [0, 1, 2]
        assert [(at, type(error)) for at, error in found.bad] == [(3, FromTheFuture)]


def test_what_a_producer_stamped_before_the_broker_did_is_judged_by_the_clock_alone() -> None:
    now: Any = record(Listen, ce_time=datetime.fromtimestamp(NOW, UTC).isoformat())
    ahead: Any = record(Listen, ce_time=datetime.fromtimestamp(NOW + 301, UTC).isoformat())
    for stamp in ((1, 0), (1, 1_800_000_000), (1, 4 * APPENDED[1]), (0, -1)):
        found = unpack_many(Listen, [(each.key, each.value, each.headers, stamp) for each in (now, ahead)], NOW)
        assert (found.at, [at for at, _ in found.bad]) == ([0], [1])


def test_a_time_beyond_the_calendar_is_said_so() -> None:
    with pytest.raises(
        InvalidField, match=r"^updated_at: 0001-01-01T00:00:00\+14:00 is not within the years 2 to 9998"
    ):
        preferences(updated_at="0001-01-01T00:00:00+14:00")
    assert preferences(updated_at="0001-01-01T00:00:00Z")
