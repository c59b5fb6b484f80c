"""``coldstart explain``: what became of an upload, and why a user was pushed it or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import REFUSED, RESTART
from streams.runtime.terminal import Table, say, say_json

if TYPE_CHECKING:
    from streams.operations.song_story import SongStory
    from streams.operations.user_story import UserStory


def explain(
    song_id: Annotated[str, typer.Argument(help="The song's id, as in its upload.")],
    user_id: Annotated[str | None, typer.Argument(help="Why was this user pushed the song, or not?")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long to read; what is not looked at by then is named.")
    ] = 1.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show everything that happened to a song: uploads, refusals, similar songs, partitions' answers, pushes, its end.

    With a user: the push and its reason, outcomes and listens; or what speaks against a push: profiling off, opted out,
    muted artist, heard before, pushed before, held out, frequency cap, none of the similar songs heard, better
    candidates. Decisions are not stored; these reasons are found again from what the topics and the partition's state
    hold now, so a preference that changed meanwhile is shown with its time. No worker is asked.

    Exit code 2: no topic knows the song; 75: it was not found, and not everything was looked at in time.

    Examples: coldstart explain s-81; coldstart explain s-81 u-5 --json; coldstart explain s-81 u-5 --seconds 30
    """
    from streams.audience.push_rules import policy_of
    from streams.kafka.partitioner import partition_of
    from streams.operations.bounded_reading import BoundedReader
    from streams.operations.song_story import read_song
    from streams.operations.user_story import read_user
    from targeting.users.erasures import Erasures

    user: UserStory | None = None
    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming = naming_of(settings)
        partitions = range(naming.audience_partitions)
        only = [partition_of(user_id.encode(), naming.audience_partitions)] if user_id else partitions
        with BoundedReader(settings.kafka, naming, SystemClock(), seconds) as reader:
            story = read_song(reader, naming, song_id, only)
            if user_id is not None and story.known:
                erasures = Erasures(settings.audience.erasure_keys[0], settings.audience.erasure_keys[1:])
                user = read_user(reader, naming, story, user_id, policy_of(settings.audience), erasures)
            left = dict(reader.left)
    if not story.known:
        if left:
            places = ", ".join(f"{records:,} records of {topic}" for topic, records in sorted(left.items()))
            say(f"{song_id}: not found; not looked at within {seconds:g} s: {places}; --seconds reads on", err=True)
            raise typer.Exit(RESTART)
        say(f"{song_id}: no topic knows the song; was it uploaded to this installation?", err=True)
        raise typer.Exit(REFUSED)
    if json_:
        say_json({**story.document(), "user": user and user.document(), "not_looked_at": left}, indent=2)
        return
    _show_song(story)
    if user is not None:
        _show_user(user)
    for topic, records in sorted(left.items()):
        say(f"not looked at within {seconds:g} s: {records:,} records of {topic}; --seconds reads on", err=True)


def _show_song(story: SongStory) -> None:
    told: dict[str, Any] = story.document()
    table = Table("when", "what", title=story.song_id)
    for each in told["uploads"]:
        table.add_row(
            each["at"], f"{each['type']}, revision {each['revision']}: {each['title']!r} from {each['source']}"
        )
    for each in told["refused"]:
        table.add_row(each["at"], f"refused by {each['stage']}: {each['error']}: {each['reason']}")
    if request := told["request"]:
        near = ", ".join(f"{song} {similarity:.2f}" for song, similarity in request["neighbours"][:5])
        sent = request["sent_at"].values()
        table.add_row(
            max(sent), f"encoded in {request['space']}; asked {len(sent)} partitions, budget {request['budget']:,}"
        )
        table.add_row("", f"{len(request['neighbours'])} similar songs: {near or 'none'}")
    for each in told["answers"]:
        counts = each["counts"]
        table.add_row(
            each["answered_at"] or "",
            f"partition {each['partition']} answered: {counts.get('candidates', 0):,} candidates, "
            f"{counts.get('pushed', 0):,} pushed, {counts.get('held_out', 0):,} held out"
            + (f"; ended: {each['ended']}" if each["ended"] else ""),
        )
    pushes = told["pushes"]
    if pushes["found"]:
        whys = ", ".join(f"{why} {count:,}" for why, count in pushes["by_reason"].items())
        table.add_row(pushes["first_at"], f"first push; {pushes['found']:,} found: {whys}")
        table.add_row(pushes["last_at"], f"last push; {pushes['put_off_by_quiet_hours']:,} put off by quiet hours")
    if campaign := told["campaign"]:
        counts = campaign["counts"]
        named = ("pushed", "delivered", "opened", "dismissed", "listened", "collected", "distinct_listeners")
        table.add_row(
            campaign.get("ended_at") or "",
            f"campaign {campaign['status']}"
            + (f" ({campaign['end_reason']})" if campaign.get("end_reason") else "")
            + ": " + ", ".join(f"{name.replace('_', ' ')} {counts.get(name, 0):,}" for name in named),
        )  # fmt: skip
    tables.show(table)


def _show_user(user: UserStory) -> None:
    told = user.document()
    table = Table("when", "what", title=f"{user.user_id}, in partition {user.partition}")
    if user.push is not None:
        push = user.push
        songs = f" of {', '.join(push.reason.songs)}" if push.reason.songs else ""
        table.add_row(
            push.decided_at.isoformat(), f"pushed: {push.reason.why}{songs}, score {push.score:.3f}, {push.tier}"
        )
        if push.not_before > push.decided_at:
            table.add_row(push.not_before.isoformat(), "not before this: quiet hours, or the song's release")
    for number, reason in enumerate(user.held_back):
        table.add_row(("not pushed" if user.complete else "unknown") if not number else "", reason)
    for each in told["outcomes"]:
        table.add_row(each["at"], each["outcome"])
    for each in told["listens"]:
        table.add_row(each["at"], f"listened ({each['source']})")
    tables.show(table)
