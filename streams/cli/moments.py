"""Moments as options: a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import typer

from streams.runtime.clock import SystemClock

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")

MOMENT: Final = "A time (2026-03-01T10:00Z) or an age (90s, 15m, 2h, 3d)."
"""What an option says of itself in its help."""


def moment(text: str | None, option: str) -> float | None:
    """Unix seconds; None for nothing.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return SystemClock().now() - float(ago[1]) * _UNITS[ago[2]]
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: give one such as 2026-03-01T10:00Z, or an age such as 2h", param_hint=option
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def shown_time(seconds: float) -> str:
    """For a person."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
