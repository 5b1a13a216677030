"""What the doctor looks at, and what it says. Values only."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from kritash.documents import text, wholes

if TYPE_CHECKING:
    from kritash.documents import Cluster, Node


class Urgency(enum.IntEnum):
    """Most urgent first."""

    NOW = 0  # keys cannot be read or written, or data is in danger
    URGENT = 1  # one more failure may make it so
    SOON = 2  # promises are not kept in full
    NOTE = 3  # good to know, or a step that waits for somebody


@attrs.frozen
class Finding:
    """One thing that is wrong. ``mend`` is the command for it, ready to be typed, with a
    word in capitals where a choice is to be made; ``what_to_do`` is for what no command
    does."""

    urgency: Urgency
    code: str  # for programs; stays as it is from one version to the next
    what: str
    why: str  # it matters
    mend: str = ""
    what_to_do: str = ""


@attrs.frozen
class Checkup:
    """All that was gathered."""

    cluster: Cluster
    documents: Mapping[int, object]  # node -> its node_status document
    clock_skews_ms: Mapping[int, float]  # node -> how far its clock is ahead of ours

    @property
    def dead(self) -> list[Node]:
        """Members that the cluster has given up waiting for."""
        return [node for node in self.cluster.members if node.dead]

    @property
    def takes_changes(self) -> bool:
        """Whether nodes can be removed and the like: the meta shard has a leader, as far as
        is said."""
        return all(shard.leader for shard in self.cluster.shards if shard.meta)

    def joining(self, command: str) -> tuple[str, str]:
        """The command that brings another node, or what is to be done before one can join."""
        if self.takes_changes:
            return command, ""
        return "", "no node can join before the meta shard has a leader again: see to that first"

    @property
    def given_up(self) -> set[int]:
        """The nodes that a recovery has gone on without; they are refused for ever."""
        said = (wholes(document, "given_up") for document in self.documents.values())
        return {node for nodes in said for node in nodes}

    def heir_of(self, node: Node) -> Node | None:
        """Who answers at the address at which a silent or dead node was last."""
        for other in self.cluster.members:
            if other.address == node.address and other.node != node.node and other.reachable:
                return other
        return None

    def version_of(self, node: Node) -> str:
        """The version that a node runs; "" where it is not known."""
        return node.version or text(self.documents.get(node.node), "version")
