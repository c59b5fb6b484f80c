"""``coldstart backfill``: an existing catalogue and its listening history come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from streams.cli.options import Bootstrap, Config, Strict, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Bars, Terminal, say


def backfill(
    data: Annotated[Path, typer.Option("--data", help="Folder in the layout that `coldstart data check` reads.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Artifact to publish first: its warm songs are the catalogue.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the audience's workers have consumed all of it.")] = True,
    strict: Strict = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Load a catalogue and aggregated history: each user's plays of a song as one listen with `plays`.

    Run it again after an interruption: it resumes, and nothing counts twice. What was loaded completely is not loaded
    again. Workers may run meanwhile, or start afterwards: then with --no-wait.

    Example: coldstart backfill --data data/lastfm --model models/m1
    """
    from encoder.data.layout import read_dataset
    from streams.models.publish import publish
    from streams.operations.backfill import history_of, load, wait_until_consumed

    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with errors_explained():
        settings = settings_from(config, bootstrap)
        kafka, naming, clock = settings.kafka, naming_of(settings), SystemClock()
        with Bars(Terminal(stderr=True), *columns) as bars:
            tasks: dict[str, Any] = {}

            def tell(words: str, done: int, total: int) -> None:
                if words not in tasks:
                    tasks[words] = bars.add_task(words, total=total)
                bars.update(tasks[words], completed=done, total=total)

            if model is not None:
                publish(model, kafka, naming, clock, lambda done, total: tell("warm songs", done, total))
            history = history_of(
                read_dataset(data, strict, lambda file, done, size: tell(f"reading {file}", done, size))
            )
            found = load(kafka, naming, clock, history, lambda done, total: tell("listens", done, total))
            consumed = None
            if wait:
                consumed = wait_until_consumed(kafka, naming, clock, lambda done, total: tell("consumed", done, total))
    if found.before:
        say(f"{found.before:,} of {len(history):,} listens were there")
    if found.sent:
        say(f"{found.sent:,} listens sent in {found.seconds:,.1f} s: {found.sent / found.seconds:,.0f}/s")
    if consumed is not None and found.sent:
        whole = found.seconds + consumed
        say(f"all of it consumed {consumed:,.1f} s later: {found.sent / whole:,.0f}/s from end to end")
