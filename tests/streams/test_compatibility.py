"""What a change of the contract breaks, told for every kind of change; and that no change goes out unnoticed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.asyncapi import VERSION
from streams.contract.compatibility import ContractChange, Effect, contract_changes, needed_version
from streams.contract.errors import Refused
from streams.contract.json_schema import MESSAGES
from streams.contract.released_contracts import (
    as_text,
    keep,
    read_contract,
    released_contract,
    released_versions,
    version_problem,
)
from streams.contract.topics import SENT
from streams.operations.published_contract import document

Json = Any
DOCUMENT = document()
PRODUCERS, CONSUMERS, COMPATIBLE, TEXT = Effect


def field(event: str, name: str = "") -> Callable[[Json], Json]:
    """The schema of a field, or of the event."""
    return lambda whole: whole["components"]["schemas"][event]["properties"][name] if name else (
        whole["components"]["schemas"][event]
    )  # fmt: skip


def channel(name: str, *path: str) -> Callable[[Json], Json]:
    def find(whole: Json) -> Json:
        found = whole["channels"][name]
        for each in path:
            found = found[each]
        return found

    return find


def put(**values: Any) -> Callable[[Json], None]:
    return lambda node: node.update(values)


def drop(*names: str) -> Callable[[Json], None]:
    def change(node: Json) -> None:
        for name in names:
            node.remove(name) if isinstance(node, list) else node.pop(name)

    return change


def inside(name: str, change: Callable[[Json], Any]) -> Callable[[Json], Any]:
    return lambda node: change(node[name])


def add(value: Any) -> Callable[[Json], None]:
    return lambda node: node.append(value)


TOPIC = ("bindings", "kafka", "topicConfiguration")
UPLOAD, PUSH = field("SongUpload"), field("PushTarget")


@dataclass(frozen=True)
class Kind:
    """A kind of change, made at one place.

    Attributes:
        witness: changes of the event's example that make an event which fits only one of the two schemas: the old one
            where producers are broken, the new one where consumers are. None where validators do not see the break.
    """

    what: str
    where: Callable[[Json], Json]
    change: Callable[[Json], Any]
    effect: Effect
    path: str
    witness: dict[str, Any] | None = None


KINDS = [
    # What others send.
    Kind("new required field", UPLOAD,
         lambda node: (node["properties"].update(mood={}), node["required"].append("mood")), PRODUCERS,
         "SongUpload.mood", {}),
    Kind("a field is required", UPLOAD, inside("required", add("album_id")), PRODUCERS, "SongUpload.album_id", {}),
    Kind("narrower type", field("Cap", "hours"), put(type="integer"), PRODUCERS, "Cap.hours"),
    Kind("null no longer", field("SongUpload", "budget"), lambda node: node["anyOf"].pop(), PRODUCERS,
         "SongUpload.budget", {"budget": None}),
    Kind("fewer values", field("Listen", "source"), inside("enum", drop("other")), PRODUCERS, "Listen.source",
         {"source": "other"}),
    Kind("a value for all", field("PushOutcome", "outcome"), put(const="opened"), PRODUCERS, "PushOutcome.outcome",
         {"outcome": "failed"}),
    Kind("lower maximum", field("Listen", "plays"), put(maximum=100), PRODUCERS, "Listen.plays", {"plays": 101}),
    Kind("higher minimum", field("SongUpload", "revision"), put(minimum=1), PRODUCERS, "SongUpload.revision",
         {"revision": 0}),
    Kind("shorter text", field("SongUpload", "title"), put(maxLength=10), PRODUCERS, "SongUpload.title", {}),
    Kind("fewer entries", field("SongUpload", "tags"), put(maxProperties=1), PRODUCERS, "SongUpload.tags", {}),
    Kind("shorter names", field("SongUpload", "tags"), inside("propertyNames", put(maxLength=9)), PRODUCERS,
         "SongUpload.tags{} name", {}),
    Kind("entries narrowed", field("SongUpload", "tags"), inside("additionalProperties", put(maximum=2)), PRODUCERS,
         "SongUpload.tags{}", {}),
    Kind("items narrowed", field("DenseFeature", "vector"), inside("items", put(minimum=0)), PRODUCERS,
         "DenseFeature.vector[]"),
    Kind("new pattern", field("SongUpload", "title"), put(pattern="^[a-z]*$"), PRODUCERS, "SongUpload.title", {}),
    Kind("other pattern", field("QuietHours", "to"), put(pattern="^[0-9]{4}$"), PRODUCERS, "QuietHours.to"),
    Kind("a rule more", UPLOAD, put(**{"not": {"required": ["budget"]}}), PRODUCERS, "SongUpload", {}),
    Kind("a condition asks for more", UPLOAD, lambda node: node["if"]["properties"].pop("tags"), PRODUCERS,
         "SongUpload if.tags", {"features": {}, "genres": [], "artist_ids": []}),
    Kind("unknown fields refused", UPLOAD, put(additionalProperties=False), PRODUCERS, "SongUpload{}", {"mood": 1}),
    Kind("field removed", UPLOAD, inside("properties", drop("budget")), PRODUCERS, "SongUpload.budget"),
    Kind("absent means another thing", field("SongUpload", "explicit"), put(default=True), PRODUCERS,
         "SongUpload.explicit"),
    Kind("header needed", field("CloudEventHeaders"), inside("required", add("traceparent")), PRODUCERS,
         "CloudEventHeaders.traceparent"),
    Kind("other event type", lambda whole: whole["components"]["messages"]["Listen"]["headers"]["allOf"][1],
         lambda node: node["properties"]["ce_type"].update(enum=["coldstart.listen.v2"]), PRODUCERS,
         "Listen headers.ce_type"),
    Kind("topic removed", lambda whole: whole, lambda whole: (
        whole["channels"].pop("listens"), whole["operations"].pop("receive-listens")), PRODUCERS, "listens"),
    Kind("another address", channel("listens"), put(address="{prefix}plays"), PRODUCERS, "listens.address"),
    Kind("another key", channel("song-uploads"), put(**{"x-key": "album_id"}), PRODUCERS, "song-uploads.x-key"),
    Kind("shorter key", lambda whole: whole["components"]["messages"]["Listen"]["bindings"]["kafka"]["key"],
         put(maxLength=64), PRODUCERS, "Listen key"),
    Kind("another partitioner", channel("listens", "x-producer"), put(partitioner="consistent"), PRODUCERS,
         "x-producer.partitioner"),
    Kind("codec withdrawn", channel("listens", "x-producer", "compression"), drop("lz4"), PRODUCERS,
         "x-producer.compression"),
    Kind("smaller records", channel("listens", *TOPIC), put(**{"max.message.bytes": 1000}), PRODUCERS,
         "topicConfiguration.max.message.bytes"),
    Kind("another content type", lambda whole: whole["components"]["messages"]["Listen"], put(contentType="text/csv"),
         PRODUCERS, "Listen.contentType"),
    Kind("message removed", channel("song-uploads", "messages"), drop("SongTakedown"), PRODUCERS, "SongTakedown"),
    Kind("unheard of", channel("listens"), put(**{"x-quota": 5}), PRODUCERS, "listens.x-quota"),
    # What is sent to others.
    Kind("field optional", PUSH, inside("required", drop("title")), CONSUMERS, "PushTarget.title", {"title": ...}),
    Kind("field taken away", PUSH, inside("properties", drop("title")), CONSUMERS, "PushTarget.title"),
    Kind("wider type", field("PushTarget", "revision"), put(type="number"), CONSUMERS, "PushTarget.revision",
         {"revision": 1.5}),
    Kind("null too", field("PushTarget", "title"),
         lambda node: (node.clear(), node.update(anyOf=[{"type": "string"}, {"type": "null"}])), CONSUMERS,
         "PushTarget.title", {"title": None}),
    Kind("more values", field("PushTarget", "tier"), inside("enum", add("late")), CONSUMERS, "PushTarget.tier",
         {"tier": "late"}),
    Kind("higher maximum", field("PushTarget", "score"), put(maximum=100), CONSUMERS, "PushTarget.score", {"score": 2}),
    Kind("any format", field("PushTarget", "decided_at"), drop("format"), CONSUMERS, "PushTarget.decided_at",
         {"decided_at": "soon"}),
    Kind("absent means another thing there", field("Reason", "boundary"), put(default=2.0), CONSUMERS,
         "Reason.boundary"),
    Kind("cleanup policy", channel("campaigns", *TOPIC), put(**{"cleanup.policy": ["delete"]}), CONSUMERS,
         "topicConfiguration.cleanup.policy"),
    Kind("codec", channel("push-targets", "x-consumer"), put(compression=["none", "zstd"]), CONSUMERS,
         "x-consumer.compression"),
    Kind("isolation", channel("push-targets", "x-consumer"), put(**{"isolation.level": "read_uncommitted"}), CONSUMERS,
         "x-consumer.isolation.level"),
    Kind("kept for less", channel("push-targets", *TOPIC), put(**{"retention.ms": 1}), CONSUMERS,
         "topicConfiguration.retention.ms"),
    Kind("another message on it", channel("push-targets", "messages"),
         put(Campaign={"$ref": "#/components/messages/Campaign"}), CONSUMERS, "Campaign"),
    Kind("another layout of bytes", lambda whole: whole["components"]["messages"]["AudienceVector"]["payload"],
         lambda node: node["x-layout"][0].update(size="8"), PRODUCERS, "AudienceVector"),
    # Nobody.
    Kind("new optional field", UPLOAD, inside("properties", put(mood={"type": "string"})), COMPATIBLE,
         "SongUpload.mood"),
    Kind("new field for consumers", PUSH,
         lambda node: (node["properties"].update(mood={"type": "string"}), node["required"].append("mood")), COMPATIBLE,
         "PushTarget.mood"),
    Kind("field need not be", UPLOAD, inside("required", drop("title")), COMPATIBLE, "SongUpload.title"),
    Kind("more is read", field("Listen", "source"), inside("enum", add("radio")), COMPATIBLE, "Listen.source"),
    Kind("longer text is read", field("SongUpload", "title"), put(maxLength=2048), COMPATIBLE, "SongUpload.title"),
    Kind("a condition asks for less", UPLOAD, lambda node: node["if"]["properties"].update(mood={"maxLength": 0}),
         COMPATIBLE, "SongUpload if.mood"),
    Kind("less comes", field("PushTarget", "score"), put(maximum=0.5), COMPATIBLE, "PushTarget.score"),
    Kind("new topic", lambda whole: whole["channels"],
         put(**{"push-targets-v2": {"address": "{prefix}push-targets-v2"}}), COMPATIBLE, "push-targets-v2"),
    Kind("another message is read", channel("listens", "messages"), put(New={"payload": {}}), COMPATIBLE, "New"),
    Kind("kept for longer", channel("push-targets", *TOPIC), put(**{"retention.ms": 10**12}), COMPATIBLE,
         "topicConfiguration.retention.ms"),
    Kind("one codec more is read", channel("listens", "x-producer", "compression"), add("brotli"), COMPATIBLE,
         "x-producer.compression"),
    Kind("words", field("SongUpload", "tags"), put(description="what people say of it"), TEXT, "SongUpload.tags"),
    Kind("an example", lambda whole: whole["components"]["messages"]["Listen"]["examples"], lambda node: node.pop(),
         TEXT, "Listen.examples"),
]  # fmt: skip


def changed(kind: Kind) -> Json:
    whole = copy.deepcopy(DOCUMENT)
    kind.change(kind.where(whole))
    return whole


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what.replace(" ", "-"))
def test_every_kind_of_change_is_called_what_it_is(kind: Kind) -> None:
    found = contract_changes(DOCUMENT, changed(kind))
    assert found[0].effect is kind.effect, found
    assert kind.path in {each.path for each in found if each.effect is kind.effect}
    for each in found:
        assert each.old != each.new or each.what == "texts"
        if each.direction is not None:
            assert each.effect is not (CONSUMERS if each.direction == "input" else PRODUCERS)
    major, minor, patch = VERSION.split(".")
    least = {COMPATIBLE: f"{major}.{int(minor) + 1}.0", TEXT: f"{major}.{minor}.{int(patch) + 1}"}
    assert needed_version(VERSION, found) == least.get(kind.effect, f"{int(major) + 1}.0.0")


WITNESSED = [kind for kind in KINDS if kind.witness is not None]


def validator(whole: Json, event: str) -> Any:
    """Of an event as a document has it."""
    schemas = whole["components"]["schemas"]
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{event}", "components": {"schemas": schemas}}, validate_formats=True
    )


@pytest.mark.parametrize("kind", WITNESSED, ids=lambda kind: kind.what.replace(" ", "-"))
def test_an_event_shows_that_a_break_is_one(kind: Kind) -> None:
    event = kind.path.split(".")[0].split("{")[0].split()[0]
    body = {**json.loads(MESSAGES[event][0].EXAMPLE), **(kind.witness or {})}
    body = {name: value for name, value in body.items() if value is not ...}
    fits = [bool(validator(whole, event).is_valid(body)) for whole in (DOCUMENT, changed(kind))]
    assert fits == [kind.effect is PRODUCERS, kind.effect is CONSUMERS]


NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")


def nodes(schema: Json) -> list[Json]:
    """Every schema in one, itself among them."""
    found = [schema]
    for key in ("items", "additionalProperties", "propertyNames", "if"):
        found += nodes(schema[key]) if isinstance(schema.get(key), dict) else []
    for each in (*schema.get("properties", {}).values(), *schema.get("anyOf", ())):
        found += nodes(each)
    return found


def modify(node: Json, chance: Random) -> None:
    """One modification, of whatever kind the place has."""
    kinds: list[Callable[[], Any]] = [
        lambda: node.update({chance.choice(NUMBERS): chance.choice([0, 1, 2, 5])}),
        lambda: node.update(type=chance.choice(["string", "integer", "number", "object", "array", "null"])),
        lambda: node.update(enum=chance.sample(["opened", "s-81", "a-7", "en", 1, 2, None], 3)),
        lambda: node.update(pattern=chance.choice(["-", "^[a-z]", "^.{3}$"])),
        lambda: node.update({"not": {"type": chance.choice(["string", "null", "array"])}}),
    ]
    kinds += [lambda key=key: node.pop(key) for key in node]
    kinds += [lambda key=key: node.update({key: chance.choice([0, 1, 3, 200])}) for key in node if key in NUMBERS]
    if "properties" in node:
        names = [*node["properties"]]
        kinds += [
            lambda: node["properties"].pop(chance.choice(names)),
            lambda: node["properties"].update(mood={"type": chance.choice(["string", "integer"])}),
            lambda: node.update(required=sorted({*node.get("required", ()), chance.choice([*names, "mood"])})),
            lambda: node.update(additionalProperties=chance.choice([False, {"type": "integer"}])),
        ]
    if node.get("required"):
        kinds += [lambda: node["required"].pop()] * 2
    if node.get("enum"):
        kinds += [lambda: node["enum"].pop(), lambda: node["enum"].append(chance.choice(["late", 1, None]))]
    if node.get("anyOf"):
        kinds += [lambda: node["anyOf"].pop(), lambda: node["anyOf"].append({"type": "boolean"})]
    chance.choice(kinds)()


PLAIN = [None, True, 0, 1, 2, 1.5, -1, 300, "", "a", "en", "opened", "s-81", "late", "x" * 130, [], ["a-7"], [1], {},
         {"a": 1}, {"hours": 1, "pushes": 1}, "2026-03-01T10:00:00Z"]  # fmt: skip


def near(body: Json, chance: Random) -> Json:
    """An event with one thing in it changed, at any depth."""
    if isinstance(body, dict) and body and chance.random() < 0.9:
        name = chance.choice([*body])
        if chance.random() < 0.15:
            return {key: each for key, each in body.items() if key != name}
        return {**body, name: near(body[name], chance)}
    if isinstance(body, list) and body and chance.random() < 0.6:
        return [near(body[0], chance), *body[1:]]
    return chance.choice(PLAIN)


@pytest.mark.parametrize("event", MESSAGES)
def test_no_break_of_an_event_is_missed(event: str) -> None:
    """Modifications at random places: what they break by a validator is called a break."""
    struct, _ = MESSAGES[event]
    output, example = struct.TOPIC in SENT, json.loads(struct.EXAMPLE)
    properties = DOCUMENT["components"]["schemas"][event]["properties"]
    old, seen = validator(DOCUMENT, event), 0
    for seed in range(30):
        chance = Random(f"{event}{seed}")
        whole = copy.deepcopy(DOCUMENT)
        modify(chance.choice(nodes(whole["components"]["schemas"][event])), chance)
        try:
            new = validator(whole, event)
        except ValueError:
            continue
        found = contract_changes(DOCUMENT, whole)
        broken = bool(found) and found[0].effect.breaks
        for number in range(150):
            body = near(example, chance) if number else example
            if number % 3 == 1 and isinstance(body, dict):
                # Any field, with whatever: of those that have a name.
                body = {**body, chance.choice([*properties]): chance.choice(PLAIN)}
            fits = bool(old.is_valid(body)), bool(new.is_valid(body))
            if fits == ((False, True) if output else (True, False)):
                seen += 1
                assert broken, f"seed {seed}: {body}, and it is told {found}"
    assert seen > 2, "hardly anything was broken: nothing is asked of the comparison"


def test_what_belongs_to_an_installation_is_not_compared() -> None:
    whole = copy.deepcopy(DOCUMENT)
    whole["servers"] = {}
    whole["components"]["parameters"]["prefix"]["default"] = "mine."
    for each in whole["channels"].values():
        each["bindings"]["kafka"] |= {"partitions": 64, "replicas": 3, "topic": "mine"}
    for operation in whole["operations"].values():
        operation["bindings"]["kafka"]["groupId"] = {"type": "string"}
    assert contract_changes(DOCUMENT, whole) == []


# What the tree holds


def test_released_contracts_are_named_after_their_version() -> None:
    assert released_versions()
    for version in released_versions():
        assert released_contract(version)["info"]["version"] == version


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what.replace(" ", "-"))
def test_a_version_that_is_too_low_for_a_change_is_told(kind: Kind, tmp_path: Path) -> None:
    keep(DOCUMENT, tmp_path)
    whole = changed(kind)
    told = version_problem(whole, tmp_path)
    least = needed_version(VERSION, contract_changes(DOCUMENT, whole))
    assert told is not None
    assert f"says {VERSION}, and what changed since {VERSION} makes it {least}" in told
    with pytest.raises(Refused):
        keep(whole, tmp_path)
    whole["info"]["version"] = least
    assert version_problem(whole, tmp_path) is None


def test_a_version_is_kept_once(tmp_path: Path) -> None:
    assert keep(DOCUMENT, tmp_path) == tmp_path / f"{VERSION}.yaml"
    assert keep(DOCUMENT, tmp_path) is None
    whole = copy.deepcopy(DOCUMENT)
    whole["channels"]["listens"]["bindings"]["kafka"]["partitions"] = 3
    with pytest.raises(Refused, match="other default settings"):
        keep(whole, tmp_path)
    assert read_contract(tmp_path / f"{VERSION}.yaml") == DOCUMENT


# The verb


def diff(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["contract", "diff", *map(str, arguments)], env={"COLUMNS": "250", "TERM": "dumb"})


def test_the_verb_says_whom_a_change_breaks(tmp_path: Path) -> None:
    kinds = {kind.what: kind for kind in KINDS}
    (old, new) = (tmp_path / "old.yaml", tmp_path / "new.json")
    old.write_text(as_text(DOCUMENT))
    for what, code in (("shorter text", 1), ("more values", 1), ("new optional field", 0), ("words", 0)):
        whole = changed(kinds[what])
        new.write_text(json.dumps(whole))
        said = diff(old, new)
        assert said.exit_code == code, said.output
        told = json.loads(diff(old, new, "--json").stdout)
        found = contract_changes(DOCUMENT, whole)
        assert [ContractChange(**each) for each in told["changes"]] == found
        if found[0].effect is not TEXT:
            assert all(text in said.stdout for text in (found[0].effect, found[0].channel, found[0].path))
            assert f"takes {told['needed']} at least" in said.stdout
        else:
            assert "1 texts or examples changed" in said.stdout
            assert "SongUpload.tags" in diff(old, new, "--texts").stdout


def test_the_verb_compares_the_code_with_the_last_release_by_itself() -> None:
    said = json.loads(diff("--json").stdout)
    assert (said["old"], said["new"]) == (released_versions()[-1], VERSION)


def test_the_verb_refuses_what_is_no_contract(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    assert "no such version" in diff("99.0.0").output
    for text, told in (
        ("a: [", "neither YAML nor JSON"), ("[]", "holds no AsyncAPI document"), ("asyncapi: 2.6.0", "AsyncAPI 3"),
        (as_text(DOCUMENT).replace("maxLength: 1024", "maxLength: many"), "maxLength: 'many' is no number"),
        (as_text(DOCUMENT).replace("schemas/SongUpload", "schemas/Nothing"), "leads nowhere"),
    ):  # fmt: skip
        file.write_text(text)
        said = diff(VERSION if VERSION in released_versions() else released_versions()[-1], file)
        assert said.exit_code == 2, said.output
        assert told in said.output.replace("\n", " ")
