"""Options that several verbs share, and the handling of expected errors."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from streams.contract.errors import BadBurst, ColdstartError
from streams.contract.topics import Naming
from streams.runtime.exit_codes import BAD_INPUT, REFUSED, RESTART
from streams.runtime.settings import Settings
from streams.runtime.settings_sources import load_settings
from streams.runtime.terminal import Terminal

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings; the environment (COLDSTART_...) overrides it."),
]
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="Kafka as host:port[,host:port]; default: kafka.bootstrap_servers."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse dirty data instead of reading it as well as possible."),
]
Arms = Annotated[str | None, typer.Option("--arms", hidden=True, help="The former name of --variants.")]


# Errors of a path, with what to do.
_WAYS_OUT = {
    errno.ENOENT: "there is no such file or folder; make it, or name another",
    errno.ENOTDIR: "a folder is needed, and a file is there; name another",
    errno.EISDIR: "a file is needed, and a folder is there; name another",
    errno.EEXIST: "something else is already there; name another, or move it away",
    errno.ENOTEMPTY: "the folder is not empty; name another, or empty it",
    errno.EACCES: "this user may not use it; change its rights, or name another",
    errno.EPERM: "this user may not use it; change its rights, or name another",
    errno.EROFS: "nothing can be written there; name another",
    errno.ENOSPC: "the disk is full; make room, or name another place",
    errno.EDQUOT: "the quota of this user is used up; make room, or name another place",
    errno.ENAMETOOLONG: "the name is too long; name another",
    errno.ELOOP: "it is a link to itself; name another",
    errno.EINVAL: "this is no name for a file; name another",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}


@contextmanager
def errors_explained(*more: type[Exception], files: bool = True) -> Iterator[None]:
    """End the process with the message of an expected error and the exit code for supervisors.

    Args:
        more: further errors whose message says what to change.
        files: whether an unusable file or folder is expected; not in a worker, where a full disk is temporary.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (*_expected(), *more)):
            retriable = isinstance(error, ColdstartError) and error.retriable
            code = BAD_INPUT if isinstance(error, BadBurst) else RESTART if retriable else REFUSED
            refuse(str(error), code)
        if files and isinstance(error, OSError) and error.errno in _WAYS_OUT:
            place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            refuse(f"{place}{_WAYS_OUT[error.errno]}")
        if files and isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
            # Raised by Path.resolve, up to Python 3.12.
            refuse(f"{error}: the link points to itself; name another")
        raise


def writable(*files: Path | None) -> None:
    """Check before the work that its results can be written; creates missing folders.

    Raises:
        OSError: a file cannot be written; the error names it.
    """
    for file in filter(None, files):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # A link to itself does not "exist".
            if file.exists() or file.is_symlink():
                file.open("ab").close()
            tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(file)) from None


def refuse(message: str, code: int = REFUSED) -> NoReturn:
    """Print what is wrong and end the process."""
    Terminal(stderr=True, style="red").print(message, soft_wrap=True)
    raise typer.Exit(code) from None


def _expected() -> tuple[type[Exception], ...]:
    # Imported only on errors: the encoder's imports take as long as the rest of a verb's start.
    from encoder.artifact import ArtifactError
    from encoder.data.findings import LayoutError

    return ColdstartError, ArtifactError, LayoutError


def settings_from(config: Path | None, bootstrap: str | None = None, **sections: dict[str, Any]) -> Settings:
    """Settings, with options overriding file and environment."""
    overrides = dict(sections)
    if bootstrap is not None:
        overrides["kafka"] = {**overrides.get("kafka", {}), "bootstrap_servers": bootstrap}
    return load_settings(config, overrides)


def variant_names(variants: str | None, arms: str | None, all_of: Iterable[str]) -> list[str]:
    """The names that ``--variants``, or its former name, lists; all where neither is given."""
    given = arms if variants is None else variants
    return list(all_of) if given is None else [name.strip() for name in given.split(",") if name.strip()]


def naming_of(settings: Settings) -> Naming:
    return settings.topics.naming()
