"""Files of events: what `coldstart validate` says of them is what the service would do."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import inspect
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.cloudevents import Record, unpack
from streams.contract.errors import BadRecord, Refused
from streams.contract.events import SongUpload
from streams.contract.record_size import MAX_VALUE_BYTES
from streams.operations.event_files import SENT_BY_OTHERS, TYPES, EventFile, FileEvent, Form, event_type
from streams.operations.file_check import BadEvent, FileCheck

NOW = 1_780_000_000.0
SONG = {"song_id": "s-1", "revision": 1, "title": "Small Hours", "artist_ids": ["a-7"]}


def events_of(text: str | bytes, form: Form = Form.NDJSON, type_: str | None = None) -> list[FileEvent]:
    raw = text.encode() if isinstance(text, str) else text
    return EventFile(io.BytesIO(raw), form, None if type_ is None else event_type(type_)).take(10_000)


def findings(text: str | bytes, form: Form = Form.NDJSON, type_: str | None = "song.uploaded") -> list[BadEvent]:
    return FileCheck().look(events_of(text, form, type_), NOW)


def line(**fields: Any) -> str:
    return json.dumps(SONG | fields)


def envelope(data: Any, **attributes: Any) -> str:
    told = {
        "specversion": "1.0",
        "id": "1",
        "source": "here",
        "type": SongUpload.UPLOADED,
        "time": "2026-01-01T00:00:00Z",
    }
    return json.dumps(told | attributes | {"data": data})


def refusal(record: Record, cls: Any) -> str | None:
    """Why the service refuses a record; None: it does not."""
    try:
        unpack(cls, record.key, record.value, record.headers, NOW)
    except BadRecord as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"revision": "one"}, "revision", '"one", expected integer'),
        ({"tags": {"dream pop": 3, "sad": -1}}, 'tags["sad"]', "-1, expected number > 0.0"),
        ({"artist_ids": []}, "features, tags, genres, artist_ids", "at least one of them is needed"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "is not after the upload"),
        ({"song_id": None}, "song_id", "null, expected string"),
        ({"duration": 214_000}, "duration", "did you mean duration_ms?"),
        ({"recordingId": "QM1"}, "recordingId", "did you mean recording_id?"),
        ({"song_id": "ü" * 200}, "song_id", "expected string of length <= 128"),
        ({"title": "x" * MAX_VALUE_BYTES}, "value", f"{MAX_VALUE_BYTES} allowed"),
    ],
)
def test_a_finding_says_line_field_what_was_found_and_what_is_allowed(wrong: Any, field: str, said: str) -> None:
    (found,) = findings(f"{line()}\n\n{line(**wrong)}\n{line()}")
    assert (found.line, found.field) == (3, field)
    assert said in found.message


def test_a_field_that_no_event_has_is_told_once_and_is_no_finding() -> None:
    check = FileCheck()
    events = events_of("\n".join([line(), line(mood="x"), line(mood="y", titles="z")]), type_="song.uploaded")
    # With a title there is nothing that `titles` could be meant for.
    assert check.look(events, NOW) == []
    told = {name: (each.line, each.events) for (_, name), each in check.ignored.items()}
    assert told == {"mood": (2, 2), "titles": (3, 1)}


def test_every_field_of_a_part_of_an_event_is_needed_so_that_a_misspelt_one_is_missing() -> None:
    """Names are compared at an event's top level alone: deeper down the service itself refuses a misspelt one."""
    parts = [
        inner for cls in SENT_BY_OTHERS for inner in structs(inspect.type_info(cls)) if inner not in SENT_BY_OTHERS
    ]
    assert {inner.__name__ for inner in parts} == {"DenseFeature", "QuietHours", "Cap"}
    assert all(each.required for inner in parts for each in msgspec.structs.fields(inner))


def structs(kind: Any) -> Iterator[type]:
    if isinstance(kind, inspect.StructType):
        yield kind.cls
        for each in kind.fields:
            yield from structs(each.type)
    for name in ("type", "item_type", "key_type", "value_type"):
        if isinstance(inner := getattr(kind, name, None), inspect.Type):
            yield from structs(inner)
    for inner in getattr(kind, "types", ()):
        yield from structs(inner)


