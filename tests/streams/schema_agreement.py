"""Records that keep to the contract or nearly do, and what schema and service say of each.

Numbers are such as a double holds, and names are unique: of others JSON itself leaves open what they mean.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from streams.contract.cloudevents import unpack
from streams.contract.errors import BadRecord, FromTheFuture
from streams.contract.event_base import Event
from streams.contract.json_schema import MESSAGES, schema

NOW = 1_800_000_000.0

NUMBERS = st.one_of(
    st.sampled_from(
        [0, 1, -1, -0.0, 1.0, 2.0, 1e3, 0.5, 0.001, 1e-320, 8760.0, 2**31 - 1, 2**31, 2.0**31 - 1, 2**53, 2**53 + 2,
         2.0**53, 1e18, math.nextafter(1e18, math.inf), -1e18, math.nextafter(-1e18, -math.inf), 1e300]
    ),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(LETTERS, max_size=8),
    st.builds(lambda letter, count: letter * count, LETTERS, st.sampled_from([64, 65, 127, 128, 129, 1024, 1025])),
    st.sampled_from(
        ["", "en", "en\n", "pt-BR", "x-mine", "x", "PT", "PT\n", "pt", "08:00", "08:00\n", "24:00", "٠٨:٠٠"]
    ),
)


@st.composite
def times(draw: st.DrawFn) -> str:
    """A time in any of the forms that people write, on days that may not be."""
    year, month, day = (draw(st.sampled_from(each)) for each in (
        ["0000", "0001", "0002", "0400", "1900", "2024", "2026", "9998", "9999", "26", "٢٠٢٦"],
        ["00", "01", "02", "04", "12", "13", "3"], ["00", "01", "28", "29", "30", "31", "32", "1"],
    ))  # fmt: skip
    clock = draw(st.sampled_from(["00:00:00", "23:59:59", "10:00", "10:00:60", "24:00:00", "9:00:00", "100000", "10"]))
    fraction = draw(st.sampled_from(["", "", ".5", ".123456789", ",5", "."]))
    offset = draw(
        st.sampled_from(["Z", "z", "+00:00", "-00:00", "+14:00", "-14:00", "+0530", "+05", "+24:00", "", "\n"])
    )
    return f"{year}-{month}-{day}{draw(st.sampled_from('TTTt _'))}{clock}{fraction}{offset}"


GOOD_TIMES = st.sampled_from(["2026-03-01T10:00:00Z", "2026-03-01 10:00:00.25+0100", "0001-01-01T00:00:00Z"])
ANYTHING = st.one_of(NUMBERS, TEXTS, st.none(), st.booleans(), times(), st.just([]), st.just({}), st.just([{}]))


def values(node: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What fits a schema, and now and then what does not."""
    return st.one_of(_near(node, parts), _near(node, parts), _near(node, parts), _near(node, parts), ANYTHING)


