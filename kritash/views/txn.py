"""What a transaction has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, data_row, row, shortened
from kritash.documents import get, rows

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = ["do", "key", "revision", "existed", "result"]
_VALUE_CHARS_MAX = 60


def plain(document: object) -> Rows:
    """``then`` or ``else`` and the revision, then a row for each step."""
    steps = rows(get(document, "results"))
    return [
        row(_branch(document), get(document, "revision")),
        *(data_row(*_fields(step), _outcome(step)) for step in steps),
    ]


def drawn(document: object) -> RenderableType:
    """A sentence and a table."""
    held = get(document, "succeeded") is True
    said = "the comparisons held" if held else "a comparison did not hold"
    head = draw.text(f"{said}: {_branch(document)}, revision {cell(get(document, 'revision'))}")
    steps = rows(get(document, "results"))
    if not steps:
        return head
    return draw.group(head, draw.table(HEADERS, [[*row(*_fields(s)), _short(s)] for s in steps]))


def _branch(document: object) -> str:
    return "then" if get(document, "succeeded") is True else "else"


def _fields(step: dict[str, object]) -> tuple[object, ...]:
    value = step.get("value")
    existed = step.get("existed", value is not None)
    return step.get("do"), step.get("key"), step.get("revision"), existed


def _outcome(step: dict[str, object]) -> object:
    """What it has read, or made."""
    return next((step[name] for name in ("value", "number", "length") if name in step), None)


def _short(step: dict[str, object]) -> str:
    found = _outcome(step)
    return shortened(found, _VALUE_CHARS_MAX) if isinstance(found, bytes) else cell(found)
