"""Shows text from outside as text, whatever it holds.

Ids, titles, reasons and paths come from topics, files and other processes. Printed raw, an escape sequence in one of
them can move the cursor or set the clipboard, a right-to-left override reverses a line, and text that looks like
rich's markup is interpreted or crashes the verb. All output goes through here, where such characters are escaped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, Final
from unicodedata import category

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn
from rich.segment import Segment
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

# Controls, invisible formats (bidirectional overrides among them), halves of surrogate pairs, line separators.
_SPELT_OUT: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def shown(text: str, lines: bool = False) -> str:
    r"""The text with every character escaped that would act on a terminal or page instead of being shown.

    Args:
        lines: line breaks and tabs stay as they are: for whole messages, never for one value in them.

    >>> shown("s-\x1b[2J")
    's-\\x1b[2J'
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        each.encode("unicode_escape").decode() if category(each) in _SPELT_OUT and each not in kept else each
        for each in text
    )


def say(text: str, err: bool = False) -> None:
    """Print a message and a line break."""
    typer.echo(shown(text, lines=True), err=err)


def say_json(value: Any, indent: int | None = 1) -> None:
    """Print a value for a program to read: ASCII alone, so that a terminal is safe from it, too."""
    typer.echo(json.dumps(value, indent=indent).replace("\x7f", "\\u007f"))


class Terminal(Console):
    """A console to which a string is text and never markup; style it with ``Text``."""

    def __init__(self, *, stderr: bool = False, width: int | None = None, style: str | None = None) -> None:
        super().__init__(stderr=stderr, width=width, style=style, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(shown(text, lines=True), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        # Anything that is not a string: Text, and what bars and spinners build.
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(shown(segment.text, lines=True), segment.style)

    def status(self, status: RenderableType, **how: Any) -> Status:
        return super().status(Text(status) if isinstance(status, str) else status, **how)


class Table(RichTable):
    """A table whose cells are values: line breaks in them are escaped, too."""

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        super().add_row(*(shown(each) if isinstance(each, str) else each for each in cells), **how)


class Bars(Progress):
    """Progress bars on a :class:`Terminal`: what a task is called is text."""

    def __init__(self, console: Console, *columns: ProgressColumn, finished: Text | None = None) -> None:
        words = TextColumn("{task.description}", markup=False)
        super().__init__(SpinnerColumn(finished_text=finished or " "), words, BarColumn(), *columns, console=console)

    def add_task(self, description: str, *args: Any, **fields: Any) -> TaskID:
        return super().add_task(shown(description), *args, **fields)

    def update(self, task_id: TaskID, **fields: Any) -> None:
        if isinstance(fields.get("description"), str):
            fields["description"] = shown(fields["description"])
        super().update(task_id, **fields)


def bold(text: str) -> Text:
    return Text(shown(text), style="bold")


def prepare() -> None:
    """Set up a verb's output: characters that its encoding lacks are escaped instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
