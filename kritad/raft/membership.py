"""When the configuration may change, and what follows from a change.

The algebra is in configuration.py; here is the log's part (raft.md 2.7).

Rules:
* A configuration is in force as soon as it is appended and rolled back when it
  is truncated (thesis 4.1): log.py does both by holding it.
* One at a time: a new one needs the previous one committed, an entry of the own
  term committed (raft.md B16), the expected version, and nothing joint.
* Changes of learners only are one simple entry. Every change of voters goes
  through a joint configuration, which the leader leaves by itself as soon as it
  is committed (and not before: raft.md B17), also one that it found in its log.
* Who is to vote must be a learner that is close behind (raft.md B25), and that has the
  entry which made it a member in its own log. So a replica that knows of no membership
  of its own never votes, and its node may delete it (host/upkeep.py).
* A leader that the new configuration lets go leads until it is committed, tells
  the others so, and hands over to one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from kritad.raft.configuration import (
    Change,
    IllegalChange,
    encode_configuration,
    enter_joint,
    leave_joint,
    simple_change,
    with_nodes,
)
from kritad.raft.election import become_follower
from kritad.raft.errors import ProposalRefused, Refusal
from kritad.raft.messages import TimeoutNow
from kritad.raft.progress import ProgressState, track
from kritad.raft.quorum import quorum_index, quorum_reached
from kritad.raft.replication import append_own, send_heartbeat
from kritad.raft.state import RaftState
from kritad.raft.types import NOBODY, Configuration, EntryKind


def propose_conf(
    raft: RaftState, changes: Sequence[Change], nodes: Mapping[int, int], expected_version: int
) -> int:
    """Appends the configuration that ``changes`` lead to; its index.

    Raises ProposalRefused (the caller has made sure that this is a leader).
    """
    log, configuration = raft.log, raft.configuration
    if configuration.version != expected_version:
        raise ProposalRefused(
            Refusal.VERSION, f"it is {configuration.version}, expected was {expected_version}"
        )
    if log.commit < raft.term_start:
        raise ProposalRefused(Refusal.CONF_PENDING, "no entry of this term is committed yet")
    if log.configuration_index > log.commit or configuration.joint:
        raise ProposalRefused(Refusal.CONF_PENDING, f"version {configuration.version} is under way")
    try:
        changed = _changed(configuration, changes, nodes)
    except IllegalChange as error:
        raise ProposalRefused(Refusal.ILLEGAL, str(error)) from error
    _check_reachable(raft, changed)
    return _append(raft, changed)


def _changed(
    configuration: Configuration, changes: Sequence[Change], nodes: Mapping[int, int]
) -> Configuration:
    """The next configuration: simple when no voter changes, else joint."""
    joint = enter_joint(configuration, changes)
    if joint.voters == configuration.voters:
        changed = simple_change(configuration, changes)
    else:
        changed = joint
    if attrs.evolve(changed, nodes={}) == attrs.evolve(configuration, nodes={}):
        raise IllegalChange("the change changes nothing")
    changed = with_nodes(changed, nodes)
    unknown = sorted(changed.members - changed.nodes.keys())
    if unknown:
        raise IllegalChange(f"the nodes of replicas {unknown} are not given")
    return changed


def _check_reachable(raft: RaftState, changed: Configuration) -> None:
    """Refuses what would leave the group without a majority that can commit."""
    log, progress = raft.log, raft.progress
    close = log.commit - raft.config.promotion_lag_max
    # The newest configuration is committed, and has all learners there are.
    enough = max(log.snapshot.index, close, log.configuration_index)
    for replica in sorted(changed.voters - raft.configuration.voters):
        learner = progress.get(replica)
        if learner is None:
            raise ProposalRefused(Refusal.LAGGING, f"replica {replica} is not a learner yet")
        if learner.state is not ProgressState.REPLICATE or learner.match < enough:
            raise ProposalRefused(
                Refusal.LAGGING, f"replica {replica} has {learner.match} of {log.commit} entries"
            )
    if changed.voters == raft.configuration.voters:
        return
    active = {replica for replica, member in progress.items() if member.recent_active}
    active.add(raft.replica)
    if not quorum_reached(changed, active):
        raise ProposalRefused(Refusal.UNHEALTHY, f"of its replicas only {sorted(active)} answer")
    if quorum_index(changed, lambda replica: progress[replica].match) < log.snapshot.index:
        raise ProposalRefused(Refusal.LAGGING, "its majority would need a snapshot first")


def _append(raft: RaftState, configuration: Configuration) -> int:
    """Appends ``configuration`` as the next version, which puts it in force."""
    following = attrs.evolve(configuration, version=configuration.version + 1)
    index = append_own(raft, EntryKind.CONF, encode_configuration(following))
    raft.watch_members(track(raft.progress, following, index))
    raft.quorum_changed = True
    return index


def after_commit(raft: RaftState) -> None:
    """The leader's commit index rose: leave a joint configuration, or the lead."""
    log = raft.log
    if log.configuration_index > log.commit:
        return
    configuration = log.configuration
    if configuration.joint:
        _append(raft, with_nodes(leave_joint(configuration), {}))
    elif raft.replica not in configuration.voters:
        _let_go(raft)


def _let_go(raft: RaftState) -> None:
    """This leader was removed or demoted, and that is committed: one last round of
    commit news, then the most advanced voter is asked to take over at once."""
    for progress in raft.followers:
        send_heartbeat(raft, progress)
    voters = [raft.progress[voter] for voter in sorted(raft.configuration.voters)]
    heir = max(voters, key=lambda progress: progress.match)
    raft.send(TimeoutNow(raft.shard, raft.replica, heir.replica, raft.term))
    become_follower(raft, raft.term, NOBODY)
