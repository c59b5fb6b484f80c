"""``coldstart dead-letters``: which records were refused and why, and how they are sent again."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.moments import MOMENT, moment, shown_time
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, refuse, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Bars, Table, Terminal, say, say_json

if TYPE_CHECKING:
    from streams.operations.buried_records import LetterFilter

app = typer.Typer(no_args_is_help=True, help="List, count, replay and drop refused records.")

Since = Annotated[str | None, typer.Option("--since", help=f"Written at or after this. {MOMENT}")]
Until = Annotated[str | None, typer.Option("--until", help="Written before this.")]
Stage = Annotated[
    str | None, typer.Option("--stage", help="Stage that refused it, or how its name begins: songs, audience.listens.")
]
InTopic = Annotated[str | None, typer.Option("--topic", help="Topic it was read from, without the prefix.")]
Why = Annotated[str | None, typer.Option("--reason", help="The error's class, or a part of its message.")]
Source = Annotated[str | None, typer.Option("--source", help="Who sent it: its ce_source.")]
Offsets = Annotated[list[int] | None, typer.Option("--offset", help="Its offset in dead-letters; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON array instead of a table.")]
All = Annotated[bool, typer.Option("--all", help="Take all; needed where no filter says which.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without this: a dry run.")]


@app.command("list")
def list_letters(
    since: Since = None,
    until: Until = None,
    stage: Stage = None,
    topic: InTopic = None,
    reason: Why = None,
    source: Source = None,
    done: Annotated[bool, typer.Option("--done", help="Also those that were replayed or dropped.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 50,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """List refused records that nobody has dealt with, the newest last.

    Example: coldstart dead-letters list --since 2h --stage songs --source acme/uploads
    """
    from streams.operations.buried_records import as_json as told
    from streams.operations.buried_records import read_letters

    wanted = _filter(since, until, stage, topic, reason, source, done=done)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        found = list(read_letters(settings.kafka, naming_of(settings), SystemClock(), wanted))
    if as_json:
        say_json([told(each) for each in found[-limit:]])
        return
    table = Table("offset", "written", "record", "stage", "error", "source", "id", "reason", "done")
    for each in found[-limit:]:
        place = f"{each.topic}[{each.partition}] at {each.record_offset}"
        table.add_row(
            str(each.offset), shown_time(each.at), place, each.stage, each.error, each.source, each.id,
            each.reason[:200], each.done,
        )  # fmt: skip
    if found:
        tables.show(table)
    say(f"{len(found):,} letters" + (f", the newest {limit} of them shown" if len(found) > limit else ""))


@app.command()
def show(
    offset: Annotated[int, typer.Argument(min=0, help="Offset in dead-letters, as `list` shows it.")],
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show one letter as JSON: the reason, and the record as it came, bytes that are not text as hex.

    Example: coldstart dead-letters show 17
    """
    from streams.operations.buried_records import LetterFilter, as_json, read_letters

    with errors_explained():
        settings = settings_from(config, bootstrap)
        wanted = LetterFilter(offsets=[offset], done=True)
        found = next(iter(read_letters(settings.kafka, naming_of(settings), SystemClock(), wanted)), None)
    if found is None:
        refuse(f"there is no dead letter at {offset}; `coldstart dead-letters list` shows which there are")
    say_json(as_json(found, whole=True))


