"""``coldstart validate``: would the service take the events in a file?"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.progress import TaskProgressColumn, TextColumn, TimeRemainingColumn

from streams.cli.options import errors_explained
from streams.runtime.terminal import Bars, Terminal, say, say_json

if TYPE_CHECKING:
    from streams.operations.event_files import EventFile, Form
    from streams.operations.file_check import BadEvent, FileCheck

_BATCH = 1000

LINES = "Events, one a line: structured CloudEvents, or data alone with --type; or CSV."
"""What a file of events holds, in help."""

File = Annotated[Path, typer.Argument(help=f"{LINES} -: stdin.")]
Type = Annotated[
    str | None,
    typer.Option("--type", help="Lines are the data of this event alone: song.uploaded, listen, push-outcome, ..."),
]
Csv = Annotated[bool, typer.Option("--csv", help="The file is CSV; so is one whose name ends with .csv.")]
Shown = Annotated[int, typer.Option("--show", min=0, help="How many findings are printed; all are counted.")]


def validate(
    file: File,
    type_: Type = None,
    as_csv: Csv = False,
    show: Shown = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings and counts as a JSON object.")] = False,
) -> None:
    """Say for each event in a file whether the service would take it: the same code decides.

    For each that it would not: line, field, what was found there and what is allowed. A field that no event has is
    ignored by the service; where it looks like a known one that is missing, that is a finding, too. Exit code 0: all
    would be taken; 1: some would not; 2: the file cannot be read.

    Columns of CSV are the fields of an upload; lists are separated by semicolons, tags are "dream pop:3;shoegaze:1".

    Examples: coldstart validate songs.csv; coldstart validate songs.ndjson --type song.uploaded;
    zcat events.gz | coldstart validate -
    """
    from streams.operations.file_check import FileCheck

    check = FileCheck()
    printed: list[BadEvent] = []
    began = time.monotonic()
    with errors_explained(), opened(file, type_, as_csv) as events:
        for each in judged(events, check, size_of(file)):
            if len(printed) < show:
                printed.append(each)
    seconds = time.monotonic() - began
    if as_json:
        from dataclasses import asdict

        ignored = [{"event": event, "field": name, **asdict(each)} for (event, name), each in check.ignored.items()]
        findings = [asdict(each) for each in printed]
        say_json({"events": check.events, "bad": check.bad, "findings": findings, "ignored": ignored})
    else:
        tell(check, printed)
        rate = f"{check.events / max(seconds, 1e-9):,.0f} a second"
        say(f"{check.events:,} events, {check.bad:,} would be refused or misread ({seconds:.1f} s, {rate})")
    if check.bad:
        raise typer.Exit(1)


@contextmanager
def opened(file: Path, type_: str | None, as_csv: bool) -> Iterator[EventFile]:
    """The events of a file, or of standard input.

    Raises:
        Refused: the type is none.
    """
    from streams.operations.event_files import EventFile

    form, ce_type = form_of(file, as_csv), type_of(type_)
    stream: BinaryIO = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    with stream:
        yield EventFile(stream, form, ce_type)


def form_of(file: Path, as_csv: bool) -> Form:
    from streams.operations.event_files import Form

    return Form.CSV if as_csv or file.suffix.lower() == ".csv" else Form.NDJSON


def type_of(name: str | None) -> str | None:
    from streams.operations.event_files import event_type

    return None if name is None else event_type(name)


def size_of(file: Path) -> int | None:
    """Bytes of a file; None of what has no size."""
    return os.stat(file).st_size or None if file.is_file() else None


def judged(events: EventFile, check: FileCheck, size: int | None) -> Iterator[BadEvent]:
    """All findings, behind a progress bar."""
    with bars("validating", size) as tick:
        while batch := events.take(_BATCH):
            yield from check.look(batch, time.time())
            tick(events.done, check.events)


@contextmanager
def bars(words: str, size: int | None) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over the bytes of a file, with the number of events."""
    columns = TaskProgressColumn(), TextColumn("{task.fields[events]:,} events", markup=False), TimeRemainingColumn()
    with Bars(Terminal(stderr=True), *columns) as shown:
        task = shown.add_task(words, total=size, events=0)
        yield lambda done, events: shown.update(task, completed=done, events=events)


def tell(check: FileCheck, findings: list[BadEvent]) -> None:
    """Print findings, and what is ignored."""
    for each in findings:
        say(f"line {each.line}: {each.field}: {each.message}")
    if check.bad > len(findings):
        say(f"... and {check.bad - len(findings):,} more")
    for (event, name), noted in check.ignored.items():
        say(f"ignored: {name}, which {event} does not have (first in line {noted.line}, {noted.events:,} in all)")
