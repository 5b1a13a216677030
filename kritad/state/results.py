"""What applying a command gives: the reply that its waiter is sent."""

from __future__ import annotations

import attrs

from krita.errors import KritaError, Status, to_wire

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
