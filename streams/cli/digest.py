"""``coldstart digest``: a 128-bit digest of every audience partition's state."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli import tables
from streams.cli.options import Bootstrap, Config, errors_explained, refuse, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.terminal import Table, say, say_json


def digest(
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this partition; repeatable.")] = None,
    disk: Annotated[
        bool, typer.Option(help="Also from this machine's disk and the changelog's tail; not while a worker runs here.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array: partition, source, digest, at (input offsets), records.")
    ] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show each partition's digest and its input offsets, from the changelog alone.

    Two states are equal if their digests at the same offsets are. Exit code 1: disk and changelog differ.

    Examples: coldstart digest; coldstart digest --partition 3 --disk
    """
    with errors_explained():
        settings = settings_from(config, bootstrap)
        from streams.audience.local_store import StoreCorrupted
        from streams.audience.main import stores, targeting_config
        from streams.contract.topics import AUDIENCE_STATE
        from streams.kafka.access import check_topics
        from streams.kafka.clients import admin
        from streams.operations.state_digest import digest as compute
        from targeting.catalogue.catalogue import Catalogue
        from targeting.partition.partition import Partition

        naming, clock = settings.topics.naming(), SystemClock()
        wrong = [number for number in partition or () if number >= naming.audience_partitions]
        if wrong:
            refuse(f"--partition {wrong[0]}: no such partition; allowed: 0 to {naming.audience_partitions - 1}")
        check_topics(admin(settings.kafka), settings.kafka, naming, [AUDIENCE_STATE])
        decides = targeting_config(settings.audience, obey=True)
        sources = {"changelog": None} | ({"disk": stores(settings, clock)} if disk else {})
        rows = []
        for number in partition or range(naming.audience_partitions):
            for source, where in sources.items():
                try:
                    found = compute(
                        settings.kafka, naming, number, clock,
                        lambda n: Partition(n, naming.audience_partitions, Catalogue(), decides), where,
                        settings.audience.left_out(),
                    )  # fmt: skip
                except StoreCorrupted as why:
                    say(f"partition {number}: {why}", err=True)
                    continue
                if found is not None:
                    rows.append({"source": source, **asdict(found)})
    if as_json:
        say_json(rows)
    else:
        table = Table("partition", "source", "digest", "inputs", "records")
        for row in rows:
            at = " ".join(f"{name}={offset}" for name, offset in row["at"].items())
            table.add_row(str(row["partition"]), row["source"], row["digest"], at, f"{row['records']:,}")
        tables.show(table)
    told: dict[tuple[int, str], set[str]] = {}
    for row in rows:
        told.setdefault((row["partition"], json.dumps(row["at"])), set()).add(row["digest"])
    if any(len(digests) > 1 for digests in told.values()):
        raise typer.Exit(1)
