"""Planted bugs: who goes although it votes, by what is known too late or not at all."""

from __future__ import annotations

import attrs

from krita.operations import Op
from kritad.cluster import meta_splits
from kritad.cluster.fields import Fields
from kritad.cluster.model import ShardRecord
from kritad.cluster.tables import Tables
from kritad.cluster.view import MetaView, Records
from kritad.host import belonging, residence, steward, upkeep
from kritad.host.departure import _is_left, _may_vote
from kritad.host.replica import Replica
from tests.simulator.mutants.mutant import Mutant

_split_done = meta_splits.split_done
_was_let_go = upkeep.was_let_go


def _tell_the_parents_term(
    records: Records, values: list[object], index: int
) -> tuple[int, object]:
    """The first report of a shard that was split off has the term of the one it was cut from."""
    fields = Fields(Op.META_SPLIT_DONE, values)
    tables, shard_new = Tables(records, index), fields.count("shard_new", 1)
    known = {record.shard for record in tables.data_shards()}
    done = _split_done(records, values, index)
    tables = Tables(records, index)
    for record in tables.data_shards():
        if record.shard == shard_new and shard_new not in known:
            report = attrs.evolve(record.report, term=fields.count("term"))
            tables.write(shards=[attrs.evolve(record, report=report)])
    return done


def _believe_any_report(view: MetaView, replica: Replica) -> bool:
    """A replica that is neither wanted nor reported goes, however old the report is."""
    return _was_let_go(view, replica) or upkeep.is_unnamed(view, replica.shard, replica.id)


def _send_away_unknowing(view: MetaView, node: int, meta: Replica | None) -> bool:
    """Who does not know who votes takes it that those who have left do not."""
    return _is_left(view, node) and (meta is None or not _may_vote(node, meta))


def _leave_while_voting(view: MetaView, node: int, _meta: Replica | None) -> bool:
    """A node that holds no data goes, whether it votes in the meta shard or not."""
    return _is_left(view, node)


def _add_at_once(_record: ShardRecord, _replica: Replica) -> bool:
    """A new leader makes members of those that its view wants, however old that is."""
    return True


MUTANTS = (
    Mutant(
        name="new-half-is-told-in-its-parents-term",
        rule="a report of another group's term is no proof against a voter",
        source="cluster/meta_splits.py",
        hint="voter-stays: the old half is led anew a few times, is split, and the new half's "
        "leader makes a member of somebody whose move is taken back",
        patches=((meta_splits, "split_done", _tell_the_parents_term),),
    ),
    Mutant(
        name="replica-leaves-on-an-older-report",
        rule="a replica leaves on a report that is newer than what it was told",
        source="host/upkeep.py, raft.md B27",
        hint="voter-stays: a move that is taken back while its leader reaches no one else",
        patches=((residence, "was_let_go", _believe_any_report),),
    ),
    Mutant(
        name="node-is-sent-away-by-who-does-not-know",
        rule="who does not know who votes sends nobody away",
        source="host/departure.py",
        hint="voter-stays: a node is removed while a replica of the meta shard is made anew",
        patches=((belonging, "has_gone", _send_away_unknowing),),
    ),
    Mutant(
        name="node-leaves-while-the-meta-shard-needs-it",
        rule="a node stays as long as it votes in the meta shard",
        source="host/departure.py",
        hint="voter-stays: a node is removed that votes in the meta shard",
        patches=((belonging, "may_leave", _leave_while_voting),),
    ),
    Mutant(
        name="member-is-added-on-an-older-word",
        rule="a leader adds nobody before the meta shard has shown it its own term's report",
        source="host/steward.py",
        hint="voter-stays: a wish that is taken back, the node removed, and then a leader whose "
        "node has not heard of it",
        patches=((steward, "may_add", _add_at_once),),
    ),
)
