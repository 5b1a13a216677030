"""What a client returns, and what it checks before anything is sent.

The checks repeat the server's: a mistake of the caller's is best reported where
he made it, without a round trip and while the stack still shows the line.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from krita.errors import BadRequest, ProtocolError, TooLarge
from krita.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX_CEILING
from krita.operations import Consistency


@attrs.frozen
class Value:
    """A key's value as it was read."""

    data: bytes
    revision: int  # of the write that set it; what if_revision compares with
    content_type: str | None
    shard_revision: int  # how far the shard had come when it was read
    staleness_ms: int  # 0 for a linearizable read

    def text(self) -> str:
        """The data as UTF-8 text. Raises UnicodeDecodeError if it is none."""
        return self.data.decode()


@attrs.frozen
class PutResult:
    """What a put did."""

    revision: int  # the key's revision from now on
    existed: bool  # whether the key had a value before


@attrs.frozen
class DeleteResult:
    """What a delete did."""

    revision: int  # at which the key went; the shard's revision
    existed: bool  # whether there was anything to remove


@attrs.frozen
class Pong:
    """What a node says of itself."""

    node: int
    cluster_id: str  # hexadecimal
    version: str
    clock_ms: int  # its wall clock, milliseconds since 1970


def key_bytes(key: str | bytes) -> bytes:
    """The key as bytes; text is UTF-8. Raises BadRequest or TooLarge."""
    if isinstance(key, str):
        key = key.encode()
    elif not isinstance(key, bytes):
        raise BadRequest(f"a key is str or bytes, not {type(key).__name__}")
    if not key:
        raise BadRequest("the key is empty", hint=f"a key has 1 to {KEY_BYTES_MAX} bytes")
    if len(key) > KEY_BYTES_MAX:
        raise TooLarge(
            f"the key has {len(key)} bytes, the limit is {KEY_BYTES_MAX}",
            detail={"key_bytes": len(key), "key_bytes_max": KEY_BYTES_MAX},
        )
    return key


def value_bytes(value: str | bytes | bytearray | memoryview) -> bytes:
    """The value as bytes; text is UTF-8. Raises BadRequest or TooLarge.

    The cluster's own limit may be lower than the one checked here.
    """
    if isinstance(value, str):
        value = value.encode()
    elif isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    elif not isinstance(value, bytes):
        raise BadRequest(
            f"a value is str or bytes, not {type(value).__name__}",
            hint="encode it, for instance with json.dumps",
        )
    if len(value) > VALUE_BYTES_MAX_CEILING:
        raise TooLarge(
            f"the value has {len(value)} bytes, the limit is {VALUE_BYTES_MAX_CEILING}",
            detail={"value_bytes": len(value), "value_bytes_max": VALUE_BYTES_MAX_CEILING},
        )
    return value


def check_revision(if_revision: int | None) -> int | None:
    """Raises BadRequest for what cannot be a revision."""
    if if_revision is None:
        return None
    if not isinstance(if_revision, int) or isinstance(if_revision, bool) or if_revision < 0:
        raise BadRequest(
            f"if_revision is a revision or 0 for absent, not {if_revision!r}",
        )
    return if_revision


def consistency_code(consistency: Consistency | str) -> Consistency:
    """``"stale"`` and ``"linearizable"`` in the form that is sent. Raises BadRequest."""
    if isinstance(consistency, Consistency):
        return consistency
    try:
        return Consistency[consistency.upper()]
    except (KeyError, AttributeError):
        names = " or ".join(each.name.lower() for each in Consistency)
        raise BadRequest(f"consistency is {names}, not {consistency!r}") from None


def read_value(body: object) -> Value | None:
    """The reply of ``get``. Raises ProtocolError for anything malformed."""
    match body:
        case [None, *_]:
            return None
        case [
            bytes(data), int(revision), str() | None as content_type,
            int(shard_revision), int() | None as staleness_ms, *_,
        ]:  # fmt: skip
            return Value(data, revision, content_type, shard_revision, staleness_ms or 0)
    raise ProtocolError("the reply to get is malformed")


def read_put(body: object) -> PutResult:
    """The reply of ``put``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed), *_]:
            return PutResult(revision, existed)
    raise ProtocolError("the reply to put is malformed")


def read_delete(body: object) -> DeleteResult:
    """The reply of ``delete``. Raises ProtocolError."""
    match body:
        case [int(revision), bool(existed), *_]:
            return DeleteResult(revision, existed)
    raise ProtocolError("the reply to delete is malformed")


def read_pong(body: object) -> Pong:
    """The reply of ``ping``. Raises ProtocolError."""
    match body:
        case [int(node), bytes(cluster_id), str(version), int(clock_ms), *_]:
            return Pong(node, cluster_id.hex(), version, clock_ms)
    raise ProtocolError("the reply to ping is malformed")


def read_session(body: object) -> int:
    """The reply of ``session_open``. Raises ProtocolError."""
    match body:
        case [int(session), *_] if session > 0:
            return session
    raise ProtocolError("the reply to session_open is malformed")


def read_list(body: object) -> Sequence[object]:
    """Any reply, as its elements. Raises ProtocolError."""
    if isinstance(body, list):
        return body
    raise ProtocolError("a reply's body is not an array")
