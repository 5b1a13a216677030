"""What a terminal shows after a stream of bytes: as much of ECMA-48 as a line
editor uses. Rows grow downwards without end, so nothing ever scrolls away."""

from __future__ import annotations

import re

COLUMNS = 100
_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([@-~])|\x1b\][^\x07]*\x07|\x1b[=>()][0-9A-B]?")


class Screen:
    """Feed it text; ``str`` is what can be seen."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = [[]]
        self._row = 0
        self._column = 0
        self._unfinished = ""

    def __str__(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self._rows)

    def feed(self, text: str) -> None:
        text = self._unfinished + text
        self._unfinished = ""
        at = 0
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found is not None:
                if found[2]:
                    self._move(found[2], found[1])
                at = found.end()
            elif text[at] == "\x1b" and len(text) - at < 20:
                self._unfinished = text[at:]
                return
            else:
                self._put(text[at])
                at += 1

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._row += 1
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char >= " ":
            if self._column >= COLUMNS:
                self._row, self._column = self._row + 1, 0
            row = self._current()
            row[self._column] = char
            self._column += 1

    def _current(self) -> list[str]:
        while len(self._rows) <= self._row:
            self._rows.append([])
        row = self._rows[self._row]
        row.extend(" " * (self._column + 1 - len(row)))
        return row

    def _move(self, final: str, parameters: str) -> None:
        number = int(parameters) if parameters.isdigit() else 0
        step = max(1, number)
        if final == "A":
            self._row = max(0, self._row - step)
        elif final == "B":
            self._row += step
        elif final == "C":
            self._column = min(COLUMNS - 1, self._column + step)
        elif final == "D":
            self._column = max(0, self._column - step)
        elif final == "K":
            del self._current()[self._column if number == 0 else 0 :]
        elif final == "J":
            del self._current()[self._column :]
            del self._rows[self._row + 1 :]
