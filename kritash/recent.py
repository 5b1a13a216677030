"""Names the shell has seen lately, for completion to offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from kritash.documents import Node, Shard

RECENT_KEYS_MAX = 500


@attrs.define
class Recent:
    """Most recently seen last; a name seen again moves to the end."""

    keys: dict[bytes, None] = attrs.field(factory=dict)
    shards: dict[int, str] = attrs.field(factory=dict)  # shard: what is known of it
    nodes: dict[int, str] = attrs.field(factory=dict)  # node: what is known of it
    zones: tuple[str, ...] = ()  # of the nodes last seen
    locks: dict[bytes, int] = attrs.field(factory=dict)  # name: its token, 0: not known
    leases: dict[int, str] = attrs.field(factory=dict)  # lease: what is known of it

    def saw_key(self, key: bytes) -> None:
        """Remembers a key; forgets the oldest beyond RECENT_KEYS_MAX."""
        self.keys.pop(key, None)
        self.keys[key] = None
        if len(self.keys) > RECENT_KEYS_MAX:
            del self.keys[next(iter(self.keys))]

    def saw_lock(self, name: bytes, token: int = 0) -> None:
        """Remembers a lock, and the token that it has been given."""
        known = self.locks.pop(name, 0)
        self.locks[name] = token or known
        if len(self.locks) > RECENT_KEYS_MAX:
            del self.locks[next(iter(self.locks))]

    def saw_lease(self, lease: int, about: str) -> None:
        """Remembers a lease."""
        self.leases.pop(lease, None)
        self.leases[lease] = about
        if len(self.leases) > RECENT_KEYS_MAX:
            del self.leases[next(iter(self.leases))]

    # The toolbar's thread calls the next two while completion reads: each puts a
    # finished dict in place of the old one, and nobody sees one grow.

    def saw_nodes(self, nodes: object) -> None:
        """Takes names from a node_list document; ignores what it cannot read."""
        # Imported here and below: a plain get sees no documents.
        from kritash.documents import Node, rows

        known = [Node.of(row) for row in rows(nodes) if isinstance(row.get("node"), int)]
        self.nodes = self.nodes | {node.node: _about_node(node) for node in known}
        self.zones = tuple(sorted({node.zone for node in known if node.zone}))

    def saw_shards(self, shards: object) -> None:
        """Takes numbers from a shard_list document; ignores what it cannot read."""
        from kritash.documents import Shard, rows

        known = [Shard.of(row) for row in rows(shards) if isinstance(row.get("shard"), int)]
        self.shards = self.shards | {shard.shard: _about_shard(shard) for shard in known}


def _about_node(node: Node) -> str:
    zone = f"zone {node.zone}" if node.zone else ""
    return "  ".join(part for part in (node.address, node.standing, zone) if part)


def _about_shard(shard: Shard) -> str:
    from kritash.units import size_text

    led = f"led by node {shard.leader}" if shard.leader else "no leader"
    size = "" if shard.bytes is None else size_text(shard.bytes)
    return ", ".join(part for part in (led, size, shard.doing) if part)
