"""Prints tables to a terminal or a file without truncation."""

from __future__ import annotations

from rich import box
from rich.measure import Measurement

from streams.runtime.terminal import Table, Terminal, shown

# Width in a file or a pipe: names stay whole, and prose does not make endless lines.
_WIDEST = 160


def show(table: Table) -> None:
    """Prints to standard output. Words too long for their column continue on the next line."""
    # No frame, to save width.
    table.box, table.show_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in table.columns:
        column.overflow = "fold"
        # A name longer than the line would be cut off.
        column.no_wrap &= all(len(str(cell)) < _WIDEST for cell in column.cells)
    if isinstance(table.title, str):
        table.title = shown(table.title)
    console = Terminal()
    if not console.is_terminal:
        wanted = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
        console = Terminal(width=max(console.width, wanted))
    console.print(table)
