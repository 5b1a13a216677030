"""A flat map, name by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.cells import Rows, row
from kritash.draw import pairs

if TYPE_CHECKING:
    from rich.console import RenderableType


def plain(document: object) -> Rows:
    """A row for each name."""
    items = document.items() if isinstance(document, dict) else ()
    return [row(str(name), value) for name, value in items]


def drawn(document: object) -> RenderableType:
    """The same in two columns."""
    return pairs(plain(document))
