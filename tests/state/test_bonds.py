"""What ends keys by the clock: which are due, in which order, and how many at a time."""

from __future__ import annotations

import random

import pytest

from krita.operations import Change, Op
from krita.ring import token
from kritad.state.bonds import AHEAD_MS, Bonds
from kritad.state.deadlines import NEVER_MS
from kritad.state.user_keys import ENDED_MAX
from kritad.storage.errors import Corrupt
from kritad.storage.rows import Stamp
from kritad.storage.table import Table
from tests.state.shard import Shard


def held(*ends: tuple[bytes, int, int]) -> Bonds:
    """Keys with their deadlines and leases, all in memory."""
    bonds = Bonds()
    for key, expires_ms, lease in ends:
        bonds.put(key, expires_ms, lease, None)
    return bonds


def until(expires_ms: int = 0, lease: int = 0) -> Stamp:
    return Stamp(1, 0, 0, expires_ms, lease)


def test_a_key_that_got_the_same_deadline_twice_is_due_once() -> None:
    bonds = held((b"k", 100, 0))
    bonds.put(b"k", 200, 0, until(100))
    bonds.put(b"k", 100, 0, until(200))
    assert bonds.due(100, 10) == [b"k"]


def test_touching_a_key_twice_in_a_millisecond_ends_it_once(shard: Shard) -> None:
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=50)
    for _ in range(2):
        shard.do(Op.TOUCH, b"k", ttl_ms=100)
    assert shard.pass_time(100).body == [False]
    assert shard.value(b"k") is None
    assert len(shard.state.feed.behind(0, b"", None, 100)[0]) == 2  # type: ignore[index]


def test_keys_are_due_in_the_order_of_deadline_and_key() -> None:
    bonds = held((b"b", 5, 0), (b"a", 5, 0), (b"c", 4, 0), (b"d", 6, 0))
    assert bonds.due(5, 10) == [b"c", b"a", b"b"]
    assert bonds.due(6, 2) == [b"c", b"a"], "they stay until their rows go"


def test_a_key_that_is_kept_alive_for_ever_takes_no_more_memory_for_it() -> None:
    bonds = held((b"early", 1, 0))
    for deadline_ms in range(10, 20_000):
        bonds.put(b"k", deadline_ms, 0, until(deadline_ms - 1))
    assert len(bonds._deadlines._heap) < 2_000
    assert bonds.due(30_000, 10) == [b"early", b"k"]


def test_bonds_that_lived_through_changes_are_those_that_are_made_again() -> None:
    chance = random.Random(1)
    bonds, rows = Bonds(), dict[bytes, tuple[int, int]]()
    for _ in range(3_000):
        key = b"k%d" % chance.randrange(40)
        bond = chance.choice([0, 3, 5, 9]), chance.choice([0, 0, 1, 2])
        bonds.put(key, *bond, until(*rows.get(key, (0, 0))))
        rows[key] = bond
        again = held(*((k, *b) for k, b in sorted(rows.items())))
        clock_ms, limit = chance.randrange(12), chance.randrange(1, 50)
        assert bonds.next_ms == again.next_ms
        assert bonds.due(clock_ms, limit) == again.due(clock_ms, limit)
        assert bonds.is_due(clock_ms) == bool(bonds.due(clock_ms, 1))
        assert bonds.leased(1, limit) == again.leased(1, limit)
        assert bonds.leased_count(2) == again.leased_count(2)


def test_each_half_of_a_shard_gets_the_bonds_of_its_keys() -> None:
    keys = [b"k%d" % number for number in range(100)]
    bonds = held(*((key, 7, 1) for key in keys))
    behind = bonds.cut(1 << 31, None)
    ours = sorted(key for key in keys if token(key) < 1 << 31)
    theirs = sorted(key for key in keys if token(key) >= 1 << 31)
    assert bonds.due(7, 1_000) == bonds.leased(1, 99) == ours
    assert behind.due(7, 1_000) == behind.leased(1, 99) == theirs


def test_without_bonds_nothing_is_ever_due() -> None:
    bonds = held((b"k", 5, 0))
    bonds.put(b"k", 0, 0, until(5))
    assert (bonds.next_ms, bonds.due(NEVER_MS - 1, 9)) == (NEVER_MS, [])


# --- in a shard ----------------------------------------------------------------------------


def test_a_key_is_there_until_its_deadline_and_not_at_it(shard: Shard) -> None:
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=100)
    shard.pass_time(99)
    assert shard.value(b"k") == b"v"
    shard.pass_time(1)
    assert shard.value(b"k") is None
    assert shard.state.extent.keys == 0


def test_an_entry_ends_only_so_many_keys_and_those_that_wait_are_absent(shard: Shard) -> None:
    count = 2 * ENDED_MAX + 5
    for number in range(count):
        shard.do(Op.PUT, b"k%04d" % number, value=b"v", ttl_ms=10)
    assert shard.pass_time(10).body == [True]
    assert shard.state.extent.keys == count - ENDED_MAX
    assert shard.value(b"k%04d" % (count - 1)) is None, "over, though its row is there"
    assert shard.pass_time(0).body == [True]
    assert shard.pass_time(0).body == [False]
    assert shard.state.state_hash == 0


