"""Planted bugs: who is counted, and how the group changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from krita.hello import Identity
from kritad.cluster.view import MetaView
from kritad.host import belonging, replica, residence
from kritad.raft import election, log, quorum, reads, replication, state
from kritad.raft import membership as product
from kritad.raft.configuration import Change, IllegalChange, leave_joint, simple_change, with_nodes
from kritad.raft.types import Boot, Configuration, SnapshotMeta
from tests.simulator.mutants.mutant import Mutant

_after_commit = product.after_commit
_changed = product._changed
_propose_conf = product.propose_conf
_vote_result = quorum.vote_result
_log_init = log.Log.__init__


def _count_learners(configuration: Configuration, value_of: Callable[[int], int]) -> int:
    """Everybody's acknowledgement counts; as many are needed as make a majority of
    the voters."""
    everybody = sorted(configuration.members)
    halves = [half for half in (configuration.voters, configuration.voters_outgoing) if half]
    reached = sorted([value_of(member) for member in everybody], reverse=True)
    return min([reached[len(half) // 2] for half in halves], default=quorum.UNBOUNDED)


def _ask_the_incoming_half(configuration: Configuration, value_of: Callable[[int], int]) -> int:
    """Of a joint configuration, only the new majority is asked."""
    return quorum.majority_index(configuration.voters, value_of)


def _elect_by_the_incoming_half(
    configuration: Configuration, votes: Mapping[int, bool]
) -> quorum.VoteResult:
    """Of a joint configuration, only the new majority elects."""
    return _vote_result(attrs.evolve(configuration, voters_outgoing=frozenset()), votes)


def _change_in_one_step(
    configuration: Configuration, changes: Sequence[Change], nodes: Mapping[int, int]
) -> Configuration:
    """One voter more or less needs no joint configuration."""
    try:
        return with_nodes(simple_change(configuration, changes), nodes)
    except IllegalChange:
        return _changed(configuration, changes, nodes)


def _change_any_in_one_step(
    configuration: Configuration, changes: Sequence[Change], nodes: Mapping[int, int]
) -> Configuration:
    """Any change is made in one step."""
    changed = _changed(configuration, changes, nodes)
    return leave_joint(changed) if changed.joint else changed


def _propose_before_a_commit(
    raft: state.RaftState,
    changes: Sequence[Change],
    nodes: Mapping[int, int],
    expected_version: int,
) -> int:
    """A new leader changes the configuration before it has committed anything."""
    term_start, raft.term_start = raft.term_start, 0
    try:
        return _propose_conf(raft, changes, nodes, expected_version)
    finally:
        raft.term_start = term_start


def _leave_joint_at_once(raft: state.RaftState) -> None:
    """The joint configuration is left with whatever is committed next."""
    if raft.configuration.joint:
        product._append(raft, with_nodes(leave_joint(raft.configuration), {}))
    else:
        _after_commit(raft)


def _wake_with_the_committed(own: log.Log, boot: Boot, window_bytes: int) -> None:
    """After a restart the newest configuration that is known to be committed is used."""
    _log_init(own, boot, window_bytes)
    first, *rest = own.configurations
    own.configurations = [first] + [pair for pair in rest if pair[0] <= own.commit]


def _snapshot_with_the_newest(own: log.Log, index: int) -> SnapshotMeta:
    """A snapshot is given the configuration in force now, committed or not."""
    return SnapshotMeta(index, own.term(index), own.configuration)


def _reach_anything(_raft: state.RaftState, _changed: Configuration) -> None:
    """Whoever is named becomes a voter, however far behind."""


def _know_everybody(_view: MetaView, _identity: Identity) -> None:
    """Neither the store's uuid nor its boot counter is looked at."""


def _leave_when_not_wanted(view: MetaView, member: replica.Replica) -> bool:
    """A replica goes as soon as the meta shard wants it gone."""
    record = view.shards.get(member.shard)
    return (
        record is not None
        and member.id in member.raft.configuration.members
        and all(wanted.replica != member.id for wanted in record.replicas)
    )


# Not membership.py: what it asks is whether a change may be proposed at all.
_QUORUM_USERS = (quorum, replication, reads)

