"""Whether the log's own order explains every answer: a check of a whole history.

Every answer says where in the shard's log it belongs: a write at its revision, a
read at its index. That order is the witness of linearizability, and has only to
be verified: each answer follows from the writes before it, and nothing lies
before what had been answered when it was invoked. About 5 µs per operation
where the search of ``search.py`` may take for ever. Rules:

* A write of unknown outcome is placed once something shows where it happened: a
  read of its value, or a condition or a refusal that names the revision.
* What a history does not say is left open. A refusal, and a read without index,
  have a range of places, which is narrowed by what was answered before them and
  invoked after them; a range is wrong only if no place in it will do. A key that
  vanished, or appeared, without a writer is wrong only if fewer writes of
  unknown outcome may have happened by then than are needed.
* So there are no false alarms: each complaint names answers that cannot all be
  true. On ranges the check forgives more than it must; the search does not.

Sources: the idea of checking against a witness is Gibbons and Korach's (1997);
the list of what to look at owes much to openraft's and etcd's robustness tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from tests.simulator.history import Fate, Kind, Operation
from tests.simulator.timeline import EVER, Timeline

COMPLAINTS_MAX = 10
# By name here: each look-up of an enum's member costs a tenth of a microsecond.
_GET, _PUT = Kind.GET, Kind.PUT
_OK, _FAILED = Fate.OK, Fate.FAILED


@attrs.define(eq=False)
class Placed:
    """An operation and where in its shard's log it took effect."""

    operation: Operation
    position: int = 0  # 0: known only to be in [lower, upper], if anywhere
    lower: int = 0
    upper: int = EVER

    @property
    def writes(self) -> int:
        """1 if it takes a log index to itself, else 0."""
        return int(self.operation.kind != _GET)


