"""A flat map, name by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.cells import Rows, data_row, row
from kritash.draw import pairs

if TYPE_CHECKING:
    from rich.console import RenderableType


def plain(document: object) -> Rows:
    """A row for each name."""
    return [data_row(str(name), value) for name, value in _items(document)]


def drawn(document: object) -> RenderableType:
    """The same in two columns."""
    return pairs([row(str(name), value) for name, value in _items(document)])


def _items(document: object) -> list[tuple[object, object]]:
    return list(document.items()) if isinstance(document, dict) else []