MUTANTS = (
    Mutant(
        name="learners-are-counted",
        rule="only voters make a quorum",
        source="raft.md B11 (hashicorp#308)",
        hint="invariant: committed on a quorum; check-quorum and stale reads; needs learners",
        patches=tuple((user, "quorum_index", _count_learners) for user in _QUORUM_USERS),
    ),
    Mutant(
        name="joint-elected-by-one-half",
        rule="a joint configuration elects with both majorities",
        source="thesis 4.3, raft.md 2.7",
        hint="invariant: one leader per term, leader completeness; needs a partition between the "
        "halves while joint",
        patches=((election, "vote_result", _elect_by_the_incoming_half),),
    ),
    Mutant(
        name="joint-committed-by-one-half",
        rule="a joint configuration commits with both majorities",
        source="thesis 4.3, raft.md 2.7",
        hint="invariant: committed on a quorum of the configuration in force there",
        patches=((replication, "quorum_index", _ask_the_incoming_half),),
    ),
    Mutant(
        name="joint-reads-confirmed-by-one-half",
        rule="a joint configuration confirms reads with both majorities",
        source="raft.md 2.7 (scylladb#29226)",
        hint="linearizability, directed: the outgoing half has elected another leader while joint",
        patches=((reads, "quorum_index", _ask_the_incoming_half),),
    ),
    Mutant(
        name="voters-changed-in-one-step-too-early",
        rule="no configuration is proposed before an entry of the own term is committed",
        source="raft.md B16 (Ongaro, raft-dev 2015)",
        hint="invariant: one leader per term, committed entries; directed: two leaders each add a "
        "voter. (The barrier alone is redundant where all voter changes are joint: see the "
        "mutant that lacks only that.)",
        patches=(
            (product, "propose_conf", _propose_before_a_commit),
            (product, "_changed", _change_in_one_step),
        ),
    ),
    Mutant(
        name="configuration-before-a-commit",
        rule="no configuration is proposed before an entry of the own term is committed",
        source="raft.md B16",
        hint="directed: a new leader refuses a change until its first entry is committed; harmless "
        "to data, since what is under way is not known to be committed and is refused anyway",
        patches=((product, "propose_conf", _propose_before_a_commit),),
    ),
    Mutant(
        name="voters-changed-without-joint",
        rule="a change of voters goes through a joint configuration",
        source="thesis 4.3",
        hint="invariant: one leader per term, committed on a quorum; needs moves of replicas under "
        "partitions",
        patches=((product, "_changed", _change_any_in_one_step),),
    ),
    Mutant(
        name="joint-left-before-it-is-committed",
        rule="the joint configuration is left once it is committed",
        source="raft.md B17 (camunda#60086)",
        hint="invariant: leader completeness, committed on a quorum; needs writes under way and a "
        "crash of the leader while joint",
        patches=((product, "after_commit", _leave_joint_at_once),),
    ),
    Mutant(
        name="restart-with-the-committed-configuration",
        rule="the newest configuration of the log is in force, committed or not",
        source="raft.md B20 (camunda#62837)",
        hint="invariant: configuration in force = newest in the log; needs a restart in a change",
        patches=((log.Log, "__init__", _wake_with_the_committed),),
    ),
    Mutant(
        name="snapshot-with-the-newest-configuration",
        rule="a snapshot carries the configuration at its own index",
        source="raft.md B21 (canonical#250)",
        hint="invariant: configuration = f(snapshot, log); needs a cut of the log during a change "
        "that is then truncated",
        patches=((log.Log, "snapshot_at", _snapshot_with_the_newest),),
    ),
    Mutant(
        name="promotes-a-learner-that-lags",
        rule="who is to vote is close behind, and a live majority remains",
        source="raft.md B25",
        hint="liveness, directed: a fresh learner is promoted, then one voter stops",
        patches=((product, "_check_reachable", _reach_anything),),
    ),
    Mutant(
        name="wiped-disk-is-admitted",
        rule="a known node with another store, or with an older copy of its own, is refused",
        source="raft.md B26",
        hint="acknowledged write lost, one vote per term; needs a disk that is rolled back, or "
        "wiped under the node's old number",
        patches=((belonging, "check_member", _know_everybody),),
    ),
    Mutant(
        name="replica-leaves-on-a-wish",
        rule="a replica leaves once its shard has let it go, not when the meta shard wants it gone",
        source="raft.md 4.4, B44",
        hint="liveness and acknowledged writes: a move away from a replica that the majority "
        "needs; needs joins or removals under faults",
        patches=((residence, "was_let_go", _leave_when_not_wanted),),
    ),
)
