"""``coldstart campaigns``: the state of songs' campaigns, and the effect of their pushes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import REFUSED
from streams.runtime.terminal import Table, say, say_json

if TYPE_CHECKING:
    from streams.contract.events import Campaign
    from streams.operations.uplift import Uplift

_SHOWN = (
    ("candidates",), ("pushed", "held_out"), ("delivered", "opened"), ("listened", "collected"),
    ("distinct_listeners",),
)  # fmt: skip


def campaigns(
    song_id: Annotated[str | None, typer.Argument(help="One song in detail; by default all.")] = None,
    lift_: Annotated[
        bool, typer.Option("--lift", help="The effect of pushes: pushed users against a random holdout.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show the campaigns of a running system: status, counts, age, newest first. Counts are users, one each.

    With --lift: the shares of pushed and held-out users who listened, listened to the end and collected, over all songs
    or one, their difference and ratio with 95 % intervals, and how many more users must be held out if too few were.

    Examples: coldstart campaigns; coldstart campaigns s-81; coldstart campaigns --lift
    """
    from streams.kafka.skipped_records import Skipped
    from streams.operations.campaigns import current, total
    from streams.operations.uplift import uplift

    with errors_explained():
        settings = settings_from(config, bootstrap)
        clock = SystemClock()
        skipped = Skipped()
        found = current(settings.kafka, naming_of(settings), clock, skipped)
    if skipped.count:
        say(f"{skipped.count} records of campaigns could not be read and are not counted", err=True)
    if song_id is not None:
        if song_id not in found:
            say(f"{song_id}: no campaign; it was never uploaded, or ended long ago", err=True)
            raise typer.Exit(REFUSED)
        found = {song_id: found[song_id]}
    newest = sorted(found.values(), key=lambda each: each.started_at, reverse=True)
    if lift_:
        _show_lift(uplift(total(newest)), json_)
    elif json_:
        plain = [msgspec.to_builtins(each) for each in newest]
        say_json(plain[0] if song_id is not None else plain, indent=2)
    elif song_id is not None:
        tables.show(_one(newest[0], datetime.fromtimestamp(clock.now(), UTC)))
    else:
        tables.show(_all(newest, datetime.fromtimestamp(clock.now(), UTC)))


def _all(newest: Sequence[Campaign], now: datetime) -> Table:
    table = Table("song", "status", "age")
    for names in _SHOWN:
        table.add_column(" / ".join(names).replace("_", " "), justify="right")
    for each in newest:
        counts = (" / ".join(f"{getattr(each.counts, name):,}" for name in names) for names in _SHOWN)
        table.add_row(each.song_id, _status(each), _age(each, now), *counts)
    active = sum(each.status == "active" for each in newest)
    table.title = f"{len(newest):,} campaigns, {active:,} active"
    return table


def _one(campaign: Campaign, now: datetime) -> Table:
    table = Table("what", "", title=campaign.song_id)
    table.add_row("revision", str(campaign.revision))
    table.add_row("status", _status(campaign))
    table.add_row("age", _age(campaign, now))
    table.add_row("space", campaign.space)
    table.add_row("answered by partitions", ", ".join(map(str, campaign.counts.answered)) or "none")
    for name in campaign.counts.__struct_fields__:
        if name != "answered":
            table.add_row(name.replace("_", " "), f"{getattr(campaign.counts, name):,}")
    shares = ", ".join(f"{prototype.weight:.0%} ({prototype.members})" for prototype in campaign.prototypes)
    table.add_row("prototypes: share (members)", shares or "none")
    return table


def _show_lift(found: Sequence[Uplift], as_json: bool) -> None:
    if as_json:
        say_json([_plain(each) for each in found], indent=2)
        return
    table = Table(
        "of them", "pushed", "held out", "difference", "ratio", "", title="Effect of pushes, with 95 % intervals"
    )
    for each in found:
        table.add_row(
            each.measure,
            _rate(each.treated, each.treated_of),
            _rate(each.held_out, each.held_out_of),
            "–"
            if each.difference is None
            else _points(each.difference.mean, each.difference.low, each.difference.high),
            "–" if each.ratio is None else f"{each.ratio.mean:.2f} [{each.ratio.low:.2f}, {each.ratio.high:.2f}]",
            _verdict(each),
        )
    tables.show(table)


def _plain(each: Uplift) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(each)
    return plain | {"clear": each.clear}


def _verdict(each: Uplift) -> str:
    if each.difference is None:
        return "nobody was pushed" if not each.treated_of else "nobody was held out: nothing to compare with"
    if each.clear:
        return "clear"
    if each.missing is None:
        return "too few to tell: no difference so far"
    return f"too few to tell: {each.missing:,} more held out would show a difference of this size"


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points"


def _rate(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f", {part / whole:.2%}" if whole else "")


def _status(campaign: Campaign) -> str:
    return campaign.status if campaign.end_reason is None else f"{campaign.status}: {campaign.end_reason}"


def _age(campaign: Campaign, now: datetime) -> str:
    seconds = max(0.0, ((campaign.ended_at or now) - campaign.started_at).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
