"""``cluster``, ``ring``, ``doctor`` and ``ping``: how all of it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kritash.answers import cluster_status
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind
from kritash.reply import Reply, View, sentence

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation


def status(context: Context, _: Invocation) -> Reply:
    """Health, nodes and shards, gathered from all nodes by the one asked."""
    return Reply(View.CLUSTER, cluster_status(context))


def health(context: Context, _: Invocation) -> Reply:
    """How well it is and what it can bear; the code says it too."""
    from kritash.health import exit_of_health, health_document

    document = health_document(cluster_status(context))
    return Reply(View.HEALTH, document, code=exit_of_health(document))


def doctor(context: Context, _: Invocation) -> Reply:
    """What is wrong, and the commands that mend it; code NO if there is anything."""
    from kritash.checkup import examine
    from kritash.doctor import findings_document

    findings = examine(context)
    code = Exit.NO if findings else Exit.DONE
    return Reply(View.FINDINGS, findings_document(findings), code=code)


def ring(context: Context, _: Invocation) -> Reply:
    """Who owns what."""
    from kritash.documents import Cluster
    from kritash.ring import ring_document

    cluster = Cluster.of(cluster_status(context))
    return Reply(View.RING, ring_document(cluster.nodes, cluster.shards))


def ping(context: Context, invocation: Invocation) -> Reply:
    """Who answers, and how fast (one round trip, without connecting)."""
    node = invocation.arguments["NODE"]
    assert node is None or isinstance(node, int)
    context.client.ping(node)  # connects
    start = time.perf_counter()
    pong = context.client.ping(node)
    took_ms = round((time.perf_counter() - start) * 1000, 2)
    document = {
        "node": pong.node,
        "cluster_id": pong.cluster_id,
        "version": pong.version,
        "took_ms": took_ms,
    }
    return sentence(
        document, "pong", f"node {pong.node}", f"cluster {pong.cluster_id[:8]}",
        f"kritad {pong.version}", f"{took_ms} ms",
    )  # fmt: skip


COMMANDS: tuple[Command, ...] = (
    Command(("cluster", "status"), "health, nodes, shards, leaders and lag", status,
            example="cluster status --json"),
    Command(
        ("cluster", "health"), "what failures are tolerated now, what is healing, what waits",
        health,
        details="Exit code 0 healthy, 1 degraded (something is down, or has fewer copies than it\n"
        'should), 5 unavailable (some shard has no leader). "May be off": as many nodes,\n'
        'whichever, and every shard still answers. "Lost for good": as many disks, and every\n'
        "shard still has a copy.",
        example="cluster health --json",
    ),
    Command(
        ("doctor",), "what is wrong, why it matters, and the command that mends it", doctor,
        details="Most urgent first. Exit code 0 when nothing is wrong, 1 when something is.",
        example="doctor",
    ),
    Command(
        ("ring",), "the ring: which node leads and holds what", ring,
        details="A letter of the circle is the node that leads the shard at that place; the\n"
        "numbers inside are the shards'. Below it the ring unrolled, a line for each node.",
        example="ring",
    ),
    Command(("ping",), "ask a node whether it is there, and who it is", ping,
            arguments=(Argument("NODE", Kind.NODE, "its number; otherwise any node answers",
                                optional=True),)),
)  # fmt: skip
