"""Who leads how many shards: evened by transfers, which cost no data.

Separate from the placement because a transfer takes milliseconds and can be
undone, while moving a replica copies the shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from krita.ring import META_SHARD
from kritad.cluster.model import ShardRecord
from kritad.cluster.view import MetaView

# Every transfer interrupts its shard's writes for about a round trip.
TRANSFERS_AT_ONCE = 2


def leader_transfers(
    view: MetaView,
    leaders: Mapping[int, int],
    reachable: Collection[int],
    limit: int = TRANSFERS_AT_ONCE,
) -> list[tuple[int, int]]:
    """The next transfers as ``(shard, node)``, at most ``limit``.

    ``leaders`` says which node leads each shard now; shards without a known
    leader, and the meta shard, are left alone. A transfer is proposed only when it
    makes two nodes' counts more equal, so an even spread stays as it is. Counts
    are not weighted: leading costs work, not room.

    ``reachable`` are the nodes that can be spoken to now. A node that is down leads
    nothing and so would be everybody's heir, and each attempt would stop its shard's
    writes for an election timeout.
    """
    led = {
        shard: node
        for shard, node in sorted(leaders.items())
        if shard != META_SHARD and shard in view.shards and node in view.nodes
    }
    counts: Counter[int] = Counter({node.node: 0 for node in view.usable_nodes})
    counts.update(led.values())
    transfers: list[tuple[int, int]] = []
    while len(transfers) < limit:
        gains = [
            (counts[node] - counts[heir], -shard, -heir)
            for shard, node in led.items()
            for heir in _heirs(view, view.shards[shard], reachable)
            if counts[node] - counts[heir] > 1
        ]
        if not gains:
            break
        _, shard, heir = (abs(number) for number in max(gains))
        counts[led.pop(shard)] -= 1  # popped: no shard is transferred twice
        counts[heir] += 1
        transfers.append((shard, heir))
    return transfers


def _heirs(view: MetaView, record: ShardRecord, reachable: Collection[int]) -> list[int]:
    """The nodes that may lead a shard: they vote, shall go on to, are usable and up."""
    return [
        node
        for node in record.report.voters
        if node in record.nodes and node in reachable and view.nodes[node].usable
    ]
