"""Planted bugs: when elections are held, and how leadership ends.

Most of these lose no data: a group without a leader is what they lead to, or one that
changes its leader for ever. They are the business of the liveness phase, and of
directed scenarios with links that are broken in one direction or for one pair only.
"""

from __future__ import annotations

from kritad.host import drive
from kritad.raft import dispatch, election, state
from kritad.raft.messages import Append, Heartbeat, Message, PreVote, TimeoutNow, Vote, VoteReply
from kritad.raft.types import NOBODY, EntryKind, Role
from tests.simulator.mutants.mutant import Mutant

_on_pre_vote = election.on_pre_vote
_on_vote = election.on_vote
_tick_leader = election.tick_leader
_settle_term = dispatch._settle_term


def _grant_any_pre_vote(raft: state.RaftState, message: PreVote) -> None:
    """A pre-vote is granted although the leader was heard a moment ago."""
    leader, raft.leader = raft.leader, NOBODY
    try:
        _on_pre_vote(raft, message)
    finally:
        raft.leader = leader


def _campaign_without_asking(raft: state.RaftState) -> None:
    """An election begins with the next term at once."""
    if raft.role is not Role.LEADER and election.may_campaign(raft):
        election.become_candidate(raft, transfer=False)


def _nothing_disturbs(_raft: state.RaftState, _vote: Vote) -> bool:
    """A request for votes is heard although the group has a leader."""
    return False


def _lead_for_ever(_raft: state.RaftState) -> None:
    """Nobody looks whether a majority still answers."""


def _transfer_without_end(raft: state.RaftState) -> None:
    """A transfer whose target never leads is not given up."""
    raft.transfer_elapsed = 0
    _tick_leader(raft)


def _only_voters_vote(raft: state.RaftState, message: Vote) -> None:
    """A replica that is no voter in its own configuration does not answer."""
    configuration = raft.configuration
    if raft.replica in configuration.voters or raft.replica in configuration.voters_outgoing:
        _on_vote(raft, message)


def _only_the_newest_configuration(raft: state.RaftState) -> bool:
    """A replica that the newest configuration lets go does not campaign, also while
    nobody else may have that configuration."""
    configuration = raft.configuration
    return raft.replica in configuration.voters or raft.replica in configuration.voters_outgoing


def _lead_silently(raft: state.RaftState, _kind: EntryKind, _data: bytes) -> int:
    """A new leader appends nothing of its own."""
    return raft.log.last_index


def _obey_old_leaders(raft: state.RaftState, kind: type[Message], message: Message) -> bool:
    """What a leader of an older term says is taken like the present one's word."""
    if message.term < raft.term and kind in (Append, Heartbeat, TimeoutNow):
        return True
    return _settle_term(raft, kind, message)


def _count_old_votes(raft: state.RaftState, kind: type[Message], message: Message) -> bool:
    """A vote for an earlier candidacy counts in the present one."""
    if message.term < raft.term and kind is VoteReply:
        return True
    return _settle_term(raft, kind, message)


def _never_slow(_drive: drive.Drive) -> float:
    """How long the disk has been busy is not measured."""
    return 0.0


MUTANTS = (
    Mutant(
        name="pre-vote-granted-beside-a-leader",
        rule="who hears its leader grants no pre-vote",
        source="thesis 9.6, raft.md B12 and B14",
        hint="liveness, directed: one follower does not hear the leader, the others do; terms "
        "rise and the leader changes as long as that lasts",
        patches=((election, "on_pre_vote", _grant_any_pre_vote),),
    ),
    Mutant(
        name="no-pre-vote",
        rule="nobody's term rises because of a replica that cannot win",
        source="thesis 9.6, raft.md B14",
        hint="liveness, directed: one follower does not hear the leader; a replica that comes "
        "back after a partition deposes the leader",
        patches=((election, "campaign", _campaign_without_asking),),
    ),
    Mutant(
        name="votes-beside-a-leader",
        rule="who hears its leader ignores requests for votes",
        source="thesis 4.2.3, raft.md B15",
        hint="liveness, directed: a removed replica goes on campaigning (together with a missing "
        "pre-vote); TimeoutNow aside, no election while a quorum hears its leader",
        patches=((election, "disturbs", _nothing_disturbs),),
    ),
    Mutant(
        name="leader-without-quorum-stays",
        rule="a leader that hears no majority for an election timeout steps down",
        source="thesis 6.2, raft.md B14",
        hint="liveness: the leader is heard and does not hear (one-way cut); nobody is elected",
        patches=((election, "check_quorum", _lead_for_ever),),
    ),
    Mutant(
        name="transfer-never-given-up",
        rule="a transfer ends after one election timeout",
        source="thesis 3.10, raft.md B42 (hashicorp#493)",
        hint="liveness: writes are refused for ever; needs a transfer to a replica that stops",
        patches=((election, "tick_leader", _transfer_without_end),),
    ),
    Mutant(
        name="votes-only-as-a-voter",
        rule="votes are given by log and term alone",
        source="raft.md B22 (hashicorp#477)",
        hint="liveness, directed: the leader crashes after it has promoted a learner that does "
        "not know it yet; the promoted one is needed for a majority",
        patches=((election, "on_vote", _only_voters_vote),),
    ),
    Mutant(
        name="removed-leader-never-campaigns",
        rule="who was a voter campaigns until its removal is known to be committed",
        source="thesis 4.2.2, raft.md B23",
        hint="liveness, directed: a leader removes itself and crashes before anybody else has "
        "the entry",
        patches=((election, "may_campaign", _only_the_newest_configuration),),
    ),
    Mutant(
        name="leader-without-first-entry",
        rule="a leader begins its term with an entry, so that what is old gets committed",
        source="thesis 6.4",
        hint="liveness: reads and membership wait until somebody writes",
        patches=((election, "append_own", _lead_silently),),
    ),
    Mutant(
        name="obeys-old-leaders",
        rule="a message of an older term changes nothing",
        source="thesis Figure 3.1",
        hint="invariant: two leaders of one term (the core's own check), log matching; needs "
        "delayed messages of a former leader",
        patches=((dispatch, "_settle_term", _obey_old_leaders),),
    ),
    Mutant(
        name="counts-old-votes",
        rule="a vote is for one term",
        source="thesis 3.4",
        hint="invariant: one leader per term; needs a candidate that campaigns twice, and delays",
        patches=((dispatch, "_settle_term", _count_old_votes),),
    ),
    Mutant(
        name="stalled-disk-goes-on-leading",
        rule="a leader whose save takes half an election timeout hands over",
        source="raft.md B13",
        hint="liveness: a leader's disk hangs while its network works; writes have to go on",
        patches=((drive.Drive, "writing_ms", property(_never_slow)),),
    ),
)
