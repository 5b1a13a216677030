"""Keys that a transaction over several shards holds here, until it is decided.

An *intent* is the shard's promise: these keys stay as they were told to the transaction
until its outcome is known. Whoever else would write them is refused as Busy, and who would
read them waits, so nobody sees one half of a transaction without the other.

Rules:
* Only a decision releases an intent, and decisions are made in one place, the shard of
  the transaction's home key (decisions.py). An intent whose coordinator is silent is not
  dropped when its time is over: the shard's leader asks that place (host/resolver.py).
* How long that takes is the leader's to measure, and no time of the shard's clock: that may
  jump, and goes on slowly where the leader before was an hour ahead (host/stamps.py).
* An intent belongs to one *attempt* of a transaction. What is decided about another attempt
  is not for it. No attempt asks a shard twice for what it holds.
* Intents are notes: part of the state, its hash and its snapshots. A shard that is split
  leaves to its other half the intents on the keys that it gives away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from krita.codec import decode, encode
from krita.limits import LEASE_LIMIT
from kritad.state.notes import Notes

ATTEMPT_LIMIT = LEASE_LIMIT  # attempts' numbers are below it, and random
_FIRST = -3 * LEASE_LIMIT  # intents' notes are numbered from here down


@attrs.frozen
class Intent:
    """What one attempt holds in this shard."""

    attempt: int
    home: bytes  # the key whose shard decides
    hold_ms: int  # for so long the leader leaves it to the coordinator
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

    def __iter__(self) -> Iterator[Intent]:
        return iter(self._intents.values())

    def get(self, attempt: int) -> Intent | None:
        """What the attempt holds; None: nothing, or nothing any more."""
        return self._intents.get(attempt)

    def holders(self, keys: Iterable[bytes]) -> set[int]:
        """The attempts that hold any of the keys."""
        return {self.by_key[key] for key in keys if key in self.by_key}

    def put(self, intent: Intent) -> None:
        """Hold the keys, which nobody else does."""
        assert not self.holders(intent.keys), intent
        assert intent.attempt not in self._intents, intent
        self._keep(intent)
        blob = encode([intent.home, intent.hold_ms, list(intent.keys)])
        self._notes.put(_FIRST - intent.attempt, blob)

    def release(self, attempt: int) -> tuple[bytes, ...]:
        """It is decided. Which keys it has held."""
        intent = self._intents.pop(attempt, None)
        if intent is None:
            return ()
        self._notes.remove(_FIRST - attempt)
        for key in intent.keys:
            del self.by_key[key]
        return intent.keys

    def keep_only(self, ours: Callable[[bytes], bool]) -> None:
        """The shard was split: give up what is on other keys."""
        for intent in list(self._intents.values()):
            keys = tuple(filter(ours, intent.keys))
            if keys == intent.keys:
                continue
            self.release(intent.attempt)
            if keys:
                self.put(attrs.evolve(intent, keys=keys))

    def _keep(self, intent: Intent) -> None:
        self._intents[intent.attempt] = intent
        self.by_key |= dict.fromkeys(intent.keys, intent.attempt)


def _read(attempt: int, blob: bytes) -> Intent:
    match decode(blob):
        case [bytes(home), int(hold_ms), list(keys)]:
            return Intent(attempt, home, hold_ms, _keys(keys))
    raise AssertionError(f"the note of attempt {attempt} is no intent, and matches its digest")


def _keys(keys: Sequence[object]) -> tuple[bytes, ...]:
    return tuple(key for key in keys if isinstance(key, bytes))
