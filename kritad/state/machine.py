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

* What users' writes do is in user_keys.py; this is what all shards have in common.

A SPLIT costs 0.7 µs for every key in memory and 5 for
every session; no row is read or moved.

Sources: thesis 3.5 (log matching makes this enough), 6.3 (sessions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from krita.codec import CodecError, decode
from krita.errors import BadRequest, KritaError, Unsupported, WrongShard
from krita.operations import Op
from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.types import Entry, EntryKind
from kritad.state.bonds import Bonds
from kritad.state.command import BadCommand, unpack_command
from kritad.state.feed import Feed
from kritad.state.intents import Intents
from kritad.state.keyspace import Keyspace
from kritad.state.notes import Notes
from kritad.state.records import Records
from kritad.state.results import Result, failure, success
from kritad.state.retention import Retention
from kritad.state.sessions import Sessions, is_session_id
from kritad.state.split import Cut, Lineage, Offspring, SplitCommand
from kritad.state.user_keys import KEY_PLACE, KEYED, UserKeys
from kritad.state.versions import Versions
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.extent import Extent
from kritad.storage.places import stored_token
from kritad.storage.rows import Applied, Row, ShardFlush
from kritad.storage.table import Table

# A shard's own operation: the records, the request's fields, the entry's index
# to (status, body). It refuses by raising KritaError, before it writes anything.
Handler = Callable[[Records, list[object], int], tuple[int, object]]

_COMMAND = EntryKind.COMMAND
_CONF = EntryKind.CONF

_UNREAD = object()
_HASH_MASK = HASH_MODULUS - 1


@attrs.frozen
class Inheritance:
    """What a state begins with beside its rows."""

    sessions: Sessions
    notes: Notes
    bonds: Bonds

    @classmethod
    def read(cls, blobs: Iterable[tuple[int, bytes]], table: Table | None) -> Inheritance:
        """From what is stored; without a table there are no bonds. Raises StoreFailed,
        Corrupt."""
        blobs = list(blobs)
        return cls(
            Sessions((number, blob) for number, blob in blobs if number > 0),
            Notes((number, blob) for number, blob in blobs if number < 0),
            Bonds(table),
        )


class ShardState:
    """One shard's rows, sessions and place in the log, on one replica."""

    def __init__(
        self,
        shard: int,
        table: Table,
        applied: Applied,
        sessions: Iterable[tuple[int, bytes]] = (),
        handlers: Mapping[int, Handler] | None = None,
        inherited: Inheritance | None = None,
    ) -> None:
        """The state as of ``applied``, whose rows ``table`` reads.

        ``sessions`` are the flushed blobs by id, notes among them (below 0). A shard that
        was just split off has what it ``inherited`` instead, and a table in use. A shard
        that is given ``handlers`` of its own (the meta shard) holds records instead of user
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
        # The node's own time, as of its last tick. Nothing that is applied looks at it: it is for
        # telling how long something lasts yet, where the shard's clock stands still.
        self.wall_ms = 0
        self._applied = applied
        self._configuration = applied.configuration
        if inherited is None:
            inherited = Inheritance.read(sessions, table if handlers is None else None)
        self._sessions, self._notes = inherited.sessions, inherited.notes
        self._keyspace = Keyspace(table, extent, inherited.bonds, Feed(applied.index), self._notes)
        self._keyspace.clock_ms = applied.clock_ms
        self.keys = UserKeys(shard, self._keyspace, self._notes, self._sessions)
        # By index: an entry's data and what it says (clock, operation, fields).
        self._prepared: dict[int, tuple[bytes, int, int, object]] = {}
        self._operations: dict[int, Callable[[list[Any], int], Result]] = {
            Op.SESSION_OPEN: self._session_open,
            Op.SESSION_KEEPALIVE: self._session_keepalive,
        }
        if handlers is None:
            self._operations |= self.keys.operations
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
        """The sum of all rows', sessions' and notes' digests modulo 2**64. Encodes the
        sessions that changed since it was last asked for."""
        total = self._keyspace.extent.rows_hash + self._sessions.hash + self._notes.hash
        return total & _HASH_MASK

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

    @property
    def feed(self) -> Feed:
        """What has changed lately, on this replica."""
        return self._keyspace.feed

    @property
    def retention(self) -> Retention:
        """Of which keys versions are kept. Not to be changed."""
        return self._keyspace.retention

    @property
    def versions(self) -> Versions:
        """The older versions of the keys."""
        return self._keyspace.versions

    def leased(self, lease: int, limit: int) -> list[bytes]:
        """The first keys that end with a lease, in order."""
        return self._keyspace.bonds.leased(lease, limit)

    def read(self, key: bytes) -> Row | None:
        """A key as of ``index``, one that the shard ``owns``; None: it is absent, or over.
        Raises storage's Corrupt."""
        return self.keys.get(key)

    @property
    def clock_ms(self) -> int:
        """The highest clock that any entry was stamped with."""
        return self._keyspace.clock_ms

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
            if op in KEYED and isinstance(fields, list) and len(fields) > KEY_PLACE:
                key = fields[KEY_PLACE]
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
        sessions = self._sessions.freeze() + self._notes.freeze()
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
                self._keyspace.clock_ms = clock_ms
                self._sessions.expire(clock_ms)
            if self.keys.due_ms <= self._keyspace.clock_ms:
                self.keys.end_what_is_due(index)
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

    def _session_open(self, fields: list[Any], index: int) -> Result:
        self._check_shard(fields)
        session = _resized(fields, 2)[1]
        if session is None:  # of a release that did not draw ids
            session = self.lineage.session_id(self.shard, index)
        if not is_session_id(session):
            raise BadRequest("session_open: an id is a whole number from 1 to 2**63 - 1")
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
        bonds = self._keyspace.bonds.cut(command.at, table)
        self.feed.split(index, command.shard_new, command.at)
        notes = self._notes.copy()
        Intents(notes).keep_only(lambda key: stored_token(key) >= command.at)
        self.keys.cut(command.at)
        self.lineage = self.lineage.cut(command.shard_new, command.at)
        replica = command.replica_new(self._applied.replica)
        if replica:
            # Else this replica is one of those that came later and live through the log:
            # the other half of its rows is nobody's here, and swept away.
            self.offspring = self._bear(command, replica, table, behind, bonds, notes, index)
        return success([self.lineage.version])

    def _bear(
        self,
        command: SplitCommand,
        replica: int,
        table: Table,
        extent: Extent,
        bonds: Bonds,
        notes: Notes,
        index: int,
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
            state_hash=(extent.rows_hash + sessions.hash + notes.hash) & _HASH_MASK,
            configuration=configuration,
            rows=table.generation,
            hash_lo=extent.hash_lo,
            hash_hi=extent.hash_hi,
            cells=extent.encode(),
            lineage=Lineage(self.lineage.version, born=index).encode(),
        )
        inherited = Inheritance(sessions, notes, bonds)
        state = ShardState(command.shard_new, table, applied, inherited=inherited)
        group = tuple((new, node) for _, new, node in command.replicas)
        return Offspring(command.shard_new, replica, configuration, group, state)

    def _check_shard(self, fields: list[Any]) -> None:
        if not fields or fields[0] != self.shard:
            raise WrongShard(f"this is shard {self.shard}, and the request names another")


def _resized(fields: list[Any], count: int) -> list[Any]:
    """Missing elements at the end are null, those behind the known ones unread."""
    return [*fields[:count], *[None] * (count - len(fields))]


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
