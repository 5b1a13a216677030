"""What a cell of a table says, and text that is safe at a terminal. Pure.

What comes from the cluster is data: control characters in it are shown escaped, so
that a stored value or an address cannot drive the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Rows = list[list[str]]


def visible(data: bytes | str) -> str:
    """Text that is safe at a terminal: whatever is neither printable UTF-8, tab
    nor newline appears as ``\\xHH`` (``\\uHHHH`` beyond one byte)."""
    if isinstance(data, bytes):
        data = data.decode("utf-8", "backslashreplace")
    if data.isprintable():
        return data
    return "".join(
        char if char.isprintable() or char in "\n\t" else _escaped(char) for char in data
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(data: bytes, chars_max: int) -> str:
    """A value as one line of at most so many characters."""
    # What is behind that many bytes cannot be among the first characters.
    line = visible(data[: 4 * chars_max]).replace("\t", "\\t").replace("\n", "\\n")
    if len(line) <= chars_max and len(data) <= 4 * chars_max:
        return line
    return line[: chars_max - 1] + "…"


def cell(value: object) -> str:
    """One cell: no tab or newline of the data may end it."""
    match value:
        case None | "" | b"":
            return "-"
        case bool():
            return "yes" if value else "no"
        case bytes() | str():
            return visible(value).replace("\t", "\\t").replace("\n", "\\n")
        case list() | tuple():
            return ",".join(map(cell, value))
        case _:
            return str(value)


def row(*values: object) -> list[str]:
    """A row of cells."""
    return [cell(value) for value in values]


def lines(rows: Iterable[Sequence[str]]) -> bytes:
    """The rows for a pipe: a line each, tabs between."""
    return "".join("\t".join(cells) + "\n" for cells in rows).encode("utf-8", "backslashreplace")


def without_columns(
    headers: Sequence[str], rows: Rows, names: Sequence[str]
) -> tuple[list[str], Rows]:
    """The table without these columns, of those that it has."""
    kept = [at for at, header in enumerate(headers) if header not in names]
    return [headers[at] for at in kept], [[cells[at] for at in kept] for cells in rows]


def uniform(headers: Sequence[str], rows: Rows, name: str, ordinary: str | None = None) -> bool:
    """Whether a column says nothing: the same in every row (and that, if given)."""
    at = headers.index(name)
    values = {cells[at] for cells in rows}
    return values <= {ordinary} if ordinary is not None else len(values) <= 1