def test_lines_are_structured_events_where_no_type_is_said() -> None:
    good, text = envelope(SONG, subject="x", traceparent="00-1"), envelope(SONG, type="coldstart.push-target.v1")
    listen = envelope({"listen_id": "l"}, type="coldstart.listen.v1")
    found = findings("\n".join([good, text, listen, line(), "{", envelope(SONG, id="")]), type_=None)
    assert [(each.line, each.field) for each in found] == [
        (2, "type"), (3, "user_id"), (4, "specversion"), (5, "specversion"), (6, "id"),
    ]  # fmt: skip
    assert "--type" in found[2].message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4) | st.sampled_from(
        ["2026-03-01T10:00:00Z", "2031-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "en", "opened", "22:00", 1e19]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@st.composite
def near_events(draw: st.DrawFn) -> tuple[str, bytes]:
    """A type, and an example of its event with some fields changed, left out or added."""
    ce_type = draw(st.sampled_from(sorted(TYPES)))
    cls = TYPES[ce_type]
    event = json.loads(cls.EXAMPLE)
    names = [each.encode_name for each in msgspec.structs.fields(cls)]
    event |= draw(st.dictionaries(st.sampled_from([*names, "mood"]), VALUES, max_size=3))
    for name in draw(st.sets(st.sampled_from(names), max_size=1)):
        event.pop(name, None)
    raw = json.dumps(event, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(raw)))
    return ce_type, draw(st.sampled_from([raw, raw, raw, raw[:at], raw[:at] + b"\xff" + raw[at:]]))


@given(near_events())
@example((SongUpload.UPLOADED, b'{"song_id":"s","revision":1,"title":"x","genres":["a"],"revision":2}'))
def test_an_event_is_good_where_the_service_takes_what_is_sent_of_it(drawn: tuple[str, bytes]) -> None:
    ce_type, value = drawn
    value = value.replace(b"\n", b" ").replace(b"\r", b" ").strip()
    if not value:
        return
    (event,) = events_of(value, type_=ce_type)
    check = FileCheck()
    found = check.look([event], NOW)
    refused = refusal(event.record("file", NOW), TYPES[ce_type])
    if refused is not None:
        assert [f"{each.field}: {each.message}" for each in found] == [refused if ": " in refused else f"{refused}: "]
    else:
        # What is left are a field with a name like a missing one, and an end that only the song's campaign knows.
        assert all("did you mean" in each.message or each.field in ("expires_at", "available_from") for each in found)


def no_json(constant: str) -> None:
    """Infinity and NaN, which Python's own reader takes: beside them an envelope is no JSON either."""
    raise ValueError(constant)


@given(near_events())
@example(("coldstart.listen.v1", b'{"listen_id": Infinity}'))
def test_a_structured_event_is_judged_as_its_data_alone(drawn: tuple[str, bytes]) -> None:
    ce_type, value = drawn
    value = value.replace(b"\n", b" ").replace(b"\r", b" ").strip()
    try:
        json.loads(value, parse_constant=no_json)
        value.decode()
    except ValueError:
        return
    (bare,) = events_of(value, type_=ce_type)
    head = envelope(None, type=ce_type).removesuffix("null}").encode()
    (whole,) = events_of(head + value + b"}", type_=None)
    assert FileCheck().look([whole], NOW) == FileCheck().look([bare], NOW)


def test_csv_has_lists_tags_numbers_and_rows_of_several_lines() -> None:
    text = (
        "song_id,revision,title,artist_ids,tags,duration_ms,explicit,features,expires_at\r\n"
        's-1,1,"Small\nHours",a-7; a-8,dream pop:3;shoegaze,214000,false,,\r\n'
        's-2,2,"a, b",a,"{""x"":2}",,true,"{""audio"":{""space"":""m"",""vector"":[1,2]}}",2026-07-01T00:00:00Z\r\n'
        "s-3,1,x,,pop:-1,,yes,,\r\n"
    )
    events = events_of(b"\xef\xbb\xbf" + text.encode(), Form.CSV)
    said = [msgspec.json.decode(each.value) for each in events if isinstance(each.value, bytes)]
    assert said[0] == {
        "song_id": "s-1", "revision": 1, "title": "Small\nHours", "artist_ids": ["a-7", "a-8"],
        "tags": {"dream pop": 3.0, "shoegaze": 1}, "duration_ms": 214_000, "explicit": False,
    }  # fmt: skip
    assert said[1]["tags"] == {"x": 2}
    assert said[1]["features"]["audio"]["vector"] == [1, 2]
    assert [(each.line, each.field) for each in FileCheck().look(events, NOW)] == [(5, 'tags["pop"]')]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("s,1,x,a,b,c", "6 cells, the header names 4 columns"),
        ('s,1,"x,a', "row: unexpected end of data"),
        ("s,one,x,a", '"one", expected integer'),
    ],
)
def test_a_row_that_is_wrong_is_told(row: str, said: str) -> None:
    (found,) = findings(f"song_id,revision,title,artist_ids\n{row}", Form.CSV)
    assert found.line == 2
    assert said in f"{found.field}: {found.message}"


def test_a_row_that_is_not_utf8_is_told() -> None:
    (found,) = findings(b"song_id,revision,title,artist_ids\ns,1,\xff,a", Form.CSV)
    assert (found.line, found.message) == (2, "not UTF-8")


def test_a_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(Refused, match="line 1: column title is there twice"):
        findings("song_id,title,title\n1,2,3", Form.CSV)


def test_a_line_longer_than_memory_should_hold_is_one_finding() -> None:
    raw = b"x" * (5 * MAX_VALUE_BYTES)
    found = findings(line().encode() + b"\n" + raw + b"\n" + line().encode())
    assert [(each.line, each.field) for each in found] == [(2, "value")]


def test_a_type_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(Refused, match=r"type 'song': there is none; allowed are song\.uploaded, .*, preferences"):
        event_type("song")


def test_the_verb_ends_with_the_code_of_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "songs.ndjson"
    file.write_text(f"{line()}\n", encoding="utf-8")
    arguments = ["validate", str(file), "--type", "song.uploaded"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    file.write_text(f"{line()}\n{line(titel='x', title=3)}\n{line(revision=-1)}\n", encoding="utf-8")
    bad = CliRunner().invoke(app, [*arguments, "--show", "1"])
    assert bad.exit_code == 1
    assert "line 2: title: 3, expected string" in bad.stdout
    assert "... and 1 more" in bad.stdout
    assert "3 events, 2 would be refused or misread" in bad.stdout
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (told["events"], told["bad"], [each["line"] for each in told["findings"]]) == (3, 2, [2, 3])
    piped = CliRunner().invoke(app, ["validate", "-", "--type", "song.uploaded"], input=f"{line()}\n{{\n")
    assert piped.exit_code == 1
    assert "line 2: value: " in piped.stdout
    assert CliRunner().invoke(app, ["validate", str(tmp_path / "none")]).exit_code == 2


def test_what_is_judged_now_is_judged_by_the_present_clock(tmp_path: Path) -> None:
    file = tmp_path / "songs.ndjson"
    file.write_text(envelope(SONG, time="2999-01-01T00:00:00Z"), encoding="utf-8")
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 1
    assert "ahead of the broker's clock" in result.stdout
    assert time.time() < 32_472_144_000
