"""What people asked for with the newer operations, and what they were told.

Like history.py, for any operation: a deed keeps the request's fields and the whole answer.
Its beginning and its end are numbered in the chronicle's order of all things.
"""

from __future__ import annotations

from typing import Any

import attrs

from krita.errors import KritaError, Outcome, Status
from krita.operations import OPERATIONS, Op
from tests.simulator.history import Fate

# Refusals that follow from the state, and are answers like any other.
ANSWERS = frozenset(
    {
        Status.CONDITION_FAILED,
        Status.CONFLICT,
        Status.LOCKED,
        Status.LEASE_UNKNOWN,
        Status.COMPACTED,
    }
)


@attrs.frozen
class Ask:
    """What somebody wants. ``fields`` are the operation's behind the session's."""

    op: Op
    fields: tuple[Any, ...]
    client: int = 0  # which of one's own
    spread: bool = False  # any replica will do
    timeout_ms: int | None = None  # None: as people are patient in this life
    about: str = ""  # what the oracles know it by


@attrs.define(eq=False)
class Deed:
    """An Ask on its way. OK: there is an answer, a refusal by the state among them."""

    ask: Ask
    client: int
    begun: int
    ended: int = 0
    fate: Fate = Fate.UNKNOWN
    status: Status | None = None
    body: list[Any] = attrs.field(factory=list)
    detail: dict[str, Any] = attrs.field(factory=dict)

    @property
    def op(self) -> Op:
        return self.ask.op

    @property
    def ok(self) -> bool:
        """It did what it says."""
        return self.status is Status.OK

    def field(self, name: str) -> Any:
        """One of the request's fields; None if it was left out."""
        names = OPERATIONS[self.op].fields
        if names[:1] == ("session",):
            names = names[3:]
        place = names.index(name) if name in names else -1
        return self.ask.fields[place] if 0 <= place < len(self.ask.fields) else None

    def end(self, number: int, error: KritaError | None, body: object) -> None:
        """The client knows what it will ever know."""
        self.ended = number
        if error is None:
            assert isinstance(body, list), body
            self.fate, self.status, self.body = Fate.OK, Status.OK, body
        elif error.status in ANSWERS:
            self.fate, self.status, self.detail = Fate.OK, error.status, error.detail
        elif error.outcome is Outcome.NOT_APPLIED:
            self.fate = Fate.FAILED

    def __str__(self) -> str:
        told = self.fate.name.lower() if self.status is None else self.status.name.lower()
        what = self.body if self.ok else self.detail or ""
        text = f"client {self.client}: {self.op.name.lower()} {self.ask.fields} → {told} {what}"
        return f"[{self.begun}..{self.ended}] {text if len(text) < 600 else text[:600] + ' …'}"
