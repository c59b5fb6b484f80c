"""``coldstart contract``: what other teams' code may rely on."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from streams.cli.options import Config, errors_explained, refuse, settings_from
from streams.runtime.terminal import say

app = typer.Typer(no_args_is_help=True, help="Show what is on the public topics, and compare two versions of it.")


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

    known = [*json_schema.MESSAGES, *json_schema.HEADER_SCHEMAS]
    if not event:
        for name in known:
            say(name)
    elif event not in known:
        refuse(f"{event}: there are {', '.join(known)}")
    else:
        say(msgspec.json.format(msgspec.json.encode(json_schema.schema(event)), indent=2).decode())
