"""A shard is cut in two by an entry of its log: what each half has, on every replica alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from krita.codec import encode_body
from krita.errors import BadRequest, ConditionFailed, SessionExpired, WrongShard, from_wire
from krita.operations import Op
from krita.ring import token
from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.types import Configuration, Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.machine import ShardState
from kritad.state.results import Result
from kritad.state.split import SHARD_LIMIT, Cut, Lineage, Offspring
from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.errors import StoreFailed
from kritad.storage.extent import Arc, Extent
from kritad.storage.rows import Row
from kritad.storage.table import Table
from tests.state.shard import REPLICA, SHARD, Shard, open_shard
from tests.storage.state import scanned

MIDDLE = 1 << 31
NEW = 5
KEYS = [b"key-%d" % number for number in range(60)]
OURS = [key for key in KEYS if token(key) < MIDDLE]
THEIRS = [key for key in KEYS if token(key) >= MIDDLE]


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    with open_shard(tmp_path / "data.db") as opened:
        yield opened


def split(shard: Shard, at: int = MIDDLE, shard_new: int = NEW) -> Offspring:
    result = shard.split(shard_new, at)
    assert result.ok, result
    offspring = shard.state.take_offspring()
    assert offspring is not None
    return offspring


def apply_to(state: ShardState, op: Op, *fields: object) -> Result:
    data = pack_command(0, op, encode_body(op, *fields))
    return state.apply(Entry(state.index + 1, 1, EntryKind.COMMAND, data))


def put(state: ShardState, key: bytes, value: bytes) -> Result:
    return apply_to(state, Op.PUT, 0, 0, 0, key, value, None, None)


def refusal(result: Result) -> BaseException:
    assert not result.ok, result
    return from_wire(result.status, result.body)


def flush_both(shard: Shard, offspring: Offspring) -> None:
    shard.db.flush([shard.state.freeze(), offspring.state.freeze()], durable=True)
    shard.table.flushed()
    offspring.state.table.flushed()


def reopened(db: DataDatabase, shard: int) -> ShardState:
    applied = db.applied()[shard]
    table = Table(db, applied.rows, RowCache(1 << 20), shard)
    sessions = db.scan_sessions(applied.generation, -1, 10_000)
    return ShardState(shard, table, applied, sessions)


def counted(state: ShardState) -> Extent:
    """A full count of what the state reads."""
    extent = state.extent.emptied()
    for key, row in state.table.scan(None, 1 << 20):
        extent.count(extent.cell_of(key), row.digest, 1, len(key) + len(row.value))
    return extent


def values(state: ShardState) -> dict[bytes, bytes]:
    return {key: row.value for key, row in state.table.scan(None, 1 << 20)}


def fill_all_places(shard: Shard) -> None:
    """Leave keys in data.db, in a flush that is under way, and in memory; in each place
    some that were deleted or written again in a later one."""
    for key in KEYS[:40]:
        shard.put(key, b"stored")
    shard.flush()
    for key in KEYS[20:50]:
        shard.put(key, b"being flushed")
    for key in KEYS[10:20]:
        shard.delete(key)
    shard.flushing = shard.state.freeze()  # type: ignore[attr-defined]
    for key in KEYS[45:]:
        shard.put(key, b"in memory")
    for key in KEYS[25:30]:
        shard.delete(key)


def end_flush(shard: Shard) -> None:
    shard.db.flush([shard.flushing])  # type: ignore[attr-defined]
    shard.table.flushed()


def test_each_half_has_its_keys_wherever_they_were(shard: Shard) -> None:
    fill_all_places(shard)
    before = values(shard.state)
    offspring = split(shard)
    assert values(shard.state) == {k: v for k, v in before.items() if token(k) < MIDDLE}
    for key in KEYS:
        state = shard.state if token(key) < MIDDLE else offspring.state
        row = state.read(key)
        assert (row and row.value) == before.get(key), key
    end_flush(shard)
    # What the first flush wrote of it is not in data.db alone any more.
    assert values(offspring.state) == {k: v for k, v in before.items() if token(k) >= MIDDLE}
    flush_both(shard, offspring)
    shard.crash()
    assert values(shard.state) == {k: v for k, v in before.items() if token(k) < MIDDLE}
    child = reopened(shard.db, NEW)
    assert values(child) == {k: v for k, v in before.items() if token(k) >= MIDDLE}
    assert counted(child) == child.extent == offspring.state.extent
    assert counted(shard.state) == shard.state.extent


def test_the_offspring_reads_what_is_being_flushed_before_it_is_there(shard: Shard) -> None:
    shard.put(THEIRS[0], b"v")
    frozen = shard.state.freeze()
    offspring = split(shard)
    row = offspring.state.read(THEIRS[0])
    assert row is not None
    # And the next write of it knows what it replaces.
    assert put(offspring.state, THEIRS[0], b"w").body == [3, True]
    shard.db.flush([frozen])
    shard.table.flushed()
    assert counted(offspring.state) == offspring.state.extent


def test_a_key_is_read_from_the_half_that_owns_it_although_both_share_the_cache(
    shard: Shard,
) -> None:
    for key in KEYS:
        shard.put(key, b"old")
    shard.flush()
    offspring = split(shard)
    assert put(offspring.state, THEIRS[0], b"new").body == [62, True]
    assert put(shard.state, OURS[0], b"new").body == [62, True]
    flush_both(shard, offspring)
    for state, key in ((offspring.state, THEIRS[0]), (shard.state, OURS[0])):
        row = state.read(key)
        assert row is not None
        assert (row.value, row.revision) == (b"new", 62)


def test_the_hashes_of_the_halves_add_up_to_the_whole(shard: Shard) -> None:
    session = shard.open_session()
    fill_all_places(shard)
    shard.call(Op.PUT, session, 1, 0, b"in a session", b"v", None, None)
    whole = shard.state.state_hash
    keys, size = shard.state.extent.keys, shard.state.extent.bytes
    offspring = split(shard)
    sessions_hash = shard.state.state_hash - shard.state.extent.rows_hash
    halves = shard.state.state_hash + offspring.state.state_hash
    assert (halves - whole - sessions_hash) % HASH_MODULUS == 0
    assert shard.state.extent.keys + offspring.state.extent.keys == keys
    assert shard.state.extent.bytes + offspring.state.extent.bytes == size


def test_the_offspring_begins_where_the_entry_stands(shard: Shard) -> None:
    shard.clock_ms = 777
    shard.put(b"k", b"v")
    offspring = split(shard)
    assert shard.state.take_offspring() is None
    assert (offspring.shard, offspring.replica) == (NEW, 70 + NEW)
    assert offspring.replicas == ((75, 1), (85, 2), (95, 3))
    assert decode_configuration(offspring.configuration) == Configuration(
        1, voters=frozenset({75, 85, 95}), nodes={75: 1, 85: 2, 95: 3}
    )
    state = offspring.state
    assert (state.index, state.term, state.clock_ms) == (2, 1, 777)
    assert state.extent.arc == (MIDDLE, 1 << 32)
    assert state.lineage == Lineage(version=2, born=2)
    assert state.freeze().applied.configuration == offspring.configuration
    assert shard.state.splits == Cut(NEW, MIDDLE, 2)
    assert shard.state.extent.arc == (0, MIDDLE)


def test_a_key_of_the_other_half_is_refused_and_changes_nothing(shard: Shard) -> None:
    session = shard.open_session()
    offspring = split(shard)
    for state, key in ((shard.state, THEIRS[0]), (offspring.state, OURS[0])):
        before = state.state_hash
        assert not state.owns(key)
        for result in (
            put(state, key, b"v"),
            apply_to(state, Op.PUT, session, 1, 0, key, b"v", None, None),
            apply_to(state, Op.PUT, 0, 0, 0, key, b"v", None, 0),
            apply_to(state, Op.DELETE, 0, 0, 0, key, None),
            apply_to(state, Op.DELETE, session, 1, 0, key, None),
        ):
            refused = refusal(result)
            assert isinstance(refused, WrongShard)
            assert refused.hint
        assert state.state_hash == before


def test_a_lock_that_went_to_the_other_half_is_not_said_to_be_lost(shard: Shard) -> None:
    """It is held there, and who looks here cannot know."""
    shard.do(Op.LOCK, THEIRS[0], owner=b"me")
    split(shard)
    refused = refusal(shard.do(Op.PUT, OURS[0], value=b"v", if_lock=[THEIRS[0], 1]))
    assert isinstance(refused, BadRequest)
    assert "another shard" in refused.message


def test_a_write_that_was_answered_before_the_split_is_answered_alike_behind_it(
    shard: Shard,
) -> None:
    session = shard.open_session()
    theirs, ours = THEIRS[0], OURS[0]
    first = shard.call(Op.PUT, session, 1, 0, theirs, b"v", None, None)
    shard.flush()
    second = shard.call(Op.PUT, session, 2, 0, ours, b"v", None, None)
    offspring = split(shard)
    flush_both(shard, offspring)
    shard.crash()
    child = reopened(shard.db, NEW)
    assert apply_to(child, Op.PUT, session, 1, 0, theirs, b"v", None, None) == first
    assert apply_to(shard.state, Op.PUT, session, 2, 0, ours, b"v", None, None) == second
    # And each goes on with the session on its own.
    assert apply_to(child, Op.PUT, session, 3, 2, theirs, b"w", None, None).ok
    assert apply_to(shard.state, Op.PUT, session, 3, 2, ours, b"w", None, None).ok


def test_the_halves_remember_different_writes_of_one_session(shard: Shard) -> None:
    session = shard.open_session()
    offspring = split(shard)
    assert put(shard.state, OURS[1], b"another entry").ok
    mine = apply_to(shard.state, Op.PUT, session, 1, 0, OURS[0], b"v", None, None)
    theirs = apply_to(offspring.state, Op.PUT, session, 1, 0, THEIRS[0], b"v", None, None)
    assert (mine.body, theirs.body) == ([4, False], [3, False])


def test_a_session_opened_after_the_split_is_nobody_else_s_in_the_other_half(
    shard: Shard,
) -> None:
    offspring = split(shard)
    mine = apply_to(shard.state, Op.SESSION_OPEN, SHARD).body
    other = apply_to(offspring.state, Op.SESSION_OPEN, NEW).body
    assert isinstance(mine, list)
    assert isinstance(other, list)
    assert shard.state.index == offspring.state.index
    lost = apply_to(offspring.state, Op.PUT, mine[0], 1, 0, THEIRS[0], b"v", None, None)
    assert isinstance(refusal(lost), SessionExpired)
    lost = apply_to(shard.state, Op.PUT, other[0], 1, 0, OURS[0], b"v", None, None)
    assert isinstance(refusal(lost), SessionExpired)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ([SHARD, NEW, MIDDLE + 1, 3, [[7, 71, 1]]], ConditionFailed),  # no edge
        ([SHARD, NEW, 0, 3, [[7, 71, 1]]], ConditionFailed),
        ([SHARD, NEW, 1 << 32, 3, [[7, 71, 1]]], ConditionFailed),
        ([SHARD, NEW, MIDDLE, 2, [[7, 71, 1]]], ConditionFailed),
        ([SHARD, SHARD, MIDDLE, 3, [[7, 71, 1]]], ConditionFailed),  # no new number
        ([SHARD, 0, MIDDLE, 3, [[7, 71, 1]]], ConditionFailed),
        ([9, NEW, MIDDLE, 3, [[7, 71, 1]]], WrongShard),
        ([], WrongShard),
        ([SHARD], BadRequest),
        ([SHARD, NEW, MIDDLE, 3, []], BadRequest),
        ([SHARD, NEW, MIDDLE, 3, [[7, 71]]], BadRequest),
        ([SHARD, NEW, MIDDLE, 3, [[7, 0, 1]]], BadRequest),
        ([SHARD, NEW, MIDDLE, 3, [[7, 71, 1], [8, 71, 2]]], BadRequest),
        ([SHARD, NEW, MIDDLE, 3, [[7, 71, 1], [8, 72, 1]]], BadRequest),
        ([SHARD, NEW, MIDDLE, 3, None], BadRequest),
        ([SHARD, NEW, str(MIDDLE), 3, [[7, 71, 1]]], BadRequest),
        ([SHARD, SHARD_LIMIT, MIDDLE, 3, [[7, 71, 1]]], BadRequest),
    ],
)
def test_a_split_that_makes_no_sense_now_is_refused_and_changes_nothing(
    shard: Shard, fields: list[object], error: type[Exception]
) -> None:
    shard.put(THEIRS[0], b"v")
    before = shard.state.state_hash, shard.state.extent.arc, shard.state.lineage
    assert isinstance(refusal(shard.call(Op.SPLIT, *fields)), error)
    assert before == (shard.state.state_hash, shard.state.extent.arc, shard.state.lineage)
    assert shard.state.take_offspring() is None


def test_a_repeated_split_is_refused_also_at_another_edge(shard: Shard) -> None:
    split(shard)
    for at in (MIDDLE, MIDDLE // 2):
        assert isinstance(refusal(shard.split(NEW, at)), ConditionFailed)
    assert shard.state.extent.arc == (0, MIDDLE)
    assert split(shard, MIDDLE // 2, NEW + 1).state.extent.arc == (MIDDLE // 2, MIDDLE)
    assert shard.state.lineage == Lineage(3, 0, Cut(NEW + 1, MIDDLE // 2, 3))


def test_what_a_shard_came_of_is_flushed_with_it(shard: Shard) -> None:
    offspring = split(shard)
    flush_both(shard, offspring)
    shard.log.clear()
    shard.db.close()
    shard.db = DataDatabase.open(shard.path)
    shard._restore()
    assert shard.state.lineage == Lineage(2, 0, Cut(NEW, MIDDLE, 2))
    assert isinstance(refusal(shard.split(NEW, MIDDLE // 2)), ConditionFailed)
    child = reopened(shard.db, NEW)
    assert child.lineage == Lineage(2, born=1)
    assert apply_to(child, Op.SESSION_OPEN, NEW).body == [NEW << 40 | 2]


def test_a_split_behind_a_change_of_the_configuration_is_refused(shard: Shard) -> None:
    changed = encode_configuration(Configuration(4, voters=frozenset({7}), nodes={7: 1}))
    shard.apply(Entry(1, 1, EntryKind.CONF, changed))
    assert isinstance(refusal(shard.split(NEW, MIDDLE)), ConditionFailed)
    assert shard.split(NEW, MIDDLE, conf_version=4).ok


def test_a_newcomer_that_lives_through_the_log_has_half_and_no_offspring(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with open_shard(path) as old, open_shard(tmp_path / "new.db") as newcomer:
        first = Configuration(1, voters=frozenset({REPLICA}), nodes={REPLICA: 1})
        # Nobody has told it what the group began with, or has given its id a half.
        for one, conf, replica in ((old, first, REPLICA), (newcomer, Configuration(), 44)):
            state, applied = one.state, one.state.applied
            state._configuration = encode_configuration(conf)
            state._applied = attrs.evolve(applied, replica=replica)
        for one in (old, newcomer):
            for key in KEYS:
                one.put(key, b"v")
            assert one.call(Op.SPLIT, SHARD, NEW, MIDDLE, 1, [[REPLICA, 71, 1]]).ok
            one.put(OURS[0], b"w")
        assert old.state.take_offspring() is not None
        assert newcomer.state.take_offspring() is None
        assert newcomer.state.state_hash == old.state.state_hash
        assert values(newcomer.state) == values(old.state)
        newcomer.flush()
        while newcomer.db.sweep(7):
            pass
        assert newcomer.scanned_hash() == newcomer.state.state_hash
        stored = scanned(newcomer.db, newcomer.state.applied.rows, None, 1000)
        assert [key for key, _ in stored] == sorted(OURS)


def test_what_was_read_ahead_for_a_batch_is_right_behind_a_split_in_it(shard: Shard) -> None:
    for key in KEYS:
        shard.put(key, b"v")
    shard.flush()
    shard.table._cache = RowCache(0)
    ours, theirs = OURS[0], THEIRS[0]
    replicas = [[7, 71, 1], [8, 81, 2], [9, 91, 3]]
    batch: list[tuple[Any, ...]] = [
        (Op.PUT, 0, 0, 0, ours, b"one", None, None),
        (Op.PUT, 0, 0, 0, theirs, b"one", None, None),
        (Op.SPLIT, SHARD, NEW, MIDDLE, 3, replicas),
        (Op.PUT, 0, 0, 0, ours, b"two", None, None),
        (Op.PUT, 0, 0, 0, OURS[1], b"two", None, None),
        (Op.PUT, 0, 0, 0, theirs, b"two", None, None),
    ]
    entries = [
        Entry(61 + n, 1, EntryKind.COMMAND, pack_command(0, op, encode_body(op, *fields)))
        for n, (op, *fields) in enumerate(batch)
    ]
    shard.state.prepare(entries)
    results = [shard.apply(entry) for entry in entries]
    assert [result.ok for result in results] == [True, True, True, True, True, False]
    assert [result.body for result in results[3:5]] == [[64, True], [65, True]]
    offspring = shard.state.take_offspring()
    assert offspring is not None
    row = offspring.state.read(theirs)
    assert row is not None
    assert row.value == b"one"
    for state in (shard.state, offspring.state):
        assert counted(state) == state.extent


def test_a_crash_before_the_flush_leaves_the_shard_whole_and_the_log_splits_it_again(
    shard: Shard,
) -> None:
    session = shard.open_session()
    for key in KEYS:
        shard.put(key, b"v")
    shard.flush()
    shard.put(THEIRS[0], b"w")
    offspring = split(shard)
    put(offspring.state, THEIRS[1], b"lost with the memory, to be had again from its log")
    first = offspring.state.applied
    log = list(shard.log)
    shard.db.close()
    shard.db = DataDatabase.open(shard.path)
    shard._restore()
    assert set(shard.db.applied()) == {SHARD}
    assert shard.state.extent.arc == (0, 1 << 32)
    assert len(values(shard.state)) == len(KEYS)
    for entry in log[shard.state.index :]:
        shard.state.apply(entry)
    again = shard.state.take_offspring()
    assert again is not None
    assert again.state.state_hash == first.state_hash
    assert again.state.applied == first
    flush_both(shard, again)
    assert counted(reopened(shard.db, NEW)) == again.state.extent
    assert session in again.state._sessions


def test_half_of_a_flush_is_none(shard: Shard) -> None:
    """Both halves are in one transaction: what fails takes both with it."""
    for key in KEYS:
        shard.put(key, b"v")
    shard.flush()
    offspring = split(shard)
    parent, child = shard.state.freeze(), offspring.state.freeze()
    child.rows = {b"k": Row(1, "no bytes", None, 0)}  # type: ignore[arg-type]
    with pytest.raises(StoreFailed):
        shard.db.flush([parent, child], durable=True)
    shard.crash()
    assert set(shard.db.applied()) == {SHARD}
    assert reopened(shard.db, SHARD).extent.arc == (0, 1 << 32)


_WRITES = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "flush", "split", "crash"]),
              st.integers(0, 59), st.binary(max_size=40)),
    max_size=80,
)  # fmt: skip


@settings(
    derandomize=True, deadline=None, max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(writes=_WRITES, arc=st.sampled_from([(0, 1 << 32), (1 << 30, 3 << 30)]))
def test_sizes_are_those_of_a_full_count_whatever_is_written_flushed_and_split(
    tmp_path: Path, writes: list[tuple[str, int, bytes]], arc: Arc
) -> None:
    path = tmp_path / f"{random.Random(repr(writes)).getrandbits(64)}{arc[0]}.db"
    with open_shard(path, arc=arc) as shard:
        shard_new = NEW
        for what, number, value in writes:
            if what == "put":
                shard.put(KEYS[number], value)
            elif what == "delete":
                shard.delete(KEYS[number])
            elif what == "flush":
                shard.flush()
            elif what == "crash":
                shard.crash()
            elif (at := shard.state.extent.halving()) is not None:
                offspring = split(shard, at, shard_new)
                shard_new += 1
                assert counted(offspring.state) == offspring.state.extent
        assert counted(shard.state) == shard.state.extent
        shard.flush()
        shard.crash()
        assert counted(shard.state) == shard.state.extent
