"""Where a stored key stands on the ring, and the keys that the store keeps for itself.

A row whose key begins with ``INNER`` is not a user's: it keeps an older version of a key,
or the answer to a request that may be repeated (kritad/state). Such *inner rows* are
flushed, counted, hashed, sent and split like all others, because they are like all others;
only their place on the ring is not that of their bytes. The last four bytes say it: that of
the user's key that they belong to, so that both stay in one shard.

No user's key begins with ``INNER`` (the service refuses it): 0xFF begins no text in UTF-8.
"""

from __future__ import annotations

from zlib import crc32

from krita.ring import tag_of

INNER = 0xFF
INNER_PREFIX = b"\xff"  # all inner keys, and behind all users' keys
_TOKEN_BYTES = 4


def stored_token(key: bytes) -> int:
    """Where the row is on the ring, ``[0, 2**32)``. 0.2 µs. ``Extent.cell_of`` has the
    same in place."""
    if key[0] == INNER:
        return int.from_bytes(key[-_TOKEN_BYTES:], "big")
    return crc32(tag_of(key)) if b"{" in key else crc32(key)


def is_users_key(key: bytes) -> bool:
    """Whether a user may have a row of that key."""
    return bool(key) and key[0] != INNER


def inner_key(kind: bytes, body: bytes, token: int) -> bytes:
    """The key of an inner row: ``kind`` is one byte; rows of a kind are in the order of
    their ``body``."""
    assert len(kind) == 1, kind
    return INNER_PREFIX + kind + body + token.to_bytes(_TOKEN_BYTES, "big")


def inner_body(key: bytes) -> bytes:
    """What ``inner_key`` was given as the body."""
    return key[2:-_TOKEN_BYTES]
