"""The parts of transactions and bulks; ``krita.steps`` makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from krita import values
    from krita.operations import Compare, Op, Relation
    from krita.request import Request


@attrs.frozen
class Comparison:
    """Something that has to hold of a key, for a transaction to do its `then`."""

    key: bytes
    what: Compare
    relation: Relation
    operand: int | bytes | None

    def to_wire(self) -> list[object]:
        """As a transaction sends it."""
        return [self.key, int(self.what), int(self.relation), self.operand]


@attrs.frozen
class Step:
    """One operation of a transaction or a bulk."""

    op: Op
    key: bytes
    fields: tuple[object, ...]  # as a transaction sends them, behind the key
    read: Callable[[object], values.StepResult | None]
    request: Callable[[], Request[Any]]  # the same as an operation of its own

    def to_wire(self) -> list[object]:
        """As a transaction sends it."""
        return [int(self.op), self.key, *self.fields]
