"""Searches for an order of the operations of one object that explains every answer.

Wing and Gong's depth-first search over a linked list of calls and returns, with
Lowe's memory of configurations (the set of operations already ordered, as the
bits of an integer, and the model's state). It knows nothing of log indexes: it
is the slow, independent judge beside the witness check. Rules:

* An operation without a return has an unknown outcome. It may be ordered at any
  point after its call, or left out. A model therefore answers for it only "it
  took effect and here it matters"; where it would change nothing, it says no.
* Operations that never change a state are ordered at once wherever they fit the
  state: if an order exists, then so does one with such a read moved forward.
  This makes 20 busy clients on one key feasible.
* Operations of unknown outcome with equal inputs are twins: they are used in the
  order of their calls, since swapping two of them changes nothing. Without this,
  k timed-out deletes of one key are 2**k configurations.
* A state that cannot come back (each value is put once) may be left only when all
  that can be answered in no other state has been. This cuts most wrong turns at
  once: a put tried too early leaves behind a value that is still to be read.
* A ``hint`` says where an operation is thought to come, and is tried first. Nothing rests
  on it: whatever is chosen has to fit, and where it leads nowhere all else is tried. So
  the search may be shown an order that it is there to doubt, and is quick when that holds.
* The search gives up after a number of steps; a history that costs more was made
  too dense (at most 8 clients and 2000 operations to a key).

One step is about 0.5 µs. Sources: Wing & Gong 1993; Lowe, "Testing for
linearizability" (2017); Porcupine.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

import attrs

from tests.simulator.history import Instant

STEPS_MAX = 10_000_000

# How many of the operations ordered last a report shows.
_SHOWN = 12


class Verdict(enum.Enum):
    LINEARIZABLE = "linearizable"
    NOT = "not linearizable"
    UNKNOWN = "undecided, the search took too long"


class Unknown(enum.Enum):
    """The output of an operation whose outcome nobody was told."""

    UNKNOWN = 0


UNKNOWN = Unknown.UNKNOWN


class Model(Protocol):
    """What one object does, one operation after the other."""

    initial: Hashable

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        """Whether ``input`` may give ``output`` in ``state``, and the state after."""
        ...

    def only_reads(self, input: Any, output: Any) -> bool:
        """Whether this operation leaves every state in which it fits as it is."""
        ...

    def pin(self, state: Any) -> Hashable:
        """Equal to ``Call.pin`` of those that fit no other state, where this one cannot
        come back once it is left; None: there are none. A call that is pinned
        either leaves the state as it is or must be the one that ends it."""
        ...


@attrs.frozen
class Call:
    """An operation as the search sees it; ``returned`` None: its outcome is unknown."""

    input: Hashable
    output: Any
    invoked: Instant
    returned: Instant | None
    pin: Hashable = None  # see Model.pin
    hint: int | None = None  # those with a smaller one come before it, it is thought
    source: object = None  # what a report shows


@attrs.frozen
class Outcome:
    """A verdict; if it is NOT, also how far an order exists."""

    verdict: Verdict
    steps: int
    prefix: Sequence[Call] = ()  # the longest order found
    stuck: Sequence[Call] = ()  # none of these can follow, and the last has to
    state: Hashable = None  # behind the prefix

    def __str__(self) -> str:
        if self.verdict != Verdict.NOT:
            return f"{self.verdict.value} ({self.steps} steps)"
        shown = self.prefix[-_SHOWN:]
        return "\n".join(
            (
                f"{self.verdict.value} ({self.steps} steps): {len(self.prefix)} operations "
                f"can be put in order, the last of them being",
                *(f"    {_line(call)}" for call in shown),
                f"which leads to {self.state}, and then none of these can follow:",
                *(f"  ! {_line(call)}" for call in self.stuck),
            )
        )


def check(model: Model, calls: Iterable[Call], steps_max: int = STEPS_MAX) -> Outcome:
    """Judge the operations of one object. Costs about 1 µs per operation and per
    concurrent one, if it is easy; memory grows with the steps, ~0.3 kB each at worst."""
    wanted = [
        call
        for call in calls
        if call.returned is not None or not model.only_reads(call.input, call.output)
    ]
    return _Search(model, wanted, steps_max).run()


class _Search:
    """The list of calls and returns, and the place of the search in it.

    A node of the list is a number: 0 its head, ``_calls[i]`` and ``_returns[i]``
    those of operation i. ``_at`` maps a node to i for a call and to ~i for a
    return. What is ordered is lifted out of the list, and put back in reverse.
    """

    def __init__(self, model: Model, calls: list[Call], steps_max: int) -> None:
        self._model = model
        self._step = model.step
        self._ops = calls
        self._steps_max = steps_max
        self._steps = 0
        self._state: Any = model.initial
        self._mask = 0
        self._trail: list[int] = []  # what is ordered, in order
        self._longest: list[int] = []  # the longest trail that came to a dead end
        # Each choice: the operation, whether it was hinted at, and state, mask, due and length
        # of trail before it.
        self._frames: list[tuple[int, bool, Any, int, int, int]] = []
        self._best = Outcome(Verdict.NOT, 0)
        self._reads = [model.only_reads(call.input, call.output) for call in calls]
        self._remaining = sum(call.returned is not None for call in calls)
        self._twin = _twins(calls)
        self._pinned: dict[Hashable, int] = {}  # masks
        for i, call in enumerate(calls):
            if call.pin is not None:
                self._pinned[call.pin] = self._pinned.get(call.pin, 0) | 1 << i
        self._due = 0  # those pinned to the state and not yet ordered
        self._hinted = _hinted(calls, self._reads)
        self._rank = {i: rank for rank, i in enumerate(self._hinted)}
        self._hints_used = 0  # so many of ``_hinted`` are ordered, from the first on
        self._link()

    def _link(self) -> None:
        calls = self._ops
        events = [(call.invoked, 0, i) for i, call in enumerate(calls)]
        events += [(call.returned, 1, i) for i, call in enumerate(calls) if call.returned]
        events.sort()
        self._calls = [0] * len(calls)
        self._returns = [0] * len(calls)
        self._at = [0]
        for node, (_, returns, i) in enumerate(events, start=1):
            (self._returns if returns else self._calls)[i] = node
            self._at.append(~i if returns else i)
        self._at.append(-1)  # the tail stops a scan, as a return does
        self._next = list(range(1, len(events) + 3))
        self._previous = list(range(-1, len(events) + 1))

    def run(self) -> Outcome:
        self._order_reads()
        seen: set[tuple[int, Any]] = set()
        hinted = self._look_for_hint()
        node = hinted or self._next[0]
        while self._remaining:
            i = self._at[node]
            if i < 0:
                self._note_dead_end(node)
                if not self._frames:
                    prefix = [self._ops[i] for i in self._longest]
                    return attrs.evolve(self._best, steps=self._steps, prefix=prefix)
                node, hinted = self._go_back(), 0
                continue
            if self._may_try(i):
                if self._steps >= self._steps_max:
                    return Outcome(Verdict.UNKNOWN, self._steps)
                self._steps += 1
                call = self._ops[i]
                fits, state = self._step(self._state, call.input, call.output)
                configuration = (self._mask | 1 << i, state)
                if fits and configuration not in seen:
                    seen.add(configuration)
                    self._order(i, bool(hinted), state)
                    hinted = self._look_for_hint()
                    node = hinted or self._next[0]
                    continue
            node, hinted = self._next[0 if hinted else node], 0
        return Outcome(Verdict.LINEARIZABLE, self._steps, [self._ops[i] for i in self._trail])

    def _may_try(self, i: int) -> bool:
        if self._due and self._due != 1 << i:
            return False
        twin = self._twin[i]
        return not self._reads[i] and (twin < 0 or bool(self._mask >> twin & 1))

    def _look_for_hint(self) -> int:
        """The node of the operation that the hints have next, if it may be next at all; else 0:
        then everything is tried in the order of the calls."""
        hinted, used = self._hinted, self._hints_used
        while used < len(hinted) and self._mask >> hinted[used] & 1:
            used += 1
        self._hints_used = used
        if used < len(hinted):
            wanted = self._calls[hinted[used]]
            node = self._next[0]
            while self._at[node] >= 0:
                if node == wanted:
                    return node
                node = self._next[node]
        return 0

    def _order(self, i: int, hinted: bool, state: Any) -> None:
        length = len(self._trail)
        self._frames.append((i, hinted, self._state, self._mask, self._due, length))
        self._state = state
        self._lift(i)
        self._order_reads()

    def _order_reads(self) -> None:
        """Order every read that fits the state; more may come in sight by that.

        Whatever is still due then is out of sight behind some other operation's
        return, unless it is the one write that the state may be left by.
        """
        pinned = self._pinned.get(self._model.pin(self._state), 0)
        node = self._next[0]
        while (i := self._at[node]) >= 0:
            before = node
            if self._reads[i] or pinned >> i & 1:
                self._steps += 1
                call = self._ops[i]
                fits, state = self._step(self._state, call.input, call.output)
                if fits and state == self._state:
                    before = self._previous[node]
                    self._lift(i)
            node = self._next[before]
        self._due = pinned & ~self._mask

    def _go_back(self) -> int:
        """Undo the last choice; where to look for another."""
        i, hinted, self._state, mask, due, length = self._frames.pop()
        while len(self._trail) > length:
            self._put_back(self._trail.pop())
        self._mask = mask
        self._due = due
        # A hint came before its turn: all others are to be tried yet, and it not again, since
        # that configuration has been seen.
        return self._next[0 if hinted else self._calls[i]]

    def _lift(self, i: int) -> None:
        self._mask |= 1 << i
        self._trail.append(i)
        self._unlink(self._calls[i])
        if self._returns[i]:
            self._unlink(self._returns[i])
            self._remaining -= 1

    def _put_back(self, i: int) -> None:
        self._hints_used = min(self._hints_used, self._rank.get(i, self._hints_used))
        if self._returns[i]:
            self._relink(self._returns[i])
            self._remaining += 1
        self._relink(self._calls[i])

    def _unlink(self, node: int) -> None:
        before, after = self._previous[node], self._next[node]
        self._next[before] = after
        self._previous[after] = before

    def _relink(self, node: int) -> None:
        self._next[self._previous[node]] = node
        self._previous[self._next[node]] = node

    def _note_dead_end(self, last: int) -> None:
        """Keep the longest order found: here the operation that returns at ``last``
        and those called before it were all refused."""
        if self._best.stuck and len(self._trail) <= len(self._longest):
            return
        due = ~self._at[last]
        stuck = []
        node = self._next[0]
        while node != last:
            if self._at[node] != due:
                stuck.append(self._ops[self._at[node]])
            node = self._next[node]
        stuck.append(self._ops[due])
        self._longest = self._trail.copy()  # its operations are looked up when it is the answer
        self._best = Outcome(Verdict.NOT, self._steps, [], stuck, self._state)


def _twins(calls: Sequence[Call]) -> list[int]:
    """For each call of unknown outcome its predecessor of equal input, else -1."""
    twins = [-1] * len(calls)
    last: dict[Hashable, int] = {}
    for i in sorted(range(len(calls)), key=lambda i: calls[i].invoked):
        if calls[i].returned is None:
            twins[i] = last.get(calls[i].input, -1)
            last[calls[i].input] = i
    return twins


def _hinted(calls: Sequence[Call], reads: Sequence[bool]) -> list[int]:
    """The operations with a hint, in its order. Reads need none: they are ordered at once."""
    hints = [(call.hint, i) for i, call in enumerate(calls) if call.hint and not reads[i]]
    return [i for _, i in sorted(hints)]


def _line(call: Call) -> str:
    return str(call.source) if call.source is not None else f"{call.input} → {call.output}"
