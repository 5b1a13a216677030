"""Whether an export is whole: a line in front of its records, and one behind that counts them.

    {"krita_export": {"format": 1}}
    {"key": "user:1", "value": "Ada"}
    {"krita_export": {"records": 1, "digest": "…"}}

Rules:
* The first line promises the last one. A file that has it and not the other was cut, though
  each of its lines is sound; so it is told from one that people have written, which has
  neither.
* The digest is over what the records say and their order, not over the text: who formats
  the lines anew keeps it, who changes a value does not.
* Several exports in one file, one behind the other, are checked one by one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

from kritash.transfer.record import Record, TransferError
from kritash.units import count_text

NAME = "krita_export"
_MARK = f'{{"{NAME}":'
_FORMAT = 1
_DIGEST_BYTES = 16


class Seal:
    """What the last line says, while the records go by. ~2 µs for each of them."""

    def __init__(self) -> None:
        self.records = 0
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def take(self, record: Record) -> None:
        """One record more."""
        self.records += 1
        content_type = (record.content_type or "").encode()
        for field in (record.key, record.value, content_type, str(record.ttl_ms).encode()):
            self._digest.update(b"%d:" % len(field))
            self._digest.update(field)

    def line(self) -> str:
        """The last line."""
        return _line({"records": self.records, "digest": self._digest.hexdigest()})

    def check(self, said: dict[str, object], place: str) -> None:
        """Raises TransferError unless that is what a last line has to say."""
        if said.get("records") != self.records:
            raise TransferError(
                place,
                f"the export had {said.get('records')} records, and {self.records} are here: "
                "some are missing, or were put in",
            )
        if said.get("digest") != self._digest.hexdigest():
            raise TransferError(
                place,
                "the digest of the export is another: a record is damaged or was changed "
                f"(without the lines of {NAME} it is imported as it is)",
            )


def sealed(
    write: Callable[[Iterable[Record]], Iterator[str]], records: Iterable[Record]
) -> Iterator[str]:
    """The text that ``write`` makes of the records, between the two lines."""
    seal = Seal()

    def counted() -> Iterator[Record]:
        for record in records:
            seal.take(record)
            yield record

    yield _line({"format": _FORMAT})
    yield from write(counted())
    yield seal.line()


class Unsealed:
    """The records of lines that may be an export. ``whole`` becomes True when a last line
    was there and right. ``read`` gives a record before it asks for the next line."""

    def __init__(self, read: Callable[[Iterable[str]], Iterator[Record]]) -> None:
        self.whole = False
        self._read = read
        self._seal = Seal()
        self._promised = False  # a first line, whose last one is to come

    def records(self, lines: Iterable[str]) -> Iterator[Record]:
        """Raises TransferError, also at the end for an export that was cut."""
        for record in self._read(self._unmarked(lines)):
            self._seal.take(record)
            yield record
        if self._promised:
            raise TransferError(
                "the end",
                "the last line of the export is missing, and with it whatever stood behind "
                f"{count_text(self._seal.records, 'record')}: the file was cut",
            )

    def _unmarked(self, lines: Iterable[str]) -> Iterator[str]:
        """The other lines; an empty one for each of ours, so that their numbers stay."""
        for number, line in enumerate(lines, 1):
            if not line.lstrip().startswith(_MARK):
                yield line
                continue
            said = _said(line, f"line {number}")
            if "format" in said:
                self._begin(said, f"line {number}")
            else:
                self._seal.check(said, f"line {number}")
                self.whole, self._promised, self._seal = True, False, Seal()
            yield "\n"

    def _begin(self, said: dict[str, object], place: str) -> None:
        if said["format"] != _FORMAT:
            raise TransferError(place, "an export of a newer kritash")
        if self._promised:
            raise TransferError(place, "the last line of the export before is missing")
        self._promised, self._seal = True, Seal()


def _line(said: dict[str, object]) -> str:
    return json.dumps({NAME: said}) + "\n"


def _said(line: str, place: str) -> dict[str, object]:
    try:
        said = json.loads(line)[NAME]
    except (ValueError, RecursionError) as error:
        raise TransferError(place, f"a damaged line of an export: {error}") from error
    if not isinstance(said, dict):
        raise TransferError(place, f"{NAME} must be an object")
    return said
