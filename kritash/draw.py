"""What rich draws at a terminal. It takes 70 ms to import, so it is imported when
something is drawn and not before.

What comes from the cluster goes through ``cells`` first and becomes Text, which
rich never reads as markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from kritash.cells import Rows

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

BAR_COLUMNS = 24

_GOOD = frozenset({"healthy", "up", "alive", "active", "yes"})
_BAD = frozenset({"unavailable", "down", "dead", "no", "none", "silent", "unreachable"})
_NUMERIC = frozenset({
    "node", "shard", "leader", "leaders", "term", "weight", "bytes", "keys", "replica", "lag",
    "applied", "before", "after",
})  # fmt: skip


def console_on(stream: TextIO) -> Console:
    """A console that takes text as it is."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def text(content: str, style: str = "") -> Text:
    """Text as it is."""
    from rich.text import Text

    return Text(content, style)


def style_of(cell: str, otherwise: str = "") -> str:
    """The colour of a cell that says something good or bad."""
    if cell in _GOOD:
        return "green"
    return "bold red" if cell.rpartition(", ")[2] in _BAD else otherwise


def table(headers: Sequence[str], rows: Rows) -> Table:
    """A table; columns of numbers stand right."""
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for at, header in enumerate(headers):
        digits = bool(rows) and all(cells[at].isdigit() for cells in rows)
        right = header in _NUMERIC or digits
        drawn.add_column(text(header), justify="right" if right else "left")
    for cells in rows:
        drawn.add_row(*(text(cell, style_of(cell)) for cell in cells))
    return drawn


def pairs(rows: Rows) -> Table:
    """Names and what they have, without lines around."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for name, *values in rows:
        grid.add_row(text(name, "bold"), *(text(value, style_of(value)) for value in values))
    return grid


class FirstThatFits:
    """Draws the first of some renderables that the terminal is wide enough for, or the last."""

    def __init__(self, *candidates: RenderableType) -> None:
        self._candidates = candidates

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement

        for candidate in self._candidates[:-1]:
            if Measurement.get(console, options.update(width=1000), candidate).maximum <= (
                options.max_width
            ):
                yield candidate
                return
        yield self._candidates[-1]


def group(*parts: RenderableType) -> RenderableType:
    """One below the other."""
    from rich.console import Group

    return Group(*parts)


def bar(share: float, columns: int = BAR_COLUMNS) -> RenderableType:
    """How far something is, 0 to 1."""
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=1.0, completed=share, width=columns)


def bar_line(stream: TextIO, share: float) -> str:
    """The same as text for this terminal, in its colours."""
    console = console_on(stream)
    with console.capture() as drawn:
        console.print(bar(share), end="")
    return drawn.get().rstrip("\n")
