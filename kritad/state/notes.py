"""What a shard as a whole remembers beside its keys and sessions: small, and few.

A *note* is a blob under a number below 0, so that it is stored, hashed and sent beside
the sessions, whose numbers are above 0. A lease is a note, and so is the rule for how long
versions of a prefix's keys are kept. A shard that is split gives a copy of every note to
its other half, as it does with sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kritad.storage.digests import HASH_MODULUS, session_digest

_HASH_MASK = HASH_MODULUS - 1


class Notes:
    """The notes by their numbers. Main thread only."""

    def __init__(self, blobs: Iterable[tuple[int, bytes]] = ()) -> None:
        self._blobs = dict(blobs)
        assert all(number < 0 for number in self._blobs), "a note's number is below 0"
        self._hash = sum(session_digest(*note) for note in self._blobs.items()) & _HASH_MASK
        self._unflushed: set[int] = set()

    def __repr__(self) -> str:
        return f"<Notes {len(self._blobs)}>"

    def __len__(self) -> int:
        return len(self._blobs)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return iter(sorted(self._blobs.items()))

    @property
    def hash(self) -> int:
        """The sum of all digests modulo 2**64."""
        return self._hash

    def get(self, number: int) -> bytes | None:
        """The note, or None."""
        return self._blobs.get(number)

    def put(self, number: int, blob: bytes) -> None:
        """Write a note, in place of an earlier one. ~2 µs."""
        assert number < 0, number
        before = self._blobs.get(number)
        if before is not None:
            self._hash -= session_digest(number, before)
        self._hash = (self._hash + session_digest(number, blob)) & _HASH_MASK
        self._blobs[number] = blob
        self._unflushed.add(number)

    def remove(self, number: int) -> None:
        """Throw a note away, if it is there."""
        before = self._blobs.pop(number, None)
        if before is not None:
            self._hash = (self._hash - session_digest(number, before)) & _HASH_MASK
            self._unflushed.add(number)

    def copy(self) -> Notes:
        """The same notes for another shard: none of them has been frozen there."""
        other = Notes()
        other._blobs = dict(self._blobs)
        other._hash = self._hash
        other._unflushed = set(self._blobs)
        return other

    def freeze(self) -> list[tuple[int, bytes | None]]:
        """What changed since the last freeze, by number; None for what is gone."""
        changed = [(number, self._blobs.get(number)) for number in sorted(self._unflushed)]
        self._unflushed.clear()
        return changed