@app.command()
def stats(
    since: Since = None,
    until: Until = None,
    stage: Stage = None,
    topic: InTopic = None,
    source: Source = None,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Count refused records by source and reason, most first, so that a producer sees what to fix.

    Values in a reason that differ between records are left out: one line is one error. `example` is an offset for
    `show`.

    Example: coldstart dead-letters stats --since 1d --source acme/uploads
    """
    from streams.operations.buried_records import by_reason, read_letters

    wanted = _filter(since, until, stage, topic, None, source)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        groups = by_reason(read_letters(settings.kafka, naming_of(settings), SystemClock(), wanted))
    if as_json:
        say_json([asdict(each) for each in groups])
        return
    table = Table("letters", "topic", "source", "stage", "error", "reason", "first", "last", "example")
    for each in groups:
        table.add_row(
            f"{each.letters:,}", each.topic, each.source, each.stage, each.error, each.reason[:200],
            shown_time(each.first), shown_time(each.last), str(each.example),
        )  # fmt: skip
    if groups:
        tables.show(table)
    say(f"{sum(each.letters for each in groups):,} letters of {len(groups)} reasons")


@app.command()
def replay(
    since: Since = None,
    until: Until = None,
    stage: Stage = None,
    topic: InTopic = None,
    reason: Why = None,
    source: Source = None,
    offset: Offsets = None,
    everything: All = False,
    apply: Apply = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Send refused records again, through the topic that they came from, under the same id. Dry run without --apply.

    Each is judged by this version's rules before it is sent: what would be refused again stays where it is. A record
    of preferences or vectors is sent only if its key has no newer one. Each letter is sent once, in a transaction with
    a note of it: a second replay sends nothing.

    Example: coldstart dead-letters replay --reason timezone --since 1d --apply
    """
    from streams.operations.buried_records import read_letters
    from streams.operations.replay_letters import Fate, judge_letters
    from streams.operations.replay_letters import replay as send_again

    wanted = _filter(since, until, stage, topic, reason, source, offset, done=bool(offset))
    _narrow(wanted, everything)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        kafka, naming, clock = settings.kafka, naming_of(settings), SystemClock()
        judged = judge_letters(kafka, naming, clock, read_letters(kafka, naming, clock, wanted))
        good = [each.letter for each in judged if each.fate is Fate.SEND]
        if apply and good:
            with Bars(Terminal(stderr=True)) as bars:
                task = bars.add_task("replaying", total=len(good))
                send_again(kafka, naming, clock, good, lambda done, _: bars.update(task, completed=done))
    for (name, fate), count in sorted(Counter((each.letter.topic, each.fate) for each in judged).items()):
        said = ("sent again" if apply else "would be sent again") if fate is Fate.SEND else f"{fate.value}"
        say(f"{name}: {count:,} {said}")
    for why, count in Counter(each.why for each in judged if each.fate is Fate.REFUSED).most_common(10):
        say(f"  {count:,}: {why[:200]}")
    _end(len(judged), apply)


@app.command()
def drop(
    since: Since = None,
    until: Until = None,
    stage: Stage = None,
    topic: InTopic = None,
    reason: Why = None,
    source: Source = None,
    offset: Offsets = None,
    everything: All = False,
    apply: Apply = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Dismiss refused records: they are no longer listed, counted or replayed. Dry run without --apply.

    Their bytes stay in the topic until retention takes them: 14 days after they were written.

    Example: coldstart dead-letters drop --source load-test --apply
    """
    from streams.operations.buried_records import read_letters
    from streams.operations.replay_letters import drop as be_done

    wanted = _filter(since, until, stage, topic, reason, source, offset)
    _narrow(wanted, everything)
    with errors_explained():
        settings = settings_from(config, bootstrap)
        kafka, naming, clock = settings.kafka, naming_of(settings), SystemClock()
        letters = list(read_letters(kafka, naming, clock, wanted))
        if apply and letters:
            be_done(kafka, naming, clock, letters)
    for name, count in sorted(Counter(each.topic for each in letters).items()):
        say(f"{name}: {count:,} {'dropped' if apply else 'would be dropped'}")
    _end(len(letters), apply)


def _filter(
    since: str | None,
    until: str | None,
    stage: str | None,
    topic: str | None,
    reason: str | None,
    source: str | None,
    offsets: list[int] | None = None,
    done: bool = False,
) -> LetterFilter:
    from streams.operations.buried_records import LetterFilter

    times = moment(since, "--since"), moment(until, "--until")
    return LetterFilter(*times, stage, topic, reason, source, frozenset(offsets or ()), done)


def _narrow(wanted: LetterFilter, everything: bool) -> None:
    if not (wanted.narrow or everything):
        raise typer.BadParameter("say which: by a filter, by --offset, or --all")


def _end(count: int, apply: bool) -> None:
    if not count:
        say("no letter matches; `coldstart dead-letters stats` shows which there are")
    elif not apply:
        say("nothing was changed; add --apply")
