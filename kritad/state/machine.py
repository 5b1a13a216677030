"""The state machine of one shard: what its log means.

``ShardState.apply`` is a function of the state and the entry, and of nothing
else: no clock, no settings, no chance, so that every replica computes the same
state, reply and hash at the same index. Rules:

* Any bytes have a result. A command that makes no sense is answered with an
  error on every replica alike; limits are checked before a command is proposed,
  not here, where a changed limit would split the replicas. (An empty key is no
  matter of limits: scans begin behind it.)
* An operation that this version does not know is answered UNSUPPORTED. A
  version that gives a new operation a meaning must therefore not propose it
  before every replica knows it.
* A command that is refused has changed nothing, except that it may have kept
  its session alive.
* Storage errors (a corrupt row) are raised through: the replica is then of no
  more use and has to be rebuilt from the others.

* A key outside of the shard's arc is refused before anything else is looked at: also a
  repetition, since whoever owns the key now has a copy of the session (split.py).

A put of 256 bytes costs 4.9 µs where the key is in memory, 6.4 in a session: one
decode (0.7), one digest (1.5), the key's cell and its sums (0.4), one Table.get, one
Table.put, and the dispatch. A SPLIT costs 0.7 µs for every key in memory and 5 for
every session; no row is read or moved.

Sources: thesis 3.5 (log matching makes this enough), 6.3 (sessions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from krita.codec import CodecError, decode
from krita.errors import BadRequest, ConditionFailed, KritaError, Status, Unsupported, WrongShard
from krita.operations import Op
from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import BadCommand, unpack_command
from kritad.state.keyspace import Keyspace
from kritad.state.records import Records
from kritad.state.results import Result, failure, success
from kritad.state.sessions import Reply, Sessions
from kritad.state.split import Cut, Lineage, Offspring, SplitCommand
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.extent import OUTSIDE, Extent
from kritad.storage.rows import Applied, Row, ShardFlush, Stamp
from kritad.storage.table import Table

# A shard's own operation: the records, the request's fields, the entry's index
# to (status, body). It refuses by raising KritaError, before it writes anything.
Handler = Callable[[Records, list[object], int], tuple[int, object]]

_OK = int(Status.OK)
_CONDITION_FAILED = int(Status.CONDITION_FAILED)
_COMMAND = EntryKind.COMMAND
_CONF = EntryKind.CONF

_KEYED = frozenset({int(Op.PUT), int(Op.DELETE)})
_KEY_PLACE = 3  # of the key among their fields
_UNREAD = object()
_HASH_MASK = HASH_MODULUS - 1

_PUT_FIELDS = 7
_DELETE_FIELDS = 5


class ShardState:
    """One shard's rows, sessions and place in the log, on one replica."""

    def __init__(
        self,
        shard: int,
        table: Table,
        applied: Applied,
        sessions: Iterable[tuple[int, bytes]] = (),
        handlers: Mapping[int, Handler] | None = None,
    ) -> None:
        """The state as of ``applied``, whose rows ``table`` reads.

        ``sessions`` are the flushed blobs by id. A shard that is given
        ``handlers`` of its own (the meta shard) holds records instead of user
        keys: it knows those operations and the sessions', but no put or delete.
        The cells of ``applied`` have been counted. Raises ValueError if they are none.
        """
        assert applied.shard == shard, "this applied row belongs to another shard"
        extent = Extent.decode(applied.hash_lo, applied.hash_hi, applied.cells)
        table.arc = extent.arc
        self.shard = shard
        self.lineage = Lineage.decode(applied.lineage)
        self.offspring: Offspring | None = None  # made by the newest entry; see take_offspring
        self.index = applied.index
        self.term = applied.term
        self.clock_ms = applied.clock_ms
        self._applied = applied
        self._configuration = applied.configuration
        self._sessions = Sessions(sessions)
        self._keyspace = Keyspace(table, extent)
        # By index: an entry's data and what it says (clock, operation, fields).
        self._prepared: dict[int, tuple[bytes, int, int, object]] = {}
        self._operations: dict[int, Callable[[list[Any], int], Result]] = {
            Op.SESSION_OPEN: self._session_open,
            Op.SESSION_KEEPALIVE: self._session_keepalive,
        }
        if handlers is None:
            self._operations[Op.PUT] = self._put
            self._operations[Op.DELETE] = self._delete
            self._operations[Op.SPLIT] = self._split
        else:
            for op, handler in handlers.items():
                self._operations[op] = self._with_records(handler)

    def __repr__(self) -> str:
        return (
            f"<ShardState shard={self.shard} index={self.index} term={self.term} "
            f"clock_ms={self.clock_ms} sessions={len(self._sessions)}>"
        )

    @property
    def state_hash(self) -> int:
        """The sum of all rows' and sessions' digests modulo 2**64. Encodes the
        sessions that changed since it was last asked for."""
        return (self._keyspace.extent.rows_hash + self._sessions.hash) & _HASH_MASK

    @property
    def applied(self) -> Applied:
        """What was last frozen or read: replica, generation and place in the log."""
        return self._applied

    @property
    def table(self) -> Table:
        """The rows, for whoever flushes them."""
        return self._keyspace.table

    @property
    def records(self) -> Records:
        """The rows as records, for reading between entries."""
        return Records(self._keyspace, self.index)

    @property
    def extent(self) -> Extent:
        """The shard's arc, and how much is where in it. Not to be changed."""
        return self._keyspace.extent

    @property
    def splits(self) -> Cut | None:
        """The newest split that this shard was cut by."""
        return self.lineage.last

    def owns(self, key: bytes) -> bool:
        """Whether the key is in the shard's arc as of ``index``. 0.3 µs."""
        return self._keyspace.extent.contains(key)

    def read(self, key: bytes) -> Row | None:
        """A key as of ``index``, one that the shard ``owns``. Raises storage's Corrupt."""
        return self._keyspace.get(key)

    def take_offspring(self) -> Offspring | None:
        """The shard that the newest entry has split off, if it did and if this node has a
        replica of it: once. Whoever takes it answers for its flush, which has to be in
        one transaction with the next one of this state."""
        offspring, self.offspring = self.offspring, None
        return offspring

    def apply(self, entry: Entry) -> Result:
        """Apply the entry behind ``index``. Raises storage's errors only."""
        assert entry.index == self.index + 1, f"{self!r} was given entry {entry.index}"
        self.term = entry.term
        if entry.kind == _COMMAND:
            result = self._apply_command(entry.data, entry.index)
        else:
            if entry.kind == _CONF:
                self._configuration = entry.data
            result = success([])
        self.index = entry.index
        return result

    def prepare(self, entries: Sequence[Entry]) -> None:
        """Read at once what applying these, which come next, would ask data.db for one
        by one. Optional: it saves time and changes nothing. Raises storage's errors."""
        self._prepared = prepared = {}
        keys: list[bytes] = []
        for entry in entries:
            if entry.kind != _COMMAND:
                continue
            try:
                clock_ms, op, body = unpack_command(entry.data)
                fields = decode(body)
            except (BadCommand, CodecError):
                continue  # it is answered when it is applied
            prepared[entry.index] = entry.data, clock_ms, op, fields
            if op in _KEYED and isinstance(fields, list) and len(fields) > _KEY_PLACE:
                key = fields[_KEY_PLACE]
                if type(key) is bytes:
                    keys.append(key)
        if keys:
            self._keyspace.table.fetch(keys)

    def freeze(self) -> ShardFlush:
        """Everything that changed since the last freeze, for one flush.

        Moves the table's changes aside (``Table.flushed`` drops them, once they
        are written); a flush that fails is fatal to the store, so there is no
        way back.
        """
        # First, because it brings the hash up to date with the same encoding.
        sessions = self._sessions.freeze()
        applied = attrs.evolve(
            self._applied,
            index=self.index,
            term=self.term,
            clock_ms=self.clock_ms,
            state_hash=self.state_hash,
            configuration=self._configuration,
            hash_hi=self.extent.hash_hi,
            cells=self.extent.encode(),
            lineage=self.lineage.encode(),
        )
        self._applied = applied
        return ShardFlush(applied, self._keyspace.table.freeze(), sessions)

    def _apply_command(self, data: bytes, index: int) -> Result:
        try:
            prepared = self._prepared.pop(index, None)
            if prepared is not None and prepared[0] is data:
                _, clock_ms, op, fields = prepared
            else:
                clock_ms, op, body = unpack_command(data)
                fields = _UNREAD
            if clock_ms > self.clock_ms:
                self.clock_ms = clock_ms
                self._sessions.expire(clock_ms)
            operation = self._operations.get(op)
            if operation is None:
                raise Unsupported(f"shard {self.shard} knows no operation {op} in its log")
            if fields is _UNREAD:
                fields = decode(body)
            if not isinstance(fields, list):
                raise BadRequest("the body is not an array")
            return operation(fields, index)
        except (BadCommand, CodecError) as error:
            return failure(BadRequest(f"malformed command: {error}"))
        except KritaError as error:
            return failure(error)

    def _with_records(self, handler: Handler) -> Callable[[list[Any], int], Result]:
        def operation(fields: list[Any], index: int) -> Result:
            status, body = handler(Records(self._keyspace, index), fields, index)
            return Result(status, body)

        return operation

    def _put(self, fields: list[Any], index: int) -> Result:
        if len(fields) != _PUT_FIELDS:
            fields = _resized(fields, _PUT_FIELDS)
        session, sequence, acked_to, key, value, content_type, if_revision = fields
        if not (type(key) is bytes and key and type(value) is bytes):
            raise BadRequest("put: key and value have to be byte strings, the key not empty")
        if not (content_type is None or type(content_type) is str):
            raise BadRequest("put: content_type has to be text or null")
        keyspace = self._keyspace
        cell = keyspace.extent.cell_of(key)
        if cell == OUTSIDE:
            raise self._not_ours()
        if session is None or session == 0:
            if if_revision is not None:
                reply = self._put_row(key, value, content_type, if_revision, index, cell)
                return self._replied(reply)
            # What nearly all puts are, without detours: this runs on every replica.
            before = keyspace.table.stamp(key)
            keyspace.put(key, value, content_type, index, before, cell)
            return Result(_OK, [index, before is not None])
        known = self._begun(session, sequence, acked_to, index)
        if known is None:
            known = self._put_row(key, value, content_type, if_revision, index, cell)
            self._sessions.finish(session, sequence, known)
        return self._replied(known)

    def _delete(self, fields: list[Any], index: int) -> Result:
        if len(fields) != _DELETE_FIELDS:
            fields = _resized(fields, _DELETE_FIELDS)
        session, sequence, acked_to, key, if_revision = fields
        if not (type(key) is bytes and key):
            raise BadRequest("delete: the key has to be a byte string, and not empty")
        cell = self._keyspace.extent.cell_of(key)
        if cell == OUTSIDE:
            raise self._not_ours()
        if session is None or session == 0:
            return self._replied(self._delete_row(key, if_revision, index, cell))
        reply = self._begun(session, sequence, acked_to, index)
        if reply is None:
            reply = self._delete_row(key, if_revision, index, cell)
            self._sessions.finish(session, sequence, reply)
        return self._replied(reply)

    def _put_row(
        self,
        key: bytes,
        value: bytes,
        content_type: str | None,
        if_revision: object,
        index: int,
        cell: int,
    ) -> Reply:
        before = self._keyspace.stamp(key)
        if if_revision is not None and not _holds(if_revision, before):
            return _CONDITION_FAILED, [0 if before is None else before.revision]
        self._keyspace.put(key, value, content_type, index, before, cell)
        return _OK, [index, before is not None]

    def _delete_row(self, key: bytes, if_revision: object, index: int, cell: int) -> Reply:
        before = self._keyspace.stamp(key)
        if if_revision is not None and not _holds(if_revision, before):
            return _CONDITION_FAILED, [0 if before is None else before.revision]
        # Also when there was nothing to remove, the revision is what a reader
        # has to wait for in order to see the key gone.
        if before is not None:
            self._keyspace.delete(key, before, cell)
        return _OK, [index, before is not None]

    def _begun(self, session: Any, sequence: Any, acked_to: Any, index: int) -> Reply | None:
        if not (_is_count(session) and _is_count(sequence) and _is_count(acked_to)):
            raise BadRequest("session, sequence and acked_to have to be whole numbers")
        return self._sessions.begin(session, sequence, acked_to, index, self.clock_ms)

    @staticmethod
    def _replied(reply: Reply) -> Result:
        """The reply in full, from what a session keeps of it."""
        status, values = reply
        if status == _OK:
            return Result(_OK, [values[0], bool(values[1])])
        assert status == _CONDITION_FAILED, f"a session kept a reply of status {status}"
        revision = values[0]
        found = f"is at revision {revision}" if revision else "is absent"
        return failure(
            ConditionFailed(f"if_revision: the key {found}", detail={"revision": revision})
        )

    def _session_open(self, fields: list[Any], index: int) -> Result:
        self._check_shard(fields)
        session = self.lineage.session_id(self.shard, index)
        return success([self._sessions.open(session, index, self.clock_ms)])

    def _session_keepalive(self, fields: list[Any], index: int) -> Result:
        self._check_shard(fields)
        session = _resized(fields, 2)[1]
        if not _is_count(session):
            raise BadRequest("session_keepalive: the session has to be a whole number")
        self._sessions.touch(session, index, self.clock_ms)
        return success([])

    def _split(self, fields: list[Any], index: int) -> Result:
        self._check_shard(fields)
        command = SplitCommand.parse(fields)
        configuration = decode_configuration(self._configuration)
        command.check(self.lineage, self.extent, configuration)
        assert self.offspring is None, f"{self!r}: nobody has taken {self.offspring!r}"
        # Nothing is refused behind this line.
        table = self._keyspace.table.cut(command.at, command.shard_new)
        behind = self.extent.cut(command.at)
        self.lineage = self.lineage.cut(command.shard_new, command.at)
        replica = command.replica_new(self._applied.replica)
        if replica:
            # Else this replica is one of those that came later and live through the log:
            # the other half of its rows is nobody's here, and swept away.
            self.offspring = self._bear(command, replica, table, behind, index)
        return success([self.lineage.version])

    def _bear(
        self, command: SplitCommand, replica: int, table: Table, extent: Extent, index: int
    ) -> Offspring:
        sessions = self._sessions.copy()
        configuration = encode_configuration(command.configuration)
        applied = Applied(
            shard=command.shard_new,
            replica=replica,
            generation=table.reserve_generation(),
            index=index,
            term=self.term,
            clock_ms=self.clock_ms,
            state_hash=(extent.rows_hash + sessions.hash) & _HASH_MASK,
            configuration=configuration,
            rows=table.generation,
            hash_lo=extent.hash_lo,
            hash_hi=extent.hash_hi,
            cells=extent.encode(),
            lineage=Lineage(self.lineage.version, born=index).encode(),
        )
        state = ShardState(command.shard_new, table, applied)
        state._sessions = sessions
        group = tuple((new, node) for _, new, node in command.replicas)
        return Offspring(command.shard_new, replica, configuration, group, state)

    def _not_ours(self) -> WrongShard:
        # host/bootstrap.py says why there is always one when there are entries.
        assert self.extent.width, f"{self!r} has no arc, and was given a write"
        return WrongShard(
            f"the key is not in the part of the ring that shard {self.shard} has",
            hint="fetch the shard map again: the shard was split",
        )

    def _check_shard(self, fields: list[Any]) -> None:
        if not fields or fields[0] != self.shard:
            raise WrongShard(f"this is shard {self.shard}, and the request names another")


def _resized(fields: list[Any], count: int) -> list[Any]:
    """Missing elements at the end are null, those behind the known ones unread."""
    return [*fields[:count], *[None] * (count - len(fields))]


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _holds(if_revision: object, row: Row | Stamp | None) -> bool:
    """Whether the key is at ``if_revision``; 0 asks that it be absent."""
    if not _is_count(if_revision):
        raise BadRequest("if_revision has to be a whole number or null")
    return if_revision == (0 if row is None else row.revision)
