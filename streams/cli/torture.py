"""``coldstart torture``: break it, and see whether the promises hold."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from streams.cli.options import Config, errors_explained, settings_from


def torture(
    seed: Annotated[int, typer.Option(help="Picks the faults, their order and their moments.")] = 0,
    minutes: Annotated[float, typer.Option(min=0.2, help="How long to drive and break; the check comes after.")] = 2.0,
    config: Config = None,
) -> None:
    """Run the whole system on a real broker, break it again and again, then check every promise from the topics alone.

    Exit code 1 when a promise was broken; each is named. The same seed picks the same faults.

    Example: coldstart torture --seed 7 --minutes 10
    """
    from streams.torture.run import torture as run

    console = Console(stderr=True, highlight=False)
    with errors_explained():
        ordeal = run(settings_from(config), seed, minutes * 60, console.print)
    verdict = ordeal.verdict
    typer.echo(
        f"seed {seed}: {len(ordeal.struck)} faults, {verdict.uploads:,} uploads, {verdict.pushes:,} pushes, "
        f"{verdict.preferences:,} preferences, {verdict.dead_letters:,} dead letters"
    )
    for violation in verdict.violations:
        typer.echo(f"BROKEN  {violation}")
    if verdict.violations:
        raise typer.Exit(1)
    typer.echo("every promise was kept")
