"""``coldstart chaos``: breaks a running system and checks its promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Config, errors_explained, settings_from
from streams.cli.tables import show
from streams.runtime.terminal import Table, Terminal, say


def chaos(
    seed: Annotated[int, typer.Option(help="Decides the faults, their order and their times.")] = 0,
    minutes: Annotated[float, typer.Option(min=0.2, help="Minutes of load and faults; the check comes after.")] = 2.0,
    only: Annotated[
        list[str] | None,
        typer.Option("--fault", help="Only this one, such as broker, full or swap; repeatable."),
    ] = None,
    brokers: Annotated[
        int,
        typer.Option(min=1, max=3, help="3: a cluster whose leaders, coordinators, controllers and disks fail, too."),
    ] = 1,
    keep: Annotated[
        Path | None, typer.Option(help="Empty folder for logs, state and models; by default they are deleted.")
    ] = None,
    config: Config = None,
) -> None:
    """Run the whole system on a real broker, break it repeatedly, then check every promise from the topics alone.

    Workers, broker, disks and models fail while songs are uploaded and users listen, answer, opt out, set quiet hours
    and ask to be forgotten, and while hostile records arrive: impossible times, records of 5 MB, ids full of markup,
    aborted uploads. The checker shares no code with what it checks. At the end the state on disk, in the changelog and
    in each worker is compared.

    The last table says how often each promise was tested, that is, could have been broken. Exit code 1 if one was
    broken: each violation begins with the promise's name. The same seed gives the same faults.

    Example: coldstart chaos --seed 7 --minutes 10
    """
    from streams.testbed.chaos.chaos_run import run_chaos as run
    from streams.testbed.chaos.faults import CLUSTER_FAULTS, FAULTS
    from streams.testbed.chaos.promises import PROMISES, name_of
    from streams.testbed.chaos.unexpected_stops import BY_ITSELF
    from streams.testbed.chaos.withdrawal_delay import percentile

    if brokers == 2:
        raise typer.BadParameter("2: neither of two brokers may die; allowed: 1 or 3", param_hint="--brokers")
    known = [*FAULTS, *(CLUSTER_FAULTS if brokers > 1 else ())]
    unknown = sorted(set(only or ()) - {*known})
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: no such fault; allowed: {', '.join(known)}", param_hint="--fault"
        )

    console = Terminal(stderr=True)
    with errors_explained():
        settings = settings_from(config)
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        outcome = run(settings, seed, minutes * 60, console.print, only or (), keep, brokers)
    verdict = outcome.verdict
    kinds = len({words for _, words in outcome.struck})
    by_itself = sum(how.startswith(BY_ITSELF) for how in outcome.ended)
    say(
        f"seed {seed}: {len(outcome.struck)} faults of {kinds} kinds; workers were restarted {len(outcome.ended)} "
        f"times, {by_itself} of them after they had ended by themselves\n"
        f"{verdict.uploads:,} uploads, {verdict.dead_letters:,} bad records in dead-letters, {verdict.spaces} models\n"
        f"{verdict.pushes:,} pushes ({verdict.live:,} after the request, {verdict.deferred:,} deferred), "
        f"{verdict.held_out:,} held out, {verdict.outcomes:,} outcomes, {verdict.listens:,} listens\n"
        f"{verdict.preferences:,} preferences, {verdict.erased:,} users forgotten, {verdict.without_profiling:,} who "
        f"at some time allowed no profiling, {verdict.promoted:,} songs promoted, {verdict.ended:,} campaigns ended\n"
        f"hostile: {', '.join(f'{count:,} {kind}' for kind, count in sorted(outcome.hostile.items()))}\n"
        f"{len(verdict.late):,} opt-outs, erasures and objections, by the broker's clock obeyed within "
        f"{percentile(verdict.late, 0.5):.2f} s (p50), {percentile(verdict.late, 0.99):.2f} s (p99), "
        f"{max(verdict.late, default=0.0):.2f} s (the slowest)"
    )
    of = Counter(name_of(violation) for violation in verdict.violations)
    table = Table("promise", "judged", "broken")
    for name in PROMISES:
        table.add_row(name, f"{verdict.judged[name]:,}" if verdict.judged[name] else "never", f"{of[name]:,}")
    show(table)
    for violation in verdict.violations:
        say(f"BROKEN  {violation}")
    if verdict.violations:
        raise typer.Exit(1)
    say("every promise was kept")
