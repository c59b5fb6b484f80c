"""A matplotlib figure as an SVG element in a page, in the page's colours by day and by night."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import Final
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from streams.runtime.terminal import shown

# The variables of page.css that a figure may be drawn in.
COLOURS: Final = (
    *("ink", "quiet", "rule", "nobody"),
    *("organic", "random", "i2i2u", "evidence", "cat-once", "cat", "default-once", "liking", "default"),
)
# matplotlib knows no variables: each has a colour that stands for it until the figure is written.
_STANDS_FOR: Final = {f"#0100{number:02x}": name for number, name in enumerate(COLOURS)}
_COLOUR_OF: Final = {name: colour for colour, name in _STANDS_FOR.items()}


def colour(variable: str) -> str:
    """What to give matplotlib, for a variable of page.css."""
    return _COLOUR_OF[variable]


def style() -> AbstractContextManager[None]:
    """matplotlib's settings while a figure is made and written: few lines, text as text, the same output each time."""
    quiet = colour("quiet")
    context: AbstractContextManager[None] = mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "coldstart",
            "text.parse_math": False,
            "text.color": colour("ink"),
            "font.family": "DejaVu Sans",
            "font.size": 12,
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.facecolor": "none",
            "axes.edgecolor": quiet,
            "axes.labelcolor": quiet,
            "axes.spines.left": False,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.axisbelow": True,
            "grid.color": colour("rule"),
            "grid.linestyle": (0, (2, 4)),
            "xtick.bottom": False,
            "xtick.labelcolor": quiet,
            "ytick.left": False,
            "ytick.labelcolor": quiet,
            "lines.linewidth": 2.5,
            "lines.markersize": 8,
        }
    )
    return context


def inline(figure: Figure, name: str, words: str, **attributes: str) -> Markup:
    """The figure, to be made and written under :func:`style`.

    Args:
        name: no other figure of the page has it; its inner ids begin so.
        words: what the figure shows, for those who do not see it.
        attributes: further ones of the element.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    named = {id_ for each in root.iter() for value in each.attrib.values() for id_ in re.findall(r"#([\w-]+)", value)}
    _tidy(root, f"{name}-", named)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": shown(words), **attributes}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _tidy(element: ElementTree.Element[str], prefix: str, named: set[str]) -> None:
    """What a page needs of it: no namespaces, no metadata, no style for the whole page, ids of its own."""
    element.tag = _local(element.tag)
    element.attrib = {
        _local(key): _value(_local(key), value, prefix)
        for key, value in element.attrib.items()
        if key != "id" or value in named
    }
    element.text = shown(element.text) if element.text and element.text.strip() else None
    element.tail = None
    for child in list(element):
        if _local(child.tag) in ("metadata", "style"):
            element.remove(child)
        else:
            _tidy(child, prefix, named)


def _value(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    # Colours stand in styles alone; elsewhere # begins the name of an element.
    if key == "style":
        value = re.sub(r"#0100[0-9a-f]{2}", lambda found: f"var(--{_STANDS_FOR[found[0]]})", value)
    return " ".join(re.sub(r"(^|\()#(?=[\w-]+(\)|$))", rf"\1#{prefix}", value).split())


def _local(name: str) -> str:
    return name.rpartition("}")[2]
