"""The answers to requests that carry an idempotency key, so that each happens once.

For those who keep no session: a form that is sent twice, a script that is run again. The
answer lies in an inner row beside the key that was written, for an hour by the shard's clock. A
memo remembers which request it answers; the same key on another one is refused, since
it is a mistake that would otherwise look like a success.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from krita.codec import decode, encode
from krita.errors import BadRequest, Status
from krita.limits import IDEMPOTENCY_KEY_BYTES_MAX
from krita.operations import OPERATIONS
from kritad.state.keyspace import Keyspace
from kritad.state.verbs import Refusal, Reply
from kritad.storage.places import inner_key, stored_token

KIND = b"i"
MEMO_TTL_MS = 3_600_000
_DIGEST_BYTES = 16
_NODES_OWN = "value_bytes_max"


class Memo:
    """The memo of one request, there already or to be written."""

    def __init__(
        self, keyspace: Keyspace, name: object, key: bytes, op: int, asked: Sequence[object]
    ) -> None:
        """``asked`` is what makes it the same request: see ``asked_by``. Raises BadRequest."""
        digest = blake2b(
            checked_name(name), digest_size=_DIGEST_BYTES, person=b"idempotency"
        ).digest()
        self._key = inner_key(KIND, digest, stored_token(key))
        request = encode([op, *asked])
        self._request = blake2b(request, digest_size=_DIGEST_BYTES, person=b"request").digest()
        self._keyspace = keyspace

    def reply(self) -> Reply | None:
        """The answer that was given; None: the request is new."""
        row = self._keyspace.get(self._key)
        if row is None or row.expires_ms <= self._keyspace.clock_ms:
            return None
        fields = decode(row.value)
        assert isinstance(fields, list), "a memo is an array"
        request, status, values = fields
        if request != self._request:
            return int(Status.CONFLICT), [int(Refusal.IDEMPOTENCY_KEY_USED)]
        return status, values

    def keep(self, reply: Reply, index: int) -> None:
        """This is the answer from now on."""
        status, values = reply
        data = encode([self._request, status, values])
        expires_ms = self._keyspace.clock_ms + MEMO_TTL_MS
        self._keyspace.put_inner(self._key, data, index, expires_ms)


def checked_name(name: object) -> bytes:
    """An idempotency key. Raises BadRequest for what cannot be one."""
    if type(name) is not bytes or not 0 < len(name) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise BadRequest(
            f"an idempotency key is a byte string of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"
        )
    return name


def asked_by(op: int, fields: Sequence[object]) -> list[object]:
    """What a client has asked for, of an operation's fields behind the session's: without what
    a node has added (its value_bytes_max), since it may come again by another node."""
    names = OPERATIONS[op].fields[-len(fields) :]
    return [field for name, field in zip(names, fields, strict=True) if name != _NODES_OWN]
