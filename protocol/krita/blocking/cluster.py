# Made from krita/aio/cluster.py by tests/client_sources.py: change it there.
"""What a client can be told of the cluster, and any operation by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from krita import checks, requests
from krita.blocking.runner import Runner
from krita.items import Explanation
from krita.ring import tag_of, token

if TYPE_CHECKING:
    from krita.checks import Key
    from krita.items import Pong
    from krita.ring import ShardMap


class Cluster(Runner):
    """See the module."""

    def ping(self, node: int | str | None = None, *, timeout_ms: float | None = None) -> Pong:
        """Ask a node, or any, who it is. One round trip; the log is not involved. ``node``: its
        id or address. Raises BadRequest for a node that is not there by the map, Unavailable
        (ConnectionFailed if none could be reached) or DeadlineExceeded."""
        return self.run(requests.ping(node), timeout_ms)

    def shard_map(self, *, timeout_ms: float | None = None) -> ShardMap:
        """Which shard owns which arc of the ring and who leads it, freshly fetched. Raises as
        ``ping`` does."""
        return self.run(requests.shard_map(), timeout_ms)

    def explain(self, key: Key, *, timeout_ms: float | None = None) -> Explanation:
        """Where a key is and who answers for it, by a shard map that is freshly fetched. Raises
        BadRequest or TooLarge for what is no key, and as ``ping`` does."""
        name = checks.key_bytes(key)
        known = self.shard_map(timeout_ms=timeout_ms)
        info = known.shard_of(name)
        return Explanation(
            key=name,
            tag=tag_of(name),
            place=token(name),
            shard=info.shard,
            leader=info.leader,
            address=known.leader_address(info),
            term=info.term,
            nodes={node: known.nodes.get(node, "") for node in info.nodes},
        )

    def call(
        self,
        operation: str | int,
        *fields: object,
        node: int | str | None = None,
        timeout_ms: float | None = None,
    ) -> list[Any]:
        """Any operation of ``krita.operations`` by name or code; its reply's elements.

        ``fields`` are positional as in the table, without the session fields. With
        ``node``, an id or address, that node and no other is asked. Raises BadRequest for an
        operation that is not there or not for clients, for fields that it does not have or
        that cannot be sent; else whatever KritaError it ends with.
        """
        return self.run(requests.any_operation(operation, fields, node), timeout_ms)
