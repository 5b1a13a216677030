"""What ``consul kv export`` prints: one array.

    [{"key": "app/name", "flags": 0, "value": "aGVsbG8="}]

Values are base64. Krita keeps no flags, so those that are not 0 are lost. A namespace or
partition other than the default is refused: keys of two of them may be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kritash.transfer.elements import Scanner
from kritash.transfer.record import Record, TransferError, base64_of, checked, utf8_of

_PLACES = frozenset({"namespace", "partition"})
_FIELDS = frozenset({"key", "flags", "value"}) | _PLACES


def read(pieces: Iterable[str]) -> Iterator[Record]:
    """Raises TransferError, naming the record by its number from 1 on."""
    scanner = Scanner(pieces)
    for number, item in enumerate(scanner.elements(), 1):
        place = f"record {number}"
        yield checked(_record(item, place), place)
    scanner.end()


def _record(item: object, place: str) -> Record:
    if not isinstance(item, dict):
        raise TransferError(place, 'expected an object, {"key": …, "flags": …, "value": …}')
    unknown = item.keys() - _FIELDS
    if unknown:
        message = f"unknown field {min(unknown)!r}; is this the output of `consul kv export`?"
        raise TransferError(place, message)
    for name in _PLACES & item.keys():
        if item[name] not in ("", "default"):
            raise TransferError(place, f"the {name} is {item[name]!r}, expected the default one")
    match item:
        case {"key": str(key), "value": str(value)}:
            lost = ("flags",) if item.get("flags") else ()
            data = base64_of(value, "value", place)
            return Record(utf8_of(key, "key", place), data, lost=lost)
    raise TransferError(place, "expected key and value as text, the value in base64")
