"""Reading the positional fields of a meta operation, whose bytes anybody may have
written: each reader gives a value of its type or raises BadRequest with the name."""

from __future__ import annotations

from collections.abc import Sequence

from krita.errors import BadRequest
from krita.operations import OPERATIONS

_UUID_BYTES = 16
_ADDRESS_CHARS_MAX = 300  # a name of 253, brackets and a port
_ZONE_CHARS_MAX = 64
_NONCES_MAX = 64  # a store keeps fewer; see host/bootstrap.py
# Ids and versions fit SQLite's integers and every language's.
_COUNT_MAX = (1 << 63) - 1


class Fields:
    """One request's fields by name, in the order that ``OPERATIONS`` gives them."""

    def __init__(self, op: int, values: Sequence[object]) -> None:
        operation = OPERATIONS[op]
        padded = [*values, *[None] * (len(operation.fields) - len(values))]
        self._operation = operation.name
        self._values = dict(zip(operation.fields, padded, strict=False))

    def count(self, name: str, low: int = 0, high: int = _COUNT_MAX) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._values[name]
        if type(value) is not int or not low <= value <= high:
            raise self._bad(name, f"a whole number from {low} to {high}")
        return value

    def optional_count(self, name: str, low: int = 0, high: int = _COUNT_MAX) -> int | None:
        """As ``count``; None for null."""
        return None if self._values[name] is None else self.count(name, low, high)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._values[name]
        if type(value) is not bool:
            raise self._bad(name, "true or false")
        return value

    def uuid(self, name: str) -> bytes:
        """16 bytes."""
        value = self._values[name]
        if type(value) is not bytes or len(value) != _UUID_BYTES:
            raise self._bad(name, f"{_UUID_BYTES} bytes")
        return value

    def address(self, name: str) -> str:
        """``host:port`` as text; whether it can be reached is not asked here."""
        value = self._values[name]
        if type(value) is not str or not 0 < len(value) <= _ADDRESS_CHARS_MAX:
            raise self._bad(name, f"text of 1 to {_ADDRESS_CHARS_MAX} characters")
        return value

    def zone(self, name: str) -> str:
        """A zone's name; null is the zone of those who name none, ""."""
        value = self._values[name]
        if value is None:
            return ""
        if type(value) is not str or len(value) > _ZONE_CHARS_MAX:
            raise self._bad(name, f"text of at most {_ZONE_CHARS_MAX} characters")
        return value

    def optional_zone(self, name: str) -> str | None:
        """As ``zone``; None for null, which is told apart from ""."""
        return None if self._values[name] is None else self.zone(name)

    def nonce(self, name: str) -> bytes:
        """16 bytes; b"" for null, which releases without nonces send."""
        return b"" if self._values[name] is None else self.uuid(name)

    def nonces(self, name: str) -> list[bytes]:
        """An array of nonces; empty for null."""
        value = self._values[name]
        if value is None:
            return []
        if type(value) is not list or len(value) > _NONCES_MAX:
            raise self._bad(name, f"an array of at most {_NONCES_MAX}")
        nonces = [item for item in value if type(item) is bytes and len(item) == _UUID_BYTES]
        if len(nonces) != len(value):
            raise self._bad(name, f"an array of {_UUID_BYTES} bytes each")
        return nonces

    def counts(self, name: str) -> list[int]:
        """A non-empty array of different whole numbers from 1 on."""
        value = self._values[name]
        if type(value) is not list or not value:
            raise self._bad(name, "a non-empty array")
        counts = [item for item in value if type(item) is int and 0 < item <= _COUNT_MAX]
        if len(counts) != len(value) or len(set(counts)) != len(counts):
            raise self._bad(name, "an array of different whole numbers from 1 on")
        return counts

    def triples(self, name: str) -> list[tuple[int, int, bool]]:
        """An array of ``[id, id, flag]``, the first ids all different."""
        value = self._values[name]
        triples: list[tuple[int, int, bool]] = []
        for item in value if type(value) is list else [None]:
            match item:
                case [int(first), int(second), bool(flag), *_] if (
                    0 < first <= _COUNT_MAX and 0 < second <= _COUNT_MAX
                ):
                    triples.append((int(first), int(second), flag))
                case _:
                    raise self._bad(name, "an array of [replica, node, voter]")
        if len({first for first, _, _ in triples}) != len(triples):
            raise self._bad(name, "an array that names no replica twice")
        return triples

    def array(self, name: str) -> list[object]:
        """Any array; what is in it is the caller's to read."""
        value = self._values[name]
        if type(value) is not list:
            raise self._bad(name, "an array")
        return value

    def _bad(self, name: str, wanted: str) -> BadRequest:
        return BadRequest(f"{self._operation}: {name} has to be {wanted}")
