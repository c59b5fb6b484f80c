"""The contracts that were released: kept as they were, so that a change can be held to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.contract.compatibility import contract_changes, needed_version, numbers
from streams.contract.errors import Refused

FOLDER: Final = Path(__file__).with_name("released")
"""One document a version, with the default settings, named after it: 1.0.0.yaml."""


def released_versions(folder: Path = FOLDER) -> list[str]:
    """The versions that were released, the oldest first."""
    return sorted((each.stem for each in folder.glob("*.yaml")), key=numbers)


def released_contract(version: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The document of a version.

    Raises:
        Refused: it was not released.
    """
    known = released_versions(folder)
    if version not in known:
        raise Refused(f"{version}: no such version was released, only {', '.join(known)}; name one of them, or a file")
    return read_contract(folder / f"{version}.yaml")


def read_contract(file: Path) -> dict[str, Any]:
    """The document in a file, YAML or JSON.

    Raises:
        Refused: there is none in it.
        OSError: the file cannot be read.
    """
    try:
        # Not all JSON is read as such by YAML: to it 1e18 is a text.
        decode = msgspec.json.decode if file.suffix == ".json" else msgspec.yaml.decode
        found = decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: neither YAML nor JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(f"{file}: holds no AsyncAPI document")
    return found


def as_text(document: Mapping[str, Any]) -> str:
    """A document as it is kept."""
    return msgspec.yaml.encode(document).decode()


def version_problem(document: Mapping[str, Any], folder: Path = FOLDER) -> str | None:
    """Why a contract cannot have the version that it says, after those that were released; None where it can."""
    *_, last = released_versions(folder)
    version = str(document["info"]["version"])
    least = needed_version(last, contract_changes(released_contract(last, folder), document))
    if numbers(version) < numbers(least):
        return (
            f"the contract says {version}, and what changed since {last} makes it {least}: `coldstart contract diff "
            f"{last}` tells what; undo it, or set VERSION in streams/contract/asyncapi.py"
        )
    return None


def keep(document: Mapping[str, Any], folder: Path = FOLDER) -> Path | None:
    """Keep a contract as released.

    Returns:
        The new file; None where this version was kept before, and is the same.

    Raises:
        Refused: its version is not enough for what changed.
    """
    version = str(document["info"]["version"])
    if released_versions(folder) and (problem := version_problem(document, folder)):
        raise Refused(problem)
    file, text = folder / f"{version}.yaml", as_text(document)
    if file.exists():
        if file.read_text(encoding="utf-8") == text:
            return None
        # Nothing that is compared differs, such as the numbers of partitions that are the default.
        raise Refused(f"{file}: was released with other default settings; set VERSION in streams/contract/asyncapi.py")
    file.write_text(text, encoding="utf-8")
    return file
