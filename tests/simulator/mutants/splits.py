"""Planted bugs: a shard is cut in two."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy

import attrs

from kritad.cluster.model import ShardRecord
from kritad.host import residence
from kritad.host.births import Births
from kritad.host.flush import Flusher
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.raft.types import Configuration
from kritad.state import user_keys
from kritad.state.sessions import Sessions
from kritad.state.split import Lineage, Offspring, SplitCommand
from kritad.state.user_keys import UserKeys
from kritad.storage.data_db import DataDatabase
from kritad.storage.extent import WHOLE_RING, Arc, Extent
from kritad.storage.rows import Applied, ShardFlush
from kritad.storage.snapshots import SnapshotReader, _Item, _Position
from kritad.storage.sweeping import Uses
from kritad.storage.table import Table
from tests.simulator.mutants.mutant import Mutant

_answer_read = Replica.answer_read
_begin = Births.begin
_check = SplitCommand.check
_copy = Sessions.copy
_cut = Table.cut
_flush = DataDatabase.flush
_read = SnapshotReader._read


def _forget_the_memtable(table: Table, at: int, shard_new: int) -> Table:
    """The new table has what is in data.db; what is in memory alone goes to nobody."""
    behind = _cut(table, at, shard_new)
    behind._active, behind.size_bytes = {}, 0
    return behind


def _forget_what_is_being_flushed(table: Table, at: int, shard_new: int) -> Table:
    """Rows whose flush is under way are taken for committed."""
    flushing, table._flushing = table._flushing, None
    try:
        return _cut(table, at, shard_new)
    finally:
        table._flushing = flushing


def _begin_without_sessions(_sessions: Sessions) -> Sessions:
    """The new shard begins with no session."""
    return Sessions()


def _copy_shallowly(sessions: Sessions) -> Sessions:
    """The sessions are copied, and what they have answered is one dict for both halves."""
    other = _copy(sessions)
    for own in other._sessions.values():
        own.replies = sessions._sessions[own.id].replies
    return other


def _number_by_the_index(_lineage: Lineage, _shard: int, index: int) -> int:
    """A session's id is the index of its entry, in both halves."""
    return index


class _NoCell(int):
    """What a key's cell is compared with, to see that it is outside: no cell ever is this."""


def _own_everything(_keys: UserKeys, _key: bytes) -> bool:
    """Whatever stands in a shard's log is taken for its own."""
    return True


def _answer_for_everybody(replica: Replica, request: Request, staleness_ms: int | None) -> None:
    """A read is answered from whatever shard it was sent to."""
    owns = replica.state.owns
    replica.state.owns = lambda key: True  # type: ignore[method-assign]  # noqa: ARG005
    try:
        _answer_read(replica, request, staleness_ms)
    finally:
        del replica.state.owns
    assert replica.state.owns == owns


def _flush_lazily(
    database: DataDatabase,
    batch: Sequence[ShardFlush],
    durable: bool = False,  # noqa: ARG001
) -> None:
    """No flush is on the disk when it returns, whoever counts on that."""
    _flush(database, batch)


def _flush_the_newborn_alone(flusher: Flusher) -> None:
    """The new shard's state goes to the disk, the one it was cut from when its time comes."""
    unborn, flusher._unborn = flusher._unborn, []

    def then() -> None:
        for each in unborn:
            each.done(True)

    flusher._write((), unborn, then)


def _cut_whatever_the_configuration(
    command: SplitCommand, lineage: Lineage, extent: Extent, configuration: Configuration
) -> None:
    """The configuration that the ids were given out for may have been replaced since."""
    _check(command, lineage, extent, attrs.evolve(configuration, version=command.conf_version))


def _cut_again(
    command: SplitCommand, lineage: Lineage, extent: Extent, configuration: Configuration
) -> None:
    """A number of a shard that was made already is taken again."""
    _check(command, attrs.evolve(lineage, last=None), extent, configuration)


def _never_due(_record: ShardRecord, _replicas: Mapping[int, Replica]) -> bool:
    """A shard that is wanted here is made, empty, although it is about to be split off."""
    return False


def _replace_who_is_here(births: Births, parent: Replica, offspring: Offspring) -> None:
    """Whatever is here of the shard already, a split makes it anew."""
    births._is_here, is_here = (lambda _shard: False), births._is_here
    try:
        _begin(births, parent, offspring)
    finally:
        births._is_here = is_here


def _read_the_generation(reader: SnapshotReader, at: _Position) -> Iterator[_Item]:
    """A snapshot has all rows of the generation, also those of the other half."""
    return _read_arc(reader, at, WHOLE_RING)


def _read_all_but_the_last_cell(reader: SnapshotReader, at: _Position) -> Iterator[_Item]:
    """A snapshot ends where the last cell begins."""
    own = reader.applied
    step = Extent.decode(own.hash_lo, own.hash_hi, own.cells).step if own.cells else 0
    return _read_arc(reader, at, (own.hash_lo, max(own.hash_lo, own.hash_hi - step)))


