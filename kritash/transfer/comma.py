"""CSV (RFC 4180): a header, then a record in each row.

    key,value,content_type,key_base64,value_base64,ttl_ms
    user:1,Ada,text/plain,,,60000
    ,,,/wA=,gA==,

Bytes that are no UTF-8 stand in the base64 columns, and the text columns are empty then;
what is in neither is empty. An empty ttl_ms is none. Columns may stand in any order, and
all but a key's and a value's may be missing. A blank line is no record.

Lines are to be read with ``newline=""``: a value may hold line ends of any kind, and
they are data.
"""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Iterable, Iterator

from krita.limits import VALUE_BYTES_MAX_CEILING
from kritash.transfer.record import Record, TransferError, base64_of, checked, utf8_of

COLUMNS = ("key", "value", "content_type", "key_base64", "value_base64", "ttl_ms")
CELL_CHARS_MAX = 2 * VALUE_BYTES_MAX_CEILING  # base64 makes four of three; csv's own is 131,072


def read(lines: Iterable[str]) -> Iterator[Record]:
    """Raises TransferError, with the line that a record ends on."""
    csv.field_size_limit(CELL_CHARS_MAX)  # csv has one for all; nobody else here reads csv
    rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            place = f"line {rows.line_num}"
            if not row:
                continue
            if header is None:
                header = _header(row, place)
            else:
                yield checked(_record(header, row, place), place)
    except csv.Error as error:
        raise TransferError(f"line {rows.line_num}", f"not CSV: {error}") from error
    if header is None:
        raise TransferError("line 1", f"expected a header: {','.join(COLUMNS)}")


def write(records: Iterable[Record]) -> Iterator[str]:
    """The header, and a row for each."""
    line = _Line()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    yield line.text
    for record in records:
        key, key_base64 = _cells(record.key)
        value, value_base64 = _cells(record.value)
        ttl_ms = "" if record.ttl_ms is None else record.ttl_ms
        writer.writerow((key, value, record.content_type or "", key_base64, value_base64, ttl_ms))
        yield line.text


class _Line:
    """What csv writes a row to."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def _cells(data: bytes) -> tuple[str, str]:
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return "", base64.b64encode(data).decode("ascii")


def _header(row: list[str], place: str) -> list[str]:
    unknown = [name for name in row if name not in COLUMNS]
    if unknown:
        raise TransferError(
            place, f"unknown column {unknown[0]!r}; expected a header of {', '.join(COLUMNS)}"
        )
    if len(set(row)) != len(row):
        raise TransferError(place, "a column is named twice")
    for name in ("key", "value"):
        if name not in row and f"{name}_base64" not in row:
            raise TransferError(place, f"there is no column {name}")
    return row


def _record(header: list[str], row: list[str], place: str) -> Record:
    if len(row) != len(header):
        message = f"expected {len(header)} cells as in the header, found {len(row)}"
        raise TransferError(place, message)
    cells = dict(zip(header, row, strict=True))
    key, value = _bytes(cells, "key", place), _bytes(cells, "value", place)
    return Record(key, value, cells.get("content_type"), _ttl(cells, place))


def _ttl(cells: dict[str, str], place: str) -> int | None:
    text = cells.get("ttl_ms", "")
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,19}", text) or not int(text):
        raise TransferError(place, "ttl_ms must be a whole number from 1 on, or empty")
    return int(text)


def _bytes(cells: dict[str, str], name: str, place: str) -> bytes:
    text, encoded = cells.get(name, ""), cells.get(f"{name}_base64", "")
    if text and encoded:
        raise TransferError(place, f"{name} and {name}_base64 both say something")
    if encoded:
        return base64_of(encoded, f"{name}_base64", place)
    return utf8_of(text, name, place)
