"""``coldstart backtest``: replays the past in event time, and judges who would have been pushed."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.evaluate import finite
from streams.cli.options import (
    Arms,
    Bootstrap,
    Config,
    Strict,
    errors_explained,
    settings_from,
    variant_names,
    writable,
)
from streams.contract.errors import Refused
from streams.runtime.terminal import Table, Terminal, bold, say

if TYPE_CHECKING:
    from streams.testbed.backtest.backtest_figures import BacktestOutcome
    from streams.testbed.backtest.broker_replay import Streamed
    from targeting.evaluation.paired import Difference


def backtest(
    data: Annotated[Path | None, typer.Option(help="Data set with dated listens; by default one is generated.")] = None,
    users: Annotated[int, typer.Option(min=100, help="Users in the generated data set.")] = 3000,
    songs: Annotated[
        int, typer.Option(min=100, help="Songs in the generated data set; some of them appear late.")
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the data set and the trainings.")] = 0,
    history: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of the listens that are already past at the start.")
    ] = 0.5,
    budget: Annotated[int, typer.Option(min=1, help="Pushes per song, in every variant.")] = 200,
    window: Annotated[float, typer.Option(min=0.01, help="Days after a push in which the listen must come.")] = 14.0,
    campaign: Annotated[float, typer.Option(min=0.01, help="Days for which a song is pushed.")] = 7.0,
    retrain: Annotated[float, typer.Option(min=0.1, help="Days between trainings.")] = 30.0,
    refresh: Annotated[float, typer.Option(min=0.1, help="Days between checks for songs that became warm.")] = 1.0,
    variants: Annotated[str | None, typer.Option(help="Only these and the default, separated by commas.")] = None,
    arms: Arms = None,
    audit: Annotated[
        int, typer.Option(min=0, help="Uploads at which the future is deleted, to check that no decision knew it.")
    ] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the HTML report here; default: report.html in --folder.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="For a generated data set; default: runs/backtest-TIME in the current folder.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Also play it through Kafka and an audience worker, and compare.")
    ] = False,
    strict: Strict = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Replay dated listens in event time: who would have been pushed, and who listened?

    A song is uploaded at its first listen. Models, index and users know only the past, and are renewed at the given
    intervals. A push is right if its user listens later, unprompted, within the window. Baselines have the same budget
    and caps. Exit code 1 if the audit finds a decision that knew the future.

    Runs in this process, without Kafka. With --stream the default is played again through a broker (started for it, or
    the one of --bootstrap-servers) and an audience worker, step by step, with event time as the clock. Every push must
    be the same in song, user, times and score to six digits, and the state must be equal to the bit, in the worker and
    restored from its changelog. Exit code 1 if anything differs.

    Examples: coldstart backtest --data PATH --json figures.json; coldstart backtest --users 5000 --variants evidence;
    coldstart backtest --users 500 --songs 600 --variants default --stream
    """
    from streams.audience.main import targeting_config
    from streams.testbed.backtest.plan import DEFAULT, VARIANTS, BacktestPlan

    console = Terminal(stderr=True)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        names = variant_names(variants, arms, all_of=VARIANTS)
        unknown = [name for name in names if name not in VARIANTS]
        if unknown:
            raise Refused(f"--variants: {', '.join(unknown)} unknown; allowed: {', '.join(VARIANTS)}")
        rules = targeting_config(settings.audience, obey=True)
        # Random holdout and exploration would blur the differences between variants.
        rules = replace(rules, policy=replace(rules.policy, holdout=0.0, exploration=0.0))
        where = (folder or Path("runs") / f"backtest-{datetime.now():%Y%m%d-%H%M%S}").resolve()
        plan = BacktestPlan(
            data=data, users=users, songs=songs, seed=seed, history=history, budget=budget, window_days=window,
            campaign_days=campaign, retrain_days=retrain, refresh_days=refresh,
            warm_listeners=settings.songs.warm_listeners, neighbours=settings.songs.neighbours, cuts=audit,
            arms=tuple(name for name in VARIANTS if name in (*names, DEFAULT)), rules=rules, folder=where,
            strict=strict, stream=settings if stream else None, embedded=bootstrap is None,
        )  # fmt: skip
        page = report or where / "report.html"
        try:
            import encoder.train  # noqa: F401
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise Refused("a backtest needs torch: pip install 'coldstart[train]'") from None
        from streams.testbed.backtest.backtest_report import write_report
        from streams.testbed.backtest.backtest_run import run

        writable(json_file, page)
        outcome = run(plan, console)
        if json_file is not None:
            figures = json.dumps(finite(outcome.as_json()), indent=2, allow_nan=False)
            json_file.write_text(f"{figures}\n", encoding="utf-8")
        write_report(outcome, page, shlex.join(["coldstart", *sys.argv[1:]]))
    for table in _tables(outcome):
        tables.show(table)
    say(f"report: {page}")
    for leak in outcome.leaks or ():
        say(f"LEAK at {_moment(leak.cut)}: {leak.where}", err=True)
    if outcome.leaks:
        say("decisions knew the future: these figures mean nothing", err=True)
    if outcome.streamed and not outcome.streamed.alike:
        say(f"the stream decided differently: {outcome.streamed.first or 'its state differs'}", err=True)
    if outcome.leaks or (outcome.streamed and not outcome.streamed.alike):
        raise typer.Exit(1)