class Complaints:
    """What is wrong, as texts; the first few."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, what: str, *operations: Operation | None) -> None:
        if len(self.texts) < COMPLAINTS_MAX:
            about = [f"\n    {one}" for one in operations if one is not None]
            self.texts.append(what + "".join(about))


def check_witness(operations: Sequence[Operation]) -> list[str]:
    """What is wrong with a history, at most ``COMPLAINTS_MAX`` texts. O(n log n).

    The values put have to be unique.
    """
    complain = Complaints()
    writers: dict[bytes, Placed] = {}
    shards: dict[int, list[Placed]] = {}
    for one in operations:
        placed = Placed(one)
        if one.kind == _PUT:
            assert one.value is not None, f"nothing is put: {one}"
            assert one.value not in writers, f"put twice: {one}"
            writers[one.value] = placed
        shards.setdefault(one.shard, []).append(placed)
    for shard in sorted(shards):
        _Shard(shards[shard], writers, complain).check()
    return complain.texts


def check_final(
    operations: Sequence[Operation], final: Mapping[bytes, tuple[bytes | None, int]]
) -> list[str]:
    """As ``check_witness``, of a history followed by one linearizable read of each key.

    ``final``: each key's (value, revision), (None, 0) where it is absent, as read when
    all else had ended. No acknowledged write may be lost, and no key left out.
    """
    after_us = 1 + max((max(o.invoked_us, o.returned_us or 0) for o in operations), default=0)
    shards = {one.key: one.shard for one in operations}
    reads = []
    for key in sorted(final):
        value, revision = final[key]
        if key not in shards and value is None:
            continue
        reads.append(
            Operation(
                -1, _GET, shards.get(key, 0), key, value, None, after_us, after_us + 1,
                _OK, revision,
            )
        )  # fmt: skip
    left_out = sorted({one.key for one in operations if one.wrote} - final.keys())
    missing = [f"{key!r} was written, but not read at the end" for key in left_out]
    return (missing + check_witness([*operations, *reads]))[:COMPLAINTS_MAX]


class _Shard:
    """The operations of one shard, being placed in its log and checked."""

    def __init__(
        self, placed: list[Placed], writers: Mapping[bytes, Placed], complain: Complaints
    ) -> None:
        self._placed = placed
        self._writers = writers
        self._complain = complain
        self._owner: dict[int, Placed] = {}  # the write at each revision
        self._nameless: dict[int, Operation] = {}  # puts known only by who saw their revision

    def check(self) -> None:
        for one in self._placed:
            self._place_answered(one)
        for one in self._placed:
            if one.operation.kind == _GET:
                self._place_writer(one.operation)
        for one in self._placed:
            self._place_nameless(one)
        _bound_below(self._placed, self._complain)
        _bound_above(self._placed)
        for timeline in self._timelines():
            timeline.check()

    def _place_answered(self, one: Placed) -> None:
        operation = one.operation
        if operation.wrote:
            if operation.revision <= 0:
                self._complain("an acknowledged write has no revision", operation)
            else:
                self._claim(one, operation.revision, operation)
        elif operation.kind == _GET and operation.fate == _OK:
            one.position = operation.index

    def _claim(self, one: Placed, revision: int, seen_by: Operation) -> None:
        """``seen_by`` shows that the write ``one`` took effect at ``revision``."""
        other = self._owner.get(revision)
        if one.position and one.position != revision:
            self._complain(
                f"a write took effect at index {one.position} and again at {revision}",
                one.operation,
                seen_by,
            )
        elif other is not None and other is not one:
            self._complain(
                f"two writes share revision {revision} of shard {one.operation.shard}",
                other.operation,
                one.operation,
            )
        else:
            one.position = revision
            self._owner[revision] = one

    def _place_writer(self, read: Operation) -> None:
        """A value that was read is somebody's, and that write has happened there."""
        if read.fate != _OK:
            return
        if read.value is None:
            if read.revision:
                self._complain("an absent key has a revision", read)
            return
        writer = self._writers.get(read.value)
        if writer is None:
            self._complain("a value was read that nobody ever wrote", read)
        elif writer.operation.key != read.key:
            self._complain("the value of another key was read", writer.operation, read)
        elif writer.operation.fate == _FAILED:
            self._complain("a write that failed was read", writer.operation, read)
        elif writer.operation.refused is not None:
            self._complain("a write that was refused was read", writer.operation, read)
        elif read.index and read.revision > read.index:
            self._complain("a revision was read before the index that it is", read)
        elif read.revision:
            self._claim(writer, read.revision, read)

    def _place_nameless(self, one: Placed) -> None:
        """A condition that held, and a refusal, show that a put was at a revision."""
        operation = one.operation
        if operation.kind == _GET or operation.fate == _FAILED:
            return
        seen = operation.refused
        if seen is None and one.position:
            seen = operation.if_revision
        if operation.refused is not None and seen == operation.if_revision:
            self._complain("refused, although its condition held", operation)
        if not seen:
            return
        owner = self._owner.get(seen)
        by = owner.operation if owner is not None else self._nameless.setdefault(seen, operation)
        if by.key != operation.key or (owner is not None and by.kind != _PUT):
            self._complain(f"no put of this key is at revision {seen}", by, operation)

    def _timelines(self) -> Iterable[Timeline]:
        timelines: dict[bytes, Timeline] = {}
        for one in self._placed:
            key = one.operation.key
            if key not in timelines:
                timelines[key] = Timeline(key, self._complain)
            timelines[key].add(one.operation, one.position, one.lower, one.upper)
        for revision, operation in self._nameless.items():
            timelines[operation.key].add_nameless(revision, operation)
        return timelines.values()


def _bound_below(placed: Sequence[Placed], complain: Complaints) -> None:
    """Nothing lies before what had been answered when it was invoked."""
    answered = sorted(
        (one for one in placed if one.operation.fate == _OK),
        key=lambda one: one.operation.response,
    )
    count = len(answered)
    done = floor = 0
    last: Operation | None = None  # whose answer made the floor
    for one in sorted(placed, key=lambda one: one.operation.invocation):
        operation = one.operation
        began = operation.invocation
        while done < count and answered[done].operation.response < began:
            earlier = answered[done]
            at = earlier.position or earlier.lower
            if at > floor:
                floor, last = at, earlier.operation
            done += 1
        one.lower = floor + one.writes
        if one.position:
            if one.position < one.lower:
                complain(
                    f"at index {one.position}, although index {floor} had been seen before "
                    "it was invoked",
                    last,
                    operation,
                )
        elif operation.fate == _OK:
            seen = operation.refused
            one.lower = max(one.lower, operation.revision if seen is None else seen + 1)


def _bound_above(placed: Sequence[Placed]) -> None:
    """What was answered without a place lies before all that was invoked afterwards."""
    later = sorted(placed, key=lambda one: one.operation.invocation)
    ceiling = EVER
    for one in sorted(
        (one for one in placed if one.operation.fate == _OK and not one.position),
        key=lambda one: one.operation.response,
        reverse=True,
    ):
        while later and later[-1].operation.invocation > one.operation.response:
            after = later.pop()
            ceiling = min(ceiling, (after.position or after.upper) - after.writes)
        one.upper = ceiling
