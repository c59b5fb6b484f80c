"""``coldstart data``: makes a data set, or checks one before training."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TaskProgressColumn, TimeElapsedColumn

from streams.cli import tables
from streams.cli.options import Strict, errors_explained
from streams.runtime.exit_codes import REFUSED
from streams.runtime.terminal import Bars, Table, Terminal, say, say_json

app = typer.Typer(no_args_is_help=True, help="Generate a data set, or check one before training.")


@app.command()
def generate(
    path: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    users: Annotated[int, typer.Option(min=1, help="Users with a taste each.")] = 1000,
    songs: Annotated[int, typer.Option(min=8, help="Songs, eight by an artist.")] = 2000,
    history: Annotated[float, typer.Option(min=1, help="Songs that a user listened to, on average.")] = 50.0,
    seed: Annotated[int, typer.Option(min=0, help="Equal options and seed give the same files.")] = 0,
) -> None:
    """Generate a data set: users, songs with content, and dated listens, in the layout that `train`, `backfill`, and
    `--data` of `demo`, `evaluate` and `backtest` read.

    Users have tastes that drift; content reflects taste only indirectly, and some of it is missing. The truth
    behind it is kept in world.json.

    Example: coldstart data generate data --users 600 --songs 500 --history 20 --seed 1; coldstart data check data
    """
    from encoder.data.generate import World
    from encoder.data.generate import generate as make

    with errors_explained(ValueError), Bars(Terminal(stderr=True), TaskProgressColumn(), TimeElapsedColumn()) as bars:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        task = bars.add_task("users", total=users)
        make(
            World(users=users, songs=songs, history=history, seed=seed),
            path,
            lambda done, total: bars.update(task, completed=done, total=total),
        )
    say(f"{path}: {users:,} users, {songs:,} songs")


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder with interactions.csv.gz, songs.csv.gz and the optional files.")],
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as a JSON object.")] = False,
) -> None:
    """Show what is in a data set, what is dirty, and what would be refused.

    Reads every file completely: rows, columns (filled, unknown, out of range), users, songs, interactions, the span of
    dates, and the number of warm and cold songs by the thresholds of training. Problems are counted, with the first
    lines and values. Exit code 0 if `train` can read it, otherwise 2, with what to do.

    Examples: coldstart data check data/lastfm; coldstart data check data/lastfm --strict --json
    """
    from encoder.data.check import check as look

    console = Terminal(stderr=True)
    with errors_explained(), Bars(console, TaskProgressColumn(), TimeElapsedColumn()) as bars:
        tasks: dict[str, Any] = {}

        def tell(file: str, done: int, size: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(f"reading {file}", total=size)
            bars.update(tasks[file], completed=done)

        checked = look(path, strict, tell)
    told = checked.as_json()
    if as_json:
        say_json(told)
    else:
        _show(told)
        for each in checked.refused:
            say(f"refused: {each.message}" + (f" ({each.count:,} of them)" if each.count > 1 else ""), err=True)
        if checked.unsplit:
            say(f"refused: {checked.unsplit}", err=True)
        if checked.ok:
            say("it can be trained on")
    if not checked.ok:
        raise typer.Exit(REFUSED)


def _show(told: dict[str, Any]) -> None:
    files = Table("file", "bytes", "lines", title=told["folder"])
    columns = Table("file", "column", "filled", "unknown", "out of range", title="columns")
    for each in told["files"]:
        size = "absent" if each["bytes"] is None else f"{each['bytes']:,}"
        files.add_row(each["name"], size, "" if each["lines"] is None else f"{each['lines']:,}")
        for column in each["columns"]:
            numbers = (f"{column[key]:,}" for key in ("filled", "unknown", "out_of_range"))
            columns.add_row(each["name"], column["name"], *numbers)
    whole = Table("what", "how many", title="the whole")
    few = told["least_listeners"]
    span = "undated" if told["first"] is None else f"{told['first']} to {told['last']}"
    for words, value in (
        ("songs", f"{told['songs']:,}"),
        ("of them without a listener", f"{told['songs_without_listeners']:,}"),
        (f"of them with fewer than {few}: neither warm nor cold", f"{told['songs_with_too_few_listeners']:,}"),
        ("warm: trained on", f"{told['warm_songs']:,}"),
        ("cold: held back (seed 0)", f"{told['cold_songs']:,}"),
        ("users", f"{told['users']:,}"),
        ("of them without a listen", f"{told['users_without_listens']:,}"),
        ("interactions (a user and a song)", f"{told['interactions']:,}"),
        ("of them dated", f"{told['dated_interactions']:,}"),
        ("plays", f"{told['plays']:,.0f}"),
        ("first and last date", span),
    ):
        whole.add_row(words, value)
    for table in (files, columns, whole):
        tables.show(table)
    if not told["findings"]:
        say("nothing is dirty")
        return
    dirt = Table("file", "column", "how many", "what", "what is done", "first of them", title="not as it should be")
    for each in told["findings"]:
        places = "; ".join(f"{place['line']}: {place['value'][:40]!r}" for place in each["examples"])
        done = "REFUSED" if each["refused"] else each["cure"]
        dirt.add_row(each["file"], each["column"] or "", f"{each['count']:,}", each["what"], done, places)
    tables.show(dirt)
