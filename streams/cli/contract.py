"""``coldstart contract``: what other teams' code may rely on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.cli import tables
from streams.cli.options import Config, errors_explained, refuse, settings_from
from streams.runtime.terminal import Table, say, say_json

if TYPE_CHECKING:
    from streams.contract.compatibility import ContractChange

app = typer.Typer(no_args_is_help=True, help="Show the contract of the public topics, and compare two versions of it.")


@app.command()
def show(config: Config = None) -> None:
    """Print the AsyncAPI document of this installation: its prefix, servers and partitions.

    Example: coldstart contract show > asyncapi.yaml

    With the default settings it is kept in deploy/contract/asyncapi.yaml.
    """
    from streams.operations.published_contract import document

    with errors_explained():
        settings = settings_from(config)
    say(msgspec.yaml.encode(document(settings.topics, settings.kafka)).decode().removesuffix("\n"))


@app.command()
def schema(
    event: Annotated[str, typer.Argument(help="Such as SongUpload, or CloudEventHeaders.")] = "",
) -> None:
    """Print the JSON Schema of an event, complete in itself; without a name, the names there are.

    Example: coldstart contract schema SongUpload > song-upload.schema.json
    """
    from streams.contract import json_schema

    known = [*json_schema.PAYLOADS, *json_schema.HEADER_SCHEMAS]
    if not event:
        for name in known:
            say(name)
    elif event not in known:
        refuse(f"{event}: no such event; allowed: {', '.join(known)}")
    else:
        say(msgspec.json.format(msgspec.json.encode(json_schema.schema(event)), indent=2).decode())


_VERSION = re.compile(r"\d+\.\d+\.\d+").fullmatch
# Of a value in the table.
_SHOWN = 120

Old = Annotated[str | None, typer.Argument(help="A file or a released version; default: the last release.")]
New = Annotated[str | None, typer.Argument(help="A file or a released version; default: the code's.")]


@app.command()
def diff(
    old: Old = None,
    new: New = None,
    texts: Annotated[bool, typer.Option("--texts", help="List changed words and examples, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object with every change, texts too.")] = False,
) -> None:
    """Show what changed between two versions of the contract, and whom it breaks.

    A change breaks producers where something that was accepted on an input is refused or no longer read, and
    consumers where something may come on an output that could not before, or no longer comes. The least version that
    the new document may have follows from that. Exit code 0: nobody is broken; 1: somebody is; 2: a document cannot be
    read.

    Servers, prefix, numbers of partitions and replicas are an installation's own and not compared.

    Examples: coldstart contract diff; coldstart contract diff 1.0.0 asyncapi.yaml --json
    """
    from streams.contract.compatibility import contract_changes, needed_version
    from streams.contract.released_contracts import released_versions

    with errors_explained():
        before = _contract(old or released_versions()[-1])
        after = _contract(new)
        found = contract_changes(before, after)
        versions = [str(each["info"]["version"]) for each in (before, after)]
        least = needed_version(versions[0], found)
    if as_json:
        changes = [{name: getattr(each, name) for name in each.__slots__} for each in found]
        say_json({"old": versions[0], "new": versions[1], "needed": least, "changes": changes})
    else:
        _tell(found, versions, least, texts)
    if any(each.effect.breaks for each in found):
        raise typer.Exit(1)


@app.command()
def release(
    folder: Annotated[
        Path | None, typer.Argument(help="Where documents are kept; default: with the code.", show_default=False)
    ] = None,
) -> None:
    """Keep the contract of the code under its version, which every later one is compared with.

    Refused where what changed since the last one asks for a higher version. `make release` does it.

    Example: coldstart contract release
    """
    from streams.contract.released_contracts import FOLDER, keep
    from streams.operations.published_contract import document

    with errors_explained():
        whole = document()
        file = keep(whole, folder or FOLDER)
    version = whole["info"]["version"]
    say(f"{version} is kept already" if file is None else f"{version} is kept in {file}: commit it")


def _contract(name: str | None) -> dict[str, Any]:
    """The document in a file, of a released version, or of the code."""
    from streams.contract.released_contracts import read_contract, released_contract
    from streams.operations.published_contract import document

    if name is None:
        return document()
    return released_contract(name) if _VERSION(name) else read_contract(Path(name))


def _tell(found: list[ContractChange], versions: list[str], least: str, texts: bool) -> None:
    from streams.contract.compatibility import Effect

    words = [each for each in found if each.effect is Effect.TEXT]
    table = Table("effect", "channel", "direction", "where", "what", "old", "new")
    for each in found:
        if texts or each not in words:
            values = (_shown(value) for value in (each.old, each.new))
            table.add_row(each.effect, each.channel, each.direction or "", each.path, each.what, *values)
    if table.row_count:
        tables.show(table)
    if words and not texts:
        say(f"{len(words)} texts or examples changed: --texts lists them")
    old, new = versions
    if not found:
        say(f"{old} and {new} say the same")
    else:
        say(f"from {old} this takes {least} at least; the new one says {new}")


def _shown(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
