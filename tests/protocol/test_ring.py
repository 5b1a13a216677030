"""krita.ring: every key has one owner, and the same in every language."""

from __future__ import annotations

from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.codec import decode, encode
from krita.errors import ProtocolError
from krita.ring import RING_SIZE, ShardInfo, ShardMap, equal_arcs, tag_of, token


def _map(shards: int, *, meta: bool = True) -> ShardMap:
    infos = [
        ShardInfo(number, lo, hi, leader=1 + number % 3, term=number, nodes=(1, 2, 3))
        for number, (lo, hi) in enumerate(equal_arcs(shards), 1)
    ]
    if meta:
        infos.insert(0, ShardInfo(0, 0, 0, leader=1, term=9, nodes=(1, 2, 3)))
    places = {1: "a:8080", 2: "b:8080", 3: "[::1]:8080"}
    return ShardMap(7, tuple(infos), places, {1: "eu", 3: "us"})


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"plain", b"plain"),
        (b"", b""),
        (b"{user1}:name", b"user1"),
        (b"a{user1}b{user2}", b"user1"),
        (b"{}empty", b"{}empty"),
        (b"{}{user1}", b"{}{user1}"),
        (b"{open", b"{open"),
        (b"}close{", b"}close{"),
        (b"}{x}", b"x"),
        (b"{{x}}", b"{x"),
        (b"\xff{\x00}", b"\x00"),
    ],
)
def test_the_tag_is_what_stands_in_the_first_braces_unless_empty(key: bytes, tag: bytes) -> None:
    assert tag_of(key) == tag
    assert token(key) == crc32(tag)


def test_tokens_are_the_crc32_that_other_languages_compute() -> None:
    assert token(b"123456789") == 0xCBF43926
    assert token(b"{123456789}:x") == 0xCBF43926
    assert token(b"") == 0


@given(st.integers(0, 16).map(lambda bits: 1 << bits))
def test_equal_arcs_are_equal_and_cover_the_ring(shards: int) -> None:
    arcs = equal_arcs(shards)
    assert len(arcs) == shards
    assert arcs[0][0] == 0
    assert arcs[-1][1] == RING_SIZE
    assert all(left[1] == right[0] for left, right in pairwise(arcs))
    assert {hi - lo for lo, hi in arcs} == {RING_SIZE // shards}


@pytest.mark.parametrize("shards", [-1, 0, 3, 12, 1 << 17])
def test_a_number_of_shards_that_is_no_power_of_two_is_refused(shards: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        equal_arcs(shards)


@given(st.binary(max_size=40), st.sampled_from([1, 2, 16, 256]))
def test_the_owner_of_a_key_has_the_keys_token_in_its_arc(key: bytes, shards: int) -> None:
    owner = _map(shards).shard_of(key)
    assert owner.shard != 0
    assert owner.hash_lo <= token(key) < owner.hash_hi


@pytest.mark.parametrize("at", [0, 1, RING_SIZE // 2 - 1, RING_SIZE // 2, RING_SIZE - 1])
def test_the_edges_of_an_arc_belong_to_one_shard(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krita.ring.token", lambda _: at)
    assert _map(2).shard_of(b"any").shard == (1 if at < RING_SIZE // 2 else 2)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=400, max_size=400, unique=True))
def test_no_shard_of_four_is_left_out_of_four_hundred_keys(names: list[str]) -> None:
    shard_map = _map(4)
    owners = {shard_map.shard_of(name.encode()).shard for name in names}
    assert owners == {1, 2, 3, 4}


def test_a_map_survives_the_wire() -> None:
    for shard_map in (_map(16), _map(1, meta=False)):
        again = ShardMap.from_wire(decode(encode(shard_map.to_wire())))
        assert again == shard_map
        assert again.shard_of(b"k") == shard_map.shard_of(b"k")


def test_elements_that_a_newer_server_added_to_a_map_are_ignored() -> None:
    wire = _map(2).to_wire()
    shards, nodes = wire[1], wire[2]
    assert isinstance(shards, list)
    assert isinstance(nodes, list)
    for row in (*shards, *nodes):
        row.append("new")
    assert ShardMap.from_wire([*wire, "new"]) == _map(2)


@pytest.mark.parametrize("rest", [[], [None], [""], [None, "new"]])
def test_a_map_of_a_server_that_tells_no_zones_is_one_of_nodes_without_zones(
    rest: list[object],
) -> None:
    wire = [1, [[1, 0, RING_SIZE, 0, 0, [1]]], [[1, "a:1", *rest], [2, "b:1", "eu"]]]
    shard_map = ShardMap.from_wire(wire)
    assert shard_map.nodes == {1: "a:1", 2: "b:1"}
    assert shard_map.zones == {2: "eu"}


def test_a_client_that_knows_no_zones_reads_a_map_that_has_them() -> None:
    (_, _, nodes) = _map(2).to_wire()
    assert isinstance(nodes, list)
    assert [row[:2] for row in nodes] == [[1, "a:8080"], [2, "b:8080"], [3, "[::1]:8080"]]


def test_a_map_finds_shards_by_number_and_leaders_by_address() -> None:
    shard_map = _map(4)
    meta = shard_map.shard(0)
    assert meta is not None
    assert shard_map.leader_address(meta) == "a:8080"
    assert shard_map.shard(5) is None
    assert shard_map.leader_address(ShardInfo(1, 0, 1, leader=0, term=0, nodes=())) is None


_HALF = RING_SIZE // 2


@pytest.mark.parametrize(
    ("arcs", "reason"),
    [
        ([], "the shards end at 0x0"),
        ([(1, 0, _HALF)], "the shards end at 0x80000000"),
        ([(1, 0, _HALF), (2, _HALF, RING_SIZE + 1)], "the shards end at"),
        ([(1, 1, RING_SIZE)], "shard 1 leaves a gap in the ring at 0x0"),
        ([(1, 0, _HALF), (2, _HALF + 1, RING_SIZE)], "shard 2 leaves a gap"),
        ([(1, 0, _HALF), (2, _HALF - 1, RING_SIZE)], "shard 2 overlaps another"),
        ([(1, 0, RING_SIZE), (2, 0, RING_SIZE)], "shard 2 overlaps another"),
        ([(1, 0, _HALF), (2, _HALF, _HALF), (3, _HALF, RING_SIZE)], "shard 2 has an empty arc"),
        ([(1, 0, _HALF), (1, _HALF, RING_SIZE)], "lists a shard twice"),
    ],
)
def test_a_map_that_does_not_cover_the_ring_once_is_refused(
    arcs: list[tuple[int, int, int]], reason: str
) -> None:
    wire = [1, [[shard, lo, hi, 0, 0, []] for shard, lo, hi in arcs], []]
    with pytest.raises(ProtocolError, match=reason):
        ShardMap.from_wire(wire)


@pytest.mark.parametrize(
    "item",
    [
        None, [], [1, []], ["1", [], []], [1, [[1, 0, RING_SIZE, 0, 0]], []],
        [1, [[1, 0, RING_SIZE, 0, 0, ["a"]]], []], [1, [[1, 0, RING_SIZE, 0, 0, [1]]], [[1, 2]]],
        [1, [[1, 0, RING_SIZE, 0, 0, [1]]], [[1, "a:1", 5]]],
        [1, [[1, 0, RING_SIZE, 0, 0, [1]]], [3]], [1, [[-1, 0, RING_SIZE, 0, 0, [1]]], []],
    ],
)  # fmt: skip
def test_a_malformed_map_is_a_protocol_error(item: object) -> None:
    with pytest.raises(ProtocolError):
        ShardMap.from_wire(item)