def test_writing_a_key_that_is_over_and_waits_finds_it_absent(shard: Shard) -> None:
    last = b"k%04d" % ENDED_MAX
    for number in range(ENDED_MAX + 1):
        shard.do(Op.PUT, b"k%04d" % number, value=b"5", ttl_ms=10)
    shard.clock_ms += 10
    result = shard.do(Op.ADD, last, delta=1)
    assert result.body == [result.body[0], False, 1]  # type: ignore[index]
    events = shard.state.feed.behind(0, last, last + b"\0", 10)[0]  # type: ignore[index]
    assert [kind for _, kind, _, _ in events] == [Change.PUT, Change.EXPIRE, Change.PUT]


def test_a_plain_put_makes_a_key_that_had_a_deadline_last_for_ever(shard: Shard) -> None:
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=10)
    shard.put(b"k", b"w")
    shard.pass_time(1_000)
    assert shard.value(b"k") == b"w"


def test_a_put_that_keeps_the_time_to_live_keeps_the_deadline(shard: Shard) -> None:
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=10)
    shard.clock_ms += 5
    shard.do(Op.PUT, b"k", value=b"w", ttl_ms=-1)
    shard.pass_time(4)
    assert shard.value(b"k") == b"w"
    shard.pass_time(1)
    assert shard.value(b"k") is None


def test_a_touch_without_a_time_to_live_lets_a_key_last_for_ever(shard: Shard) -> None:
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=10)
    assert shard.do(Op.TOUCH, b"k").body == [1, True]
    shard.pass_time(1_000)
    assert shard.value(b"k") == b"v"
    assert shard.do(Op.TOUCH, b"absent", ttl_ms=5).body == [0, False]


def test_a_touch_is_no_new_revision_and_wakes_nobody(shard: Shard) -> None:
    shard.put(b"k", b"v")
    shard.do(Op.TOUCH, b"k", ttl_ms=10)
    row = shard.state.read(b"k")
    assert row is not None
    assert (row.revision, row.expires_ms) == (1, 10)
    assert len(shard.state.feed.behind(0, b"", None, 9)[0]) == 1  # type: ignore[index]


def test_deadlines_are_the_same_after_a_flush_and_a_crash(shard: Shard) -> None:
    shard.do(Op.PUT, b"flushed", value=b"v", ttl_ms=10)
    shard.flush()
    shard.do(Op.PUT, b"replayed", value=b"v", ttl_ms=20)
    before = shard.state.state_hash
    shard.crash()
    assert shard.state.state_hash == before
    assert [shard.state.keys.is_due(ms) for ms in (9, 10)] == [False, True]
    shard.pass_time(10)
    assert (shard.value(b"flushed"), shard.value(b"replayed")) == (None, b"v")
    shard.pass_time(10)
    shard.flush()
    assert shard.scanned_hash() == shard.state.state_hash == 0


@pytest.mark.parametrize("column", ["expires_ms", "lease"])
def test_a_flipped_bit_in_what_ends_a_stored_key_is_found_and_not_acted_upon(
    shard: Shard, column: str
) -> None:
    shard.call(Op.LEASE_CHANGE, shard.shard, 2, 0, 1_000)
    shard.call(Op.LEASE_CHANGE, shard.shard, 3, 0, 64)
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=1 << 20, lease=2)
    shard.flush()
    flipped = {"expires_ms": 64, "lease": 3}[column]
    with shard.db.transaction() as connection:
        connection.execute(f"UPDATE kv SET {column}=? WHERE key=?", (flipped, b"k"))
    shard.crash()
    with pytest.raises(Corrupt):
        shard.pass_time(64)


def test_deadlines_that_are_far_away_are_not_kept_in_memory(shard: Shard) -> None:
    """An hour's kept answers and a week's versions may be millions."""
    shard.put(b"now", b"v")
    for number in range(100):
        shard.do(Op.PUT, b"k%02d" % number, value=b"v", ttl_ms=AHEAD_MS + 1 + number)
    near = shard.state._keyspace.bonds._near
    assert near == {}
    shard.flush()
    shard.pass_time(1)
    shard.pass_time(AHEAD_MS - 1)
    assert near == {b"k00": AHEAD_MS + 1}
    for number in range(100):
        assert shard.value(b"k%02d" % number) == b"v"
        shard.pass_time(1)
        assert shard.value(b"k%02d" % number) is None
        assert len(near) == (0 if number == 0 else 99 - number)


def test_what_ends_by_the_index_and_not_by_its_row_is_damage(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would end here, and not on the other replicas."""
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=1 << 40)
    shard.flush()
    shard.crash()
    monkeypatch.setattr(Table, "ending", lambda *_: ([(64, b"k")], 1 << 41))
    with pytest.raises(Corrupt, match="does not by its row"):
        shard.pass_time(64)
