"""``coldstart rewind``: a stopped group reads again."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.moments import MOMENT, moment
from streams.cli.offsets import Apply, Group, patience, told
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock


def rewind(
    group: Group,
    to: Annotated[str | None, typer.Option("--to", help=f"Where reading begins. {MOMENT}")] = None,
    by: Annotated[int | None, typer.Option("--by", min=1, help="Offsets to go back, in each partition.")] = None,
    to_beginning: Annotated[bool, typer.Option("--to-beginning", help="To the oldest record that is kept.")] = False,
    topic: Annotated[list[str] | None, typer.Option(help="Only this one, without the prefix; repeatable.")] = None,
    recount_listens: Annotated[
        bool, typer.Option("--recount-listens", help="Rewind listens, too: plays in that span then count twice.")
    ] = False,
    apply: Apply = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Move a stopped group back, so that it reads again. Nobody gets a push twice.

    Records that are read again change nothing: a request of a revision is served once, outcomes
    are marks, and who was pushed a recording is remembered. Listens are sums, so the audience's are left where they
    are unless you say --recount-listens. Preferences and vectors from outside are read from the beginning at every
    start anyway. The audience's state and its group move in one transaction. Other teams' groups may be moved, too:
    their consumers must know push_ids that they sent.

    Examples: coldstart rewind audience --to 2h; coldstart rewind songs --topic song-uploads --to-beginning --apply
    """
    from streams.operations.move_group import GroupMover, RewindTarget

    if sum((to is not None, by is not None, to_beginning)) != 1:
        raise typer.BadParameter("say where to: one of --to, --by and --to-beginning")
    target = RewindTarget(moment(to, "--to"), by)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        mover = GroupMover(settings.kafka, naming_of(settings), SystemClock(), group)
        moves = mover.plan_rewind(target, topic or (), recount_listens)
        if apply and moves:
            mover.make(moves, patience(settings))
    told(moves, apply)
