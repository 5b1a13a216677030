"""What the committed logs say: every entry as it was first applied anywhere, and what an
ideal shard makes of it.

Whoever applies an entry is compared with that: the answer, and how many keys there are
behind it. (That equal places have equal hashes is invariants.py's to see.) So one replica
that is wrong is found at the entry, and all of them being wrong alike as well. At the end
every answer that a client had is looked up here (oracles/).

All that happens gets a number, in order: entries, requests, answers. Nothing reads of
an entry before it was first applied, and whoever asks behind that has to see it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from krita.codec import decode
from krita.errors import Status
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import unpack_command
from kritad.state.machine import ShardState
from kritad.state.results import Result
from tests.simulator.chronicle.draft import Answer, Held
from tests.simulator.chronicle.ideal import KEYED, Event, IdealShard, token
from tests.simulator.invariants import Violation

_SESSION_FIELDS = 3
# Fields that a node adds to what the client has sent.
_NODES_OWN = {Op.APPEND: 1, Op.TXN: 1}

Apply = Callable[[ShardState, Entry], Result]


@attrs.frozen
class Record:
    """One entry. ``request`` are a keyed write's fields from the key on, else all."""

    number: int
    index: int
    clock_ms: int  # the shard's, behind it
    op: int
    request: tuple[Any, ...]
    answer: Answer | None
    executed: bool
    events: tuple[Event, ...]
    keys: int  # how many there are behind it


class Book:
    """One shard's log, from the entry behind ``born`` on."""

    def __init__(self, ideal: IdealShard, born: int, parent: Book | None) -> None:
        self.ideal = ideal
        self.born = born
        self.parent = parent
        self.records: list[Record] = []
        self.numbers: list[int] = []  # of the records

    def write(self, record: Record) -> None:
        """The next entry."""
        self.records.append(record)
        self.numbers.append(record.number)

    def floor(self, number: int) -> int:
        """The newest entry of its own that had been applied by then, or where it began."""
        return self.born + bisect_left(self.numbers, number)

    @property
    def index(self) -> int:
        """The newest entry."""
        return self.born + len(self.records)

    def at(self, index: int) -> Record | None:
        """The entry of the shard, or of the one that it was split off, at an index."""
        if index <= self.born:
            return self.parent.at(index) if self.parent else None
        place = index - self.born - 1
        return self.records[place] if place < len(self.records) else None

    def lineage(self) -> Iterator[Record]:
        """All entries that led to the shard as it is."""
        if self.parent is not None:
            for record in self.parent.lineage():
                if record.index > self.born:
                    break
                yield record
        yield from self.records

    def held_at(self, key: bytes, index: int) -> Held | None:
        """What one of its keys held behind an entry."""
        if index < self.born and self.parent is not None:
            return self.parent.held_at(key, index)
        return self.ideal.held_at(key, index)

    def keys_now(self) -> set[bytes]:
        """All that it has in the end, or had."""
        lo, hi = self.ideal.arc
        return {key for key in self.keys_ever() if lo <= token(key) < hi}

    def keys_ever(self) -> set[bytes]:
        """All that it or those before it ever had."""
        return set(self.ideal.history) | (self.parent.keys_ever() if self.parent else set())

    def changes(self, key: bytes) -> list[tuple[int, Held | None]]:
        """All that ever became of one of its keys, with the entries that did it."""
        own = self.ideal.history.get(key, [])
        if self.parent is None:
            return own
        before = [change for change in self.parent.changes(key) if change[0] <= self.born]
        return before + [change for change in own if change[0] > self.born]


