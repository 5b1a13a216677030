"""Whether every answer is one that the log has given, at a time when it could be given.

An acknowledged write is an entry that was first applied between the request and its
answer, says the same, and was answered the same. A read at an index says what the log
makes of its key up to there; a linearizable one sees all that had been applied anywhere
when it was asked for. (So transactions are serializable, by the order of the log, and what
one of them did is there as a whole.) What is told to all shards is in the log of each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from krita.errors import Status
from krita.operations import Consistency, LeaseChange, Op
from tests.simulator.chronicle.chronicle import Book, Chronicle, Record, frozen, request_of
from tests.simulator.chronicle.draft import Answer, Held
from tests.simulator.chronicle.ideal import KEYED, token
from tests.simulator.crafts.deed import Deed
from tests.simulator.history import Fate

# What is told to all shards: the operation in their logs, and the change it makes.
_TOLD_TO_ALL = {
    Op.LEASE_GRANT: (Op.LEASE_CHANGE, LeaseChange.GRANT),
    Op.LEASE_KEEPALIVE: (Op.LEASE_CHANGE, LeaseChange.KEEPALIVE),
    Op.LEASE_REVOKE: (Op.LEASE_CHANGE, LeaseChange.REVOKE),
    Op.RETENTION_SET: (Op.RETENTION_CHANGE, None),
}


class Lineage:
    """A shard of the end with all entries that led to it, and ways to look them up."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.records = list(book.lineage())
        self._numbers = [record.number for record in self.records]
        # Of each key that it has: what became of it, and with which entries.
        self.changes = {key: book.changes(key) for key in sorted(book.keys_now())}
        self.retentions: list[Record] = []  # those that change any
        self.leases: dict[int, list[Record]] = {}  # those that change each of them
        self._by_request: dict[object, list[Record]] = {}
        for record in self.records:
            self._by_request.setdefault((record.op, record.request), []).append(record)
            if record.op == Op.RETENTION_CHANGE:
                self.retentions.append(record)
            elif record.op == Op.LEASE_CHANGE:
                self.leases.setdefault(record.request[1], []).append(record)

    def floor(self, number: int) -> int:
        """The newest entry that had been applied by then; 0 for none."""
        place = bisect_left(self._numbers, number)
        return self.records[place - 1].index if place else 0

    def within(self, deed: Deed) -> Sequence[Record]:
        """The entries that were first applied while it was under way."""
        first = bisect_left(self._numbers, deed.begun)
        return self.records[first : bisect_left(self._numbers, deed.ended)]

    def saying(self, op: int, request: object) -> list[Record]:
        """The entries that say just that."""
        return self._by_request.get((int(op), request), [])


class Lineages:
    """Those of all shards of the end, which are those that were not cut themselves."""

    def __init__(self, chronicle: Chronicle) -> None:
        self.all = [Lineage(book) for book in chronicle.books.values()]

    def of(self, key: bytes) -> Lineage:
        """That of the shard which has the key in the end."""
        place = token(key)
        return next(one for one in self.all if _has(one.book, place))


def _has(book: Book, place: int) -> bool:
    lo, hi = book.ideal.arc
    return lo <= place < hi


def check_answers(chronicle: Chronicle, deeds: Iterable[Deed]) -> list[str]:
    """What is wrong with the answers; scans and watches are looked at elsewhere."""
    lineages = Lineages(chronicle)
    complaints: list[str] = []
    claims: dict[tuple[int, int], Deed] = {}
    for deed in deeds:
        problem = None
        if deed.op in KEYED:
            problem = _check_write(lineages.of(deed.ask.fields[0]), deed, claims)
        elif deed.op in _TOLD_TO_ALL:
            problem = _check_told(lineages, deed)
        elif deed.fate is Fate.OK and deed.op == Op.GET:
            problem = _check_get(lineages.of(deed.ask.fields[0]), deed)
        elif deed.fate is Fate.OK and deed.op == Op.KEY_HISTORY:
            problem = _check_history(lineages.of(deed.ask.fields[0]), deed)
        if problem:
            complaints.append(f"{problem}\n    {deed}")
    return complaints


