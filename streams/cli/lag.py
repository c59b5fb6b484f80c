"""``coldstart lag``: how far behind each group is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import REFUSED
from streams.runtime.terminal import Table, Terminal, say, say_json

if TYPE_CHECKING:
    from streams.operations.lag_window import JudgedLag, JudgedSurvey


def lag(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON array: group, topic, partition, committed, end, records, seconds, served, state. With "
            "--watch, one a line.",
        ),
    ] = False,
    by_partition: Annotated[
        bool, typer.Option("--by-partition", help="One row per partition instead of per topic.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C; the last window decides the code.")
    ] = False,
    window: Annotated[
        float, typer.Option("--window", min=1, max=600, help="Seconds over which states are judged.")
    ] = 10.0,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show how far behind each group is on each input, in records and seconds, and whether it makes progress.

    Every input of both roles is there, and every other group that has committed; without a commit it is behind from
    the oldest record. Seconds are the age of the oldest record that waits, ? if it could not be read in time; 0 where
    nothing waits, whatever aborted transactions stand before the end.

    States are judged over a window of six samples (10 s), as Burrow does, without thresholds; the window ends at once
    where all is OK. OK: nothing waits, or lag shrinks. WARN: the offset moves, but lag does not shrink. REWOUND: the
    offset went back. STALLED: a member has the partition, and its offset does not move. STOPPED: no member has it.

    Exit code, by the worst: 0 OK, 3 WARN, 4 REWOUND, 5 STALLED, 6 STOPPED; 2 where a topic is missing or a partition
    has no leader; 75 where no broker answers.

    Examples: coldstart lag; coldstart lag --by-partition; coldstart lag --watch; coldstart lag --json
    """
    from streams.operations.lag_judge import worst
    from streams.operations.lag_window import one_window, windows

    found: JudgedSurvey | None = None
    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming, clock, prefix = naming_of(settings), SystemClock(), settings.topics.prefix
        if not watch:
            found = one_window(settings.kafka, naming, clock, window)
            _show(found, prefix, as_json, by_partition)
        try:
            for found in windows(settings.kafka, naming, clock, window) if watch else ():
                if not as_json:
                    Terminal().clear()
                _show(found, prefix, as_json, by_partition, indent=None)
        except KeyboardInterrupt:
            pass
    if found is not None and (code := REFUSED if found.gaps else worst([row.state for row in found.rows]).exit_code):
        raise typer.Exit(code)


def _show(found: JudgedSurvey, prefix: str, as_json: bool, by_partition: bool, indent: int | None = 1) -> None:
    if as_json:
        say_json([asdict(row.lag) | {"state": row.state} for row in found.rows], indent)
    else:
        # Names are shorter and easier to read without their common prefix.
        short = [
            replace(
                row,
                lag=replace(
                    row.lag, group=row.lag.group.removeprefix(prefix), topic=row.lag.topic.removeprefix(prefix)
                ),
            )
            for row in found.rows
        ]
        table = _partitions(short) if by_partition else _topics(short)
        table.title = f"groups and topics {prefix}…"
        tables.show(table)
        for state in sorted({row.state for row in short if row.state} - {"OK"}):
            say(f"{state}: {state.meaning}")
    for gap in found.gaps:
        say(gap, err=True)


def _topics(rows: Sequence[JudgedLag]) -> Table:
    table = _table("parts", "of them behind", "records behind", "seconds behind", "most behind")
    for (group, topic), some in groupby(rows, lambda row: (row.lag.group, row.lag.topic)):
        parts = list(some)
        behind = [row for row in parts if row.lag.records]
        # A record that could not be read may be the oldest.
        most = max(
            behind, key=lambda row: (row.lag.seconds is None, row.lag.seconds or 0.0, row.lag.records), default=None
        )
        states = Counter(_state(row) for row in parts if row.state != "OK")
        table.add_row(
            group, topic, str(len(parts)), str(len(behind)), f"{sum(row.lag.records for row in parts):,}",
            "0.0" if most is None else _seconds(most), "-" if most is None else f"part {most.lag.partition}",
            ", ".join(f"{state} {number}" for state, number in states.items()) or "OK",
            style=_style([*states]),
        )  # fmt: skip
    return table


def _partitions(rows: Sequence[JudgedLag]) -> Table:
    table = _table("part", "committed", "end", "records behind", "seconds behind")
    for row in rows:
        each = row.lag
        committed = "-" if each.committed is None else str(each.committed)
        numbers = (str(each.partition), committed, str(each.end), f"{each.records:,}", _seconds(row))
        state = _state(row)
        table.add_row(each.group, each.topic, *numbers, state, style=_style([state] if state != "OK" else []))
    return table


def _table(*numbers: str) -> Table:
    table = Table()
    for name in ("group", "topic"):
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_column("state")
    return table


def _state(row: JudgedLag) -> str:
    return "?" if row.state is None else row.state.value


def _style(not_ok: Sequence[str]) -> str:
    return "" if not not_ok else "yellow" if {*not_ok} <= {"?", "WARN"} else "red"


def _seconds(row: JudgedLag) -> str:
    return "?" if row.lag.seconds is None else f"{row.lag.seconds:,.1f}"
