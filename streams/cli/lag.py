"""``coldstart lag``: how far behind each group is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.clock import SystemClock


def lag(
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array: group, topic, partition, committed, end, records, seconds.")
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show how far behind each group is, by topic and partition: in records, and in seconds.

    Seconds are the age of the oldest record that the group has not processed. Workers may run meanwhile.
    """
    from streams.lag import measure

    with errors_explained():
        settings = settings_from(config, bootstrap)
        lags = measure(settings.kafka, naming_of(settings), SystemClock())
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in lags], indent=1))
        return
    if not lags:
        typer.echo(f"no group has read a topic of {settings.topics.prefix!r} yet")
        return
    table = Table("group", "topic")
    for name in ("partition", "committed", "end", "records behind", "seconds behind"):
        table.add_column(name, justify="right")
    for each in lags:
        seconds = "?" if each.seconds is None else f"{each.seconds:.1f}"
        committed = "-" if each.committed is None else str(each.committed)
        numbers = (str(each.partition), committed, str(each.end), str(each.records), seconds)
        table.add_row(each.group, each.topic, *numbers)
    Console().print(table)
