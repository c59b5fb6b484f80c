"""Numbers as text a person reads; a dash for what is not known."""

from __future__ import annotations

import math
from typing import Final

DASH: Final = "–"


def known(value: float | None) -> float | None:
    """The value; None for what is no number."""
    return None if value is None or not math.isfinite(value) else value


def count(value: float | None) -> str:
    return DASH if known(value) is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    return DASH if value is None or known(value) is None else f"{100 * value:.1f}\u00a0%"


def signed_share(value: float | None) -> str:
    return DASH if value is None or known(value) is None else f"{100 * value:+.1f}\u00a0%"


def score(value: float | None) -> str:
    return DASH if known(value) is None else f"{value:.2f}"


def of_ten(value: float | None) -> str:
    """A share as how many of ten people: two digits that count."""
    return DASH if value is None or known(value) is None else f"{10 * value:.2g}"


def milliseconds(value: float | None) -> str:
    if value is None or known(value) is None:
        return DASH
    if value < 9.95:
        return f"{value:.2g}\u00a0ms"
    return f"{value:.0f}\u00a0ms" if value < 999.5 else seconds(value / 1000)


def seconds(value: float | None) -> str:
    if value is None or known(value) is None:
        return DASH
    if value < 9.95:
        return f"{value:.1f}\u00a0s"
    whole = round(value)
    return f"{whole}\u00a0s" if whole < 120 else f"{whole // 60}\u00a0min {whole % 60}\u00a0s"


def megabytes(value: float | None) -> str:
    if value is None or known(value) is None:
        return DASH
    return f"{value:.0f}\u00a0MB" if value < 1000 else f"{value / 1024:.1f}\u00a0GB"
