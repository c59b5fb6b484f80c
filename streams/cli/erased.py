"""``coldstart erased``: what is still stored about a user."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Table, Terminal, say, say_json

if TYPE_CHECKING:
    from streams.operations.erasure_audit import Request


def erased(
    user_id: Annotated[str, typer.Argument(help="The user's id, as in the events.")],
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="A JSON object: user_id, partition, forgotten, erased_at, no_profiling_since, found (by place), "
            "requests, unknown_keys.",
        ),
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Prove that a user is forgotten: search every topic and this machine's state databases.

    A preferences record with erase_requested_at erases a user. Once it is consumed, the state keeps only a keyed hash
    of the id with the time, so older inputs do not bring the user back. Records in retained topics wait for retention:
    the table says how many, and when they are gone. Kafka deletes whole segments, so a record may outlive that date by
    segment.ms. Other teams must delete what they own: the table says who. A request in a refused record is obeyed all
    the same, and shown with the reason. Of a user who allows no profiling the state holds nothing either, only since
    when. The search reads the user's partition of the audience's topics and all of the other topics completely, which
    takes time on large ones.

    Exit code 0: the state holds nothing of the user. 1: it does; the table says what.

    Example: coldstart erased u-5 --json
    """
    console = Terminal(stderr=True)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        from streams.audience.main import stores
        from streams.operations.erasure_audit import trace

        clock, naming = SystemClock(), naming_of(settings)
        with console.status("reading") as status:
            traces = trace(
                settings.kafka, naming, clock, user_id, settings.audience.erasure_keys, stores(settings, clock),
                settings.paths.state / naming.prefix, lambda words: status.update(Text(words)),
            )  # fmt: skip
    if as_json:
        say_json({"forgotten": traces.forgotten, **asdict(traces)})
        raise typer.Exit(0 if traces.forgotten else 1)
    table = Table(title=f"{user_id}, partition {traces.partition}")
    table.add_column("place", no_wrap=True)
    table.add_column("records", justify="right")
    for name in ("deleted from", "deleted by", "what it is, and who must act"):
        table.add_column(name)
    with_records = [each for each in traces.found if each.records or each.state]
    for each in with_records:
        row = (each.place, str(each.records), _day(each.gone_from), _day(each.gone_by), each.words)
        table.add_row(*row, style="red" if each.state else "")
    if with_records:
        tables.show(table)
    without = [each.place for each in traces.found if each not in with_records]
    say(f"nothing about {user_id} in {', '.join(without)}")
    if traces.no_profiling_since is not None:
        say(
            f"profiling is off since {_day(traces.no_profiling_since)}: nothing that this user hears is kept, and "
            "nothing is pushed, until a preferences record allows it again"
        )
    if traces.erased_at is None:
        say("no erasure of this user was consumed")
        for of, count in traces.unknown_keys.items():
            say(
                f"or it is one of {count} that are remembered with another key, of fingerprint {of}: name it in "
                "audience.former_erasure_keys"
            )
    else:
        say(f"forgotten up to {_day(traces.erased_at)}")
    for request in traces.requests:
        say(_told(request))
    if traces.forgotten:
        say("the state holds nothing of this user")
        return
    held = [f"{each.place} ({each.words})" for each in traces.found if each.state]
    say(f"the state still holds: {'; '.join(held)}")
    raise typer.Exit(1)


def _told(request: Request) -> str:
    """What became of a request, in words."""
    what = f"the request of {_day(request.asked_at)} at {request.place}"
    if request.refused is not None:
        what += f", in dead-letters for {request.refused!r},"
    if request.key is not None:
        return f"{what} has the key {request.key!r}, and is not obeyed: send it again with the user's id as the key"
    if request.misplaced and not request.obeyed:
        return f"{what} lies in the wrong partition, and is not obeyed: send it again, partitioned by murmur2"
    return f"{what} {'was obeyed' if request.obeyed else 'still waits: no worker has consumed it'}"


def _day(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
