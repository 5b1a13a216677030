"""Whether some order of the operations explains every answer: Krita's keys.

Each key is judged by itself, by the search of ``search.py``, for which this file
has the model.

Revisions are not trusted as an order: they name the write that a read, a
condition or a refusal means, and that is all. (They are the search's hints, which
decide nothing.) Rules:

* A put of unknown outcome has the revision at which its value was read. If nobody
  read it, it is anonymous: all such puts lead to one state, whose revision is the
  first that somebody names there and that is no known write's.
* An anonymous put matters to nobody, except in two ways. It puts a value where
  there was none, for a writer that says "existed"; therefore it is tried on an
  absent key. Or its revision is named by a condition or a refusal, and then it
  can as well come right before that; therefore it is tried on a value only where
  the history names unexplained revisions, and must then be named next.
* A conditional write of unknown outcome whose condition does not hold did not
  happen, so it is left out rather than ordered without effect.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from tests.simulator.history import Fate, Kind, Operation, by_key
from tests.simulator.search import (
    STEPS_MAX,
    UNKNOWN,
    Call,
    Outcome,
    Verdict,
    check,
)

# The key's value and revision. A revision of None is one that nobody has named yet.
State = tuple[bytes | str | None, int | None]

_ABSENT: State = (None, 0)
_ANONYMOUS = "a value that nobody read"
_TO_BE_NAMED = "a value that nobody read, but whose revision is seen next"
# By name here: each look-up of an enum's member costs a tenth of a microsecond.
_GET, _DELETE = Kind.GET, Kind.DELETE
_OK, _FAILED = Fate.OK, Fate.FAILED


class Register:
    """The model of a key, with what its whole history tells beforehand.

    An input is (kind, value, if_revision, revision of the write or None); an output
    (value, revision) of a get, (refused, existed) of a write.
    """

    initial: Hashable = _ABSENT

    def __init__(self, operations: Iterable[Operation]) -> None:
        """``operations``: all of the key."""
        named: set[int] = set()  # this and the next only asked for membership
        self._known: set[int] = {0}
        self._read_at: dict[bytes, int] = {}  # each value that was read, and its revision
        for one in operations:
            if one.fate == _OK:
                self._known.add(one.revision)
                if one.kind == _GET and one.value is not None:
                    self._read_at[one.value] = one.revision
            named.add((one.if_revision or 0) if one.refused is None else one.refused)
        self._unexplained = not named <= self._known

    def call(self, one: Operation) -> Call:
        """``one`` for the search; it must not have FAILED."""
        if one.fate != _OK:
            return self._call_unknown(one)
        if one.kind == _GET:
            asked: Hashable = (one.kind, None, None, None)
            output: tuple[object, object] = (one.value, one.revision)
            pin = one.revision
        else:
            asked = (one.kind, one.value, one.if_revision, one.revision)
            output = (one.refused, one.existed)
            pin = (one.if_revision if one.refused is None else one.refused) or 0
        return Call(
            asked, output, one.invocation, one.response, pin or None, one.revision or None, one
        )

    def _call_unknown(self, one: Operation) -> Call:
        value: bytes | str | None = one.value
        revision = None
        if one.value is not None:
            value = one.value if one.value in self._read_at else _ANONYMOUS
            revision = self._read_at.get(one.value) or None
        asked = (one.kind, value, one.if_revision, revision)
        return Call(asked, UNKNOWN, one.invocation, None, None, revision, one)

    def step(self, state: State, input: Any, output: Any) -> tuple[bool, State]:
        kind, value, condition, revision = input
        if output is UNKNOWN:
            return self._step_unknown(state, input)
        if kind == _GET:
            seen, seen_at = output
            return seen == state[0] and (not seen_at or seen_at == state[1]), state
        refused, existed = output
        if refused is not None:
            value = _ANONYMOUS if state[0] is _TO_BE_NAMED else state[0]
            return refused != condition and self._is_at(state, refused), (value, refused)
        if not self._holds(condition, state):
            return False, state
        if existed is not None and existed != (state[0] is not None):
            return False, state
        return True, _ABSENT if kind == _DELETE else (value, revision)

    def _step_unknown(self, state: State, input: Any) -> tuple[bool, State]:
        """As if it took effect, where that can matter to anybody."""
        kind, value, condition, revision = input
        if kind == _GET:
            return True, state
        if not self._holds(condition, state):
            return False, state
        absent = state[0] is None
        if kind == _DELETE:
            return not absent, _ABSENT
        if value is _ANONYMOUS and not absent:
            return self._unexplained, (_TO_BE_NAMED, None)
        return True, (value, revision)

    def only_reads(self, input: Any, output: Any) -> bool:
        """Gets and refusals, but for one that names an unexplained revision."""
        if input[0] == _GET:
            return True
        return output is not UNKNOWN and output[0] is not None and output[0] in self._known

    def pin(self, state: State) -> Hashable:
        """Its revision, since no revision comes back."""
        return state[1] or None

    def _holds(self, condition: int | None, state: State) -> bool:
        if condition is None:
            return state[0] is not _TO_BE_NAMED
        return self._is_at(state, condition)

    def _is_at(self, state: State, revision: int) -> bool:
        return revision == state[1] or (state[1] is None and revision not in self._known)


def check_key(operations: Sequence[Operation], steps_max: int = STEPS_MAX) -> Outcome:
    """Judge the operations of one key."""
    model = Register(operations)
    calls = [model.call(one) for one in operations if one.fate != _FAILED]
    return check(model, calls, steps_max)


def check_linearizability(operations: Iterable[Operation], steps_max: int = STEPS_MAX) -> list[str]:
    """What is wrong with a history: a text for each key that is not linearizable,
    or not decided within ``steps_max`` steps."""
    complaints = []
    for key, mine in by_key(operations).items():
        outcome = check_key(mine, steps_max)
        if outcome.verdict != Verdict.LINEARIZABLE:
            complaints.append(f"key {key!r}: {outcome}")
    return complaints
