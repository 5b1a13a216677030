"""What the doctor found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, row
from kritash.documents import rows, text

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = ["urgency", "code", "what", "why", "mend", "what_to_do"]
_STYLES = {"now": "bold red", "urgent": "red", "soon": "yellow", "note": "cyan"}


def plain(findings: object) -> Rows:
    """A header, and a row for each finding."""
    return [HEADERS, *(row(*(text(f, name) for name in HEADERS)) for f in rows(findings))]


def drawn(findings: object) -> RenderableType:
    """A paragraph for each finding."""
    from rich.padding import Padding
    from rich.table import Table

    found = rows(findings)
    if not found:
        return draw.text("nothing is wrong", "green")
    grid = Table.grid(padding=(0, 2))
    for finding in found:
        urgency = text(finding, "urgency")
        body = [draw.text(cell(text(finding, "what")), "bold"), draw.text(_why(finding), "dim")]
        if text(finding, "mend"):
            body.append(draw.text(f"$ {cell(text(finding, 'mend'))}", "green"))
        if text(finding, "what_to_do"):
            body.append(draw.text(cell(text(finding, "what_to_do"))))
        grid.add_row(
            draw.text(cell(urgency), _STYLES.get(urgency, "")),
            Padding(draw.group(*body), (0, 0, 1, 0)),
        )
    return grid


def _why(finding: object) -> str:
    return cell(text(finding, "why"))
