"""A shard as it should be, with clients who do not always learn what became of
their requests: a source of histories that are right, or wrong in one known way.

No cluster, no network: a request takes effect in one instant between its
beginning and its end, and if its client gave up, at any later time or never.
With a ``Bug``, one operation (the first that fits, after a number of them)
goes wrong as described; whether any client sees it is a matter of chance.
"""

from __future__ import annotations

import enum
import heapq
import random
from collections.abc import Callable
from functools import partial

import attrs

from tests.simulator.history import History, Kind, Operation

SHARD = 3


class Bug(enum.Enum):
    """What may go wrong, once."""

    LOST_WRITE = "a put is acknowledged and changes nothing"
    LOST_DELETE = "a delete is acknowledged and changes nothing"
    STALE_READ = "a read is answered from a state of the past"
    OLD_VALUE = "a read is answered with an old value as if it were the newest"
    DOUBLE_APPLY = "a put takes effect a second time, later on"
    PHANTOM_VALUE = "a read returns a value that was never written"
    SHARED_REVISION = "a put takes the revision of the entry before it"
    CONDITION_IGNORED = "a condition that does not hold does not matter"
    LATE_EFFECT = "a put is acknowledged before it takes effect"


@attrs.frozen
class Mix:
    """What the clients do; the figures are probabilities where not said otherwise."""

    clients: int = 5
    keys: int = 3
    operations: int = 150
    reads: float = 0.45
    deletes: float = 0.3  # of the writes
    conditional: float = 0.3  # of the writes
    unknown: float = 0.15
    failed: float = 0.05
    index_hidden: float = 0.0  # of the reads: the answer does not say at which index


class IdealShard:
    """One run; everything follows from the seed."""

    def __init__(self, seed: int, mix: Mix, bug: Bug | None = None) -> None:
        self.dice = random.Random(seed)
        self.mix = mix
        self.bug = bug
        self.bug_after = self.dice.randrange(mix.operations // 3 + 1)
        self.history = History()
        self.rows: dict[bytes, tuple[bytes, int]] = {}
        self.past: list[dict[bytes, tuple[bytes, int]]] = [{}]  # the rows as of each index
        self.index = 0
        self.now_us = 0
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0

    def run(self) -> list[Operation]:
        for client in range(self.mix.clients):
            self._after(self.dice.randrange(20), partial(self._begin, client))
        while self._events:
            self.now_us, _, happen = heapq.heappop(self._events)
            happen()
        return self.history.operations

    def final(self) -> dict[bytes, tuple[bytes | None, int]]:
        """What a reader finds in the end, of every key there may be."""
        return {key: self.rows.get(key, (None, 0)) for key in map(self._key, range(self.mix.keys))}

    @staticmethod
    def _key(number: int) -> bytes:
        return b"k%d" % number

    def _after(self, delay_us: int, happen: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._count, happen))

    def _begin(self, client: int) -> None:
        mix, dice = self.mix, self.dice
        count = len(self.history.operations)
        if count >= mix.operations:
            return
        key = self._key(dice.randrange(mix.keys))
        kind, value, condition = Kind.GET, None, None
        if dice.random() >= mix.reads:
            kind = Kind.DELETE if dice.random() < mix.deletes else Kind.PUT
            value = b"v%d" % count if kind == Kind.PUT else None
            if dice.random() < mix.conditional:
                at = self.past[dice.randrange(max(0, self.index - 3), self.index + 1)]
                condition = dice.choice([0, at.get(key, (b"", 0))[1]])
        one = self.history.begin(self.now_us, client, kind, SHARD, key, value, condition)
        arrive_us, answer_us = dice.randrange(40), dice.randrange(40)
        chance = dice.random()
        if chance < mix.unknown:
            answer_us += arrive_us
            if dice.random() < 0.6:
                self._after(dice.choice([10, 100, 1000]), lambda: self._apply(one))
            self._after(answer_us, lambda: self._end(one, self.history.gave_up))
        elif chance < mix.unknown + mix.failed:
            self._after(answer_us, lambda: self._end(one, self.history.failed))
        else:
            self._after(arrive_us, lambda: self._answer(one, answer_us))

    def _end(self, one: Operation, end: Callable[[Operation, int], None]) -> None:
        end(one, self.now_us)
        pause_us = self.dice.choice([0, 0, 30])
        self._after(pause_us, lambda: self._begin(one.client))

    def _answer(self, one: Operation, delay_us: int) -> None:
        end = self._read(one) if one.kind == Kind.GET else self._write(one)
        self._after(delay_us, lambda: self._end(one, end))

    def _breaks(self, *bugs: Bug) -> bool:
        """Whether now is the time for this bug; if so, it was the only one."""
        if self.bug in bugs and len(self.history.operations) > self.bug_after:
            self.bug = None
            return True
        return False

    def _read(self, one: Operation) -> Callable[[Operation, int], None]:
        rows, index = self.rows, self.index
        old = self.past[max(0, index - 12)]
        if old.get(one.key) != rows.get(one.key):
            if self._breaks(Bug.STALE_READ):
                rows, index = old, max(1, index - 12)
            elif self._breaks(Bug.OLD_VALUE):
                rows = old
        value, revision = rows.get(one.key, (None, 0))
        if value is not None and self._breaks(Bug.PHANTOM_VALUE):
            value += b" and more"
        if self.dice.random() < self.mix.index_hidden:
            index = 0
        return lambda one, now_us: self.history.read(one, now_us, value, revision, index)

    def _write(self, one: Operation) -> Callable[[Operation, int], None]:
        if one.kind == Kind.PUT and one.if_revision is None and self._breaks(Bug.LATE_EFFECT):
            self._after(300, lambda: self._apply(one))
            revision = self.index + 1
            return lambda one, now_us: self.history.wrote(one, now_us, revision, False)
        found, revision, existed = self._apply(one)
        if found is not None:
            return lambda one, now_us: self.history.refused(one, now_us, found)
        if one.kind == Kind.PUT and self._breaks(Bug.DOUBLE_APPLY):
            again = attrs.evolve(one, if_revision=None)
            self._after(self.dice.randrange(100), lambda: self._apply(again))
        return lambda one, now_us: self.history.wrote(one, now_us, revision, existed)

    def _apply(self, one: Operation) -> tuple[int | None, int, bool]:
        """Add an entry to the log: (found if refused, revision, existed)."""
        if one.kind == Kind.GET:
            return None, 0, False
        found = self.rows.get(one.key, (b"", 0))[1]
        shared = one.kind == Kind.PUT and self.index > 0 and self._breaks(Bug.SHARED_REVISION)
        if not shared:
            self.index += 1
        refused = one.if_revision is not None and one.if_revision != found
        if refused and self._breaks(Bug.CONDITION_IGNORED):
            refused = False
        lost = Bug.LOST_WRITE if one.kind == Kind.PUT else Bug.LOST_DELETE
        if not refused and not ((found or one.value) and self._breaks(lost)):
            self.rows = dict(self.rows)
            self.rows.pop(one.key, None)
            if one.value is not None:
                self.rows[one.key] = (one.value, self.index)
        self.past[self.index :] = [self.rows]
        return found if refused else None, self.index, found > 0
