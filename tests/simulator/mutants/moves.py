"""Planted bugs: replicas that move, nodes that go and die, people who stop all that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from krita.errors import Status
from krita.operations import Op
from kritad.cluster import healing, meta_nodes, meta_shards, meta_splits, moves, reconcile, tables
from kritad.cluster.fields import Fields
from kritad.cluster.liveness import Liveness
from kritad.cluster.model import ClusterRecord, ReplicaRecord, ShardRecord
from kritad.cluster.planner import Placement
from kritad.cluster.tables import Tables, write_departures
from kritad.cluster.view import MetaView, Records
from kritad.host import steward
from kritad.raft.configuration import Change
from kritad.raft.types import NOBODY, Configuration
from tests.simulator.mutants.mutant import Mutant

_admissible = moves.admissible
_move_cancel = meta_shards.move_cancel
_next_change = reconcile.next_change
_node_dead = meta_nodes.node_dead
_place = meta_shards.place
_placed = tables.placed


def _whose_node_answers(
    its: steward.Steward, _record: ShardRecord, members: Mapping[int, int]
) -> set[int]:
    """A replica is as well as its node."""
    return {member for member, node in members.items() if node in its._reachable()}


def _all_are_sound(record: ShardRecord, _lost: object, _present: object) -> int:
    """Whoever votes counts, damaged or silent."""
    return len(record.report.voters)


def _offer_nobody(record: ShardRecord, replicas: Iterable[ReplicaRecord]) -> ShardRecord:
    """What was wanted and is not any more was never there."""
    return attrs.evolve(_placed(record, replicas), offered=())


def _place_whatever_stands(
    records: Records, values: list[object], index: int
) -> tuple[int, object]:
    """A placement counts, whichever version it was made from."""
    shard = Fields(Op.META_PLACE, values).count("shard")
    version = Tables(records, index).shard(shard).placement_version
    return _place(records, [values[0], version, *values[2:]], index)


class _Endless(int):
    """How many entries a learner may lack when it is promoted: no log has so many."""


def _hold_those_wanted(known: Tables, changed: dict[int, ShardRecord], node: int) -> bool:
    """Only who is wanted is needed; who votes still, as reported, is not."""
    shards = [changed.get(record.shard, record) for record in known.data_shards()]
    return any(node in record.nodes for record in shards)


def _let_go_those_not_wanted(
    known: Tables, before: ShardRecord, after: ShardRecord, cluster: ClusterRecord | None = None
) -> None:
    """Who is not wanted any more was let go, whether it votes still or not."""
    given_up = sorted(set(before.nodes) - set(after.nodes))
    write_departures(known, [known.node(node) for node in given_up], [after], cluster)


def _believe_any_verdict(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """A verdict counts, whatever life of the node it was about."""
    known = Tables(records, index).node(Fields(Op.META_NODE_DEAD, values).count("node", 1))
    return _node_dead(records, [*values[:2], known.boot_counter], index)


def _see_no_outage(_liveness: Liveness, _view: MetaView, _now_ms: float) -> str:
    """However many are silent, each of them is dead."""
    return ""


def _only_hold(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """A move that is cancelled is held, and goes on once it is released."""
    found = Tables(records, index)
    record = found.shard(Fields(Op.MOVE_CANCEL, values).count("shard"))
    if not record.in_motion:
        return _move_cancel(records, values, index)
    found.write(shards=[attrs.evolve(record, held=True)])
    return int(Status.OK), [record.placement_version]


def _go_on_while_held(
    voters: Mapping[int, int],
    learners: Mapping[int, int],
    configuration: Configuration,
    matches: Mapping[int, int],
    last_index: int,
    leader: int = NOBODY,
    *,
    reachable: Collection[int] | None = None,
    held: bool = False,  # noqa: ARG001
) -> list[Change] | None:
    """What has begun goes on, whether people have stopped it or not."""
    return _next_change(
        voters, learners, configuration, matches, last_index, leader, reachable=reachable
    )


def _begin_while_paused(
    view: MetaView, plans: Iterable[Placement], limit_per_node: int = moves.MOVES_PER_NODE
) -> list[Placement]:
    """What the planner wants begins, whether people have paused the moves or not."""
    return _admissible(attrs.evolve(view, paused=False), plans, limit_per_node)


def _take_any(_traffic: moves._Traffic, _record: ShardRecord, _nodes: Sequence[int]) -> bool:
    """As many shards move at a time as there are to move."""
    return True


def _take_for_safe(_view: MetaView, _placement: Placement, _present: Collection[int]) -> bool:
    """Copies are given up whoever is missing."""
    return True


def _demote_all(
    surplus: Sequence[int], _voters: Collection[int], _alive: Collection[int]
) -> list[int]:
    """Whoever is not wanted is demoted, also when those who answer are no majority then."""
    return list(surplus)


def _split_on_the_move(_record: ShardRecord, _shard_next: int) -> None:
    """A shard is split whatever else is going on with it."""


MUTANTS = (
    Mutant(
        name="placement-without-compare-and-set",
        rule="a placement counts for the version that it was made from",
        source="cluster/meta_shards.py, raft.md 4.5",
        hint="the part: a placement of an older view is as good as a newer one to the groups, and "
        "the next step of the planner mends it",
        patches=((meta_shards, "place", _place_whatever_stands),),
    ),
    Mutant(
        name="learner-votes-at-once",
        rule="a learner is promoted once it has caught up",
        source="cluster/reconcile.py, thesis 4.2.1",
        hint="the part: the core asks again, and refuses",
        patches=((reconcile, "PROMOTE_LAG_ENTRIES_MAX", _Endless(1 << 62)),),
    ),
    Mutant(
        name="node-leaves-while-it-votes",
        rule="a node has left once no shard wants or reports it",
        source="cluster/tables.py, raft.md 4.4",
        hint="liveness: removals while another node is down or lags",
        patches=(
            (tables, "_held", _hold_those_wanted),
            (meta_shards, "write_shard", _let_go_those_not_wanted),
        ),
    ),
    Mutant(
        name="node-leaves-while-it-is-offered",
        rule="who was wanted may be made a member until the leader says that it will not be",
        source="found here: docs/simulation.md",
        hint="liveness: a removal right behind a placement, and moves that are held",
        patches=((meta_shards, "placed", _offer_nobody),),
    ),
    Mutant(
        name="damaged-replica-is-an-heir",
        rule="a replica that is damaged neither leads nor counts",
        source="found here: docs/simulation.md",
        hint="liveness: bit rot in the middle of a move",
        patches=((steward.Steward, "_sound", _whose_node_answers),),
    ),
    Mutant(
        name="healed-without-a-majority",
        rule="a damaged replica is let go when the sound ones are a majority",
        source="cluster/healing.py",
        hint="liveness: bit rot while another node is down",
        patches=((healing, "_sound_voters", _all_are_sound),),
    ),
    Mutant(
        name="verdict-hits-the-next-life",
        rule="a verdict counts for the life of the node that it was about",
        source="cluster/meta_nodes.py, raft.md 4.4",
        hint="the part: the leader takes it back as soon as it hears the node",
        patches=((meta_nodes, "node_dead", _believe_any_verdict),),
    ),
    Mutant(
        name="outage-is-taken-for-deaths",
        rule="nobody is declared dead while more than a third is silent",
        source="cluster/liveness.py, raft.md 4.5",
        hint="the part: what is rebuilt for nothing costs much and breaks nothing",
        patches=((Liveness, "outage", _see_no_outage),),
    ),
    Mutant(
        name="cancelled-move-goes-on",
        rule="a move that was cancelled is taken back",
        source="cluster/meta_shards.py",
        hint="the part: it looks like a move that people have only paused",
        patches=((meta_shards, "move_cancel", _only_hold),),
    ),
    Mutant(
        name="held-moves-go-on",
        rule="a shard that people hold keeps its voters",
        source="host/steward.py, cluster/reconcile.py",
        hint="held-still: moves that are paused on their way",
        patches=((steward, "next_change", _go_on_while_held),),
    ),
    Mutant(
        name="moves-begin-while-paused",
        rule="no move begins while people have paused them",
        source="host/steward.py, cluster/moves.py",
        hint="the part: the shards' leaders do not carry out what is paused",
        patches=((steward, "admissible", _begin_while_paused),),
    ),
    Mutant(
        name="all-moves-at-once",
        rule="two shards at a time move onto a node, and two off it",
        source="cluster/moves.py, raft.md 4.5",
        hint="the part: it costs clients their time, and breaks nothing",
        patches=((moves._Traffic, "take", _take_any),),
    ),
    Mutant(
        name="copies-are-given-up-whoever-is-missing",
        rule="no copy within reach is given up while one of those that stay is missing",
        source="host/steward.py (is_safe)",
        hint="the part: it takes one more failure to be seen",
        patches=((steward, "is_safe", _take_for_safe),),
    ),
    Mutant(
        name="demotes-the-majority-that-answers",
        rule="no change makes a healthy group unhealthy",
        source="cluster/reconcile.py, raft.md 4.5 step 5",
        hint="liveness: moves while nodes are down",
        patches=((reconcile, "_may_be_demoted", _demote_all),),
    ),
    Mutant(
        name="shard-is-split-on-the-move",
        rule="a shard is split with the replicas that it has",
        source="cluster/meta_splits.py",
        hint="liveness: a split that is asked for during a move",
        patches=((meta_splits, "_check_can_split", _split_on_the_move),),
    ),
)
