"""Pages of runs: one HTML file each, from a template, that loads nothing and runs nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from streams.runtime.terminal import shown
from streams.testbed.pages import number_text

_TEMPLATES = Path(__file__).parents[1]


def write_page(path: Path, template: str, **view: Any) -> None:
    """Write a page, and the folder that it is to lie in.

    Args:
        template: its path below ``testbed``.
        view: what the template shows. Text becomes text, whatever it holds; only ``Markup`` is markup.
    """
    text = environment().get_template(template).render(view)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@cache
def environment() -> Environment:
    """How templates are read: values are escaped, names that do not exist are errors."""
    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    texts = ("count", "share", "signed_share", "score", "of_ten", "milliseconds", "seconds", "megabytes")
    found.filters |= {name: getattr(number_text, name) for name in texts}
    found.globals["style"] = Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8"))
    return found


def _visible(value: object) -> object:
    """No character that turns a line around or acts unseen."""
    return value if isinstance(value, Markup) else shown(str(value), lines=True)
