"""What the clients of a simulated cluster asked for, and what they were told.

A ``History`` records operations as they begin and end; the checkers
(``witness.py``, ``linearizability.py``) judge the whole of it afterwards. Rules:

* An operation that was not answered is of the fate UNKNOWN: a write of that fate
  takes effect at most once, at any time after it was invoked (also long after
  its client gave up), or never. FAILED says more: it surely had no effect.
* The values put are unique in a run, so that a value read names its write.
* Times are whole microseconds of virtual time, and many things happen in one of
  them: a client told "done" asks for the next thing at once. Therefore each
  beginning and end is numbered as well. Of two events at one time the lower
  number came first; events without numbers (0) count as simultaneous, which
  never makes a checker cry wolf, but makes it blind to a stale read right after
  a write.

Sources: Jepsen's invoke/ok/fail/info; etcd's robustness tests, whose values are
unique for the same reason.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import attrs


class Kind(enum.IntEnum):
    """What is asked for."""

    GET = 0
    PUT = 1
    DELETE = 2


class Fate(enum.IntEnum):
    """What the client knows of the outcome."""

    OK = 0
    FAILED = 1  # surely not applied, or a read that gave nothing
    UNKNOWN = 2


# By name here: each look-up of an enum's member costs a tenth of a microsecond.
_GET, _PUT = Kind.GET, Kind.PUT
_OK = Fate.OK
# A time in microseconds, and the event's number among those of the history.
Instant = tuple[int, int]


@attrs.define(eq=False)
class Operation:
    """One request of one client. Fields behind ``fate`` are what an OK answer said."""

    client: int
    kind: Kind
    shard: int
    key: bytes
    value: bytes | None  # PUT: what is written. GET, once OK: what was read (None: absent)
    if_revision: int | None  # condition of a PUT or DELETE; 0: must be absent
    invoked_us: int
    returned_us: int | None = None  # None: never returned
    fate: Fate = Fate.UNKNOWN
    revision: int = 0  # GET: the row's (0: unknown, absent); else the log index of the effect
    existed: bool | None = None  # PUT, DELETE: whether the key had a value before
    index: int = 0  # GET: the shard's applied index at which it was read (0: unknown)
    refused: int | None = None  # the condition failed: the key's revision found, 0 for absent
    invoked_number: int = 0
    returned_number: int = 0

    @property
    def invocation(self) -> Instant:
        """When it began."""
        return self.invoked_us, self.invoked_number

    @property
    def response(self) -> Instant:
        """When its answer came; there has to be one."""
        assert self.returned_us is not None, f"not answered: {self}"
        return self.returned_us, self.returned_number

    @property
    def wrote(self) -> bool:
        """Whether an answer says that this write took effect."""
        return self.kind != _GET and self.fate == _OK and self.refused is None

    def __str__(self) -> str:
        """One line: who, when, what, the outcome."""
        until = "…" if self.returned_us is None else str(self.returned_us)
        who = f"client {self.client}" if self.client >= 0 else "final read"
        return f"[{self.invoked_us}..{until} us] {who}: {self._request()} → {self._outcome()}"

    def _request(self) -> str:
        text = f"{self.kind.name.lower()} {_text(self.key)}"
        if self.kind == _PUT:
            text += f" = {_text(self.value)}"
        if self.if_revision is not None:
            text += f" if revision {self.if_revision}"
        return text

    def _outcome(self) -> str:
        if self.fate != _OK:
            return self.fate.name.lower()
        if self.refused is not None:
            return f"refused, found revision {self.refused}"
        if self.kind == _GET:
            at = f", read at index {self.index}" if self.index else ""
            return f"{_text(self.value)} of revision {self.revision}{at}"
        before = {None: "", True: ", existed", False: ", did not exist"}[self.existed]
        return f"revision {self.revision}{before}"


class History:
    """The operations of a run, in the order in which they were invoked."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._events = 0

    def __repr__(self) -> str:
        return f"<History operations={len(self.operations)} events={self._events}>"

    def begin(
        self,
        now_us: int,
        client: int,
        kind: Kind,
        shard: int,
        key: bytes,
        value: bytes | None = None,
        if_revision: int | None = None,
    ) -> Operation:
        """A client sends a request. Until it is ended, its fate is UNKNOWN."""
        assert (value is not None) == (kind == _PUT), "a put has a value, nothing else has"
        self._events += 1
        operation = Operation(client, kind, shard, key, value, if_revision, now_us)
        operation.invoked_number = self._events
        self.operations.append(operation)
        return operation

    def read(
        self, operation: Operation, now_us: int, value: bytes | None, revision: int, index: int
    ) -> None:
        """A get was answered; ``value`` None and ``revision`` 0: the key is absent."""
        assert operation.kind == _GET, f"no read: {operation}"
        self._end(operation, now_us, _OK)
        operation.value = value
        operation.revision = revision
        operation.index = index

    def wrote(self, operation: Operation, now_us: int, revision: int, existed: bool) -> None:
        """A put or delete took effect at the log index ``revision``."""
        assert operation.kind != _GET, f"no write: {operation}"
        self._end(operation, now_us, _OK)
        operation.revision = revision
        operation.existed = existed

    def refused(self, operation: Operation, now_us: int, revision: int) -> None:
        """A condition did not hold: the key was at ``revision`` (0: absent)."""
        assert operation.if_revision is not None, f"it asked for nothing: {operation}"
        self._end(operation, now_us, _OK)
        operation.refused = revision

    def failed(self, operation: Operation, now_us: int) -> None:
        """It surely had no effect."""
        self._end(operation, now_us, Fate.FAILED)

    def gave_up(self, operation: Operation, now_us: int) -> None:
        """The client does not wait any longer; nobody knows what becomes of it."""
        self._end(operation, now_us, Fate.UNKNOWN)

    def _end(self, operation: Operation, now_us: int, fate: Fate) -> None:
        assert operation.returned_us is None, f"ended twice: {operation}"
        assert now_us >= operation.invoked_us, f"ended before it began: {operation}"
        self._events += 1
        operation.returned_us = now_us
        operation.returned_number = self._events
        operation.fate = fate


def by_key(operations: Iterable[Operation]) -> dict[bytes, list[Operation]]:
    """The operations of each key, keys and operations in the order of first mention."""
    found: dict[bytes, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.key, []).append(operation)
    return found


def render(
    operations: Sequence[Operation], key: bytes, *, around_us: int | None = None, lines: int = 40
) -> str:
    """The operations of ``key`` for a report, one a line, by time of invocation.

    At most ``lines`` of them: the last ones, or those nearest to ``around_us``.
    """
    mine = sorted((one for one in operations if one.key == key), key=lambda one: one.invocation)
    first = max(0, len(mine) - lines)
    if around_us is not None:
        before = sum(one.invoked_us < around_us for one in mine)
        first = max(0, min(first, before - lines // 2))
    shown = [str(one) for one in mine[first : first + lines]]
    if first:
        shown.insert(0, f"({first} earlier operations of {_text(key)})")
    left = len(mine) - first - lines
    if left > 0:
        shown.append(f"({left} later operations of {_text(key)})")
    return "\n".join(shown)


def _text(data: bytes | None) -> str:
    """Bytes as a person reads them, and not too many."""
    if data is None:
        return "absent"
    text = data[:40].decode("ascii", "backslashreplace")
    return text if len(data) <= 40 else f"{text}… ({len(data)} B)"
