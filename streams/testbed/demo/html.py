"""How does a value become HTML without becoming markup, and a number become text a person reads?"""

from __future__ import annotations

import math
from html import escape as _escape

from streams.runtime.terminal import shown

DASH = "–"
_VOID = frozenset({"meta"})


class Html(str):
    """Markup already: the one kind of ``str`` that :func:`tag` does not escape."""


def tag(element: str, *children: str, **attributes: object) -> Html:
    """One element; children and attribute values are escaped unless they are :class:`Html`.

    Names of attributes are written as Python allows: ``class_`` is class, ``aria_label`` is aria-label.
    An attribute of None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(child if isinstance(child, Html) else escape(child) for child in children)
    return Html(f"<{element}{written}>" if element in _VOID else f"<{element}{written}>{inside}</{element}>")


def escape(text: str) -> str:
    """No markup, and no character that turns a line around."""
    return _escape(shown(text, lines=True))


def _attribute(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def known(value: float | None) -> float | None:
    """The value; None for what is no number."""
    return None if value is None or not math.isfinite(value) else value


def count(value: float | None) -> str:
    return DASH if known(value) is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    return DASH if value is None or known(value) is None else f"{100 * value:.1f}\u00a0%"


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
