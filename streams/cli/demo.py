"""``coldstart demo``: the main job on this machine, measured."""

from __future__ import annotations

import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, Strict, errors_explained, settings_from, writable
from streams.cli.worker import POLICY, PolicySwitch
from streams.runtime.terminal import Table, Terminal, bold, say


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Data set in the layout that `coldstart data check` reads; default: a generated one."),
    ] = None,
    users: Annotated[int, typer.Option(min=100, help="Users in the generated data set.")] = 5000,
    songs: Annotated[
        int, typer.Option(min=100, help="Songs in the generated data set; a tenth is uploaded as cold.")
    ] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of the data set, the split and the training.")] = 0,
    rate: Annotated[float, typer.Option(min=0.1, help="Uploads a second.")] = 20.0,
    warm_up: Annotated[int, typer.Option(min=0, help="First uploads, which do not count for latency.")] = 100,
    poison: Annotated[int, typer.Option(min=0, help="Malformed uploads mixed in; each must become a dead letter.")] = 0,
    budget: Annotated[int, typer.Option(min=1, help="Pushes per song, 70 % of them at once.")] = 500,
    audience_workers: Annotated[int, typer.Option(min=1, help="Audience workers.")] = 2,
    partitions: Annotated[int, typer.Option(min=1, help="Audience partitions.")] = 4,
    policy: Annotated[PolicySwitch, typer.Option(help=POLICY)] = PolicySwitch.OFF,
    swap: Annotated[
        bool, typer.Option("--swap", help="Then publish a second model under load, and roll back to the first.")
    ] = False,
    swap_seconds: Annotated[
        float, typer.Option(min=1, help="With --swap: seconds of steady uploads before, between and after the two.")
    ] = 10.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the HTML report here; default: report.html in --folder.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="For data, model and logs; default: runs/demo-TIME in the current folder.")
    ] = None,
    strict: Strict = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Run the main job: songs nobody has heard are uploaded, the people who will love them come out.

    Starts a real Apache Kafka, trains and publishes the encoder, starts one songs worker and two audience workers,
    replays the listens of the warm songs, uploads the cold ones, and compares the pushed users with the real listeners.
    Exit code 1 if an upload was not answered, a push came twice, a malformed upload has no dead letter or, with --swap,
    an upload waited more than a second for a model.

    Examples: coldstart demo; coldstart demo --data PATH --json figures.json; coldstart demo --poison 50;
    coldstart demo --swap
    """
    from streams.testbed.demo.demo_report import write_report
    from streams.testbed.demo.demo_run import DemoPlan, run

    console = Terminal(stderr=True)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        where = folder or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
        plan = DemoPlan(
            data=data, users=users, songs=songs, seed=seed, rate=rate, warm_up=warm_up, poison=poison, budget=budget,
            audience_workers=audience_workers, partitions=partitions, obey=policy is PolicySwitch.ON,
            folder=where.resolve(), config=config, bootstrap=bootstrap,
            swap_s=swap_seconds if swap else None, strict=strict,
        )  # fmt: skip
        page = report or plan.folder / "report.html"
        writable(json_file, page)
        outcome = run(plan, settings, console)
        figures = outcome.as_json()
        if json_file is not None:
            json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        write_report(outcome, page, shlex.join(["coldstart", *sys.argv[1:]]))
    for table in _tables(figures):
        tables.show(table)
    say(f"report: {page}")
    if outcome.swapped and outcome.swapped.verdict:
        say(f"swap: {outcome.swapped.verdict}", err=True)
    if not outcome.complete:
        say("NOT every upload was answered correctly and in time; see the figures above and the logs", err=True)
        raise typer.Exit(1)


def _tables(figures: dict[str, object]) -> list[Table]:
    """The figures as tables."""
    flat = json.loads(json.dumps(figures))
    happened = Table("what happened", "", title=f"{flat['dataset']}: {flat['users']:,} users")
    for words, value in (
        ("warm songs, trained on", f"{flat['warm_songs']:,}"),
        ("listens replayed", f"{flat['listens']:,}"),
        ("cold songs uploaded", f"{flat['uploads']:,}"),
        (f"answered by all {flat['partitions']} partitions", f"{flat['uploads_answered_by_every_partition']:,}"),
        ("malformed uploads in dead-letters", f"{flat['dead_letters']:,}"),
        ("push targets", f"{flat['push_targets']:,}"),
        ("duplicates", f"{flat['pushes_doubled']:,}"),
        ("upload → first push, p50 / p99", _latency(flat["latency_ms"]["first"])),
        ("upload → last push, p50 / p99", _latency(flat["latency_ms"]["last"])),
        ("peak memory, all processes", f"{flat['memory_mb']['total']:,} MB"),
    ):
        happened.add_row(words, value)
    right = Table(
        "who was pushed", "precision@50", "@100", "@200", "recall@200",
        title=f"Of the people pushed, how many really listen? ({flat['judged_songs']} songs with 20+ listeners)",
    )  # fmt: skip
    words_of: dict[str, RenderableType] = {
        "coldstart": bold("coldstart"),
        "evidence": "heard similar songs, ranked",
        "i2i2u": "heard similar songs, unranked",
        "random": "anybody",
    }
    for arm, who in words_of.items():
        cuts = flat["precision"][arm]
        right.add_row(who, *(_share(cuts[cut]) for cut in ("50", "100", "200")), _share(flat["recall_200"][arm]))
    tables = [happened, right]
    if flat["liking"] is not None:
        would = Table(
            "who was pushed", "of 50", "of 100", "of 200",
            title="How likely is a pushed person to like the song? (known, because the data are made)",
        )  # fmt: skip
        for arm, who in words_of.items():
            would.add_row(who, *(_share(flat["liking"][arm][cut]) for cut in ("50", "100", "200")))
        tables.append(would)
    sizes = Table("listeners of the song", "songs", "coldstart", "evidence", title="R-precision by audience size")
    for bucket, arms in flat["r_precision"].items():
        sizes.add_row(bucket, f"{arms['songs']:.0f}", _share(arms["coldstart"]), _share(arms["evidence"]))
    tables.append(sizes)
    return [*tables, _swaps(flat["swap"])] if flat["swap"] else tables


def _swaps(swap: dict[str, Any]) -> Table:
    """Uploads during a swap of models and its rollback."""
    table = Table(
        "uploads sent", "for", "uploads", "failed", "p50 / p99 / longest ms", "by 1st / 2nd / both",
        title="While models replaced each other: upload → last partition's pushes",
    )  # fmt: skip
    words = {"swap": "2nd published", "rollback": "1st again"}
    for phase, each in swap["phases"].items():
        waits = "no push"
        if each["p50_ms"] is not None:
            waits = f"{each['p50_ms']:.0f} / {each['p99_ms']:.0f} / {each['longest_ms']:.0f}"
        by = " / ".join(str(each["spaces"][name]) for name in ("first", "second", "both"))
        row = (f"{each['seconds']:.1f} s", str(each["uploads"]), str(each["failed"]), waits, by)
        table.add_row(words.get(phase, phase), *row)
    return table


def _latency(values: dict[str, float | None]) -> str:
    p50, p99 = values["p50"], values["p99"]
    return "nothing pushed" if p50 is None or p99 is None else f"{p50:.0f} / {p99:.0f} ms"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
