"""One long JSON array, element by element.

Other databases export one document with everything in it. ``json.load`` would hold all
of it at once, in about five times its size; this holds one element and the piece of
text that it was in. The elements themselves are read by ``json``.

A library does the same (ijson), and would be one more compiled dependency of every
installation, for two formats that are read once in a cluster's life.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from krita.limits import VALUE_BYTES_MAX_CEILING
from kritash.transfer.record import TransferError, unique

ELEMENT_CHARS_MAX = 4 * VALUE_BYTES_MAX_CEILING
_TOKEN_CHARS_MAX = 16  # what is wrong further from the end than this is not just unfinished
_BLANKS = " \t\n\r"


class Scanner:
    """A JSON text that comes in pieces."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._text = ""
        self._at = 0
        self._lines = 1  # of the text that is behind us
        self._decoder = json.JSONDecoder(object_pairs_hook=unique)

    def elements(self) -> Iterator[object]:
        """The elements of the array that begins here. Raises TransferError."""
        self.expect("[")
        if self.take("]"):
            return
        while True:
            yield self.value()
            if not self.take(","):
                self.expect("]")
                return

    def members(self) -> Iterator[str]:
        """The names of the object that begins here; whoever takes one reads its value before
        it takes the next. Raises TransferError."""
        self.expect("{")
        if self.take("}"):
            return
        seen = set()
        while True:
            name = self.value()
            if not isinstance(name, str) or name in seen:
                raise self.error("expected a name in quotes, each once")
            seen.add(name)
            self.expect(":")
            yield name
            if not self.take(","):
                self.expect("}")
                return

    def end(self) -> None:
        """Raises TransferError when there is more than blanks."""
        if self._next():
            raise self.error("expected the end of the document")

    def expect(self, mark: str) -> None:
        """Reads a mark. Raises TransferError when something else stands there."""
        if not self.take(mark):
            found = self._next()
            raise self.error(f"expected {mark!r}, found {repr(found) if found else 'the end'}")

    def take(self, mark: str) -> bool:
        """Reads a mark if it is the next."""
        if self._next() != mark:
            return False
        self._at += 1
        return True

    def value(self) -> object:
        """Reads one value, whole. Raises TransferError."""
        if not self._next():
            raise self.error("expected a value, found the end")
        wanted = 1
        while True:
            try:
                item, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                wanted *= 2  # so that reading a long element is not quadratic
                if not self._is_unfinished(error) or not self._more(wanted):
                    raise self.error(f"not JSON: {error}") from error
                continue
            # A number may go on in the next piece.
            if end == len(self._text) and self._more(1):
                continue
            self._at = end
            return item

    def error(self, message: str) -> TransferError:
        """An error at this place."""
        line = self._lines + self._text.count("\n", 0, self._at)
        return TransferError(f"line {line}", message)

    def _is_unfinished(self, error: Exception) -> bool:
        """Whether more text may put it right."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        # Of a string that has no end json names the beginning.
        near_end = error.pos > len(self._text) - _TOKEN_CHARS_MAX
        return near_end or error.msg.startswith("Unterminated string")

    def _next(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(1):
                return ""

    def _more(self, count: int) -> bool:
        """Adds so many pieces; False when there are none. Raises TransferError when an
        element is longer than any record can be."""
        pieces = [piece for _, piece in zip(range(count), self._pieces, strict=False)]
        if not pieces:
            return False
        if len(self._text) - self._at > ELEMENT_CHARS_MAX:
            raise self.error(f"an element has more than {ELEMENT_CHARS_MAX} characters")
        self._lines += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + "".join(pieces)
        self._at = 0
        return True
