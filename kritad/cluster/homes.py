"""Where a shard's requests come in: the node that should lead it.

A client of HTTP speaks to some node, and that forwards to the shard's leader. If nearly all
that is asked of a shard comes in at one node, that node should lead it: its requests are then
served where they arrive, without a hop there and back, and the others are spared both.
Where requests come in evenly, or from clients that go to the leader by themselves, no shard
has such a *home*, and leaders are spread.

Rules:
* A home is where two thirds of all that is asked of the shard come in, and ``per_s_min``
  requests a second: for less, spreading is worth more. Once it leads, half of both will do, so
  that a share near the limit moves nobody to and fro.
* What is counted where the leader is may lag behind it by a second, right after it has
  moved. So all that is asked of a shard is what its leader serves or what the nodes
  say that they were asked, whichever is more.

Sources: CockroachDB's follow-the-workload leases, for the idea.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_BECOMES = 2 / 3
_STAYS = 1 / 2


def homes(
    leaders: Mapping[int, int],
    demand: Mapping[int, Iterable[tuple[int, int, int]]],
    per_s_min: int,
) -> dict[int, int]:
    """Shard -> node. ``leaders`` are the nodes that lead now; ``demand`` has for each node its
    rows (shard, asked a second by the node's own clients, served a second as leader);
    ``per_s_min`` 0: no shard has a home. O(rows)."""
    if not per_s_min:
        return {}
    asked: dict[int, dict[int, int]] = {}
    served: dict[int, int] = {}
    for node, rows in demand.items():
        for shard, here, led in rows:
            asked.setdefault(shard, {})[node] = here
            if leaders.get(shard) == node:
                served[shard] = led
    found = {}
    for shard, by_node in asked.items():
        total = max(served.get(shard, 0), sum(by_node.values()))
        leader = leaders.get(shard, 0)
        if by_node.get(leader, 0) >= _STAYS * max(per_s_min, total):
            found[shard] = leader
            continue
        most = max(by_node, key=lambda node: by_node[node])
        if by_node[most] >= max(per_s_min, _BECOMES * total):
            found[shard] = most
    return found
