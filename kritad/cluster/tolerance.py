"""How many failures the cluster can take, now.

* for *availability*: how many more nodes may fail, whichever they are, before
  some shard has no majority of its voters any more;
* for *data*: how many may be lost for good before some shard's last replica that
  is up to date is gone.

Two voters of a shard are never on one node, so a failed node costs a shard one
voter at most, and the shard that can spare the fewest decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from krita.ring import META_SHARD
from kritad.cluster.membership import meta_voters
from kritad.cluster.view import MetaView


class Tolerance(NamedTuple):
    """Numbers of nodes; -1 when some shard has lost its majority, or its last replica
    that answers, already."""

    availability: int
    data: int

    def to_document(self) -> dict[str, object]:
        """``{"availability": int, "data": int}``."""
        return self._asdict()


def tolerance(
    view: MetaView,
    up: Collection[int],
    behind: Collection[tuple[int, int]] = (),
    damaged: Collection[tuple[int, int]] = (),
) -> Tolerance:
    """What the shards can take as their leaders have reported them, the meta shard too.

    ``up`` are the nodes that answer; ``behind`` the ``(shard, node)`` that are known
    to lag so far that they would not save the shard's newest writes, ``damaged`` those
    whose replica is neither a vote nor a copy. ~1 µs a shard.
    """
    voters = {number: record.holders for number, record in view.shards.items()}
    return tolerance_of(voters, up, behind, damaged)


def planned_tolerance(
    view: MetaView, placement: Mapping[int, Collection[int]], up: Collection[int]
) -> Tolerance:
    """What they could take with these nodes for each data shard, once moves are done."""
    meta = {META_SHARD: list(meta_voters(view).values())} if META_SHARD in view.shards else {}
    return tolerance_of({**meta, **placement}, up)


def tolerance_of(
    voters: Mapping[int, Collection[int]],
    up: Collection[int],
    behind: Collection[tuple[int, int]] = (),
    damaged: Collection[tuple[int, int]] = (),
) -> Tolerance:
    """The same of a table shard -> nodes that vote. Without shards there is nothing
    to lose: zeros."""
    availability, data = [], []
    for shard, nodes in voters.items():
        live = [node for node in nodes if node in up and (shard, node) not in damaged]
        availability.append(len(live) - (len(nodes) // 2 + 1))
        data.append(sum((shard, node) not in behind for node in live) - 1)
    return Tolerance(max(-1, min(availability, default=0)), min(data, default=0))
