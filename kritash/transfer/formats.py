"""The table of formats; the commands' options, completion and help follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath

import attrs

from kritash.transfer import comma, consul, etcd, jsonl
from kritash.transfer.record import Record


@attrs.frozen
class Format:
    """``in_lines``: its reader wants whole lines; another takes pieces of any size.
    ``sealed``: a file of it can say that it is whole (seal.py)."""

    name: str
    summary: str
    read: Callable[[Iterable[str]], Iterator[Record]]
    write: Callable[[Iterable[Record]], Iterator[str]] | None = None
    suffixes: tuple[str, ...] = ()
    in_lines: bool = True
    sealed: bool = False


FORMATS = {
    format.name: format
    for format in (
        Format("jsonl", "a JSON object on each line", jsonl.read, jsonl.write,
               (".jsonl", ".ndjson"), sealed=True),
        Format("csv", "a header, then a row for each key", comma.read, comma.write, (".csv",)),
        Format("consul", "the output of `consul kv export`", consul.read, in_lines=False),
        Format("etcd", 'the output of `etcdctl get "" --prefix -w json`', etcd.read,
               in_lines=False),
    )
}  # fmt: skip

DEFAULT = FORMATS["jsonl"]


def format_of(path: str) -> Format | None:
    """The format that a file's name says; None when it says none."""
    suffix = PurePath(path).suffix.lower()
    return next((format for format in FORMATS.values() if suffix in format.suffixes), None)