# --- writes -----------------------------------------------------------------------------


def _check_write(lineage: Lineage, deed: Deed, claims: dict[tuple[int, int], Deed]) -> str | None:
    request = request_of(deed.op, tuple(map(frozen, deed.ask.fields)))
    saying = lineage.saying(deed.op, request)
    if deed.fate is Fate.UNKNOWN:
        return None
    if deed.fate is Fate.FAILED:
        # Where another has asked for just the same, it may be that one's.
        begun = [record for record in saying if record.number > deed.begun and record.executed]
        return "it failed, and yet it is in the log" if begun and _is_unique(deed) else None
    theirs = [
        record
        for record in saying
        if deed.begun < record.number < deed.ended and _is_told(record, deed)
    ]
    if not theirs:
        return f"no entry says that: {[(r.index, r.answer) for r in saying[-3:]]}"
    if deed.ok and deed.op not in (Op.TOUCH, Op.LOCK) and deed.field("idempotency") is None:
        index = deed.body[0]
        other = claims.setdefault((id(lineage), index), deed)
        if other is not deed:
            return f"another one has entry {index} already: {other}"
    return None


def _is_unique(deed: Deed) -> bool:
    """Whether nobody else asks for the same: its value is nobody else's."""
    return deed.op in (Op.ADD, Op.APPEND, Op.PUT) and deed.field("idempotency") is None


def _is_told(record: Record, deed: Deed) -> bool:
    answer = record.answer
    if answer is None or answer.status != deed.status:
        return False
    if deed.ok:
        return bool(frozen(answer.body) == frozen(deed.body))
    return all(deed.detail.get(name) == value for name, value in answer.detail.items())


def _says(answer: Answer, deed: Deed) -> bool:
    """Whether that is what a shard says of it. A shard that has no such lease to revoke says
    that it is well so, without a time; only when all have said that, nobody knows it."""
    if deed.op == Op.LEASE_REVOKE and not deed.ok:
        return answer.status == Status.OK and answer.body[0] is None
    return answer.status == deed.status


def _check_told(lineages: Lineages, deed: Deed) -> str | None:
    """Each shard was told while it was under way; if one has refused, at least one has."""
    if deed.fate is not Fate.OK:
        return None
    op, change = _TOLD_TO_ALL[deed.op]
    about = deed.field("prefix") if deed.op == Op.RETENTION_SET else deed.field("lease")
    told = [
        any(
            record.op == op
            and record.request[1] == about
            and (change is None or record.request[2] == change)
            and _has_said(record, deed.status)
            for record in lineage.within(deed)
        )
        for lineage in lineages.all
    ]
    if deed.ok and not all(told):
        missing = [
            one.book.ideal.shard for one, was in zip(lineages.all, told, strict=True) if not was
        ]
        return f"shards {missing} were not told"
    if not any(told):
        return "no shard has answered so"
    return None


def _has_said(record: Record, status: Status | None) -> bool:
    answer = record.answer
    assert answer is not None, record
    # That a lease is over is no refusal to whoever wants it to be.
    over = status is Status.LEASE_UNKNOWN and answer.body[:1] == [None]
    return over or answer.status == status


# --- reads ------------------------------------------------------------------------------


def _check_get(lineage: Lineage, deed: Deed) -> str | None:
    if deed.field("at_revision") is not None:
        return _check_then(lineage, deed)
    if deed.field("at_ms") is not None:
        return _check_at(lineage, deed)
    if not deed.ok:
        return "a read was refused"
    value, revision, content_type, index, *more = deed.body
    stale = deed.field("consistency") == Consistency.STALE
    floor = (deed.field("revision_min") or 0) if stale else lineage.floor(deed.begun)
    if index < floor:
        return f"read at index {index}, and what was asked for is behind {floor}"
    if index == 0:
        return None  # a replica that has nothing yet
    record = lineage.book.at(index)
    if record is None or record.number > deed.ended:
        return f"read at index {index}, which had not been applied anywhere"
    held = lineage.book.held_at(deed.ask.fields[0], index)
    if _told(held) != (value, revision, content_type):
        return f"behind entry {index} there was {held}"
    expires_in_ms, lease = more[1:3] if len(more) > 1 else (None, None)
    if held is not None:
        most_ms = held.deadline_ms - record.clock_ms if held.deadline_ms else None
        if not _fits(expires_in_ms, most_ms) or (held.lease or None) != lease:
            return f"behind entry {index}, at {record.clock_ms}, it was {held}"
    return None


