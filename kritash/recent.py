"""Names the shell has seen lately, for completion to offer."""

from __future__ import annotations

import attrs

RECENT_KEYS_MAX = 500


@attrs.define
class Recent:
    """Most recently seen last; a name seen again moves to the end."""

    keys: dict[bytes, None] = attrs.field(factory=dict)
    shards: dict[int, str] = attrs.field(factory=dict)  # shard: what is known of it
    nodes: dict[int, str] = attrs.field(factory=dict)  # node: its address

    def saw_key(self, key: bytes) -> None:
        """Remembers a key; forgets the oldest beyond RECENT_KEYS_MAX."""
        self.keys.pop(key, None)
        self.keys[key] = None
        if len(self.keys) > RECENT_KEYS_MAX:
            del self.keys[next(iter(self.keys))]

    # The toolbar's thread calls the next two while completion reads: each puts a
    # finished dict in place of the old one, and nobody sees one grow.

    def saw_nodes(self, nodes: object) -> None:
        """Takes names from a node_list document; ignores what it cannot read."""
        self.nodes = self.nodes | {
            node["node"]: str(node.get("address", ""))
            for node in (nodes if isinstance(nodes, list) else ())
            if isinstance(node, dict) and isinstance(node.get("node"), int)
        }

    def saw_shards(self, shards: object) -> None:
        """Takes numbers from a shard_list document; ignores what it cannot read."""
        self.shards = self.shards | {
            shard["shard"]: f"led by node {shard['leader']}" if shard.get("leader") else "no leader"
            for shard in (shards if isinstance(shards, list) else ())
            if isinstance(shard, dict) and isinstance(shard.get("shard"), int)
        }
