"""What scans find and watches see: keys, their values, and how long they last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, data_row, shortened, uniform, without_columns
from kritash.documents import get, rows, whole
from kritash.times import duration_word

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = ["key", "revision", "expires_in_ms", "lease", "content_type", "value"]
_VALUE_CHARS_MAX = 60  # at a terminal
_KEY_CHARS_MAX = 80
_STYLES = {"put": "green", "delete": "red", "expire": "yellow"}


def items_plain(document: object) -> Rows:
    """A row for each key, behind a header if one is wanted; without values it is the key."""
    found = rows(get(document, "items"))
    lines = [_cells(item) if "value" in item else data_row(item.get("key")) for item in found]
    return [HEADERS, *lines] if get(document, "header") else lines


def _cells(item: dict[str, object]) -> list[str]:
    return data_row(*(item.get(name) for name in HEADERS))


def items_drawn(document: object) -> RenderableType:
    """A table; columns that say nothing are left out."""
    found = rows(get(document, "items"))
    if not found:
        return draw.text("no keys")
    cells = [_drawn_cells(item) for item in found]
    headers = ["key", "revision", "lasts", "lease", "content type", "value"]
    dull = [
        name for name in ("lasts", "lease", "content type") if uniform(headers, cells, name, "-")
    ]
    if all("value" not in item for item in found):
        dull.append("value")
    table = draw.table(*without_columns(headers, cells, dull))
    for column in table.columns:
        column.overflow = "fold"
    return table


def _drawn_cells(item: dict[str, object]) -> list[str]:
    left_ms = whole(item, "expires_in_ms")
    return [
        _short(item.get("key"), _KEY_CHARS_MAX),
        cell(item.get("revision")),
        "-" if left_ms is None else duration_word(left_ms // 1000 * 1000 or left_ms),
        cell(item.get("lease")),
        cell(item.get("content_type")),
        _short(item.get("value"), _VALUE_CHARS_MAX),
    ]


def _short(value: object, chars_max: int) -> str:
    return shortened(value, chars_max) if isinstance(value, bytes) and value else cell(value)


def events_plain(document: object) -> Rows:
    """``put``, key, revision, value."""
    return [
        data_row(event.get("type"), event.get("key"), event.get("revision"), event.get("value"))
        for event in rows(document)
    ]


def events_drawn(document: object) -> RenderableType:
    """A line for each."""
    lines = []
    for event in rows(document):
        kind = cell(event.get("type"))
        line = draw.text(f"{kind:<7}", _STYLES.get(kind, ""))
        line.append(f" {_short(event.get('key'), _KEY_CHARS_MAX)}", "bold")
        line.append(f"  revision {cell(event.get('revision'))}", "dim")
        if event.get("value") is not None:
            line.append(f"  {_short(event.get('value'), _VALUE_CHARS_MAX)}")
        lines.append(line)
    return draw.group(*lines)
