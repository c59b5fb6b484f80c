"""``coldstart lag``: how far behind each group is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Table, say, say_json

if TYPE_CHECKING:
    from streams.kafka.consumer_lag import Lag


def lag(
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array: group, topic, partition, committed, end, records, seconds.")
    ] = False,
    by_partition: Annotated[
        bool, typer.Option("--by-partition", help="One row per partition instead of per topic.")
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show how far behind each group is on each topic, in records and seconds, and its worst partition.

    Seconds are the age of the oldest record that waits, ? if it could not be read in time. A group that nothing waits
    for is 0 behind, whatever aborted transactions stand before the end. Workers may keep running.

    Examples: coldstart lag; coldstart lag --by-partition; coldstart lag --json
    """
    from streams.kafka.consumer_lag import measure

    with errors_explained():
        settings = settings_from(config, bootstrap)
        lags = measure(settings.kafka, naming_of(settings), SystemClock())
    if as_json:
        say_json([asdict(each) for each in lags])
        return
    if not lags:
        say(f"no group has read a topic of {settings.topics.prefix!r} yet")
        return
    # Names are shorter and easier to read without their common prefix.
    prefix = settings.topics.prefix
    short = [
        replace(each, group=each.group.removeprefix(prefix), topic=each.topic.removeprefix(prefix)) for each in lags
    ]
    table = _partitions(short) if by_partition else _topics(short)
    table.title = f"groups and topics {prefix}…"
    tables.show(table)


def _topics(lags: Sequence[Lag]) -> Table:
    table = _table("parts", "of them behind", "records behind", "seconds behind", "most behind")
    for (group, topic), some in groupby(lags, lambda each: (each.group, each.topic)):
        parts = list(some)
        behind = [each for each in parts if each.records]
        # A record that could not be read may be the oldest.
        worst = max(behind, key=lambda each: (each.seconds is None, each.seconds or 0.0, each.records), default=None)
        table.add_row(
            group, topic, str(len(parts)), str(len(behind)), f"{sum(each.records for each in parts):,}",
            "0.0" if worst is None else _seconds(worst), "-" if worst is None else f"part {worst.partition}",
            style="" if worst is None else "yellow",
        )  # fmt: skip
    return table


def _partitions(lags: Sequence[Lag]) -> Table:
    table = _table("part", "committed", "end", "records behind", "seconds behind")
    for each in lags:
        committed = "-" if each.committed is None else str(each.committed)
        numbers = (str(each.partition), committed, str(each.end), f"{each.records:,}", _seconds(each))
        table.add_row(each.group, each.topic, *numbers, style="yellow" if each.records else "")
    return table


def _table(*numbers: str) -> Table:
    table = Table()
    for name in ("group", "topic"):
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _seconds(lag: Lag) -> str:
    return "?" if lag.seconds is None else f"{lag.seconds:,.1f}"
