"""Which nodes have been silent for too long: the judgement of the meta shard's leader.

The verdict becomes an entry of the meta shard's log (META_NODE_DEAD), and the
planner then rebuilds elsewhere what the node held. Rebuilding is costly and, if
the fault is the network's and not the node's, useless; so nobody is declared
dead

* before ``dead_after_ms`` of silence, counted at the earliest from when this node
  came to lead the meta shard: what was before, it has not heard;
* while more than a third of the members look dead at once, or more than one whole
  zone does: that is an outage, which people or time mend, and there would be too
  little left to rebuild on. (Where fewer than two zones are named, two can only
  look dead with every node.)

A node looks dead when it is silent for that long or was declared dead before.
Those that hold nothing any more do not count, they have been healed already; nor
those that people remove, who have said that nobody need wait for them.
A dead node that is heard of again is declared alive.

No clock here: every method is told the time, in milliseconds of a clock that
only goes forward.

Sources: raft.md 4.4 (grace), 4.5 (dead node).
"""

from __future__ import annotations

from collections import defaultdict

from kritad.cluster.model import NodeRecord, NodeState
from kritad.cluster.view import MetaView


class Liveness:
    """See the module's docstring. Costs ~2 µs a node and step, and a look at every
    shard while a node looks dead."""

    def __init__(self, dead_after_ms: float) -> None:
        self._dead_after_ms = dead_after_ms
        self._heard: dict[int, float] = {}
        self._leading_since: float | None = None

    def leading(self, now_ms: float) -> None:
        """This node has come to lead the meta shard: whoever is silent is silent from
        now on. To be called once each time."""
        self._leading_since = now_ms
        self._heard.clear()

    def following(self) -> None:
        """This node does not lead the meta shard any more: no verdicts."""
        self._leading_since = None

    def heard(self, node: int, now_ms: float) -> None:
        """The node answers."""
        self._heard[node] = now_ms

    def silent_ms(self, node: int, now_ms: float) -> float:
        """For how long the node has been silent, as far as is known here; 0 while
        this node does not lead."""
        if self._leading_since is None:
            return 0.0
        return now_ms - self._heard.get(node, self._leading_since)

    def verdicts(self, view: MetaView, now_ms: float) -> list[tuple[int, bool]]:
        """``(node, dead)`` for every member whose record says otherwise, by node."""
        if self._leading_since is None:
            return []
        outage = bool(self.outage(view, now_ms))
        found = []
        for record in view.members:
            silent = self._is_silent(record.node, now_ms)
            if record.dead and record.node in self._heard and not silent:
                found.append((record.node, False))
            elif silent and not record.dead and not outage:
                found.append((record.node, True))
        return found

    def outage(self, view: MetaView, now_ms: float) -> str:
        """Why so many look dead that nothing should be rebuilt now; "" if they do not.
        While it is so, no healing should begin either for those that are declared dead."""
        awaited = [n for n in view.members if n.state is not NodeState.REMOVING]
        silent = [record for record in awaited if self._looks_dead(record, now_ms)]
        if self._leading_since is None or not silent:
            return ""
        lost = [record for record in silent if view.holds_data(record.node)]
        healed = {record.node for record in silent} - {record.node for record in lost}
        counted = [record for record in awaited if record.node not in healed]
        if 3 * len(lost) > len(counted):
            return (
                f"{len(lost)} of {len(counted)} nodes look dead, more than a third "
                f"({_listed(lost)}): nothing is rebuilt until fewer do, or are removed"
            )
        zones = _dead_zones(counted, lost)
        if len(zones) > 1:
            return f"zones {', '.join(zones)} look dead: nothing is rebuilt until only one does"
        return ""

    def reason_to_wait(self, view: MetaView, now_ms: float) -> str:
        """Why no node is declared dead now although one is silent: an outage, or that
        this node has not led for long enough. "" when there is no such reason."""
        if self._leading_since is None:
            return ""
        found = self.outage(view, now_ms)
        if found:
            return found
        led_ms = now_ms - self._leading_since
        unheard = [
            record for record in view.members if not record.dead and record.node not in self._heard
        ]
        if led_ms >= self._dead_after_ms or not unheard:
            return ""
        return (
            f"{_listed(unheard)} not heard of; the meta shard has had its leader for "
            f"{led_ms / 1000:.0f} s, and nobody is declared dead before "
            f"{self._dead_after_ms / 1000:.0f} s"
        )

    def _is_silent(self, node: int, now_ms: float) -> bool:
        return self.silent_ms(node, now_ms) >= self._dead_after_ms

    def _looks_dead(self, record: NodeRecord, now_ms: float) -> bool:
        if self._is_silent(record.node, now_ms):
            return True
        return record.dead and record.node not in self._heard


def _dead_zones(counted: list[NodeRecord], lost: list[NodeRecord]) -> list[str]:
    """The zones all of whose nodes look dead."""
    zones: defaultdict[str, set[int]] = defaultdict(set)
    for record in counted:
        zones[record.zone].add(record.node)
    gone = {record.node for record in lost}
    return sorted(zone for zone, nodes in zones.items() if nodes <= gone)


def _listed(records: list[NodeRecord]) -> str:
    word = "node" if len(records) == 1 else "nodes"
    return f"{word} {', '.join(str(record.node) for record in records)}"
