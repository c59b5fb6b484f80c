"""``coldstart kafka``: a real Apache Kafka on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from streams.cli.options import Config, errors_explained, settings_from
from streams.runtime.terminal import Terminal, say

app = typer.Typer(
    no_args_is_help=True,
    help="Run a real Apache Kafka on this machine: no Docker, no installed Java.\n\n"
    "The first start downloads Kafka's jars (44 MB) into your cache directory; after that it works offline.",
)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for clients; 0 takes a free one.")] = 0,
    brokers: Annotated[
        int, typer.Option(min=1, max=9, help="3: a cluster that survives the loss of any broker, some 300 MB each.")
    ] = 1,
    secure: Annotated[
        bool, typer.Option("--secure", help="TLS, and a user, password and rights for every client.")
    ] = False,
    config: Config = None,
) -> None:
    """Start the broker and leave it running. Prints its address when every partition of its topics is served.

    Point everything else at it with COLDSTART_KAFKA__BOOTSTRAP_SERVERS. Does nothing if it already runs.

    With --brokers 3 every topic can have three copies, two of which must have a record before it is acknowledged:
    COLDSTART_TOPICS__REPLICATION_FACTOR=3 coldstart topics create

    With --secure the printed lines make you the administrator; `coldstart topics acls --apply` grants all others
    the least that they need.

    Example: eval "$(coldstart kafka up | grep ^export)"
    """
    from streams.testbed.broker import daemon

    with errors_explained():
        settings = settings_from(config)
        running = daemon.up(
            settings.paths.broker,
            port=port,
            heap_mb=settings.broker.heap_mb,
            start_timeout_s=settings.broker.start_timeout_s,
            brokers=brokers,
            secure=secure,
            console=Terminal(stderr=True),
        )
    say(f"bootstrap servers  {running.bootstrap_servers}")
    for log in running.logs:
        say(f"log                {log}")
    say(f"export COLDSTART_KAFKA__BOOTSTRAP_SERVERS={running.bootstrap_servers}")
    for name, value in (running.security.environment() if running.security else {}).items():
        say(f'export {name}="{value}"')


@app.command()
def down(config: Config = None) -> None:
    """Stop the broker, or the cluster. The topics stay for the next `up`.

    Example: coldstart kafka down
    """
    from streams.testbed.broker import daemon

    with errors_explained():
        stopped = daemon.down(settings_from(config).paths.broker)
    say("stopped" if stopped else "was not running")


@app.command()
def status(config: Config = None) -> None:
    """Show whether the broker runs, where, since when, and with which topics. Exit code 1 if it does not.

    Example: coldstart kafka status
    """
    from streams.testbed.broker import daemon

    with errors_explained():
        running = daemon.status(settings_from(config).paths.broker)
    if running is None:
        say("not running")
        raise typer.Exit(1)
    pids = ", ".join("not running" if pid is None else f"pid {pid}" for pid in running.pids)
    say(f"running            {pids}, since {running.since:%Y-%m-%d %H:%M:%S} UTC")
    say(f"bootstrap servers  {running.bootstrap_servers}")
    for log in running.logs:
        say(f"log                {log}")
    if running.topics is None:
        say("topics             no answer: the broker hangs or is starting")
    else:
        say(f"topics             {len(running.topics)}")
        for name in running.topics:
            say(f"  {name}")
