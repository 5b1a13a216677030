"""What applying a command gives: the reply that its waiter is sent.

``answer`` makes it from what a session keeps of it, a status and plain values; the texts
are here and not in the state.
"""

from __future__ import annotations

import attrs

from krita.errors import (
    BadRequest,
    ConditionFailed,
    Conflict,
    KritaError,
    LeaseUnknown,
    Locked,
    Status,
    to_wire,
)
from krita.operations import Op
from kritad.state.verbs import Refusal, Reply

_OK = int(Status.OK)


@attrs.define
class Result:
    """``status`` and ``body`` as they go into the reply (see krita/operations.py).

    Every replica computes the same one; only the leader has somebody to tell.
    """

    status: int
    body: object

    @property
    def ok(self) -> bool:
        """Whether the command did what it says."""
        return self.status == _OK


def success(body: object) -> Result:
    """The reply of a command that did what it says."""
    return Result(_OK, body)


def failure(error: KritaError) -> Result:
    """The reply of a command that had no effect, and why."""
    return Result(int(error.status), to_wire(error))


def answer(op: int, reply: Reply) -> Result:
    """The reply in full, from what a session keeps of it. Raises BadRequest for that of
    another operation: what sent it has used a sequence twice."""
    status, values = reply
    if status != _OK:
        return failure(_refusal(op, Status(status), values))
    if len(values) not in _VALUES[op]:
        raise BadRequest("this sequence number was used for another operation")
    first, second, *more = values
    if more and op in (Op.PUT, Op.DELETE):
        return Result(_OK, [first, bool(second), more])
    return Result(_OK, [first, bool(second), *more])


# How many values the reply to each has: revision, a flag and, of a put or a delete, the
# three of before.
_VALUES: dict[int, tuple[int, ...]] = {
    Op.PUT: (2, 5),
    Op.DELETE: (2, 5),
    Op.ADD: (3,),
    Op.APPEND: (3,),
    Op.TOUCH: (2,),
    Op.LOCK: (2,),
    Op.TXN: (3,),
}


def _refusal(op: int, status: Status, values: list[object]) -> KritaError:
    if status == Status.CONDITION_FAILED:
        revision, *of_lock = values
        what = "if_lock: the lock" if of_lock else "if_revision: the key"
        found = f"is at revision {revision}" if revision else "is absent"
        detail: dict[str, object] = {"revision": revision}
        if of_lock:
            detail["if_lock"] = True  # the revision is the lock's
        return ConditionFailed(f"{what} {found}", detail=detail)
    if status == Status.LOCKED:
        token, owner, left_ms = values
        detail = {"token": token, "owner": owner}
        if left_ms is not None:
            detail["left_ms"] = left_ms
        return Locked("somebody else holds the lock", hint="wait for it to go", detail=detail)
    if status == Status.LEASE_UNKNOWN:
        return LeaseUnknown(
            f"lease {values[0]} has ended, or never was", hint="grant one, and use that"
        )
    assert status == Status.CONFLICT, f"{op}: a session kept a reply of status {status}"
    return _CONFLICTS[Refusal(values[0])]  # type: ignore[arg-type]


_CONFLICTS = {
    Refusal.NO_NUMBER: Conflict(
        "the value is no whole number in decimal", hint="only such a value can be added to"
    ),
    Refusal.NUMBER_TOO_LARGE: Conflict("the sum would have more than 63 bits"),
    Refusal.VALUE_TOO_LARGE: Conflict(
        "the value, or what is to be answered, would be larger than value_bytes_max"
    ),
    Refusal.IDEMPOTENCY_KEY_USED: Conflict(
        "this idempotency key was used for another request",
        hint="make a new one for each request, and keep it when you repeat that",
    ),
}
assert set(_CONFLICTS) == set(Refusal)
