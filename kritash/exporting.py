"""``kritash key export``: what the cluster has into a file or a pipe.

The items come from a scan of the client's, one after the other, so an export needs no
more memory than a page of it. A file appears under its name when it is complete: it is
written beside it first. A pipe gets what there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from krita.errors import BadRequest
from kritash.reply import Reply, View, sentence
from kritash.transfer.formats import DEFAULT, FORMATS, Format, format_of
from kritash.transfer.record import Record, TransferError
from kritash.transfer.seal import sealed
from kritash.units import count_text, size_text
from kritash.words import ParseError

if TYPE_CHECKING:
    from krita.items import Item
    from kritash.context import Context
    from kritash.grammar import Invocation

STDOUT = "-"
SHOWN_EVERY = 1000  # records
PIECE_CHARS = 1 << 16  # written to a pipe at once


def run_export(context: Context, invocation: Invocation) -> Reply:
    """Exports the keys that the invocation names.

    Raises ParseError for a file that cannot be written, or that is there already, KritaError
    when the cluster cannot be read; the file is not there then, or as it was.
    """
    path = invocation.text("FILE") or STDOUT
    format = _format(path, invocation.text("format"))
    prefix = invocation.bytes("prefix")
    counted = Counted(context, context.client.scan(prefix))
    if path != STDOUT and os.path.isfile(path) and not invocation.flag("force"):
        raise ParseError(f"{path!r} is there already", hint="--force writes over it")
    assert format.write is not None
    text = sealed(format.write, counted) if format.sealed else format.write(counted)
    try:
        if path == STDOUT:
            for piece in _in_pieces(text):
                context.display.data(piece)
            _tell_lost(context, counted)
            return Reply(View.NOTHING)
        with _written(path) as file:
            file.writelines(text)
    except TransferError as error:
        raise BadRequest(f"{error} (key {counted.last!r})") from error
    _tell_lost(context, counted)
    document: dict[str, object] = {
        "file": path, "format": format.name, "records": counted.records, "bytes": counted.bytes,
        "leased": counted.leased,
    }  # fmt: skip
    size = f"{count_text(counted.records, 'record')}, {size_text(counted.bytes)}"
    return sentence(document, "ok", size, path)


def _format(path: str, name: str | None) -> Format:
    """The format that was named, or that the file's name says, or the default."""
    found = FORMATS[name] if name else format_of(path) or DEFAULT
    assert found.write is not None, "the command's choices are those that can be written"
    return found


def _tell_lost(context: Context, counted: Counted) -> None:
    if counted.leased:
        had = count_text(counted.leased, "record")
        context.display.note(f"{had} had a lease; where it is imported it lasts for good")


class Counted:
    """The records of a scan, with how many there were so far."""

    def __init__(self, context: Context, items: Iterable[Item]) -> None:
        self.records = 0
        self.bytes = 0  # of keys and values
        self.leased = 0  # that end with a lease
        self.last = b""
        self._context = context
        self._items = items

    def __iter__(self) -> Iterator[Record]:
        for item in self._items:
            self.records += 1
            value = item.data
            assert value is not None, "the scan asked for values"
            self.bytes += len(item.key) + len(value)
            self.leased += item.lease is not None
            self.last = item.key
            if self.records % SHOWN_EVERY == 0:
                seen = f", {count_text(self.records, 'record')}, {size_text(self.bytes)}"
                self._context.display.progress("exporting", None, seen)
            # A deadline that passes just now is not the same as none.
            ttl_ms = None if item.expires_in_ms is None else max(1, item.expires_in_ms)
            yield Record(item.key, value, item.content_type, ttl_ms)


def _in_pieces(lines: Iterable[str]) -> Iterator[str]:
    """The same text in fewer pieces."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= PIECE_CHARS:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


@contextmanager
def _written(path: str) -> Iterator[TextIO]:
    """A file that takes its name at the end of the block; none if it ends otherwise. What
    is there and is no file, such as a named pipe, is written to as it is. Raises ParseError."""
    in_place = os.path.exists(path) and not os.path.isfile(path)
    target = path if in_place else f"{path}.part"
    try:
        file = open(target, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ParseError(f"cannot write {target!r}: {reason}") from error
    try:
        with file:
            yield file
        if not in_place:
            os.replace(target, path)
    except BaseException:
        if not in_place:
            os.unlink(target)
        raise
