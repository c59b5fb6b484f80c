"""Reads the settings: an option over ``COLDSTART_<SECTION>__<KEY>``, that over ``[section] key`` of a TOML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableSettings

from streams.contract.errors import SettingsError
from streams.runtime.settings import Settings
from streams.runtime.settings_errors import explain, unknown_variables


def load_settings(config: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Read the settings.

    Args:
        config: a TOML file; None reads none.
        overrides: {section: {key: value}}, what a command-line option said; stands over everything.

    Raises:
        SettingsError: a key is unknown or a value is not allowed; the message names all of them.
    """
    unknown = unknown_variables(Settings, os.environ)
    if unknown:
        raise SettingsError("\n".join(unknown))
    options: dict[str, Any] = dict(overrides or {})
    try:
        # As the plain class again: sections are read and checked already.
        return Settings.model_construct(**dict((_reading(config) if config else Settings)(**options)))
    except ValidationError as error:
        raise SettingsError("\n".join(explain(Settings, each) for each in error.errors())) from None
    except UnreadableSettings as error:
        raise SettingsError(f"environment: {error}; lists and sections are JSON there") from None


def _reading(config: Path) -> type[Settings]:
    """The settings that also read this file."""

    class Reading(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, dotenv_settings, file_secret_settings, _toml(settings_cls, config)

    return Reading


def _toml(settings: type[BaseSettings], path: Path) -> TomlConfigSettingsSource:
    try:
        # The source passes over what is no file without a word.
        with path.open("rb"):
            if not path.is_file():
                raise OSError("a pipe or a device")
        return TomlConfigSettingsSource(settings, path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"config = {path}: not a readable file ({error})") from None
    except TOMLDecodeError as error:
        raise SettingsError(f"config = {path}: not TOML ({error})") from None
