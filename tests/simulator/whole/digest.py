"""The rolling hash of everything that can be seen of a run: equal hashes, equal runs.

Of what passes between nodes the time, the ends and the length go in, and of what
clients get also the bytes. Between nodes the bytes hold nonces (kritad/server asks
the kernel for its own), which decide nothing.
"""

from __future__ import annotations

import hashlib
import struct

import trio

_HEAD = struct.Struct("<di")


class Digest:
    """``messages`` counts the pieces of bytes that arrived."""

    def __init__(self) -> None:
        self.messages = 0
        self.events = 0
        self._hash = hashlib.blake2b(digest_size=8)

    def message(self, source: str, target: str, piece: bytes | bool | None) -> None:
        """A piece of bytes has arrived, or the end of a connection (None: FIN, False: RST)."""
        self.messages += 1
        size = len(piece) if isinstance(piece, bytes) else -1 if piece is None else -2
        self._hash.update(_HEAD.pack(trio.current_time(), size))
        self._hash.update(f"{source}>{target}".encode())

    def note(self, what: str) -> None:
        """Anything else that has happened."""
        self.events += 1
        self._hash.update(_HEAD.pack(trio.current_time(), 0))
        self._hash.update(what.encode())

    def hex(self) -> str:
        """The hash of all that was noted so far."""
        return self._hash.hexdigest()
