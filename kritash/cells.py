"""What a cell of a table says, and text that is safe at a terminal. Pure.

What comes from the cluster is data: control characters in it are shown escaped, so
that a stored value or an address cannot drive the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Rows = list[list[str]]
_SPELLED = {"\\": "\\\\", "\t": "\\t", "\n": "\\n"}


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


def data_cell(value: object) -> str:
    """One cell of a pipe that may be something which people have stored: no two values look
    alike, and none like nothing. What cannot be printed is ``\\xHH`` byte by byte, a backslash
    is doubled, what is empty is ``""``; in double quotes a line of kritash reads it back."""
    match value:
        case b"":
            return '""'
        case b"-" | b'""':
            return f"\\x{value[0]:02x}{value[1:].decode()}"
        case bytes():
            text = value.decode("utf-8", "surrogateescape")
            plain = text.isprintable() and "\\" not in text
            return text if plain else "".join(map(_spelled, text))
        case list() | tuple():
            return ",".join(map(data_cell, value))
        case str() if value:
            return data_cell(value.encode("utf-8", "surrogatepass"))
        case _:
            return cell(value)


def _spelled(char: str) -> str:
    if char in _SPELLED:
        return _SPELLED[char]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def data_row(*values: object) -> list[str]:
    """A row of such cells."""
    return [data_cell(value) for value in values]


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
