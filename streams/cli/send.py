"""``coldstart send``: events of a file into their topics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, refuse, settings_from
from streams.cli.validate import LINES, Csv, Shown, Type, bars, form_of, tell, type_of
from streams.runtime.terminal import Table, say

if TYPE_CHECKING:
    from streams.operations.file_sender import Delivery


def send(
    file: Annotated[Path, typer.Argument(help=f"{LINES} Not a pipe: a journal is kept beside it.")],
    type_: Type = None,
    as_csv: Csv = False,
    source: Annotated[str, typer.Option(help="ce_source of lines that name none: who you are.")] = "coldstart/send",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Send the others although some events would be refused or misread.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Send all of it, whatever was sent before.")] = False,
    show: Shown = 20,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Send the events of a file, each acknowledged, to the partition and with the headers that the contract asks for.

    First the file is judged, as `coldstart validate` does; nothing is sent if something is wrong. FILE.sent says how
    far it came: the same command goes on from there, after Ctrl-C, a crash or kill -9. At most 1,000 events are then
    sent again, under the same ids, so that they count once. A file that has grown goes on where it ended.

    Data without an envelope get an id made of what they say. Prints how many events went to which partition, and their
    offsets. Exit code 1: something is wrong with the events; 2: the file or the journal cannot be used; 75: Kafka did
    not acknowledge, try again.

    Examples: coldstart send songs.csv; coldstart send songs.ndjson --type song.uploaded --source label-feed
    """
    from streams.operations.event_files import EventFile
    from streams.operations.file_sender import FileSender

    with errors_explained():
        settings = settings_from(config, bootstrap)
        if not file.is_file():
            refuse(f"{file}: there is no such file; name one, `send` reads no pipes")
        naming, size = naming_of(settings), file.stat().st_size or None
        form, ce_type = form_of(file, as_csv), type_of(type_)
        sender = FileSender(
            file, lambda opened: EventFile(opened, form, ce_type), source, settings.kafka, naming, again
        )
        with bars("validating", size) as tick:
            check, findings = sender.check(tick)
        tell(check, findings[:show])
        if findings and not skip_bad:
            say(f"nothing sent: {check.bad:,} of {check.events:,} events are wrong; fix them, or say --skip-bad")
            raise typer.Exit(1)
        with bars("sending", size) as tick:
            delivery = sender.send({each.line for each in findings}, tick)
    _report(delivery, sender.journal)


def _report(delivery: Delivery, journal: Path) -> None:
    if delivery.places:
        table = Table("topic", "partition", "events", "first offset", "last offset")
        for (topic, partition), (count, first, last) in sorted(delivery.places.items()):
            table.add_row(topic, str(partition), f"{count:,}", str(first), str(last))
        tables.show(table)
    skipped = f", {delivery.skipped:,} left out" if delivery.skipped else ""
    before = f", {delivery.already:,} were done before ({journal})" if delivery.already else ""
    say(f"{delivery.sent:,} events sent and acknowledged{skipped}{before}")
