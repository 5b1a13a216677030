"""The ring: which shard owns a key.

A key's *token* is the CRC-32 of its tag, a point in ``[0, 2**32)``. The ring is
cut into arcs, each owned by one shard. CRC-32 because every language has it and
because, over the shapes of keys that people use, it spreads them as evenly as a
random hash (standard deviation of keys per slot 0.4–7.0, where chance has 7.0).

The *tag* is what stands inside the first ``{`` and the next ``}`` if that is
not empty, else the whole key. Keys of one tag form a group: one shard for ever.

Shard 0, the meta shard, owns no key. A map may list it, with an empty arc, to
say who leads it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from zlib import crc32

import attrs

from krita.errors import ProtocolError

RING_SIZE = 1 << 32
META_SHARD = 0


def tag_of(key: bytes) -> bytes:
    """The part of the key that places it."""
    start = key.find(b"{")
    if start < 0:
        return key
    stop = key.find(b"}", start + 1)
    return key[start + 1 : stop] if stop > start + 1 else key


def token(key: bytes) -> int:
    """Where the key stands on the ring, ``[0, 2**32)``. 0.2 µs."""
    # Most keys have no tag: one search decides.
    return crc32(tag_of(key)) if b"{" in key else crc32(key)


def equal_arcs(shards: int) -> list[tuple[int, int]]:
    """The ring cut into as many equal arcs ``(lo, hi)``, hi exclusive.

    ``shards`` is a power of two from 1 to 65,536, so that the arcs are equal and a
    later split halves one. Raises ValueError.
    """
    if not 1 <= shards <= 1 << 16 or shards & (shards - 1):
        raise ValueError(f"the number of shards is a power of two up to 65536, not {shards}")
    size = RING_SIZE // shards
    return [(number * size, (number + 1) * size) for number in range(shards)]


@attrs.frozen
class ShardInfo:
    """One shard as the node that answered sees it."""

    shard: int
    hash_lo: int
    hash_hi: int  # exclusive
    leader: int  # node id, 0 when unknown
    term: int  # of that leader; knowledge of a higher term is newer
    nodes: tuple[int, ...]  # that hold a replica


@attrs.frozen
class ShardMap:
    """Every shard of a cluster, and where its nodes are.

    Invariant: the arcs of all shards but 0 cover the ring without gap or overlap.
    Making one raises ProtocolError otherwise, since maps come from the network.
    """

    version: int
    shards: tuple[ShardInfo, ...]
    nodes: Mapping[int, str]  # node id -> "host:port"
    zones: Mapping[int, str] = attrs.field(factory=dict)  # of the nodes that name one, never ""
    _arcs: tuple[ShardInfo, ...] = attrs.field(init=False, repr=False, eq=False)
    _starts: list[int] = attrs.field(init=False, repr=False, eq=False)
    _by_number: dict[int, ShardInfo] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        arcs = sorted((s for s in self.shards if s.shard != META_SHARD), key=lambda s: s.hash_lo)
        _check_cover(arcs)
        by_number = {info.shard: info for info in self.shards}
        if len(by_number) != len(self.shards):
            raise ProtocolError("a shard map lists a shard twice")
        object.__setattr__(self, "_arcs", tuple(arcs))
        object.__setattr__(self, "_starts", [info.hash_lo for info in arcs])
        object.__setattr__(self, "_by_number", by_number)

    def shard_of(self, key: bytes) -> ShardInfo:
        """The shard that owns the key: a bisection, 0.4 µs."""
        return self._arcs[bisect_right(self._starts, token(key)) - 1]

    def shard(self, number: int) -> ShardInfo | None:
        """The shard of that number, or None."""
        return self._by_number.get(number)

    def leader_address(self, info: ShardInfo) -> str | None:
        """Where the shard's leader listens, if both are known."""
        return self.nodes.get(info.leader)

    def to_wire(self) -> list[object]:
        """The reply of ``shard_map``: version, shards, nodes."""
        return [
            self.version,
            [[s.shard, s.hash_lo, s.hash_hi, s.leader, s.term, list(s.nodes)] for s in self.shards],
            [[node, address, self.zones.get(node, "")] for node, address in self.nodes.items()],
        ]

    @classmethod
    def from_wire(cls, item: object) -> ShardMap:
        """The map that a reply means. Raises ProtocolError for anything malformed."""
        match item:
            case [int(version), list(shards), list(nodes), *_]:
                places = [_node_from_wire(node) for node in nodes]
                return cls(
                    version,
                    tuple(map(_shard_from_wire, shards)),
                    {node: address for node, address, _ in places},
                    {node: zone for node, _, zone in places if zone},
                )
        raise ProtocolError("a shard map is [version, shards, nodes]")


def _check_cover(arcs: list[ShardInfo]) -> None:
    position = 0
    for info in arcs:
        if info.hash_lo != position:
            fault = "leaves a gap in" if info.hash_lo > position else "overlaps another on"
            raise ProtocolError(f"shard {info.shard} {fault} the ring at {position:#x}")
        if info.hash_hi <= info.hash_lo:
            raise ProtocolError(f"shard {info.shard} has an empty arc")
        position = info.hash_hi
    if position != RING_SIZE:
        raise ProtocolError(f"the shards end at {position:#x}, not at the end of the ring")


def _shard_from_wire(item: object) -> ShardInfo:
    match item:
        case [int(shard), int(lo), int(hi), int(leader), int(term), list(nodes), *_] if (
            shard >= 0 and leader >= 0 and all(isinstance(node, int) for node in nodes)
        ):
            return ShardInfo(shard, lo, hi, leader, term, tuple(nodes))
    raise ProtocolError("a shard is [shard, hash_lo, hash_hi, leader, term, nodes]")


def _node_from_wire(item: object) -> tuple[int, str, str]:
    match item:
        case [int(node), str(address)] | [int(node), str(address), None, *_]:
            return node, address, ""  # of a server that tells no zones
        case [int(node), str(address), str(zone), *_]:
            return node, address, zone
    raise ProtocolError("a node of a shard map is [node, address, zone]")
