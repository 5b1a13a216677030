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
* What comes and goes moves nobody: see ``Homing``.

Sources: CockroachDB's follow-the-workload leases, for the idea.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_BECOMES = 2 / 3
_STAYS = 1 / 2
_SOUGHT_MS = 3_000.0
_KEPT_MS = 10_000.0


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


class Homing:
    """Homes over time; by the meta shard's leader, on a steady clock.

    A shard is led elsewhere only when that was its home for three seconds: clients that
    have just lost a leader ask at some node for a moment. Whoever has come stays for ten
    seconds, whatever becomes of the requests, and for ten after they were enough for the last
    time: a load that goes to and fro, or is about as high as it has to be, is not worth a
    transfer each time.
    """

    def __init__(self) -> None:
        self._sought: dict[tuple[int, int], float] = {}  # a shard and its home, since when
        self._at_home: dict[int, tuple[int, float]] = {}  # led there, until when that counts
        self._followed: dict[int, tuple[int, float]] = {}  # who has come, until when he stays

    def look(
        self, found: Mapping[int, int], leaders: Mapping[int, int], now_ms: float
    ) -> dict[int, int]:
        """Shard -> node, of what ``homes`` says now. O(shards)."""
        before, self._sought = self._sought, {}
        lasting = {}
        for shard, node in found.items():
            since_ms = self._sought[shard, node] = before.get((shard, node), now_ms)
            if leaders.get(shard) == node:
                self._at_home[shard] = node, now_ms + _KEPT_MS
            elif now_ms - since_ms >= _SOUGHT_MS:
                lasting[shard] = node
        self._at_home = {shard: at for shard, at in self._at_home.items() if at[1] > now_ms}
        self._followed = {shard: at for shard, at in self._followed.items() if at[1] > now_ms}
        at_home = {shard: node for shard, (node, _) in self._at_home.items()}
        followed = {shard: node for shard, (node, _) in self._followed.items()}
        return {**at_home, **lasting, **followed}

    def follow(self, shard: int, node: int, now_ms: float) -> None:
        """That node is asked to lead the shard now, because it is its home."""
        self._followed[shard] = node, now_ms + _KEPT_MS
