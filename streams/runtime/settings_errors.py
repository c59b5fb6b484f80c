"""What a wrong setting says: its name, its value unless that may be a secret, and the name that was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

PREFIX: Final = "COLDSTART_"

# Read by the tests alone: where the real data set lies.
_OF_TESTS: Final = frozenset({"COLDSTART_DATA"})
# Kubernetes puts the address of a service called coldstart or coldstart-... into every pod of its namespace.
_OF_KUBERNETES: Final = re.compile(
    r"COLDSTART_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*|[\da-fA-F.:]+|tcp|udp|sctp", re.IGNORECASE)


def unknown_variables(settings: type[BaseModel], environment: Mapping[str, str]) -> list[str]:
    """One line for each COLDSTART_ variable that sets nothing.

    pydantic-settings looks only for names it knows, so that a misspelt one would be without effect, silently. The
    value is never shown: nobody knows yet whether it is a secret.
    """
    known = {f"{section}__{key}" for section, key, _ in _fields(settings)} | set(settings.model_fields)
    lines = []
    for name, value in environment.items():
        # Case does not matter to pydantic-settings.
        written = name.upper()
        if not written.startswith(PREFIX) or written in _OF_TESTS or _of_kubernetes(written, value):
            continue
        path = written.removeprefix(PREFIX).lower()
        section, _, key = path.partition("__")
        # Of a known section pydantic refuses the unknown key itself.
        if path not in known and not (key and section in settings.model_fields):
            lines.append(f"{name}: there is no such setting; {_meant(settings, path)}")
    return lines


def explain(settings: type[BaseModel], error: ErrorDetails) -> str:
    """One wrong setting: its key, its value, and what is allowed."""
    keys = [str(part) for part in error["loc"]]
    key = ".".join(keys)
    what = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and len(keys) < 2:
        # About several keys at once; the message names them, and the input would show a password.
        return f"{key}: {what}"
    variable = PREFIX + "__".join(keys[:2]).upper()
    if error["type"] == "extra_forbidden":
        meant = _meant(settings, "__".join(keys))
        return f"{key}: there is no such key; {meant} (environment {variable}, or the TOML file)"
    value = "***" if _may_be_secret(settings, keys) else _short(error["input"])
    return f"{key} = {value}: {what} (environment {variable}, or the TOML file)"


def secrets(settings: type[BaseModel]) -> list[tuple[str, str]]:
    """(section, key) of every setting that is a secret, by its type."""
    return [(section, key) for section, key, field in _fields(settings) if _secret(field.annotation)]


def _fields(settings: type[BaseModel]) -> Iterator[tuple[str, str, FieldInfo]]:
    for section, outer in settings.model_fields.items():
        inner = outer.annotation
        assert isinstance(inner, type), section
        assert issubclass(inner, BaseModel), section
        for key, field in inner.model_fields.items():
            yield section, key, field


def _secret(annotation: Any) -> bool:
    """Also inside of a union, a list or a mapping."""
    return annotation in (SecretStr, SecretBytes) or any(map(_secret, get_args(annotation)))


def _may_be_secret(settings: type[BaseModel], keys: list[str]) -> bool:
    hidden = secrets(settings)
    return tuple(keys[:2]) in hidden if len(keys) > 1 else keys[0] in {section for section, _ in hidden}


def _of_kubernetes(name: str, value: str) -> bool:
    # By the value, too: COLDSTART_AUDIENCE_HTTP_PORT = 9102 is a setting with an underscore missing.
    if not _OF_KUBERNETES.fullmatch(name):
        return False
    return "SERVICE" in name or "://" in value or (name.count("_PORT_") > 0 and _ADDRESS.fullmatch(value) is not None)


def _meant(settings: type[BaseModel], path: str) -> str:
    """The setting whose name is nearest; where none is near, what there is."""
    section, _, key = path.partition("__")
    if key and section in settings.model_fields:
        inner = {k: k for s, k, _ in _fields(settings) if s == section}
        near = get_close_matches(key, inner, 1)
        said = f"did you mean {section}.{near[0]}? " if near else ""
        return f"{said}allowed: {', '.join(inner)}"
    names = {_letters(f"{s}__{k}"): f"{s}__{k}" for s, k, _ in _fields(settings)}
    near = get_close_matches(_letters(path), names, 1)
    if near:
        return f"did you mean {PREFIX}{names[near[0]].upper()}?"
    return f"settings are {PREFIX}SECTION__KEY, with two underscores; sections: {', '.join(settings.model_fields)}"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
