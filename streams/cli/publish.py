"""``coldstart publish``: make a trained artifact live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Bars, Terminal, say


def publish(
    artifact: Annotated[Path, typer.Argument(help="Folder written by `coldstart train`.")],
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make an artifact live: its warm songs first, then the model.

    Workers read it from this path: on other machines, it must be there under the same one. Those that run switch by
    themselves. To roll back, publish the old artifact again.

    Example: coldstart publish runs/model
    """
    from streams.models.publish import publish as go_live

    with errors_explained():
        settings = settings_from(config, bootstrap)
        with Bars(Terminal(stderr=True)) as bars:
            task = bars.add_task("warm songs", total=None)
            model = go_live(
                artifact, settings.kafka, naming_of(settings), SystemClock(),
                lambda done, total: bars.update(task, completed=done, total=total),
            )  # fmt: skip
    say(f"live: space {model.space}, {model.warm_songs:,} warm songs, from {model.uri}")
