r"""Words: how a line is cut, and how bytes are typed. Pure.

A line is words between blanks. ``'single quotes'`` take everything literally,
``"double quotes"`` and bare words know escapes: ``\n \t \r \0 \\ \' \"``, a
backslash before a blank or ``#``, and ``\xHH``, so that any bytes can be typed.
Text becomes UTF-8. A ``#`` that begins a word begins a comment. Words from
argv have been through the user's own shell and are taken as they are.

Errors point at the column, counted from 0, where the line went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

_ESCAPES = {
    "n": b"\n", "t": b"\t", "r": b"\r", "0": b"\x00", "\\": b"\\",
    "'": b"'", '"': b'"', " ": b" ", "#": b"#", "-": b"-", "@": b"@",
}  # fmt: skip
_HEX = re.compile("[0-9a-fA-F]{2}")
_BARE = re.compile(rb"[!$-&(-.0-9:-\[\]-~/]+")  # needs no quotes: printable, no ' " \ # blank


class ParseError(Exception):
    """The line makes no sense; nothing was sent. ``column`` is None when the
    words came from argv, where columns mean nothing."""

    def __init__(self, message: str, column: int | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.hint = hint


@attrs.frozen
class Word:
    """``quoted``: some of it was quoted or escaped, so it is no option and no
    ``-`` or ``@file``."""

    data: bytes
    column: int | None = None
    quoted: bool = False

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "surrogateescape")


@attrs.frozen
class Scan:
    """A line cut into words. While it is being typed the last word may be
    ``open``: the cursor is still in it (or in its quotes)."""

    words: tuple[Word, ...]
    open: bool
    quote: str  # the quote that is still open, or ""
    error: ParseError | None


def scan(line: str) -> Scan:
    """Cuts a line into words; never raises (completion needs the good half)."""
    words: list[Word] = []
    at, quote, error = 0, "", None
    is_open = False
    while at < len(line) and error is None and not quote:
        if line[at].isspace():
            at += 1
            is_open = False
        elif line[at] == "#":
            at, is_open = len(line), False
        else:
            word, at, quote, error = _scan_word(line, at)
            words.append(word)
            is_open = True
    return Scan(tuple(words), is_open, quote, error)


def _scan_word(line: str, start: int) -> tuple[Word, int, str, ParseError | None]:
    data, at, quote, quoted = bytearray(), start, "", False
    while at < len(line):
        char = line[at]
        if not quote and char.isspace():
            break
        if quote == "" and char in "'\"":
            quote, quoted, at = char, True, at + 1
        elif char == quote:
            quote, at = "", at + 1
        elif char == "\\" and quote != "'":
            quoted = True
            escape, width = _escape(line, at)
            if not width:
                return _broken_escape(line, start, at, data)
            data += escape
            at += width
        else:
            data += char.encode("utf-8", "surrogateescape")
            at += 1
    return Word(bytes(data), start, quoted), at, quote, None


def _escape(line: str, at: int) -> tuple[bytes, int]:
    """The bytes that an escape means and how long it is; length 0 if malformed."""
    letter = line[at + 1 : at + 2]
    if letter == "x":
        digits = _HEX.match(line, at + 2)
        return (bytes.fromhex(digits[0]), 4) if digits else (b"", 0)
    return (_ESCAPES[letter], 2) if letter in _ESCAPES else (b"", 0)


def _broken_escape(
    line: str, start: int, at: int, data: bytearray
) -> tuple[Word, int, str, ParseError | None]:
    letter = line[at + 1 : at + 2]
    if letter == "x":
        message = r"\x needs two hexadecimal digits"
    else:
        message = f"unknown escape \\{letter}" if letter else "a backslash ends the line"
    hint = r"known are \n \t \r \0 \xHH \\ \' \" and a backslash before a blank; or use 'quotes'"
    return Word(bytes(data), start, True), len(line), "", ParseError(message, at, hint)


def split(line: str) -> list[Word]:
    """The words of a line.

    Raises ParseError: an unknown escape, a quote that is never closed.
    """
    found = scan(line)
    if found.error is not None:
        raise found.error
    if found.quote:
        column = found.words[-1].column
        raise ParseError(f"the {found.quote} that was opened here is never closed", column)
    return list(found.words)


def quote(data: bytes) -> str:
    """How to type these bytes as one word: ``split(quote(data))`` gives them back."""
    if _BARE.fullmatch(data) and not data.startswith((b"-", b"@")):
        return data.decode("ascii")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return '"' + "".join(_quoted_byte(byte) for byte in data) + '"'


def _quoted_byte(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def words_of(arguments: Iterable[str]) -> list[Word]:
    """Words from argv: bytes as the operating system gave them."""
    return [Word(argument.encode("utf-8", "surrogateescape")) for argument in arguments]
