"""Whatever the schema takes the service takes, and nothing else: asked of two validators in as many languages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from node_tools import node_tools
from schema_agreement import Judged, fits, records, structured_records

from streams.contract.json_schema import HEADER_SCHEMAS, INPUTS, schema

# Rules that need a list of time zones, or compare two fields; the document tells them in words.
BEYOND = ("timezone:", "quiet_hours:")


def disagreements(judged: list[Judged], fitting: list[bool]) -> list[tuple[str, str | None]]:
    found = [
        (each.line, each.refused)
        for each, fit in zip(judged, fitting, strict=True)
        if fit == (each.refused is not None) and not (fit and (each.refused or "").startswith(BEYOND))
    ]
    return sorted(found, key=lambda each: len(each[0]))[:5]


def both_ways(judged: list[Judged]) -> bool:
    """Whether the service took some and refused some: else nothing is asked of the other side."""
    taken = sum(each.refused is None for each in judged)
    return len(judged) / 100 < taken < len(judged) * 0.99


def agree(message: str, count: int, make: Callable[[str, int], list[Judged]] = records) -> None:
    judged = make(message, count)
    assert both_ways(judged)
    assert disagreements(judged, [*map(fits, judged)]) == []


@pytest.mark.parametrize("message", INPUTS)
def test_schema_and_service_agree(message: str) -> None:
    agree(message, 300)


@pytest.mark.parametrize("message", INPUTS)
def test_schema_and_service_agree_on_structured_events(message: str) -> None:
    agree(message, 300, structured_records)


def judged_records(uploads: int, others: int) -> list[Judged]:
    judged = [each for name in INPUTS for each in records(name, uploads if name == "SongUpload" else others)]
    return judged + [each for name in INPUTS for each in structured_records(name, others)]


def another_validator_agrees(folder: Path, judged: list[Judged]) -> None:
    node = node_tools()
    schemas = {name: schema(name) for name in (*INPUTS, *(f"Structured{each}" for each in INPUTS), *HEADER_SCHEMAS)}
    (folder / "schemas.json").write_text(json.dumps(schemas))
    (folder / "events").write_text("\n".join(each.line for each in judged))
    said = node.run("validate.mjs", folder / "schemas.json", folder / "events").strip()
    assert disagreements(judged, [each == "1" for each in said]) == []


def test_another_validator_agrees(tmp_path: Path) -> None:
    another_validator_agrees(tmp_path, judged_records(300, 60))


@pytest.mark.long
def test_both_validators_and_the_service_agree_on_100_000_uploads(tmp_path: Path) -> None:
    judged = judged_records(100_000, 5_000)
    assert all(both_ways([each for each in judged if each.message == name]) for name in INPUTS)
    assert disagreements(judged, [*map(fits, judged)]) == []
    another_validator_agrees(tmp_path, judged)
