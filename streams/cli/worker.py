"""``coldstart worker``: run one process of a role."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Config, errors_explained, settings_from
from streams.runtime.early_stop import stop_until_serving

app = typer.Typer(
    no_args_is_help=True,
    help="Run one process of a role until SIGTERM. Logs are JSON lines on stderr; /metrics, /livez, /readyz and "
    "/status are served over HTTP. Exit codes: 0 stopped, 1 unexpected error, 2 refused (change something), 65 too "
    "many bad records (--resume-with-bad), 75 restart me.",
)

Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port for /metrics, /livez, /readyz, /status; 0 takes a free one.")
]


Resume = Annotated[
    bool,
    typer.Option(
        "--resume-with-bad",
        help="Send a burst of bad records to dead-letters and go on, such as one that ended the last run with code 65.",
    ),
]


class PolicySwitch(StrEnum):
    """Whether preferences, caps, holdout and exploration are in force."""

    ON = "on"
    OFF = "off"


POLICY = "off: no preferences, caps, holdout or exploration, to measure targeting alone."


@app.command()
def songs(
    resume_with_bad: Resume = False, config: Config = None, bootstrap: Bootstrap = None, http_port: Port = None
) -> None:
    """Uploads → match requests. Start at most as many as there are songs partitions.

    Example: coldstart worker songs --bootstrap-servers broker-1:9092
    """
    stop_until_serving()
    with errors_explained(files=False):
        port = {} if http_port is None else {"http_port": http_port}
        settings = settings_from(config, bootstrap, songs=port)
        from streams.runtime.logging import set_up_logs

        set_up_logs("songs", settings.log.level)
        from streams.songs.main import run

        run(settings, resume_with_bad)


@app.command()
def audience(
    slot: Annotated[
        int, typer.Option(min=0, help="Stable number of this worker, by which it takes over at once after a restart.")
    ] = 0,
    policy: Annotated[PolicySwitch, typer.Option(help=POLICY)] = PolicySwitch.ON,
    resume_with_bad: Resume = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    http_port: Port = None,
) -> None:
    """Listens and match requests → push targets. Start at most as many as there are audience partitions, each with its
    own slot.

    Examples: coldstart worker audience --slot 0; coldstart worker audience --slot 1 --http-port 9112
    """
    stop_until_serving()
    with errors_explained(files=False):
        port = {} if http_port is None else {"http_port": http_port}
        settings = settings_from(config, bootstrap, audience=port)
        from streams.runtime.logging import set_up_logs

        set_up_logs("audience", settings.log.level)
        from streams.audience.main import run

        run(settings, slot, obey=policy is PolicySwitch.ON, resume=resume_with_bad)
