"""The reference pages, made from the code: CLI, settings, events and topics, Python API, examples.

``pages()`` gives each page's text by its place below ``docs/``. ``docs/hooks.py`` adds them to the site as it is built,
so that none of them is kept and none can be stale; ``tests/test_docs.py`` checks what is on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import encoder
import targeting
from streams.cli import app
from streams.contract.json_schema import HEADER_SCHEMAS
from streams.contract.topics import TOPICS
from streams.operations.published_contract import document as contract
from streams.runtime import exit_codes
from streams.runtime.settings import Settings, user_cache_dir
from streams.runtime.settings_errors import PREFIX

DOCS = Path(__file__).parent
EXAMPLES = DOCS / "examples"


def pages() -> dict[str, str]:
    """Every generated page: place below ``docs/`` -> Markdown."""
    made = {
        "reference/cli.md": cli(),
        "reference/settings.md": settings(),
        "reference/events.md": events(),
        "reference/python.md": python(),
    }
    return made | {f"examples/{path.stem}.md": example(path) for path in sorted(EXAMPLES.glob("*.py"))}


def _cell(value: object) -> str:
    """Text for one cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _table(head: str, rows: list[tuple[object, ...]]) -> list[str]:
    names = head.split("|")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return ["", *lines, *(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows), ""]


