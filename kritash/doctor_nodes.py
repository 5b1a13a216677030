"""The doctor's rules about nodes that answer: drained, disks, clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kritash.documents import Node, get, whole
from kritash.finding import Checkup, Finding, Urgency
from kritash.units import count_text, size_text

DISK_LOW_BYTES = 256 << 20  # four times the reserve that nodes have by default
# Clocks only end idle sessions and date what people read; a second is not worth a word.
CLOCK_SKEW_MS_MAX = 1_000.0


def leaving(checkup: Checkup) -> Iterator[Finding]:
    """Nodes that are on their way out, and those that have arrived there."""
    for node in checkup.cluster.members:
        if node.state == "draining" and node.drained:
            yield Finding(
                Urgency.NOTE, "node-drained",
                f"node {node.node} is drained: it is safe to stop",
                "it stays a member, without data, until it is taken back or removed",
                f"kritash node remove {node.node}",
                f"to use it again: kritash node recommission {node.node}",
            )  # fmt: skip
        elif _stays(checkup, node):
            yield Finding(
                Urgency.SOON, "drain-stands-still",
                f"node {node.node} is {node.state}, holds "
                f"{count_text(checkup.cluster.copies_on(node.node), 'replica')}, and nothing moves",
                "there may be no other node that can take them",
                "kritash node add",
                f"kritash node drain {node.node} --plan says what stays and why",
            )  # fmt: skip


def _stays(checkup: Checkup, node: Node) -> bool:
    """Whether a node that is to be empty is not, and nothing is done about it."""
    going = node.state in ("draining", "removing")
    may_move = not checkup.cluster.at_rest or checkup.cluster.paused
    return going and not node.dead and not may_move and checkup.cluster.copies_on(node.node) > 0


def disks(checkup: Checkup) -> Iterator[Finding]:
    """Disks that are full for Krita, or will soon be."""
    for node in sorted(checkup.documents):
        document = checkup.documents[node]
        free = whole(document, "disk_free_bytes")
        if get(document, "disk_low") is True:
            left = f"{size_text(free)} left of it" if free is not None else "little left of it"
            yield Finding(
                Urgency.URGENT, "disk-full",
                f"the disk of node {node} is below its reserve, with {left}",
                _without_room(checkup, node),
                what_to_do="make room on the disk, delete keys, or add a node and give this one "
                f"less: kritash node set-weight {node} W",
            )  # fmt: skip
        elif free is not None and free < DISK_LOW_BYTES:
            yield Finding(
                Urgency.SOON, "disk-low", f"the disk of node {node} has {size_text(free)} left",
                "below disk_reserve_bytes it takes no writes", *checkup.joining("kritash node add"),
            )  # fmt: skip


def _without_room(checkup: Checkup, number: int) -> str:
    """It hands its shards to others that have room; those for which there is none stay."""
    leaders = sum(shard.leader == number for shard in checkup.cluster.data_shards)
    if not leaders:
        return "it leads no shard, and takes no writes but deletes"
    return f"the {count_text(leaders, 'shard')} that it leads take no writes but deletes"


def clocks(checkup: Checkup) -> Iterator[Finding]:
    """Nodes whose clocks are apart. Ours is left out of it: it may be the wrong one."""
    skews = checkup.clock_skews_ms
    if len(skews) < 2:
        return
    middle = sorted(skews.values())[(len(skews) - 1) // 2]
    for node, skew_ms in sorted(skews.items()):
        off_ms = skew_ms - middle
        if abs(off_ms) > CLOCK_SKEW_MS_MAX:
            side = "ahead of" if off_ms > 0 else "behind"
            yield Finding(
                Urgency.SOON, "clock-skew",
                f"the clock of node {node} is {abs(off_ms) / 1000:.1f} s {side} the others",
                "no order depends on clocks, but idle sessions may end early or late",
                what_to_do=f"see to time synchronisation on node {node}",
            )  # fmt: skip


NODE_RULES = (leaving, disks, clocks)
