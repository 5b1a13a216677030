"""The doctor's rules about nodes that nobody hears: dead, and silent. Pure.

What helps depends on whether the node may come back (one that a recovery has gone on
without may not; one whose address has another node now cannot, as it is), on whether it
is leaving anyway, and on whether the meta shard takes changes: no command is named that
would only time out.
"""

from __future__ import annotations

from collections.abc import Iterator

from kritash.documents import Node
from kritash.finding import Checkup, Finding, Urgency
from kritash.units import count_text, duration_text


def dead(checkup: Checkup) -> Iterator[Finding]:
    """Nodes that were given up; their replicas are made anew elsewhere."""
    for node in checkup.dead:
        left = checkup.cluster.copies_on(node.node)
        if left:
            why = f"{count_text(left, 'copy')} of its shards are still to be made anew elsewhere"
        else:
            why = "its copies are made anew; it stays a member until it is removed"
        start = "if its disk is whole, start it again with its old command: then it is back at once"
        yield Finding(
            Urgency.URGENT if left else Urgency.SOON, "node-dead",
            f"node {node.node} ({node.address}) is dead", why, _way_out(checkup, node),
            _way_back(checkup, node) or start,
        )  # fmt: skip


def silent(checkup: Checkup) -> Iterator[Finding]:
    """Nodes that do not answer, and may yet."""
    for node in checkup.cluster.members:
        if not node.silent:
            continue
        when = (
            f"; it is declared dead in {duration_text(node.dead_in_s)}"
            if node.dead_in_s is not None
            else ""
        )
        back = _way_back(checkup, node)
        yield Finding(
            Urgency.URGENT, "node-silent",
            f"node {node.node} ({node.address}) cannot be reached{when}",
            _loss(checkup, node, comes_back=not back),
            _way_out(checkup, node) if back else "",
            back or _wait_for(checkup, node),
        )  # fmt: skip


def _loss(checkup: Checkup, node: Node, *, comes_back: bool) -> str:
    held = [s for s in checkup.cluster.shards if any(r.node == node.node for r in s.replicas)]
    if any(shard.majority_lost for shard in held):
        return "shards of it have no majority without it, or without another that is down"
    if not held:
        return "it holds no copy that is missing, and stays a member until it is removed"
    until = "it is back" if comes_back else "its copies are made anew elsewhere"
    return f"its shards survive one failure fewer until {until}"


def _way_out(checkup: Checkup, node: Node) -> str:
    """The command that lets the cluster go on without the node; "" where there is none."""
    if node.state == "removing" or not checkup.takes_changes:
        return ""
    spare = [
        other.node for other in checkup.cluster.members
        if other.usable and not other.silent and not checkup.cluster.copies_on(other.node)
    ]  # fmt: skip
    if node.dead and spare and checkup.cluster.copies_on(node.node):
        return f"kritash node replace {node.node} {spare[0]}"
    return f"kritash node remove {node.node}"


def _way_back(checkup: Checkup, node: Node) -> str:
    """What there is to know of a node for which its old command is no help; else ""."""
    if node.node in checkup.given_up:
        return (
            "it may not come back, for the cluster was recovered without it; keep its directory "
            "for what may be missing, and start it with an empty one and --join_ip"
        )
    if node.state == "removing":
        return "nothing: it is being removed, and has left when its copies are made anew elsewhere"
    heir = checkup.heir_of(node)
    if heir is not None:
        return (
            f"node {heir.node} is at its address now, with a directory of its own; only with the "
            f"old directory, at another address, would node {node.node} be back"
        )
    return ""


def _wait_for(checkup: Checkup, node: Node) -> str:
    start = "start it again with its old command, or mend the network"
    if not checkup.takes_changes:
        return f"{start}; it cannot be removed while the meta shard has no leader"
    return f"{start}; kritash node remove {node.node}, if it is gone for good, does not wait for it"
