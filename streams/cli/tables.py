"""Prints tables to a terminal or a file, with nothing cut."""

from __future__ import annotations

from rich import box
from rich.measure import Measurement

from streams.runtime.terminal import Table, Terminal, shown

# In a file or a pipe a table may be this wide: names stay whole, and prose does not make lines without end.
_WIDEST = 160


def show(table: Table) -> None:
    """Prints to standard output. A word that is too long for its column goes on in the next line."""
    # No frame: eighty columns are few.
    table.box, table.show_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0)
    for column in table.columns:
        column.overflow = "fold"
        # Of a name that no line can hold nothing would be seen but its beginning.
        column.no_wrap &= all(len(str(cell)) < _WIDEST for cell in column.cells)
    if isinstance(table.title, str):
        table.title = shown(table.title)
    console = Terminal()
    if not console.is_terminal:
        wanted = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
        console = Terminal(width=max(console.width, wanted))
    console.print(table)
