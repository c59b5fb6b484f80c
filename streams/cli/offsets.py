"""``coldstart offsets``: where groups stand, past a record that stops one, and back to the state."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.settings import Settings
from streams.runtime.terminal import Table, say, say_json

if TYPE_CHECKING:
    from streams.operations.move_group import Move

app = typer.Typer(
    no_args_is_help=True,
    help="Show where groups stand, and move a stopped one past records that it cannot serve.",
)

Group = Annotated[
    str, typer.Argument(help="Group without the prefix: songs, audience, or another team's, such as pushes.")
]
Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without this: a dry run.")]


def patience(settings: Settings) -> float:
    """How long a worker that was killed may stay in its group."""
    return 5 + max(settings.audience.session_timeout_s, settings.songs.session_timeout_s)


@app.command()
def show(
    group: Annotated[str | None, typer.Option("--group", help="Only this one, without the prefix.")] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="A JSON array: group, topic, partition, first, committed, state, end, waiting."),
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show each group's offset in each partition, what is kept there, and where the audience's state stands.

    Exit code 1: the audience's group and its state disagree, while its workers are stopped. They would refuse to
    start; `coldstart offsets reset audience --to-state` makes the group follow the state.

    Example: coldstart offsets show --group audience
    """
    from streams.operations.group_positions import positions

    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming = naming_of(settings)
        rows = positions(settings.kafka, naming, SystemClock(), group)
    if as_json:
        say_json([asdict(each) for each in rows])
    elif not rows:
        say("no group has committed an offset" if group is None else f"group {group} has committed no offset")
    else:
        table = Table("group", "topic", title=f"groups and topics {naming.prefix}…")
        for name in ("part", "kept from", "committed", "state", "end", "waiting"):
            table.add_column(name, justify="right")
        for each in rows:
            numbers = (each.partition, each.first, each.committed, each.state, each.end, each.waiting)
            names = (each.group.removeprefix(naming.prefix), each.topic.removeprefix(naming.prefix))
            cells = ("-" if number is None else str(number) for number in numbers)
            table.add_row(*names, *cells, style="red" if each.torn else "")
        tables.show(table)
    if any(each.torn for each in rows):
        raise typer.Exit(1)


@app.command()
def skip(
    group: Group,
    topic: Annotated[str, typer.Argument(help="The topic, without the prefix.")],
    partition: Annotated[int, typer.Argument(min=0, help="Partition of the topic.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many records.")] = 1,
    apply: Apply = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Make a stopped group skip the next records of a partition. They become dead letters, so nothing is lost.

    For a record at which every worker dies. Offset, state and dead letters change in one transaction; once the cause
    is fixed, `coldstart dead-letters replay` brings the records back.

    Example: coldstart offsets skip audience listens 3 --apply
    """
    from streams.operations.move_group import GroupMover

    with errors_explained():
        settings = settings_from(config, bootstrap)
        mover = GroupMover(settings.kafka, naming_of(settings), SystemClock(), group)
        move = mover.plan_skip(topic, partition, count)
        if apply:
            mover.make([move], patience(settings))
    what = "skipped" if apply else "would skip"
    for message in move.skipped:
        say(f"{what} {move.topic}[{partition}] at {message.offset()}, key {_key(message.key())}")
    told([move], apply)


@app.command()
def reset(
    group: Annotated[str, typer.Argument(help="audience: the only group with a state.")],
    to_state: Annotated[bool, typer.Option("--to-state", help="Move the group to where its state stands.")] = False,
    apply: Apply = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Move the audience's stopped group to where its state stands, after somebody moved the group by hand.

    To move a group back, use `coldstart rewind`.

    Example: coldstart offsets reset audience --to-state --apply
    """
    from streams.contract.topics import AUDIENCE_STATE
    from streams.operations.adopt_topic import adopt
    from streams.operations.group_positions import positions
    from streams.operations.move_group import AUDIENCE

    if group != AUDIENCE or not to_state:
        raise typer.BadParameter("only `audience --to-state` can be reset; `coldstart rewind` moves a group back")
    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming, clock = naming_of(settings), SystemClock()
        torn = [each for each in positions(settings.kafka, naming, clock, group) if each.torn]
        for each in torn:
            say(f"{each.topic}[{each.partition}]: the group stands at {each.committed}, the state at {each.state}")
        if not torn:
            say("group and state agree")
        elif apply:
            say(adopt(settings.kafka, naming, AUDIENCE_STATE.name, clock, patience(settings)))
        else:
            say("nothing was changed; add --apply")


def told(moves: list[Move], apply: bool) -> None:
    """Say what was moved, or would be."""
    for move in moves:
        say(f"{move.topic}[{move.partition}]: {move.now} -> {move.then} ({move.then - move.now:+,})")
    if not moves:
        say("nothing to move")
    elif not apply:
        say("nothing was changed; add --apply")


def _key(key: bytes | None) -> str:
    return "none" if key is None else repr(key.decode("utf-8", "backslashreplace"))
