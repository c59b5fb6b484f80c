"""``coldstart doctor``: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.options import Bootstrap, Config, errors_explained, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Terminal, say_json

if TYPE_CHECKING:
    from streams.operations.doctor.checkup import Outcome

_STYLES = {"error": "red", "warning": "yellow", "unknown": "yellow"}
_ERROR, _WARNING = 4, 3


def doctor(
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="A worker's http://host:port; repeatable. Default: both roles' http_port here."),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option("--actor", help="Whose rights the Kafka user must have, such as coldstart-audience."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array of checks: check, asked, seconds, findings.")
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Look for what is wrong: brokers, topics, rights, clock, disk, memory, certificates, model, workers, lag.

    Each finding says what to do. It takes some seconds, and ten more where records wait, to see whether groups make
    progress. It only asks, except for one deletion of an unused key in `operations`, which shows the broker's clock.
    Run it where a worker runs: disk, memory, clock and model are this machine's.

    Exit code: 0 nothing found, 3 warnings or things that could not be checked, 4 errors; 2 where a setting is wrong.

    Examples: coldstart doctor; coldstart doctor --json; coldstart doctor --at http://worker-1:9102 --at worker-2:9102
    """
    from streams.operations.access_rights import ACTORS

    names = [each.name for each in ACTORS]
    if actor is not None and actor not in names:
        raise typer.BadParameter(f"{actor}: no such actor; allowed: {', '.join(names)}", param_hint="--actor")
    with errors_explained():
        settings = settings_from(config, bootstrap)
        from streams.operations.doctor.checkup import examine
        from streams.operations.doctor.finding import Patient

        outcomes = []
        for outcome in examine(Patient(settings, SystemClock(), at or (), actor)):
            outcomes.append(outcome)
            if not as_json:
                _say(outcome)
    if as_json:
        say_json([asdict(outcome) for outcome in outcomes])
    worst = {outcome.worst for outcome in outcomes}
    if worst != {None}:
        raise typer.Exit(_ERROR if "error" in worst else _WARNING)


def _say(outcome: Outcome) -> None:
    terminal = Terminal()
    if not outcome.findings:
        terminal.print(f"{'ok     ' if outcome.asked else 'skipped'}  {outcome.check}", style="dim", soft_wrap=True)
    for finding in outcome.findings:
        style = _STYLES[finding.severity]
        terminal.print(f"{finding.severity:7}  {finding.what}", style=style, soft_wrap=True)
        terminal.print(f"         do: {finding.do}", soft_wrap=True)
