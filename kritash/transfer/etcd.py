"""What ``etcdctl get "" --prefix -w json`` prints: one object.

    {"header": {…}, "kvs": [{"key": "YQ==", "mod_revision": 7, "value": "MQ=="}], "count": 1}

Keys and values are base64; an empty value is left out, and so is ``kvs`` when there are no
keys. How long a lease has still to live is not in it, so a key that hangs on one becomes a
key for good, and its lease is lost. An answer that was cut off by ``--limit`` is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kritash.transfer.elements import Scanner
from kritash.transfer.record import Record, TransferError, base64_of, checked

_FIELDS = frozenset({"key", "value", "create_revision", "mod_revision", "version", "lease"})


def read(pieces: Iterable[str]) -> Iterator[Record]:
    """Raises TransferError, naming the record by its number from 1 on; for an answer that
    was cut off, behind the last record that it has."""
    scanner = Scanner(pieces)
    known = False
    for name in scanner.members():
        if name == "kvs":
            known = True
            yield from _records(scanner)
            continue
        value = scanner.value()
        known = known or name == "header"
        if name == "more" and value:
            raise scanner.error("etcd has more keys than this answer: ask without --limit")
    scanner.end()
    if not known:
        raise scanner.error('expected {"header": …, "kvs": […]}, as `etcdctl get -w json` prints')


def _records(scanner: Scanner) -> Iterator[Record]:
    for number, item in enumerate(scanner.elements(), 1):
        place = f"record {number}"
        yield checked(_record(item, place), place)


def _record(item: object, place: str) -> Record:
    if not isinstance(item, dict):
        raise TransferError(place, 'expected an object, {"key": …, "value": …}')
    unknown = item.keys() - _FIELDS
    if unknown:
        message = f"unknown field {min(unknown)!r}; is this the output of `etcdctl get -w json`?"
        raise TransferError(place, message)
    key, value = item.get("key"), item.get("value", "")
    if not isinstance(key, str) or not isinstance(value, str):
        raise TransferError(place, "expected key and value as text, in base64")
    lost = ("lease",) if item.get("lease") else ()
    return Record(base64_of(key, "key", place), base64_of(value, "value", place), lost=lost)
