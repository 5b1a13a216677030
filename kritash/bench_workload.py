"""Which requests the load generator sends: encoded once, as far as possible.

Generating load takes processor time from the servers beside it, so a request's
body is put together from parts that are encoded at first use: for a get nothing
is left to do, for a put one concatenation.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from krita.codec import encode
from krita.operations import OPERATIONS, Consistency, Op
from krita.session import Ticket

# Shard, operation code, body, and the place in a session if it has one. A tuple of
# plain things, because one is made for every request.
Work: TypeAlias = tuple[int, int, bytes, Ticket | None]

GET, PUT = int(Op.GET), int(Op.PUT)

VALUES = 16  # different values, so that nothing can compress them all into one

# A put without a session, up to its key: an array of seven that begins 0, 0, 0. The nulls
# behind these may be left out.
_PUT_HEAD = b"\x87\x00\x00\x00"
# Behind the value: no content type, no condition.
_PUT_TAIL = b"\xf6\xf6"
assert OPERATIONS[Op.PUT].fields[:7] == (
    "session", "sequence", "acked_to", "key", "value", "content_type", "if_revision",
), "the two constants above spell this"  # fmt: skip


class Workload:
    """Keys, values and the order in which they are used; one seed, one order."""

    def __init__(
        self,
        keys: int,
        value_size: int,
        prefix: bytes,
        shard_of: Callable[[bytes], int],
        seed: int,
    ) -> None:
        chance = random.Random(seed)
        self.keys = keys
        self._prefix = prefix
        self._shard_of = shard_of
        self._next = chance.random
        self._values = [encode(chance.randbytes(value_size)) for _ in range(VALUES)]
        # Filled at first use: a run over ten million keys should start at once.
        self._gets: list[Work | None] = [None] * keys
        self._puts: list[Work | None] = [None] * keys  # their bodies lack the value

    def key(self, index: int) -> bytes:
        """The key of that index."""
        return b"%s%08d" % (self._prefix, index)

    def get(self) -> Work:
        """A read of a random key."""
        index = int(self._next() * self.keys)
        return self._gets[index] or self._encode_get(index)

    def put(self) -> Work:
        """A write of a random key."""
        return self.put_of(int(self._next() * self.keys))

    def put_of(self, index: int) -> Work:
        """A write of that key."""
        shard, op, head, _ = self._puts[index] or self._encode_put(index)
        return shard, op, head + self._values[index % VALUES] + _PUT_TAIL, None

    def mixed(self, read_ratio: float) -> Callable[[], Work]:
        """Reads and writes in that proportion."""

        def either() -> Work:
            return self.get() if self._next() < read_ratio else self.put()

        return either

    def fill(self) -> Callable[[], Work | None]:
        """Every key once, then None."""
        indexes = iter(range(self.keys))

        def following() -> Work | None:
            index = next(indexes, None)
            return None if index is None else self.put_of(index)

        return following

    def _encode_get(self, index: int) -> Work:
        key = self.key(index)
        body = encode([key, int(Consistency.LINEARIZABLE)])
        work = self._gets[index] = (self._shard_of(key), GET, body, None)
        return work

    def _encode_put(self, index: int) -> Work:
        key = self.key(index)
        head = _PUT_HEAD + encode(key)
        work = self._puts[index] = (self._shard_of(key), PUT, head, None)
        return work


def in_session(work: Work, ticket: Ticket) -> Work:
    """The same put as a numbered write of a session: sent twice, it happens once."""
    shard, op, body, _ = work
    session = ticket.session
    head = b"\x87" + encode(session.id) + encode(ticket.sequence) + encode(session.acked_to)
    return shard, op, head + body[len(_PUT_HEAD) :], ticket
