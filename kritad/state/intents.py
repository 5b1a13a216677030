"""Keys that a transaction over several shards holds here, until it is decided.

An *intent* is the shard's promise: these keys stay as they were told to the transaction
until its outcome is known. Whoever else would write them is refused as Busy, and who would
read them waits, so nobody sees one half of a transaction without the other.

Rules:
* Only a decision releases an intent, and decisions are made in one place, the shard of
  the transaction's home key (decisions.py). An intent whose coordinator is silent is not
  dropped when its time is over: the shard's leader asks that place (host/resolver.py).
* An intent belongs to one *attempt* of a transaction. What is decided about another attempt
  is not for it.
* Intents are notes: part of the state, its hash and its snapshots. A shard that is split
  leaves to its other half the intents on the keys that it gives away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs

from krita.codec import decode, encode
from kritad.state.leases import LEASE_LIMIT
from kritad.state.notes import Notes

ATTEMPT_LIMIT = LEASE_LIMIT  # attempts' numbers are below it, and random
_FIRST = -3 * LEASE_LIMIT  # intents' notes are numbered from here down


@attrs.frozen
class Intent:
    """What one attempt holds in this shard."""

    attempt: int
    txn: bytes
    home: bytes  # the key whose shard decides
    deadline_ms: int  # by the shard's clock: from then on the leader asks for the outcome
    keys: tuple[bytes, ...]


class Intents:
    """See the module's docstring. ``by_key`` is for reading: every write asks it."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._intents: dict[int, Intent] = {}
        self.by_key: dict[bytes, int] = {}  # the attempt that holds it
        for number, blob in notes:
            if number <= _FIRST:
                self._keep(_read(_FIRST - number, blob))

    def __repr__(self) -> str:
        return f"<Intents {len(self._intents)} on {len(self.by_key)} keys>"

    def get(self, attempt: int) -> Intent | None:
        """What the attempt holds; None: nothing, or nothing any more."""
        return self._intents.get(attempt)

    def holders(self, keys: Iterable[bytes], attempt: int = 0) -> set[int]:
        """The attempts that hold any of the keys, without the one that asks."""
        return {self.by_key[key] for key in keys if key in self.by_key} - {attempt}

    def put(self, intent: Intent) -> None:
        """Hold the keys, which nobody else does."""
        assert not self.holders(intent.keys, intent.attempt), intent
        self.release(intent.attempt)
        self._keep(intent)
        blob = encode([intent.txn, intent.home, intent.deadline_ms, list(intent.keys)])
        self._notes.put(_FIRST - intent.attempt, blob)

    def release(self, attempt: int) -> None:
        """It is decided."""
        intent = self._intents.pop(attempt, None)
        if intent is not None:
            self._notes.remove(_FIRST - attempt)
            for key in intent.keys:
                del self.by_key[key]

    def overdue(self, clock_ms: int) -> list[Intent]:
        """Those whose coordinator has been silent for too long. ~0.2 µs each there is."""
        return [intent for intent in self._intents.values() if intent.deadline_ms <= clock_ms]

    def keep_only(self, ours: Callable[[bytes], bool]) -> None:
        """The shard was split: give up what is on other keys."""
        for intent in list(self._intents.values()):
            keys = tuple(filter(ours, intent.keys))
            self.release(intent.attempt)
            if keys:
                self.put(attrs.evolve(intent, keys=keys))

    def _keep(self, intent: Intent) -> None:
        self._intents[intent.attempt] = intent
        self.by_key |= dict.fromkeys(intent.keys, intent.attempt)


def _read(attempt: int, blob: bytes) -> Intent:
    match decode(blob):
        case [bytes(txn), bytes(home), int(deadline_ms), list(keys)]:
            return Intent(attempt, txn, home, deadline_ms, _keys(keys))
    raise AssertionError(f"the note of attempt {attempt} is no intent, and matches its digest")


def _keys(keys: Sequence[object]) -> tuple[bytes, ...]:
    return tuple(key for key in keys if isinstance(key, bytes))
