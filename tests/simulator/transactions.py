"""What a power cut takes back: how to undo the transactions that were never synced.

The stores in memory change at once what they hold and note beside it how to undo that.
The notes of a transaction are dropped as soon as it is durable, so that a store which
syncs every commit keeps none.

Sources: reliability.md 3. SQLite in WAL mode loses whole transactions from the end, never
a part of one and never one from the middle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

# A function to call, and its arguments.
Undo = tuple[Callable[..., object], tuple[Any, ...]]

K = TypeVar("K")
V = TypeVar("V")


class Journal:
    """The transactions that are done and not durable, oldest first."""

    __slots__ = ("_unsynced",)

    def __init__(self) -> None:
        self._unsynced: list[list[Undo]] = []

    def __len__(self) -> int:
        return len(self._unsynced)

    def __repr__(self) -> str:
        return f"<Journal of {len(self._unsynced)} transactions not synced>"

    def commit(self, transaction: list[Undo], *, durable: bool) -> None:
        """A transaction is done. A durable one makes all before it durable: they are in
        one file, in order."""
        if not durable:
            self._unsynced.append(transaction)
        elif self._unsynced:
            self._unsynced.clear()

    def sync(self) -> None:
        """All that was done is durable."""
        self._unsynced.clear()

    def lose(self, chance: random.Random) -> int:
        """A power cut: undo the newest transactions, as many as ``chance`` says. What is
        left has reached the disk. Returns how many were undone."""
        count = chance.randint(0, len(self._unsynced))
        for _ in range(count):
            roll_back(self._unsynced.pop())
        self._unsynced.clear()
        return count


def roll_back(transaction: list[Undo]) -> None:
    """Undo one transaction."""
    for function, args in reversed(transaction):
        function(*args)


def put_back(mapping: MutableMapping[K, V], key: K, before: V | None) -> None:
    """Undo a change of one key, which had ``before`` or (None) was not there."""
    if before is None:
        mapping.pop(key, None)
    else:
        mapping[key] = before