def _fits(left_ms: int | None, most_ms: int | None) -> bool:
    """It is told by the shard's clock, or by the node's, which may be ahead of that."""
    if left_ms is None or most_ms is None:
        return left_ms is most_ms
    return 0 <= left_ms <= most_ms


def _told(held: Held | None) -> tuple[object, object, object]:
    return (held.value, held.revision, held.content_type) if held else (None, 0, None)


def _check_then(lineage: Lineage, deed: Deed) -> str | None:
    """What a key was behind an entry; and whether it may be forgotten."""
    return _check_held(lineage, deed, deed.ask.fields[0], deed.field("at_revision"))


def _check_at(lineage: Lineage, deed: Deed) -> str | None:
    """What a key was at a time: as the last entry up to it has left it, of those that the
    shard had. (Its clock stands still while nothing happens.)"""
    key, at_ms = deed.ask.fields[0], deed.field("at_ms")
    index = deed.body[3] if deed.ok else lineage.floor(deed.ended)
    if index < lineage.floor(deed.begun):
        return f"read at index {index}, and what was asked for is behind {deed.begun}"
    until = lineage.records[: bisect_right(lineage.records, index, key=attrgetter("index"))]
    place = bisect_right(until, at_ms, key=attrgetter("clock_ms"))
    then = until[place - 1].index if place else 0
    if deed.status is Status.COMPACTED and at_ms < _whole_since_ms(lineage, key):
        return None
    return _check_held(lineage, deed, key, then)


def _check_held(lineage: Lineage, deed: Deed, key: bytes, then: int) -> str | None:
    if deed.status is Status.COMPACTED:
        return _check_forgotten(lineage, deed, key, then)
    held = lineage.book.held_at(key, then)
    if not deed.ok or tuple(deed.body[:3]) != _told(held):
        return f"behind entry {then} there was {held}"
    return None


def _whole_since_ms(lineage: Lineage, key: bytes) -> int:
    """Since when all is kept for the time that is said: what was there when that time was
    made longer goes when the shorter one has said."""
    kept: dict[bytes, int] = {}
    since_ms = 0
    for record in lineage.retentions:
        if key.startswith(record.request[1]):
            _, prefix, kept_ms = record.request
            if kept_ms > kept.get(prefix, 0):
                since_ms = record.clock_ms
            kept[prefix] = kept_ms
    return since_ms


def _check_forgotten(lineage: Lineage, deed: Deed, key: bytes, then: int) -> str | None:
    """Nothing that ended within the retention may be, nor what has not ended."""
    rules = [rule for prefix, rule in lineage.book.ideal.rules.items() if key.startswith(prefix)]
    shortest = [
        record.request[2] for record in lineage.retentions if key.startswith(record.request[1])
    ]
    record, newest = lineage.book.at(then), lineage.book.at(lineage.floor(deed.ended))
    if not rules or record is None or newest is None or then < rules[0][1]:
        return None
    if newest.clock_ms < record.clock_ms + min(shortest):
        return f"forgotten, and the shard has kept all since entry {rules[0][1]}"
    return None


def _check_history(lineage: Lineage, deed: Deed) -> str | None:
    """The versions follow each other, as the log has them."""
    if not deed.ok:
        return "a history was refused"
    key, later = deed.ask.fields[0], None
    for revision, value, _, until, _ in deed.body[0]:
        index = revision if until is None else until - 1
        held = lineage.book.held_at(key, index)
        seen = (held.value, held.revision) if held else None
        if seen != (None if value is None else (value, revision)):
            return f"behind entry {index} there was {held}, not revision {revision}"
        if later is not None and until > later:
            return f"a version until {until} stands behind one of {later}"
        later = revision
    return None
