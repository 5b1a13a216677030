"""What would be each node's fair share of the replicas. Pure.

By weight, but a node holds at most one replica of a shard, and a zone no more of them
than zones make necessary: what somebody cannot hold is shared among the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kritash.documents import Node


def fair_shares(nodes: Sequence[Node], shards: int, replicas: int) -> dict[int, float]:
    """node -> how many of the ``replicas`` of ``shards`` it would hold if all was even."""
    zones: dict[str, list[Node]] = {}
    for node in nodes:
        zones.setdefault(node.zone, []).append(node)
    per_shard = -(-replicas // shards) if shards else 0  # rounded up: the factor
    most = -(-per_shard // len(zones)) * shards if zones else 0
    of_zones = poured(
        float(replicas),
        {name: float(sum(node.weight for node in members)) for name, members in zones.items()},
        {name: float(min(most, len(members) * shards)) for name, members in zones.items()},
    )
    fair: dict[int, float] = {}
    for name, members in zones.items():
        weights = {str(node.node): float(node.weight) for node in members}
        shares = poured(of_zones[name], weights, dict.fromkeys(weights, float(shards)))
        fair |= {node.node: shares[str(node.node)] for node in members}
    return fair


def poured(
    amount: float, weights: Mapping[str, float], most: Mapping[str, float]
) -> dict[str, float]:
    """The amount shared by weight, to nobody more than his most."""
    shares = dict.fromkeys(weights, 0.0)
    thirsty = sorted(weights)
    while thirsty and amount > 1e-9:
        total = sum(weights[name] for name in thirsty)
        full = [n for n in thirsty if shares[n] + amount * weights[n] / total >= most[n]]
        if not full:
            for name in thirsty:
                shares[name] += amount * weights[name] / total
            break
        # Who is full first takes what he can; the rest is shared anew.
        for name in full:
            amount -= most[name] - shares[name]
            shares[name] = most[name]
        thirsty = [name for name in thirsty if name not in full]
    return shares