class Chronicle:
    """See the module's docstring. One for a whole world."""

    def __init__(self, session_ttl_ms: int) -> None:
        self.books: dict[int, Book] = {}
        self.checked = 0  # entries that were compared
        self._session_ttl_ms = session_ttl_ms
        self._number = 0

    def next_number(self) -> int:
        """Of the next thing that happens."""
        self._number += 1
        return self._number

    def observing(self, apply: Apply) -> Apply:
        """What stands in the place of ShardState.apply."""

        def observed(state: ShardState, entry: Entry) -> Result:
            result = apply(state, entry)
            if state.shard != META_SHARD:
                self.applied(state, entry, result)
            return result

        return observed

    def applied(self, state: ShardState, entry: Entry, result: Result) -> None:
        """A replica has applied an entry. Raises Violation("chronicle")."""
        book = self.books.get(state.shard)
        if book is None:
            ideal = IdealShard(state.shard, state.extent.arc, self._session_ttl_ms)
            book = self.books[state.shard] = Book(ideal, entry.index - 1, None)
        if entry.index == book.index + 1:
            self._write_down(book, entry, result)
        record = book.at(entry.index)
        assert record is not None, f"{book.index} entries of shard {state.shard} before {entry}"
        self.checked += 1
        _compare(record, result, f"shard {state.shard}, entry {entry.index}")
        keys = sum(state.extent.cell_keys)
        if keys != record.keys:
            raise Violation(
                "chronicle",
                f"behind entry {entry.index} ({_name(record.op)}) of shard {state.shard} a replica"
                f" has {keys} keys, and by the log there are {record.keys}",
            )

    def _write_down(self, book: Book, entry: Entry, result: Result) -> None:
        ideal, index = book.ideal, entry.index
        if entry.kind != EntryKind.COMMAND:
            ideal.events = []
            book.write(self._record(ideal, index, 0, (), None, executed=False))
            return
        stamp_ms, op, body = unpack_command(entry.data)
        fields: Any = decode(body)
        ideal.move_clock(stamp_ms, index)
        executed = True
        if op in KEYED:
            answer, executed = ideal.write(op, fields, index)
            fields = fields[_SESSION_FIELDS:]
        elif op == Op.SPLIT:
            answer = None
            if result.ok:
                _, shard_new, at, *_ = fields
                offspring = ideal.cut(shard_new, at, index)
                self.books[shard_new] = Book(offspring, index, book)
        else:
            answer = ideal.other(op, fields, result.body, index)
        if answer is None:
            answer = Answer(Status(result.status), result.body if result.ok else [])  # type: ignore[arg-type]
        request = tuple(map(_frozen, fields))
        book.write(self._record(ideal, index, op, request, answer, executed=executed))

    def _record(
        self,
        ideal: IdealShard,
        index: int,
        op: int,
        request: tuple[Any, ...],
        answer: Answer | None,
        *,
        executed: bool,
    ) -> Record:
        return Record(
            self.next_number(), index, ideal.clock_ms, op, request_of(op, request), answer,
            executed, tuple(ideal.events), len(ideal.keys),
        )  # fmt: skip


def request_of(op: int, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """The fields of a request as they are compared: without nulls at the end, and without
    what a node adds."""
    own = _NODES_OWN.get(Op(op), 0) if op else 0
    full = _FULL.get(Op(op)) if op else None
    if own and full is not None and len(fields) >= full:
        fields = fields[: full - own]
    while fields and fields[-1] is None:
        fields = fields[:-1]
    return fields


_FULL = {Op.APPEND: 8, Op.TXN: 6}


def _frozen(field: Any) -> Any:
    return tuple(map(_frozen, field)) if isinstance(field, list | tuple) else field


frozen = _frozen


def _compare(record: Record, result: Result, where: str) -> None:
    wanted = record.answer
    if wanted is None:
        return
    body: Any = result.body
    detail = {} if result.ok else body[3]
    same = result.status == wanted.status and (
        _frozen(body) == _frozen(wanted.body)
        if result.ok
        else all(detail.get(name) == value for name, value in wanted.detail.items())
    )
    if not same:
        raise Violation(
            "chronicle",
            f"{where}: {_name(record.op)} {_short(record.request)} was answered {result}, and by"
            f" the log it is {wanted}",
        )


def _name(op: int) -> str:
    return Op(op).name if op else "no command"


def _short(request: tuple[Any, ...]) -> str:
    text = repr(request)
    return text if len(text) <= 300 else f"{text[:300]} …"