def _read_arc(reader: SnapshotReader, at: _Position, arc: Arc) -> Iterator[_Item]:
    other = copy(reader)
    other.applied = attrs.evolve(reader.applied, hash_lo=arc[0], hash_hi=arc[1])
    return _read(other, at)


def _know_one_user(users: Iterable[Applied], held: Collection[int] = ()) -> Uses:
    """A generation has one user, the newest that is known."""
    known = list(users)
    rows: dict[int, list[Arc]] = {generation: [] for generation in held}
    rows.update({applied.rows: [applied.arc] for applied in known})
    return Uses(rows, frozenset({*held, *(applied.generation for applied in known)}))


MUTANTS = (
    Mutant(
        name="split-forgets-the-memtable",
        rule="each half has its keys wherever they were",
        source="storage/table.py",
        hint="census, history: writes that were not flushed, then a split",
        patches=((Table, "cut", _forget_the_memtable),),
    ),
    Mutant(
        name="split-forgets-what-is-being-flushed",
        rule="each half has its keys wherever they were",
        source="storage/table.py",
        hint="the part: births.py opens nobody before that flush has ended, so no life sees it",
        patches=((Table, "cut", _forget_what_is_being_flushed),),
    ),
    Mutant(
        name="split-forgets-the-sessions",
        rule="a retry behind the split is answered as it was before it",
        source="state/split.py, thesis 6.3",
        hint="a retry is told that its session is gone; nothing is done twice, so no history shows",
        patches=((Sessions, "copy", _begin_without_sessions),),
    ),
    Mutant(
        name="halves-share-their-sessions",
        rule="a state is a function of its own log",
        source="state/split.py",
        hint="state hash: clients that go on writing to both halves",
        patches=((Sessions, "copy", _copy_shallowly),),
    ),
    Mutant(
        name="halves-give-out-the-same-sessions",
        rule="a session of one half is never taken for one of the other",
        source="state/split.py",
        hint="history: sessions opened behind a split, and clients with an old map",
        patches=((Lineage, "session_id", _number_by_the_index),),
    ),
    Mutant(
        name="writes-to-what-was-split-off",
        rule="a shard takes no write of a key that it does not own",
        source="state/user_keys.py",
        hint="census, history: writes that stand behind the split in the log",
        patches=((user_keys, "OUTSIDE", _NoCell(-2)), (UserKeys, "owns", _own_everything)),
    ),
    Mutant(
        name="reads-what-was-split-off",
        rule="a shard answers no read of a key that it does not own",
        source="host/replica.py",
        hint="history: reads that waited while their shard was cut, where the other half lags",
        patches=((Replica, "answer_read", _answer_for_everybody),),
    ),
    Mutant(
        name="newborn-is-opened-before-it-is-durable",
        rule="a state is durable before its log begins behind it",
        source="host/births.py",
        hint="undamaged: a power cut soon after a split",
        patches=((DataDatabase, "flush", _flush_lazily),),
    ),
    Mutant(
        name="newborn-is-flushed-alone",
        rule="both halves go to the disk in one transaction",
        source="host/births.py, host/flush.py",
        hint="state hash, history: a crash between the two; the old half's log is lived again over "
        "rows that are the new one's",
        patches=((Flusher, "_flush_unborn", _flush_the_newborn_alone),),
    ),
    Mutant(
        name="split-ignores-the-configuration",
        rule="only the configuration that the ids were given out for is cut",
        source="state/split.py",
        hint="the part: the leader looks at the same before it proposes",
        patches=((SplitCommand, "check", _cut_whatever_the_configuration),),
    ),
    Mutant(
        name="split-is-done-twice",
        rule="a number of a shard is made once",
        source="state/split.py",
        hint="the part: a leader proposes once a term, and looks at the state first",
        patches=((SplitCommand, "check", _cut_again),),
    ),
    Mutant(
        name="newborn-is-made-empty",
        rule="what will be split off here is not made empty",
        source="host/births.py (is_due), host/residence.py",
        hint="liveness, history: all nodes start again before any of them has flushed its halves",
        patches=((residence, "is_due", _never_due),),
    ),
    Mutant(
        name="newborn-replaces-who-is-here",
        rule="what is here of a shard before the split is left alone",
        source="host/births.py",
        hint="crash, one vote a term: a log with a split is lived again",
        patches=((Births, "begin", _replace_who_is_here),),
    ),
    Mutant(
        name="snapshot-has-the-other-half-too",
        rule="a snapshot has the rows of the shard's arc",
        source="storage/snapshots.py",
        hint="undamaged: the sender finds that its rows do not add up",
        patches=((SnapshotReader, "_read", _read_the_generation),),
    ),
    Mutant(
        name="snapshot-lacks-the-last-cell",
        rule="a snapshot has all rows of the shard's arc",
        source="storage/snapshots.py",
        hint="undamaged: the sender finds that its rows do not add up",
        patches=((SnapshotReader, "_read", _read_all_but_the_last_cell),),
    ),
    Mutant(
        name="sweep-takes-the-other-half",
        rule="a row that the arc of a user contains is never swept",
        source="storage/sweeping.py",
        hint="census, history, undamaged: a split, then time",
        patches=((Uses, "of", _know_one_user),),
    ),
)
