"""``coldstart simulate``: what pushes are worth in a simulated world."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.options import Arms, Bootstrap, Config, errors_explained, settings_from, variant_names, writable
from streams.contract.errors import Refused
from streams.runtime.terminal import Table, Terminal, say

if TYPE_CHECKING:
    from streams.testbed.simulation.simulation_figures import Compared
    from streams.testbed.simulation.simulation_run import Worlds


def simulate(
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of worlds; intervals are over them, so take 5 or more.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first world; the others follow.")] = 0,
    users: Annotated[int, typer.Option(min=100, help="Users of a world.")] = 1500,
    songs: Annotated[int, typer.Option(min=10, help="New songs, uploaded during the run.")] = 60,
    warm: Annotated[int, typer.Option(min=100, help="Songs known from the start.")] = 300,
    days: Annotated[int, typer.Option(min=2, help="Simulated days; a song is watched for half, at most 6.")] = 8,
    budget: Annotated[int, typer.Option(min=1, help="Pushes per new song, in every variant.")] = 100,
    day_s: Annotated[float, typer.Option(min=0.5, help="Seconds per simulated day.")] = 3.0,
    warm_at: Annotated[int, typer.Option(min=1, help="Listeners that make a song warm.")] = 20,
    variants: Annotated[str | None, typer.Option(help="Only these, separated by commas; default: all.")] = None,
    arms: Arms = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures here after every variant; extends an existing file."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the HTML report here; default: report.html in --folder.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="For models and logs; default: runs/simulate-TIME in the current folder.")
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Let simulated people live with the real system, in compressed time, and compare ways of pushing.

    All variants have the same users, songs, uploads, budget and caps, and the same luck: what a user would do about a
    song does not depend on the variant. Variants: organic (no pushes), random, i2i2u, evidence, cat-once and cat
    (clustering, deciding once or staying alive), default-once, liking (by taste alone, without activity), pace (the
    rest of a budget is spent by time, not by answers) and default.

    With --json a stopped run is continued, and further seeds and variants are added to the same file.

    Examples: coldstart simulate; coldstart simulate --seeds 5 --json figures.json --variants organic,evidence,default
    """
    from streams.testbed.simulation.push_variants import VARIANTS
    from streams.testbed.simulation.scenario import Scenario
    from streams.testbed.simulation.simulation_report import write_report
    from streams.testbed.simulation.simulation_run import NETEASE, SimulationPlan, Worlds, read, write
    from streams.testbed.simulation.simulation_run import simulate as run

    console = Terminal(stderr=True)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        names = variant_names(variants, arms, all_of=VARIANTS)
        unknown = [name for name in names if name not in VARIANTS]
        if unknown or not names:
            raise Refused(f"--variants: {', '.join(unknown) or 'none'} unknown; allowed: {', '.join(VARIANTS)}")
        scenario = Scenario(
            users=users, warm=warm, new=songs, seed=seed, days=days, watch=min(6, days // 2), budget=budget
        )  # fmt: skip
        where = folder or Path("runs") / f"simulate-{datetime.now():%Y%m%d-%H%M%S}"
        plan = SimulationPlan(scenario, seeds, list(dict.fromkeys(names)), day_s, warm_at, where.resolve(), bootstrap)
        page = report or plan.folder / "report.html"
        writable(json_file, page)
        worlds = Worlds(plan, {name: {} for name in plan.arms}) if json_file is None else read(plan, json_file)
        run(worlds, settings, console, lambda done: None if json_file is None else write(done, json_file))
        write_report(worlds, page, shlex.join(["coldstart", *sys.argv[1:]]))
    for table in _tables(worlds):
        tables.show(table)
    late = max((each.behind_s for runs in worlds.runs.values() for each in runs.values()), default=0.0)
    say(
        "Budgets are limits: a variant that finds too few users spends less and reaches fewer. Compare pushes a user.\n"
        f"Simulated days started up to {late:.2f} s late; a day takes {worlds.plan.day_s:g} s."
    )
    theirs = ", ".join(f"+{100 * value:g} % {name}" for name, value in NETEASE.items())
    say(f"NetEase's paper reports, online and for its own users: {theirs}")
    say(f"report: {page}")


def _tables(worlds: Worlds) -> list[Table]:
    from streams.testbed.simulation.push_variants import COMPARISONS
    from streams.testbed.simulation.simulation_figures import MEASURES

    means = Table("mean of a world", *worlds.runs, title=f"{worlds.seeds} worlds")
    for name, (words, _) in MEASURES.items():
        means.add_row(words, *(number(worlds.mean(arm, name)) for arm in worlds.runs))
    found = {(each.one, each.other, each.measure): each for each in worlds.compared()}
    tables = [means]
    for title, pairs in COMPARISONS.items():
        shown = [pair for pair in pairs if pair[0] in worlds.runs and pair[1] in worlds.runs]
        if not shown:
            continue
        heads = (f"{one} - {other}" for one, other in shown)
        table = Table("difference", *heads, title=f"{title}: 95 % intervals over worlds, *: excludes 0")
        for name, (words, _) in MEASURES.items():
            table.add_row(words, *(interval(found.get((one, other, name))) for one, other in shown))
        tables.append(table)
    return tables


def interval(each: Compared | None) -> str:
    if each is None:
        return "–"
    of = each.difference
    share = "" if each.relative is None else f" ({100 * each.relative:+.1f} %)"
    if each.seeds == 1:
        return f"{of.mean:+.3g}{share}"
    return f"{of.mean:+.3g} [{of.low:+.3g}, {of.high:+.3g}]{share}{' *' if each.clear else ''}"


def number(value: float) -> str:
    return "–" if value != value else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