def _tables(outcome: BacktestOutcome) -> list[Table]:
    from streams.testbed.backtest.backtest_figures import MEASURES
    from streams.testbed.backtest.plan import DEFAULT, VARIANTS

    happened = Table("what happened", "", title=f"{outcome.dataset}: {outcome.users:,} users")
    checked = "no" if outcome.leaks is None else f"{len(outcome.leaks)} leaks at {outcome.cuts} uploads"
    for words, value in (
        ("listens", f"{outcome.listens:,}"),
        ("left out: without a date", f"{outcome.undated:,}"),
        ("replayed from", f"{_moment(outcome.start)} to {_moment(outcome.last)}"),
        ("trainings on the past", str(outcome.trainings)),
        ("songs uploaded at their first listen", f"{outcome.uploads:,}"),
        ("of them judged: their window ends in time", f"{len(outcome.songs):,}"),
        ("their later listeners", f"{outcome.later:,}"),
        ("of them known at the upload", f"{outcome.known:,}"),
        ("right pushes possible per song", f"{outcome.ceiling:.2f}"),
        ("audit: decisions that knew the future", checked),
        *_streamed(outcome.streamed),
        ("CPU seconds", f"{sum(outcome.seconds.values()):,.0f}"),
    ):
        happened.add_row(words, value)
    right = Table(
        "who was pushed", "pushes", "right", "live", "right a song", "of pushes", "of listeners", "songs with one",
        title=f"Who listened within {outcome.plan.window_days:g} days of the push?",
    )  # fmt: skip
    for name in outcome.arms:
        of = outcome.totals(name)
        right.add_row(
            bold(VARIANTS[name].words) if name == DEFAULT else VARIANTS[name].words,
            f"{of['pushes']:,.0f}", f"{of['right']:,.0f}", f"{of['right_live']:,.0f}", f"{of['right_per_song']:.3f}",
            *(_share(of[key]) for key in ("rate", "found", "songs_with_one")),
        )  # fmt: skip
    beside = Table("default minus", *MEASURES.values(), title="95 % intervals over songs, *: excludes 0")
    for name, differences in outcome.compared().items():
        beside.add_row(name, *(_interval(differences.get(measure)) for measure in MEASURES))
    return [happened, right, *([beside] if beside.row_count else [])]


def _streamed(of: Streamed | None) -> list[tuple[str, str]]:
    if of is None:
        return []
    state = "the same" if of.state and of.restored else "different"
    return [
        ("on the stream: the same pushes as in process", f"{of.same:,} of {max(of.pushes, of.expected):,}"),
        ("the worker's state, and what its changelog restores", state),
        ("its batches; steps that it split", f"{of.batches:,}; {of.split:,}"),
        ("pushes that differ without the split", f"{of.moved:,}"),
        ("seconds on the stream", f"{of.seconds:,.0f}"),
    ]


def _interval(each: Difference | None) -> str:
    if each is None:
        return "–"
    return f"{each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]{' *' if each.low > 0 or each.high < 0 else ''}"


def _share(value: float) -> str:
    return "–" if value != value else f"{100 * value:.2f} %"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
