"""What other people's tools make of the contract: the parser of AsyncAPI, a JSON Schema validator, a code generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from node_tools import NodeTools, node_tools

from streams.contract.json_schema import HEADER_SCHEMAS, PAYLOADS, schema
from streams.contract.topics import TOPICS
from streams.operations.published_contract import document

PUBLISHED = Path(__file__).parents[2] / "deploy" / "contract" / "asyncapi.yaml"

COMPILE = ("node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--module", "nodenext")


@pytest.fixture(scope="module")
def node() -> NodeTools:
    return node_tools()


def test_the_official_parser_has_nothing_to_say_of_the_document(node: NodeTools) -> None:
    told = node.asked("judge.mjs", PUBLISHED)
    # 3.1 is newer, and generators of code read nothing of it.
    assert [each for each in told["diagnostics"] if each["code"] != "asyncapi-latest-version"] == []
    assert sorted(told["channels"]) == sorted(topic.name for topic in TOPICS if topic.public)


def test_the_parser_is_asked_something_that_it_can_refuse(node: NodeTools, tmp_path: Path) -> None:
    wrong = document()
    wrong["components"]["schemas"]["Listen"]["type"] = "event"
    wrong["channels"]["listens"]["messages"]["Listen"]["$ref"] = "#/components/messages/Nothing"
    file = tmp_path / "asyncapi.json"
    file.write_text(json.dumps(wrong))
    told = {each["code"] for each in node.asked("judge.mjs", file)["diagnostics"]}
    assert "invalid-ref" in told


def test_another_validator_accepts_every_example_and_no_other_event_for_it(node: NodeTools, tmp_path: Path) -> None:
    schemas = {name: schema(name) for name in (*PAYLOADS, *HEADER_SCHEMAS)}
    (tmp_path / "schemas.json").write_text(json.dumps(schemas))
    events: list[dict[str, Any]] = []
    for name, message in document()["components"]["messages"].items():
        own = message["headers"].get("$ref", message["headers"].get("allOf", [{}])[0].get("$ref")).rsplit("/", 1)[-1]
        bodies = [{name: each["payload"]} if name in PAYLOADS else {} for each in message["examples"]]
        events += [{own: each["headers"], **body} for each, body in zip(message["examples"], bodies, strict=True)]
    good = len(events)
    assert good > len(PAYLOADS)
    events += [{name: {}} for name in schemas if schemas[name].get("required")]
    (tmp_path / "events").write_text("\n".join(map(json.dumps, events)))
    found = node.run("validate.mjs", tmp_path / "schemas.json", tmp_path / "events").strip()
    assert found == "1" * good + "0" * (len(events) - good)


def test_generated_types_compile_and_take_every_example(node: NodeTools, tmp_path: Path) -> None:
    made = node.asked("types.mjs", PUBLISHED, tmp_path)
    assert set(PAYLOADS) <= set(made)
    lines = []
    for name in PAYLOADS:
        lines.append(f'import {{ {name} }} from "./{name}.js";')
        for at, each in enumerate(document()["components"]["messages"][name]["examples"]):
            lines.append(f"export const {name}{at} = {json.dumps(each['payload'])} satisfies Loose<{name}>;")
    # Enumerations are types of their own in TypeScript, and no string is one.
    loose = "type Loose<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;"
    (tmp_path / "use.ts").write_text("\n".join([*lines, loose]))
    node.run(*COMPILE, tmp_path / "use.ts")
    (tmp_path / "wrong.ts").write_text('import { Listen } from "./Listen.js";\nexport const x: Listen = { plays: 1 };')
    with pytest.raises(AssertionError, match="wrong"):
        node.run(*COMPILE, tmp_path / "wrong.ts")
