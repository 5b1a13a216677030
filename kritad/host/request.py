"""A request on its way through this node, and the deadlines of all of them.

Rules:
* A request is answered exactly once; ``answer`` after that does nothing. (A
  deadline and a commit may meet in the same turn.)
* What its end may claim is design section 10: before it was appended, *not
  applied*; afterwards only what the log proves; else *unknown*.

Deadlines are kept in buckets of time, not in a heap or a scope each: a trio
``move_on_after`` costs 10 µs, an append to a list 0.05.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from krita.errors import DeadlineExceeded, KritaError, OutcomeUnknown, to_wire
from krita.operations import OPERATIONS, Route
from kritad.trail import Trail

# What to do about a write of which nobody knows. Who comes by HTTP has no session, but may
# have given it an idempotency key.
IN_DOUBT = (
    "read the key, or send it again with its session and sequence, or with its idempotency key"
)

# Operations whose key says which shard they are for. It may say another one later, when
# that shard was split; what is for a shard by its number stays there.
KEYED = frozenset(row.code for row in OPERATIONS.values() if row.route is Route.KEY)

Respond = Callable[[int, object], None]


@attrs.define(eq=False)
class Request:
    """One client command, from the moment a server has read it."""

    op: int
    body: bytes
    key: bytes
    shard: int  # of the KEYED: where it was routed last
    respond: Respond | None
    deadline_ms: float  # on the host's monotonic clock
    forwarded: bool = False  # came from another node: answered here or not at all
    write: bool = False
    nearest: int = 0  # a node that is asked first though it need not lead: a stale read's
    # Of a read that is more than its key: its fields behind the key or the shard's number.
    # Of a write of several keys: all of them.
    fields: Sequence[object] = ()
    # Of a linearizable read: the attempts that held what it reads when it was first looked
    # at, and that it waits for. Later ones may come behind it. None: not looked at yet.
    awaits: set[int] | None = None
    # Of `changes`: then it is answered though nothing changed. Of `txn_prepare`: how long it
    # may be kept waiting for its keys; 0: not at all.
    wait_until_ms: float = 0.0
    # Where it stands in the log, once proposed (term 0: nowhere yet), or
    # whether it was sent on to another node, where it may be in a log.
    term: int = 0
    sent: bool = False
    # The request whose place in the log this one took, when a new term began
    # before that one's fate was known.
    older: Request | None = None

    @property
    def trail(self) -> Trail | None:
        """Where its time goes, if whoever asks wants to know."""
        respond = self.respond
        return respond if type(respond) is Trail else None

    def answer(self, status: int, body: object) -> None:
        """Give the answer, unless one was given already."""
        respond = self.respond
        if respond is not None:
            self.respond = None
            # It stays in a bucket of Deadlines for up to a minute, and a body may be
            # a megabyte.
            self.body = b""
            respond(status, body)

    def fail(self, error: KritaError) -> None:
        """Answer with an error."""
        self.answer(error.status, to_wire(error))

    def expire(self) -> None:
        """The deadline has passed: say what is known."""
        if self.respond is None:
            return
        if self.write and (self.term or self.sent):
            self.fail(
                OutcomeUnknown(
                    "the deadline passed while the write was being replicated",
                    hint=IN_DOUBT,
                )
            )
        else:
            self.fail(
                DeadlineExceeded(
                    "the deadline passed before the request could be served",
                    hint="the shard may have no leader; see `kritash cluster status`",
                )
            )


class Deadlines:
    """Every open request by the time at which it has to be answered.

    ``add`` costs 0.2 µs; a request is expired up to ``_BUCKET_MS`` late, and
    requests that were answered in time are dropped when their bucket is.
    """

    _BUCKET_MS = 50.0

    def __init__(self) -> None:
        self._buckets: dict[int, list[Request]] = {}

    def add(self, request: Request) -> None:
        """Expire ``request`` when its deadline has passed."""
        bucket = int(request.deadline_ms / self._BUCKET_MS) + 1
        held = self._buckets.get(bucket)
        if held is None:
            self._buckets[bucket] = [request]
        else:
            held.append(request)

    def expire(self, now_ms: float) -> None:
        """Answer all requests whose time has come."""
        current = int(now_ms / self._BUCKET_MS)
        for bucket in [bucket for bucket in self._buckets if bucket <= current]:
            for request in self._buckets.pop(bucket):
                request.expire()
