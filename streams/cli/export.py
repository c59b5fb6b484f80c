"""``coldstart export``: everything that is stored about a user."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Terminal, say_json


def export(
    user_id: Annotated[str, typer.Argument(help="The user's id, as in the events.")],
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Print everything that is stored about a user as JSON, to answer a request for access.

    `topics`: every record that names the user, as it came. `state`: what the workers keep: the history, what was pushed
    and its outcomes, and by how much ignored pushes raise the user's threshold; `erased_at` if the user
    was erased; `profiling` if the user ever turned it off: whether it is allowed now, and since when. While it is off
    there is no more than that. Songs are kept as hashes; one that no topic names any more is shown as such. The copies
    on workers' disks hold the same as the state. The search reads the user's partition of the
    audience's topics and all of the other topics completely, which takes time on large ones.

    Example: coldstart export u-5 > u-5.json
    """
    console = Terminal(stderr=True)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        from streams.operations.user_export import export_user

        with console.status("reading") as status:
            found = export_user(
                settings.kafka, naming_of(settings), SystemClock(), user_id, settings.audience.erasure_keys,
                lambda words: status.update(Text(words)),
            )  # fmt: skip
    say_json(found)
