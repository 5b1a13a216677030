"""What NODE_SET would do, without doing it: what ``--plan`` shows.

The same code decides as would afterwards: the entry's own rules
(``meta_nodes.intended``) say whether it may be, the planner what would move. Pure;
it costs two plans: 13 ms for 256 shards on 30 nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import attrs

from krita.errors import ConditionFailed
from kritad.cluster.meta_nodes import intended
from kritad.cluster.model import NodeState
from kritad.cluster.planner import Placement, placements
from kritad.cluster.tolerance import Tolerance, planned_tolerance, tolerance
from kritad.cluster.view import MetaView

__all__ = ["Flow", "Forecast", "Tolerance", "forecast", "tolerance"]


@attrs.frozen
class Flow:
    """What one node would give to another. ``source`` 0: copies that nobody gives up."""

    source: int
    target: int
    replicas: int
    size_bytes: int


@attrs.frozen
class Forecast:
    """What would come of it. When ``refused`` says why it cannot be, nothing would."""

    node: int
    state: NodeState
    successor: int  # 0: whoever is best
    refused: str
    shards: tuple[int, ...]  # that would change hands
    replicas: int  # copies to make
    size_bytes: int  # to send for them
    flows: tuple[Flow, ...]
    stays: int  # replicas that would stay on the node
    before: Tolerance  # now
    after: Tolerance  # when all is done and the node is off, if it is to go
    warnings: tuple[str, ...]

    def to_document(self) -> dict[str, object]:
        """As people and programs get it: plain values by name."""
        return {
            "node": self.node,
            "state": self.state.name.lower(),
            "successor": self.successor or None,
            "shards": list(self.shards),
            "replicas": self.replicas,
            "bytes": self.size_bytes,
            "moves": [
                {
                    "from": flow.source or None,
                    "to": flow.target,
                    "replicas": flow.replicas,
                    "bytes": flow.size_bytes,
                }
                for flow in self.flows
            ],
            "stays": self.stays,
            "before": self.before.to_document(),
            "after": self.after.to_document(),
            "refusals": [self.refused] if self.refused else [],
            "warnings": list(self.warnings),
        }


def forecast(
    view: MetaView,
    sizes: Mapping[int, int],
    node: int,
    state: int,
    successor: int | None = None,
    up: Collection[int] | None = None,
) -> Forecast:
    """What ``node_set(node, state, successor)`` would do.

    ``sizes`` are bytes by shard (of one replica); ``up`` the nodes that answer, by
    default those that are not declared dead. Counts everything that would be moved from
    the placement that is wanted now, also what is to be moved in any case (a warning
    says how much that is). Raises BadRequest for a node or a state that does not exist.
    """
    answering = _up(view) if up is None else up
    before = tolerance(view, answering)
    try:
        changed = intended(view.nodes, node, state, successor)
    except ConditionFailed as error:
        return _refusal(node, NodeState(state), successor or 0, str(error), before)
    after_view = attrs.evolve(view, nodes={**view.nodes, node: changed})
    plan = placements(after_view)
    wanted = {record.shard: record.nodes for record in view.data_shards}
    wanted.update({placement.shard: placement.nodes for placement in plan})
    goes = changed.state is not NodeState.UP
    later = [other for other in answering if not (goes and other == node)]
    copies = _copies(after_view, plan)
    stays = sum(node in nodes for nodes in wanted.values()) if goes else 0
    return Forecast(
        node,
        changed.state,
        changed.successor,
        "",
        tuple(placement.shard for placement in plan),
        len(copies),
        sum(sizes.get(shard, 0) for shard, _, _ in copies),
        _flows(copies, sizes),
        stays,
        before,
        planned_tolerance(after_view, wanted, later),
        tuple(_warnings(view, after_view, node, stays, copies, sizes)),
    )


def _up(view: MetaView) -> list[int]:
    return [record.node for record in view.members if not record.dead]


def _refusal(
    node: int, state: NodeState, successor: int, why: str, tolerates: Tolerance
) -> Forecast:
    return Forecast(node, state, successor, why, (), 0, 0, (), 0, tolerates, tolerates, ())


def _copies(view: MetaView, plan: list[Placement]) -> list[tuple[int, int, int]]:
    """``(shard, source, target)`` of every copy that is to be made. Who gives and who
    gets is paired so that a successor gets from its predecessor."""
    copies = []
    for placement in plan:
        record = view.shards[placement.shard]
        added = sorted(set(placement.nodes) - set(record.nodes))
        given = sorted(set(record.nodes) - set(placement.nodes))
        for target in added:
            heirless = [n for n in given if view.nodes[n].successor not in added]
            source = next((n for n in given if view.nodes[n].successor == target), 0)
            source = source or next(iter(heirless), 0)
            if source:
                given.remove(source)
            copies.append((placement.shard, source, target))
    return copies


def _flows(copies: list[tuple[int, int, int]], sizes: Mapping[int, int]) -> tuple[Flow, ...]:
    replicas: Counter[tuple[int, int]] = Counter()
    size_bytes: Counter[tuple[int, int]] = Counter()
    for shard, source, target in copies:
        replicas[source, target] += 1
        size_bytes[source, target] += sizes.get(shard, 0)
    return tuple(
        Flow(source, target, replicas[source, target], size_bytes[source, target])
        for source, target in sorted(replicas)
    )


def _warnings(
    view: MetaView,
    after: MetaView,
    node: int,
    stays: int,
    copies: list[tuple[int, int, int]],
    sizes: Mapping[int, int],
) -> list[str]:
    """What people should know before they decide."""
    factor, left, zones = after.replication_factor, len(after.usable_nodes), _zones(after)
    held = [r.shard for r in after.data_shards if node in r.nodes and (r.held or r.split)]
    pending = len(_copies(view, placements(view)))
    unknown = sorted({shard for shard, _, _ in copies} - sizes.keys())
    found = []
    if stays and left < factor:
        what = "replica stays where it is" if stays == 1 else "replicas stay where they are"
        found.append(
            f"{stays} {what}: only {_count(left, 'node')} {_are(left)} left for a replication "
            f"factor of {factor}"
        )
    if stays and held:
        found.append(
            f"{_count(len(held), 'shard')} on the node {_are(len(held))} held or being split, "
            f"and will not move until that ends: {_numbers(held)}"
        )
    if after.paused and copies:
        found.append("moves are paused: nothing happens until they are resumed")
    if len(zones) < min(len(_zones(view)), factor):
        found.append(
            f"only {_count(len(zones), 'zone')} {_are(len(zones))} left: some shards will have "
            "more than one replica in a zone"
        )
    if pending:
        found.append(
            f"{_count(pending, 'replica')} {_are(pending)} to be moved in any case, and counted "
            "here as well"
        )
    if unknown:
        found.append(
            f"the size of {_count(len(unknown), 'shard')} is not known: {_numbers(unknown)}"
        )
    return found


def _zones(view: MetaView) -> set[str]:
    return {record.zone for record in view.usable_nodes}


def _numbers(shards: list[int]) -> str:
    shown = ", ".join(str(shard) for shard in shards[:10])
    return shown + (", …" if len(shards) > 10 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