def _near(node: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in node:
        return _near(parts[node["$ref"].removeprefix("#/$defs/")], parts)
    if "anyOf" in node:
        return st.one_of([values(each, parts) for each in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node.get("type"):
        case "string" if "3[01]" in node.get("pattern", ""):
            return st.one_of(times(), GOOD_TIMES)
        case "string":
            return TEXTS
        case "integer" | "number":
            return NUMBERS
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(values(node["items"], parts), max_size=3)
        case "object" if "properties" in node:
            return objects(node, parts)
        case "object":
            return st.dictionaries(TEXTS, values(node["additionalProperties"], parts), max_size=3)
    return ANYTHING


def objects(node: dict[str, Any], parts: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of its fields."""
    fields = {name: values(each, parts) for name, each in node["properties"].items()}
    needed = {name: fields.pop(name) for name in node.get("required", ())}
    return st.fixed_dictionaries(needed, optional=fields | {"not-known": ANYTHING})


def changed(good: dict[str, Any], fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A good object with some of its fields replaced or left out; most often one, so that either verdict is common."""
    change = st.sampled_from(sorted(fields)).flatmap(
        lambda name: st.tuples(st.just(name), st.one_of(fields[name], fields[name], fields[name], st.just(_GONE)))
    )
    return st.lists(change, max_size=3).map(
        lambda changes: {k: v for k, v in (good | dict(changes)).items() if v is not _GONE}
    )


_GONE = object()

GOOD_HEADERS = {"ce_id": "1", "ce_source": "here", "ce_specversion": "1.0", "ce_time": "2026-03-01T10:00:00Z"}
HEADERS = {
    "ce_id": st.sampled_from(["2", "ö", ""]),
    "ce_source": st.sampled_from(["there", ""]),
    "ce_specversion": st.sampled_from(["1.0", "0.3"]),
    "ce_time": times(),
    "content-type": st.sampled_from(
        ["application/json", "application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"', "text/json",
         "application/vnd.acme+json; version=2", "application/json; charset=latin1", "text/plain", "application/xml",
         "application/cloudevents-batch+json", "application/msgpack", "application/json;charset=us-ascii"]
    ),
    "traceparent": st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A record, and what the service says of it: None where it is taken.

    Attributes:
        within: the event in ``data_base64``, of which no schema of the whole can say more than that it is base64.
    """

    message: str
    event: Any
    headers: dict[str, str]
    refused: str | None
    within: dict[str, Any]

    @property
    def parts(self) -> dict[str, Any]:
        """What has to fit which schema."""
        own = "StructuredHeaders" if self.message.startswith("Structured") else "CloudEventHeaders"
        return {self.message: self.event, own: self.headers, **self.within}

    @property
    def line(self) -> str:
        return json.dumps(self.parts)


def records(message: str, count: int) -> list[Judged]:
    """So many records of an event, judged by the decoder that serves them."""
    whole, found = schema(message), list[Judged]()
    event, types = MESSAGES[message]
    parts, good = whole.get("$defs", {}), json.loads(event.EXAMPLE)
    fields = {name: values(each, parts) for name, each in whole["properties"].items()} | {"unknown": ANYTHING}
    headed = st.one_of(st.just(GOOD_HEADERS), st.just(GOOD_HEADERS), changed(GOOD_HEADERS, HEADERS))

    @settings(
        max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck], deadline=None
    )
    @given(changed(good, fields), headed, st.sampled_from(types))
    def collect(value: dict[str, Any], headers: dict[str, str], ce_type: str) -> None:
        headers = headers | {"ce_type": ce_type}
        found.append(Judged(message, value, headers, served(event, value, headers), {}))

    collect()
    return found


STRUCTURED_HEADERS = st.sampled_from(
    ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8", "Application/CloudEvents+JSON"]
)


def structured_records(message: str, count: int) -> list[Judged]:
    """The same in structured mode."""
    whole, found = schema(f"Structured{message}"), list[Judged]()
    event, types = MESSAGES[message]
    parts, good = whole["$defs"], json.loads(event.EXAMPLE)
    fields = {name: values(each, parts) for name, each in schema(message)["properties"].items()}
    data = st.one_of(st.just(good), changed(good, fields))
    attributes = {name: values(each, parts) for name, each in whole["properties"].items() if name != "data"}
    attributes |= {
        "subject": ANYTHING,
        "time": times(),
        "data": data | ANYTHING,
        "specversion": HEADERS["ce_specversion"],
    }
    attributes["datacontenttype"] = HEADERS["content-type"] | st.none()
    encoded = data.map(lambda each: b64encode(json.dumps(each).encode()).decode())
    attributes["data_base64"] = encoded | st.sampled_from(["", "e30", "e30=", "e30==", "====", "é", None])

    @settings(
        max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck], deadline=None
    )
    @given(st.data(), STRUCTURED_HEADERS, st.sampled_from(types))
    def collect(draw: st.DataObject, media: str, ce_type: str) -> None:
        base = {"specversion": "1.0", "id": "1", "source": "here", "type": ce_type, "time": "2026-03-01T10:00:00Z"}
        base |= draw.draw(st.just({"data": good}) | st.fixed_dictionaries({"data_base64": encoded}))
        value, headers = draw.draw(st.just(base) | changed(base, attributes)), {"content-type": media}
        inner, within = value.get("data"), {}
        if inner is None and isinstance(value.get("data_base64"), str):
            with suppress(ValueError):
                inner = json.loads(b64decode(value["data_base64"], validate=True))
                within = {message: inner}
        key = inner.get(event.KEY) if isinstance(inner, dict) else None
        refused = answer(event, key, value, headers)
        found.append(Judged(f"Structured{message}", value, headers, refused, within))

    collect()
    return found


def served(event: type[Event], value: Any, headers: dict[str, str]) -> str | None:
    """Why the service refuses a record whose key is right; None where it takes it."""
    reader = next(
        each for each, _ in MESSAGES.values() if headers["ce_type"] in each.TYPES and each.TOPIC is event.TOPIC
    )
    return answer(reader, value.get(event.KEY), value, headers)


def answer(reader: type[Event], key: Any, value: Any, headers: dict[str, str]) -> str | None:
    try:
        unpack(
            reader,
            key.encode() if isinstance(key, str) else b"",
            json.dumps(value).encode(),
            [(name, text.encode()) for name, text in headers.items()],
            NOW,
        )
    except FromTheFuture:
        # By the broker's clock, not by the schema; what comes after is not looked at.
        reject()
    except BadRecord as error:
        return str(error)
    return None


@cache
def _validator(name: str) -> Any:
    return jsonschema_rs.validator_for(schema(name))


def fits(judged: Judged) -> bool:
    """What the schemas say."""
    return all(_validator(name).is_valid(each) for name, each in judged.parts.items())
