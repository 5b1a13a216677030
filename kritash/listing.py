"""A list that is shown while it comes, piece by piece: nobody waits for the last row, and no
more of it is held than a piece. With ``--json`` all of it is one array, a row on each line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from kritash.render import jsonable
from kritash.reply import Reply, View

if TYPE_CHECKING:
    from kritash.context import Display

ROWS_AT_ONCE = 200  # of a table; each has a head of its own


@attrs.define
class Listing:
    """Made for one list; ``header``: whether a pipe gets one, in front of the first row."""

    display: Display
    view: View
    header: bool = True
    rows: int = 0  # shown so far
    _held: list[dict[str, object]] = attrs.field(factory=list)

    def add(self, row: dict[str, object]) -> None:
        """One row more. Raises OSError, as the display does."""
        self._held.append(row)
        if len(self._held) == ROWS_AT_ONCE:
            self._show()

    def end(self) -> None:
        """What is left. Raises OSError."""
        if self._held or not self.rows:
            self._show()
        if self.display.as_json:
            self.display.data("\n]\n" if self.rows else "[]\n")

    def _show(self) -> None:
        if self.display.as_json:
            lines = [json.dumps(jsonable(row), ensure_ascii=False) for row in self._held]
            if lines:
                self.display.data((",\n" if self.rows else "[\n") + ",\n".join(lines))
        else:
            first = self.header and not self.rows
            self.display.part(Reply(self.view, {"items": self._held, "header": first}))
        self.rows += len(self._held)
        self._held = []
