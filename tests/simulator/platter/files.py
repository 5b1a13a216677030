"""One file of the simulated disk: what a process reads of it, and what a power cut leaves.

Rules (as harsh as disks are known to be, and no harsher):
* A write is seen by every reader at once and is durable after the next sync only.
* A power cut keeps or loses each 512-byte sector of each unsynced write by itself, in
  any order; a sector is whole or not at all (what walscan.py and SQLite's
  POWERSAFE_OVERWRITE assume too). A truncation is kept or lost like a sector.
* A sync that failed has forgotten some of what it should have written: later syncs
  say OK and do not write it either, while readers go on seeing it. That is what Linux
  does (raft.md B5).

Source for the last rule: Rebello et al., "Can applications recover from fsync
failures?", USENIX ATC 2020.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs

SECTOR_BYTES = 512

_Change = tuple[int, bytes | None]  # (offset, bytes written there), (new size, None)


@attrs.define(eq=False)
class SimulatedFile:
    """See the module's docstring."""

    content: bytearray = attrs.field(factory=bytearray)  # what is read
    durable: bytearray = attrs.field(factory=bytearray)  # what the platter holds
    unsynced: list[_Change] = attrs.field(factory=list)  # content minus durable, in order
    named: bool = False  # whether its directory entry is durable

    def __repr__(self) -> str:
        return f"<SimulatedFile {len(self.content)} B unsynced={len(self.unsynced)}>"

    def copy(self) -> SimulatedFile:
        """An independent file in the same state."""
        return SimulatedFile(
            bytearray(self.content), bytearray(self.durable), list(self.unsynced), self.named
        )

    def write(self, offset: int, data: bytes) -> None:
        """Overwrite or extend; what lies between an old end and ``offset`` reads as zeros."""
        if data:
            _apply(self.content, (offset, data))
            self.unsynced.append((offset, data))

    def truncate(self, size: int) -> None:
        """Set the file's size."""
        change = (size, None)
        _apply(self.content, change)
        self.unsynced.append(change)

    def sync(self) -> None:
        """Make everything written so far durable. O(bytes written since the last time)."""
        for change in self.unsynced:
            _apply(self.durable, change)
        self.unsynced.clear()
        self.named = True

    def fail_sync(self, chance: random.Random) -> None:
        """A sync that reports an error: some sectors are never going to be written."""
        self.unsynced = [piece for piece in self._pieces() if chance.random() < 0.5]

    def cut(self, chance: random.Random) -> None:
        """The power goes: become what a restarted machine would find."""
        pieces = list(self._pieces())
        match chance.randrange(4):
            case 0:
                kept = []
            case 1:  # in order up to a point
                kept = pieces[: chance.randrange(len(pieces) + 1)]
            case 2:
                kept = [piece for piece in pieces if chance.random() < 0.5]
            case _:  # all but a little
                kept = [piece for piece in pieces if chance.random() < 0.95]
        for piece in kept:
            _apply(self.durable, piece)
        self.content = bytearray(self.durable)
        self.unsynced.clear()

    def flip(self, bit: int) -> None:
        """Turn one bit over, on the platter and in memory."""
        for image in (self.content, self.durable):
            if bit // 8 < len(image):
                image[bit // 8] ^= 1 << bit % 8

    def _pieces(self) -> Iterator[_Change]:
        """The unsynced changes, cut at the bounds of sectors."""
        for offset, data in self.unsynced:
            if data is None:
                yield offset, None
                continue
            start = 0
            while start < len(data):
                end = start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES
                yield offset + start, data[start:end]
                start = end


def _apply(image: bytearray, change: _Change) -> None:
    offset, data = change
    size = offset if data is None else offset + len(data)
    if len(image) < size:
        image.extend(bytes(size - len(image)))
    if data is None:
        del image[size:]
    else:
        image[offset:size] = data
