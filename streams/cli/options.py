"""Which options do several verbs share, and how does an expected error end a verb?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from streams.errors import ColdstartError
from streams.exits import REFUSED, RESTART
from streams.settings import Settings, load_settings
from streams.topics import Naming

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings; the environment (COLDSTART_...) stands over it."),
]
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="Kafka as host:port[,host:port]; default: kafka.bootstrap_servers."),
]


@contextmanager
def errors_explained() -> Iterator[None]:
    """End the process with the message of an expected error, and with the exit code that supervisors know."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        Console(stderr=True, style="red", highlight=False).print(str(error), markup=False, soft_wrap=True)
        retriable = isinstance(error, ColdstartError) and error.retriable
        raise typer.Exit(RESTART if retriable else REFUSED) from None


def _expected() -> tuple[type[Exception], ...]:
    # Only once something is wrong: what the encoder imports takes as long as all the rest of a verb's start.
    from encoder.artifact import ArtifactError
    from encoder.data.layout import LayoutError

    return ColdstartError, ArtifactError, LayoutError


def settings_from(config: Path | None, bootstrap: str | None = None, **sections: dict[str, Any]) -> Settings:
    """Settings with what the options said standing over file and environment."""
    overrides = dict(sections)
    if bootstrap is not None:
        overrides["kafka"] = {**overrides.get("kafka", {}), "bootstrap_servers": bootstrap}
    return load_settings(config, overrides)


def naming_of(settings: Settings) -> Naming:
    return settings.topics.naming()


def read_settings(config: Path | None) -> Settings:
    """Settings of a verb that overrides none; a wrong one ends the process with what is allowed."""
    with errors_explained():
        return load_settings(config)
