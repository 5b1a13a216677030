"""What people have paused or held stays as it is: looked at around each step of a steward.

A steward sees in its view whether the moves of a shard are stopped. What it then proposes
shows at once in the core's configuration, which is the newest of its log. All that is
allowed is to let learners go: what a move that was taken back has left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.ring import META_SHARD
from kritad.host.host import Host
from kritad.host.replica import Replica
from kritad.raft.types import Configuration
from tests.simulator.invariants import Violation

if TYPE_CHECKING:
    from tests.simulator.node import SimNode

Stopped = list[tuple[Replica, Configuration]]


def stopped_by_people(host: Host) -> Stopped:
    """The shards that are led here and whose moves are stopped, as the next step sees it,
    each with its configuration."""
    view = host.view
    return [
        (replica, replica.raft.configuration)
        for shard, replica in host.replicas.items()
        if shard != META_SHARD
        and replica.leads
        and shard in view.shards
        and (view.paused or view.shards[shard].held)
    ]


def check_still(node: SimNode, stopped: Stopped) -> None:
    """To be called behind the step. Raises Violation("held-still")."""
    for replica, before in stopped:
        now = replica.raft.configuration
        same_voters = (now.voters, now.voters_outgoing) == (before.voters, before.voters_outgoing)
        if not same_voters or not now.members <= before.members:
            raise Violation(
                "held-still",
                f"{node} has changed shard {replica.shard}, which is held, from {before} to {now}",
            )
