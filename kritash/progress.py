"""How far the cluster is with what was asked of it, from its documents. Pure.

Each function makes a Progress of one look. The documents come from one node, whose
knowledge may be a moment old: nothing counts as done before the documents show that
what was asked has been taken up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from kritash.documents import Cluster, Move, Node
from kritash.follow import Progress
from kritash.shares import fair_shares
from kritash.units import count_text, duration_text, rate_text

# A node that was asked may be a moment behind: what it shows has to last.
QUIET_LOOKS = 3


def _node(cluster: Cluster, number: int) -> Node | None:
    return next((node for node in cluster.nodes if node.node == number), None)


def _arrived(moves: Sequence[Move]) -> float:
    """What has arrived of copies that are on their way, in copies."""
    return sum(move.share or 0.0 for move in moves)


def _pace(moves: Sequence[Move]) -> str:
    """How fast and how long, as far as it is known."""
    rates = [move.bytes_per_s for move in moves if move.bytes_per_s]
    etas = [move.eta_s for move in moves if move.eta_s is not None]
    parts = [rate_text(sum(rates))] if rates else []
    if etas:
        parts.append(f"the copies on their way need {duration_text(max(etas))}")
    return "".join(f", {part}" for part in parts)


def emptying(cluster: Cluster, number: int, most: int, leave: bool) -> Progress:
    """A node that is to be empty (and with ``leave`` a member no more). ``most``: the most
    replicas that were seen there since we look."""
    node = _node(cluster, number)
    if node is None:
        return Progress(False, f"node {number} is not known to the node that was asked")
    going = [move for move in cluster.moves if number in move.sources]
    left = cluster.copies_on(number) + len(going)
    document: dict[str, object] = {
        "state": node.state, "drained": node.drained, "replicas_left": left,
    }  # fmt: skip
    if node.left or (not leave and node.state == "draining" and node.drained):
        end = "has left the cluster" if node.left else "is drained: it is safe to stop"
        return Progress(True, f"node {number} {end}", 1.0, "", document)
    most = max(most, left)
    share = (most - left + _arrived(going)) / most if most else 0.0
    text = f"node {number}: {count_text(left, 'replica')} left of {most}, {_doing(cluster, going)}"
    return Progress(False, text, share, _pace(going), document)


def _doing(cluster: Cluster, moves: Sequence[Move]) -> str:
    """What is done about a node, these moves among it, or why nothing is."""
    standing = [move.reason for move in moves if move.reason]
    if cluster.paused:
        return "all moves are paused"
    if standing and len(standing) == len(moves):
        return f"waiting: {standing[0]}"
    if moves:
        return f"{len(moves)} on the move"
    if cluster.moves_to_come:
        return f"waiting for its turn ({count_text(cluster.moves_to_come, 'shard')} to move)"
    return "nothing moves: kritash doctor may say why"


@attrs.define
class Arrival:
    """A new node on its way to its share of the replicas."""

    known: frozenset[int]  # the members before it
    node: int = 0
    _quiet: int = 0  # looks at which it had all that it was to have

    def progress(self, cluster: Cluster) -> Progress:
        """One look."""
        new = [n for n in cluster.members if n.node not in self.known]
        if not self.node and new:
            self.node = new[0].node
        node = _node(cluster, self.node)
        if node is None:
            return Progress(False, "no new node has joined yet")
        coming = [move for move in cluster.moves if self.node in move.targets]
        wanted = cluster.copies_on(self.node)
        arrived = max(0, wanted - len(coming))
        document: dict[str, object] = {"node": self.node, "replicas": arrived}
        settled = node.reachable and wanted and not coming and not cluster.moves_to_come
        self._quiet = self._quiet + 1 if settled else 0
        if self._quiet >= QUIET_LOOKS:
            text = f"node {self.node} is a member with {count_text(wanted, 'replica')}"
            return Progress(True, text, 1.0, "", document)
        if not node.reachable:
            text = f"node {self.node} has joined, and does not answer"
            return Progress(False, text, None, "", document)
        total = max(wanted, math.ceil(_fair_share(cluster, self.node)), 1)
        doing = "" if settled else f", {_doing(cluster, coming)}"
        text = f"node {self.node}: {arrived} of about {count_text(total, 'replica')}{doing}"
        share = min(1.0, (arrived + _arrived(coming)) / total)
        return Progress(False, text, share, _pace(coming), document)


def _fair_share(cluster: Cluster, number: int) -> float:
    shards = cluster.data_shards
    usable = [node for node in cluster.members if node.usable]
    replicas = sum(len(shard.replicas) for shard in shards)
    return fair_shares(usable, len(shards), replicas).get(number, 0.0)


def moving(cluster: Cluster, number: int, source: int, target: int) -> Progress:
    """A shard whose replica goes from one node to another."""
    shard = next((shard for shard in cluster.shards if shard.shard == number), None)
    if shard is None:
        return Progress(False, f"shard {number} is not known to the node that was asked")
    nodes = {replica.node for replica in shard.replicas}
    document: dict[str, object] = {"nodes": sorted(nodes), "in_motion": shard.in_motion}
    if target in nodes and source not in nodes and not shard.in_motion:
        return Progress(True, f"shard {number} is on node {target} now", 1.0, "", document)
    move = next((move for move in cluster.moves if move.shard == number), None)
    if move is None:
        return Progress(False, f"shard {number}: about to move", None, "", document)
    step = f"held at {move.step}" if move.held else move.step
    return Progress(False, f"shard {number}: {step}", move.share, _pace([move]), document)


def splitting(cluster: Cluster, number: int, number_new: int) -> Progress:
    """A shard that is cut in two."""
    found = {shard.shard: shard for shard in cluster.shards}
    shard, half = found.get(number), found.get(number_new)
    document: dict[str, object] = {"shard": number, "shard_new": number_new}
    if shard is not None and half is not None and half.leader and not shard.splitting:
        text = f"shard {number} is split: shard {number_new} is led by node {half.leader}"
        return Progress(True, text, 1.0, "", document)
    if half is not None:
        return Progress(
            False, f"shard {number_new} is there, without a leader yet", None, "", document
        )
    return Progress(False, f"shard {number} is about to be split", None, "", document)
