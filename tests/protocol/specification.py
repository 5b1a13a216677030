"""The parts of protocol/README.md that follow from the code, as the code has them.

test_specification.py compares them with the document and shows, where they
differ, the text that belongs there.
"""

from __future__ import annotations

from krita import limits
from krita.codec import decode, encode_body
from krita.connection import Connection, ServerConnection
from krita.errors import ERRORS, Outcome, Status
from krita.framing import FrameBuffer
from krita.hello import MAGIC, VERSION_MAX, VERSION_MIN, Hello, Identity
from krita.operations import OPERATIONS, Access, Op, Route
from tests.protocol.notation import diagnose

_ACCESS = {
    Access.DATA: "data",
    Access.STATUS: "status",
    Access.ADMIN: "admin",
    Access.PEER: "peer",
    Access.LOG: "log",
}
_ROUTE = {Route.KEY: "key", Route.SHARD: "shard", Route.META: "meta", Route.LOCAL: "any"}

# What a client does with each error. Kept here and not in the code: advice to
# those who write clients, not behaviour.
_ADVICE = {
    Status.BAD_REQUEST: "do not retry: the request is wrong",
    Status.UNAUTHENTICATED: "do not retry: get a token",
    Status.FORBIDDEN: "do not retry: ask for the permission",
    Status.CONDITION_FAILED: "read again, decide again",
    Status.TOO_LARGE: "do not retry: send less",
    Status.NOT_LEADER: "retry at `detail.address` if its `term` is newer than yours, else anywhere",
    Status.WRONG_SHARD: "fetch the shard map, then retry",
    Status.BUSY: "retry after a pause that grows",
    Status.UNAVAILABLE: "retry after a pause, at another node",
    Status.UNKNOWN: "retry only with the same session and sequence",
    Status.NO_SPACE: "retry much later, or free space: deletes are taken",
    Status.SESSION_EXPIRED: "open a session; a write that was sent before is of unknown outcome",
    Status.UNSUPPORTED: "do not retry: the server is older",
    Status.INTERNAL: "report it; retry only with the same session and sequence",
    Status.FOREIGN: "do not retry: wrong cluster, or admin tokens differ",
    Status.DEADLINE: "retry if you can still wait",
    Status.CONFLICT: "read, and decide again",
    Status.LOCKED: "wait for a change of the lock's key, then try again",
    Status.LEASE_UNKNOWN: "grant a new lease, and write its keys again",
    Status.COMPACTED: "read anew what you watch or ask for, then go on from there",
    Status.SEVERAL_GROUPS: "do not retry: name the keys so that they are of one group",
}

_LIMITS = {
    "KEY_BYTES_MAX": "bytes of a key; at least one",
    "VALUE_BYTES_MAX_DEFAULT": "bytes of a value, unless `value_bytes_max` says otherwise",
    "VALUE_BYTES_MAX_CEILING": "what `value_bytes_max` may be set to",
    "FRAME_OVERHEAD_BYTES": "by which a client's frame may be larger than a key and a value",
    "FRAME_BYTES_MAX_HELLO": "bytes of a frame during the handshake",
    "FRAME_BYTES_MAX_PEER": "bytes of a frame between nodes",
    "CBOR_DEPTH_MAX": "arrays and maps in each other",
    "CBOR_ITEMS_MAX": "elements of one item in all",
    "REQUESTS_IN_FLIGHT_MAX": "unanswered requests of a connection before the server stops reading",
    "POLLS_IN_FLIGHT_MAX": "the same of `changes`, which are not among those",
    "TXN_OPERATIONS_MAX": "comparisons and operations of a transaction together",
    "LEASE_LIMIT": "leases' ids are below it",
    "TTL_MS_MAX": "milliseconds of a time to live, and of a retention",
    "IDEMPOTENCY_KEY_BYTES_MAX": "bytes of an idempotency key; at least one",
    "PORT_DEFAULT": "the port",
}


def operations_table() -> str:
    lines = [
        "| code | operation | answered by | access | log | body | reply |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in OPERATIONS.values():
        lines.append(
            f"| {int(row.code)} | `{row.name}`: {row.summary} | {_ROUTE[row.route]}"
            f" | {_ACCESS[row.access]} | {'yes' if row.write else ''}"
            f" | {', '.join(row.fields)} | {', '.join(row.reply)} |"
        )
    return "\n".join(lines)


def errors_table() -> str:
    lines = ["| status | name | outcome | advice | meaning |", "|---|---|---|---|---|"]
    for status, error in ERRORS.items():
        outcome = error.outcome_default.name.lower().replace("_", " ")
        meaning = " ".join((error.__doc__ or "").split()).replace("``", "`")
        lines.append(
            f"| {int(status)} | {status.name} | {outcome} | {_ADVICE[status]} | {meaning} |"
        )
    return "\n".join(lines)


def _number(value: int) -> str:
    return f"{value:,}" if value >= 10_000 else str(value)


def limits_table() -> str:
    lines = ["| limit | value | of |", "|---|---|---|"]
    lines += [
        f"| {name} | {_number(getattr(limits, name))} | {text} |" for name, text in _LIMITS.items()
    ]
    return "\n".join(lines)


def outcomes() -> str:
    names = (f"{int(o)} {o.name.lower().replace('_', ' ')}" for o in Outcome)
    return ", ".join(names)


def versions() -> str:
    if VERSION_MIN == VERSION_MAX:
        return f"describes version {VERSION_MAX}."
    return f"describes versions {VERSION_MIN} to {VERSION_MAX}."


def transcript() -> str:
    """A client's first conversation: put a key, read it, ask for one that is absent."""
    client, server = Connection.client(Hello()), ServerConnection()
    identity = Identity(bytes(range(16)), 1, b"\x5a" * 16, 1, "127.0.0.1:8080")
    greeting = client.greeting()
    server.receive_data(greeting)
    welcome = server.accept(identity, limits.frame_bytes_max(limits.VALUE_BYTES_MAX_DEFAULT))
    client.receive_data(welcome)
    lines = [f"client> {MAGIC.hex()}", "        # magic"]
    lines += _message("client", greeting[len(MAGIC) :], "hello")
    lines += _message("server", welcome, "welcome")
    put = encode_body(Op.PUT, 0, None, None, b"greeting", b"hello", "text/plain", None)
    get, absent = encode_body(Op.GET, b"greeting", 0), encode_body(Op.GET, b"nobody", 0)
    for op, body, reply in (
        (Op.PUT, put, [7, False]),
        (Op.GET, get, [b"hello", 7, "text/plain", 7, 0]),
        (Op.GET, absent, [None, 0, None, 7, 0]),
    ):
        request_id, data = client.request(op, body, deadline_ms=2000)
        lines += _message("client", data, f"request {request_id}: {op.name.lower()}", body)
        answer = server.reply(request_id, Status.OK, reply)
        client.receive_data(answer)
        lines += _message("server", answer, f"reply {request_id}")
    return "\n".join(lines)


def _message(who: str, frame: bytes, what: str, body: bytes = b"") -> list[str]:
    (payload,) = FrameBuffer(1 << 20).feed(frame)
    lines = [f"{who}> {frame.hex()}", f"        # {what}: {diagnose(decode(payload))}"]
    if body:
        lines.append(f"        # body: {diagnose(decode(body))}")
    return lines
