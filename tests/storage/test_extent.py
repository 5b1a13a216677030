"""A shard's arc in cells: they cover it, they add up, and it is cut where they meet."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krita.ring import RING_SIZE, equal_arcs, token
from kritad.storage.extent import CELLS, NO_ARC, OUTSIDE, WHOLE_RING, Arc, Extent
from tests.storage.state import extent_of, row

_ARCS = st.one_of(
    st.tuples(st.integers(0, RING_SIZE - 1), st.integers(1, RING_SIZE)),
    st.tuples(st.integers(0, RING_SIZE - 1), st.integers(1, 600)),  # width
).map(lambda pair: (pair[0], min(RING_SIZE, pair[0] + pair[1])))


def key_at(point: int) -> bytes:
    """A key whose token is ``point``: CRC-32 run backwards over four bytes."""
    table = [crc_of_byte(number) for number in range(256)]
    state = point ^ 0xFFFFFFFF
    places = []
    for _ in range(4):
        place = next(n for n in range(256) if table[n] >> 24 == state >> 24)
        state = (state ^ table[place]) << 8 & 0xFFFFFFFF
        places.append(place)
    state, key = 0xFFFFFFFF, bytearray()
    for place in reversed(places):
        key.append((state ^ place) & 0xFF)
        state = table[place] ^ state >> 8
    assert token(bytes(key)) == point or b"{" in key
    return bytes(key)


def crc_of_byte(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0xEDB88320 if number & 1 else 0)
    return number


def filled(arc: Arc, sizes: list[int]) -> Extent:
    """One with so many bytes in its first cells."""
    extent = Extent.of(arc)
    for cell, size in enumerate(sizes):
        extent.count(cell, size * 3, int(size > 0), size)
    return extent


@settings(derandomize=True, deadline=None, max_examples=200)
@given(arc=_ARCS, offsets=st.lists(st.integers(0, RING_SIZE), max_size=5))
def test_every_point_of_any_arc_is_in_one_cell_and_no_other_point_is(
    arc: Arc, offsets: list[int]
) -> None:
    extent = Extent.of(arc)
    lo, hi = arc
    count = len(extent.cell_keys)
    assert 1 <= count <= CELLS
    assert (count - 1) * extent.step < hi - lo <= count * extent.step
    for point in [lo, hi - 1, *(lo + offset % (hi - lo) for offset in offsets)]:
        key = key_at(point)
        if b"{" not in key:
            cell = extent.cell_of(key)
            assert lo + cell * extent.step <= point < lo + (cell + 1) * extent.step
            assert 0 <= cell < count
    for point in (lo - 1, hi):
        if 0 <= point < RING_SIZE and b"{" not in key_at(point):
            assert extent.cell_of(key_at(point)) == OUTSIDE
            assert not extent.contains(key_at(point))


def test_arcs_that_a_cluster_begins_with_have_all_cells_alike() -> None:
    for shards in (1, 8, 4096):
        for arc in equal_arcs(shards)[:: max(1, shards // 8)]:
            extent = Extent.of(arc)
            assert len(extent.cell_keys) * extent.step == extent.width == RING_SIZE // shards


def test_keys_of_one_tag_are_in_the_cell_of_the_tag() -> None:
    extent = Extent.of(WHOLE_RING)
    assert extent.cell_of(b"{user:7}/mail") == extent.cell_of(b"{user:7}/name")
    assert extent.cell_of(b"{user:7}/mail") == token(b"user:7") // extent.step


def test_the_meta_shard_counts_everything_in_one_cell() -> None:
    extent = Extent.everything()
    assert {extent.cell_of(b"%d" % number) for number in range(500)} == {0}
    assert extent.halving() is None


def test_a_replica_without_an_arc_contains_nothing() -> None:
    extent = Extent.of(NO_ARC)
    assert not any(extent.contains(b"%d" % number) for number in range(500))
    assert extent.halving() is None
    assert Extent.decode(*NO_ARC, extent.encode()) == extent


@settings(derandomize=True, deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(0, 5), max_size=CELLS), width=st.integers(1, 700))
def test_halving_is_the_best_edge_that_leaves_something_on_both_sides(
    sizes: list[int], width: int
) -> None:
    arc = (1000, 1000 + width)
    count = len(Extent.of(arc).cell_keys)
    extent = filled(arc, sizes[:count])
    sizes = extent.cell_bytes
    halves = [(sum(sizes[:edge]), sum(sizes[edge:])) for edge in range(1, count)]
    at = extent.halving()
    if not sum(sizes):
        assert at == (None if count == 1 else 1000 + count // 2 * extent.step)
        return
    fair = [abs(a - b) for a, b in halves if a and b]
    if at is None:
        assert not fair
        return
    assert extent.has_edge(at)
    below, above = halves[(at - 1000) // extent.step - 1]
    assert below
    assert above
    assert abs(below - above) == min(fair)


def test_a_cut_parts_what_is_counted_and_loses_nothing() -> None:
    extent = filled(equal_arcs(8)[3], list(range(1, CELLS + 1)))
    before = extent.rows_hash, extent.keys, extent.bytes
    lo, hi = extent.arc
    at = lo + 100 * extent.step
    behind = extent.cut(at)
    assert (extent.arc, behind.arc) == ((lo, at), (at, hi))
    assert extent.bytes == sum(range(1, 101))
    assert before == (
        extent.rows_hash + behind.rows_hash, extent.keys + behind.keys,
        extent.bytes + behind.bytes,
    )  # fmt: skip


def test_an_arc_is_cut_down_to_single_cells_and_no_further() -> None:
    chance = random.Random(1)
    rows = {b"%d" % n: row(b"%d" % n, n, chance.randbytes(n % 90)) for n in range(2000)}
    parts = [extent_of(rows)]
    whole = parts[0].keys, parts[0].bytes
    while cuttable := [part for part in parts if part.halving() is not None]:
        part = chance.choice(cuttable)
        at = part.halving()
        assert at is not None
        parts.append(part.cut(at))
        inside = {key: one for key, one in rows.items() if parts[-1].contains(key)}
        assert parts[-1] == extent_of(inside, parts[-1].emptied())
    assert (sum(p.keys for p in parts), sum(p.bytes for p in parts)) == whole
    assert max(len(part.cell_keys) for part in parts) == 1


@pytest.mark.parametrize("at", [-1, 0, 1, 1 << 24, (1 << 24) + 1, RING_SIZE, RING_SIZE + (1 << 24)])
def test_only_where_two_cells_meet_is_an_edge(at: int) -> None:
    assert Extent.of(WHOLE_RING).has_edge(at) == (at == 1 << 24)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(arc=_ARCS, seed=st.integers(0, 1000))
def test_what_is_encoded_is_read_back(arc: Arc, seed: int) -> None:
    chance = random.Random(seed)
    extent = Extent.of(arc)
    for cell in range(len(extent.cell_keys)):
        for _ in range(3):
            extent.count(cell, chance.randrange(-(1 << 63), 1 << 63), 1, chance.randrange(1 << 40))
    again = Extent.decode(*arc, extent.encode())
    assert again == extent
    assert again.rows_hash == extent.rows_hash


def test_what_is_not_an_encoding_of_this_arc_is_refused() -> None:
    whole = Extent.of(WHOLE_RING).encode()
    for cells in (b"", whole[:-1], whole + b"\0", b"\xff" * 12, whole[:8] + b"\xff" * 4):
        with pytest.raises(ValueError, match="cells"):
            Extent.decode(*WHOLE_RING, cells)
    with pytest.raises(ValueError, match="cells"):
        Extent.decode(0, 1 << 31, whole)
