"""What do the pages of runs have in common? One file each that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from streams.testbed.demo.html import Html, tag
from streams.testbed.demo.style import STYLE

# Nothing is loaded and nothing is run, whatever a title says.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"

# arm -> the class that colours it, its two colours on light and dark.
_ARMS: Final = {
    "organic": ("organic", "#85818c", "#8f8b9b"),
    "random": ("anybody", "#a08a5b", "#c9b27f"),
    "i2i2u": ("i2i2u", "#16806f", "#4fc7b1"),
    "evidence": ("evidence", "#c2540a", "#f2994a"),
    "cat-once": ("cat-once", "#b0588f", "#e79ccb"),
    "cat": ("cat", "#8a1f63", "#ff8fd0"),
    "default-once": ("default-once", "#8f85e8", "#c0b8ff"),
    "liking": ("liking", "#2f6fb0", "#7fb8f0"),
    "default": ("coldstart", "#5646d6", "#9c90ff"),
}


def write_page(path: Path, title: str, body: Iterable[str], style: str = "") -> None:
    """Write a page, and the folder that it is to lie in.

    Args:
        style: further rules, after those that all pages share.
    """
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("style", Html(STYLE + style)),
        ),
        tag("body", *body),
        lang="en",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8")


def colour_of(arm: str) -> str:
    """The class that colours an arm, in :func:`style_of_arms`."""
    return _ARMS[arm][0]


def style_of_arms() -> str:
    """Rules that colour every arm, by day and by night."""

    def rules(which: int) -> str:
        return "".join(
            f".{colour[0]}{{fill:{colour[which]};stroke:{colour[which]}}}"
            f"svg text.{colour[0]}{{fill:{colour[which]};stroke:none}}"
            f".swatch.{colour[0]}{{background:{colour[which]}}}path.{colour[0]}{{stroke:none}}"
            for colour in _ARMS.values()
        )

    return f"{rules(1)}@media (prefers-color-scheme: dark){{{rules(2)}}}"


def section(title: str, words: str, *cards: Html) -> Html:
    """A part of the page under a title, with a sentence before its cards."""
    return tag("section", tag("h2", title), tag("p", words, class_="note"), *cards)


def tile(value: str, words: str, first: bool) -> Html:
    """A figure large enough to be seen first."""
    return tag("div", tag("strong", value), tag("span", words), class_="card first" if first else "card")


def table_of_numbers(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """The first column names the row, all others hold numbers."""
    head = [tag("th", each, scope="col", class_="number" if at else None) for at, each in enumerate(heads)]
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell, class_="number") for cell in row[1:]))
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body)), class_="wide")


def swatch(colour: str, words: str) -> Html:
    """A spot of a colour, and what it stands for."""
    return Html(tag("span", class_=f"swatch {colour}", aria_hidden="true") + tag("span", words))


def swatches(arms: Iterable[str]) -> Html:
    """Which colour is which arm."""
    return tag("p", *(swatch(colour_of(arm), f"{arm}   ") for arm in arms), class_="note")