# The command line


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command under ``command`` with its full name, groups before their verbs; hidden ones left out."""
    yield name, command
    for each, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands(inner, f"{name} {each}")


def cli() -> str:
    lines = ["# Command line", "", "Every verb, from its own `--help`.", ""]
    for name, command in commands(typer.main.get_command(app), "coldstart"):
        lines += [f"{'#' * min(2 + name.count(' ') - (name != 'coldstart'), 3)} `{name}`", "", _prose(command.help), ""]
        rows = [
            _parameter(each)
            for each in command.params
            if each.name not in ("help", "install_completion", "show_completion") and not getattr(each, "hidden", False)
        ]
        lines += _table("option|default|meaning", rows) if rows else []
    lines += ["## Exit codes of a role", "", *(exit_codes.__doc__ or "").splitlines()[2:]]
    return "\n".join(lines)


def _prose(text: str | None) -> str:
    """Paragraphs as they stand, without what typer means for a terminal."""
    return re.sub(r"\x08\n?", "", text or "").strip()


def _parameter(each: Any) -> tuple[str, str, str]:
    name = f"`{each.name.upper()}`" if each.param_type_name == "argument" else ", ".join(f"`{o}`" for o in each.opts)
    default = each.default
    shown = (
        "required"
        if each.required
        else ""
        if default is None or default is False or callable(default)
        else f"`{default}`"
    )
    return name, shown, getattr(each, "help", "") or ""


# Settings


def settings() -> str:
    lines = [
        "# Settings",
        "",
        "A variable of the environment stands over the same key in the TOML file (`--config`), which stands over the "
        "default. A wrong value is refused with its name and what is allowed, a misspelt name with the one that was "
        "meant.",
        "",
        "```toml",
        "[audience]",
        "cap_pushes = 2",
        "```",
        "",
        f"says the same as `{PREFIX}AUDIENCE__CAP_PUSHES=2`. Lists are JSON in the environment.",
    ]
    for section, field in Settings.model_fields.items():
        inner = field.annotation
        lines += ["", f"## {section}", "", (getattr(inner, "__doc__", None) or "").strip()]
        fields: dict[str, FieldInfo] = getattr(inner, "model_fields", {})
        lines += _table("key|default|allowed|meaning", [_setting(section, key, each) for key, each in fields.items()])
    return "\n".join(lines)


def _setting(section: str, key: str, field: FieldInfo) -> tuple[str, str, str, str]:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    shown = str(default).replace(str(user_cache_dir()), "the user's cache folder")
    anchor = f'<a id="{section}.{key}"></a>'
    said = "none" if default is None else f"`{shown}`" if shown else "empty"
    return f"{anchor}`{key}`", said, ", ".join(_bounds(field)), field.description or ""


def _bounds(field: FieldInfo) -> Iterator[str]:
    signs = {"Ge": ("ge", "≥"), "Gt": ("gt", ">"), "Le": ("le", "≤"), "Lt": ("lt", "<")}
    literal = [str(value) for value in get_args(field.annotation) if isinstance(value, str)]
    if literal:
        yield " ".join(f"`{value}`" for value in literal)
    for rule in field.metadata:
        if type(rule).__name__ in signs:
            name, sign = signs[type(rule).__name__]
            yield f"{sign} {getattr(rule, name)}"
        if getattr(rule, "pattern", None):
            yield f"`{rule.pattern}`"


# Events and topics


def events() -> str:
    document = contract()
    schemas = document["components"]["schemas"]

    def first(key: str, other: str) -> str:
        channels = document["channels"].values()
        return next(each[key]["description"] for each in channels if key in each and other not in each)

    lines = [
        "# Events and topics",
        "",
        document["info"]["description"],
        "",
        f"Producers: {first('x-producer', 'x-consumer')}",
        "",
        f"Consumers: {first('x-consumer', 'x-producer')}",
        "",
        "The same as an AsyncAPI document: [`asyncapi.yaml`](../../deploy/contract/asyncapi.yaml).",
        "",
        "## Topics",
        "",
        "Names follow the installation's prefix (`topics.prefix`). Topics of one plane have equally many partitions.",
    ]
    rows = [
        (f"`{t.name}`", t.key, t.plane.value, _kept(t), "public" if t.public else "internal", t.writers, t.meaning)
        for t in TOPICS
    ]
    lines += _table("topic|key|plane|kept|for|written by|meaning", rows)
    named: set[str] = set()
    for topic, channel in document["channels"].items():
        for name in channel["messages"]:
            message = document["components"]["messages"][name]
            lines += [f"## {name}", "", f"On `{topic}`. {message['summary']}", "", message.get("description", ""), ""]
            types = [
                h
                for part in message.get("headers", {}).get("allOf", [])
                for h in part.get("properties", {}).get("ce_type", {}).get("enum", [])
            ]
            lines += ["`ce_type`: " + ", ".join(f"`{each}`" for each in types), ""] if types else []
            if "x-layout" in message["payload"]:
                rows = [tuple(each.values()) for each in message["payload"]["x-layout"]]
                lines += _table("offset|bytes|part|meaning", rows)
            if "$ref" in message["payload"]:
                lines += _fields(schemas, name, named)
            for shown in message["examples"]:
                lines += [f"*{shown['name']}*: {shown['summary']}", "", "```json", _json(shown["headers"]), "```", ""]
                if shown["payload"]:
                    lines += ["```json", _json(shown["payload"]), "```", ""]
    lines += ["## Parts of events", ""]
    shown = {*document["components"]["messages"]}
    while named - shown:
        name = min(named - shown)
        shown.add(name)
        lines += [f"### {name}", "", schemas[name].get("description", ""), *_fields(schemas, name, named)]
    lines += ["## Headers", ""]
    for name in HEADER_SCHEMAS:
        lines += [f"### {name}", "", schemas[name]["description"], *_fields(schemas, name, named)]
    return "\n".join(lines)


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _kept(topic: Any) -> str:
    return "compacted" if topic.retention_ms is None else f"{topic.retention_ms // 86_400_000} d"


def _fields(schemas: dict[str, Any], name: str, named: set[str]) -> list[str]:
    schema = schemas[name]
    needed = schema.get("required", [])
    rows = [
        (f"`{key}`", _type(each, named), "yes" if key in needed else "", each.get("description", ""))
        for key, each in schema.get("properties", {}).items()
    ]
    return _table("field|type|needed|meaning", rows)


def _type(schema: dict[str, Any], named: set[str]) -> str:
    """A JSON schema in words; the structs that it names are added to ``named``."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        named.add(name)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each, named) for each in schema["anyOf"])
    if "enum" in schema:
        return " ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or {'type': 'any'}, named)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'], named)}"
    signs = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "maxLength": "length ≤",
        "pattern": "like",
    }
    bounds = [
        f"{sign} {f'`{schema[key]}`' if key == 'pattern' else schema[key]}"
        for key, sign in signs.items()
        if key in schema
    ]
    return " ".join([str(schema.get("format", schema.get("type", "any"))), *bounds])


# Python


def python() -> str:
    lines = ["# Python API", "", "What the packages export; everything else may change without notice.", ""]
    for package in (encoder, targeting):
        lines += [f"## {package.__name__}", "", (package.__doc__ or "").strip(), ""]
        for name in package.__all__:
            lines += [f"::: {package.__name__}.{name}", ""]
    lines += [
        "## encoder.train",
        "",
        "Needs the extra `train`.",
        "",
        "::: encoder.train.train",
        "",
        "::: encoder.train.Trained",
        "",
    ]
    return "\n".join(lines)


def example(path: Path) -> str:
    """A script in percent format as a page: its Markdown cells as text, its code cells as code."""
    lines: list[str] = []
    for cell in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            lines += [re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip(), ""]
        else:
            lines += ["```python", body.strip(), "```", ""]
    lines += [f"The script: [`{path.name}`]({path.name})."]
    return "\n".join(lines)
