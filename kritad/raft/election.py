"""Who leads: pre-vote, vote, leadership, check-quorum, transfer.

Rules:
* PreVote (thesis 9.6) always comes first, except after TimeoutNow: nobody's term
  rises because of a replica that could not win.
* A replica that hears its leader grants neither pre-votes nor votes and takes no
  higher term from the asking (thesis 4.2.3), unless the leader itself asked for
  the election, or the one who asks *is* that leader and so has given up.
* CheckQuorum (thesis 6.2): a leader that hears no quorum for an election timeout
  steps down. Both together, or neither (raft.md B14).
* Votes are given by log and term alone, whatever the voter's own configuration
  says about either side (raft.md B22).
* The own vote counts once it is durable, like any other's.
* A replica outside the configuration in force still campaigns while that
  configuration is not known to be committed and it was a voter before (thesis
  4.2.2). Otherwise a leader that removes itself and crashes before anybody else
  has the entry leaves a group that nobody can lead: its log is the longest.

Terms are compared in core.py before anything here is called.
"""

from __future__ import annotations

from kritad.raft.errors import InvariantBroken, ProposalRefused, Refusal
from kritad.raft.messages import (
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kritad.raft.progress import track
from kritad.raft.quorum import VoteResult, quorum_reached, vote_result
from kritad.raft.replication import append_own, broadcast_heartbeat, tell_commit
from kritad.raft.state import RaftState
from kritad.raft.types import NOBODY, EntryKind, Role

_FOLLOWER, _LEADER = Role.FOLLOWER, Role.LEADER  # what each message asks for

# --- time -----------------------------------------------------------------


def on_election_timeout(raft: RaftState) -> None:
    """A follower or candidate has waited long enough."""
    raft.reset_election_timer()
    raft.leader = NOBODY
    campaign(raft)


def tick_leader(raft: RaftState) -> None:
    """One tick of a leader: commit news, heartbeats, check-quorum."""
    config = raft.config
    if raft.commit_untold:
        tell_commit(raft)
    raft.heartbeat_elapsed += 1
    if raft.heartbeat_elapsed >= config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        broadcast_heartbeat(raft)
    if raft.transferring:
        raft.transfer_elapsed += 1
        if raft.transfer_elapsed >= config.election_ticks:
            raft.transferring = NOBODY
    if raft.elapsed >= config.election_ticks:
        raft.elapsed = 0
        check_quorum(raft)


def check_quorum(raft: RaftState) -> None:
    """Steps down when no quorum was heard since the last time."""
    heard = {replica for replica, progress in raft.progress.items() if progress.heard}
    heard.add(raft.replica)  # counted only if it is a voter
    if not quorum_reached(raft.configuration, heard):
        become_follower(raft, raft.term, NOBODY)
        return
    for progress in raft.progress.values():
        progress.recent_active = progress.heard
        progress.heard = False
    raft.note_commit(max(raft.log.commit, raft.term_start))


def hears_leader(raft: RaftState) -> bool:
    """Whether a leader was heard so recently that no election should disturb it."""
    return raft.leader != NOBODY and raft.elapsed < raft.config.election_ticks


def disturbs(raft: RaftState, vote: Vote) -> bool:
    """Whether a request for votes is to be ignored because the group has a leader."""
    return hears_leader(raft) and not vote.transfer and vote.sender != raft.leader


# --- campaigning ----------------------------------------------------------


def may_campaign(raft: RaftState) -> bool:
    """Whether this replica is a voter, or was in the newest configuration known
    to be committed while a newer one that lets it go is not."""
    replica, commit = raft.replica, raft.log.commit
    for index, configuration in reversed(raft.log.configurations):
        if replica in configuration.voters_all:
            return True
        if index <= commit:
            return False
    return False


def campaign(raft: RaftState) -> None:
    """Begins an election with a pre-vote; changes neither term nor vote."""
    if raft.role is Role.LEADER or not may_campaign(raft):
        return
    raft.role = Role.PRE_CANDIDATE
    raft.leader = NOBODY
    raft.votes = {raft.replica: True}
    log = raft.log
    for voter in _other_voters(raft):
        raft.send(
            PreVote(raft.shard, raft.replica, voter, raft.term + 1, log.last_index, log.last_term)
        )
    _count(raft)


def become_candidate(raft: RaftState, *, transfer: bool) -> None:
    """Takes the next term and votes for itself; the requests wait for the disk."""
    become_follower(raft, raft.term + 1, NOBODY)
    raft.role = Role.CANDIDATE
    raft.vote = raft.replica
    log = raft.log
    for voter in _other_voters(raft):
        raft.send(
            Vote(
                raft.shard, raft.replica, voter, raft.term, log.last_index, log.last_term, transfer
            )
        )


def _other_voters(raft: RaftState) -> list[int]:
    return sorted(raft.configuration.voters_all - {raft.replica})


def count_own_vote(raft: RaftState) -> None:
    """The disk has confirmed something: perhaps the own vote."""
    ledger = raft.ledger
    if ledger.durable_term == raft.term and ledger.durable_vote == raft.replica:
        raft.votes[raft.replica] = True
        _count(raft)


def _count(raft: RaftState) -> None:
    """Acts on how the (pre-)election stands."""
    result = vote_result(raft.configuration, raft.votes)
    if result is VoteResult.LOST:
        become_follower(raft, raft.term, NOBODY)
    elif result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            become_candidate(raft, transfer=False)
        else:
            become_leader(raft)


# --- answering ------------------------------------------------------------


def on_pre_vote(raft: RaftState, message: PreVote) -> None:
    """Says whether a vote would be given. Neither term nor timer changes."""
    granted = (
        message.term > raft.term
        and raft.log.is_up_to_date(message.last_index, message.last_term)
        and not (hears_leader(raft) and message.sender != raft.leader)
    )
    raft.send_after_save(
        PreVoteReply(
            raft.shard,
            raft.replica,
            message.sender,
            message.term if granted else raft.term,
            granted,
        )
    )


def on_pre_vote_reply(raft: RaftState, message: PreVoteReply) -> None:
    """Counts it, if it answers the present pre-election."""
    if raft.role is not Role.PRE_CANDIDATE:
        return
    if message.granted and message.term != raft.term + 1:
        return  # an answer to an earlier one
    raft.votes.setdefault(message.sender, message.granted)
    _count(raft)


def on_vote(raft: RaftState, message: Vote) -> None:
    """RequestVote in the present term: at most one vote, to a log not behind ours."""
    granted = (
        raft.vote == message.sender or (raft.vote == NOBODY and raft.leader == NOBODY)
    ) and raft.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        raft.vote = message.sender
        raft.elapsed = 0
    raft.send_after_save(VoteReply(raft.shard, raft.replica, message.sender, raft.term, granted))


def on_vote_reply(raft: RaftState, message: VoteReply) -> None:
    """Counts it, if this is a candidate (the term is the present one)."""
    if raft.role is Role.CANDIDATE:
        raft.votes.setdefault(message.sender, message.granted)
        _count(raft)


def on_timeout_now(raft: RaftState) -> None:
    """The leader hands over: campaign at once, without asking first."""
    if raft.role is not Role.LEADER and may_campaign(raft):
        become_candidate(raft, transfer=True)


# --- changing role --------------------------------------------------------


def become_follower(raft: RaftState, term: int, leader: int) -> None:
    """Follows ``leader`` (or nobody yet). Only a new term clears the vote."""
    if term < raft.term:
        raise InvariantBroken(f"term would go back from {raft.term} to {term}")
    if term > raft.term:
        raft.term = term
        raft.vote = NOBODY
    if raft.role is Role.LEADER:
        raft.outbox.reads_lost += raft.reads.drain()
    raft.role = Role.FOLLOWER
    raft.leader = leader
    raft.votes = {}
    raft.progress = {}
    raft.followers = []
    raft.transferring = NOBODY
    raft.replicate_due = raft.commit_untold = raft.quorum_changed = False
    raft.reset_election_timer()


def follow(raft: RaftState, leader: int) -> None:
    """A leader of the present term was heard."""
    if raft.role is not _FOLLOWER:
        if raft.role is _LEADER:
            raise InvariantBroken(f"replica {leader} leads term {raft.term} too")
        become_follower(raft, raft.term, leader)
    elif raft.leader != leader:
        if raft.leader != NOBODY:
            raise InvariantBroken(f"{raft.leader} and {leader} both lead term {raft.term}")
        raft.leader = leader
    raft.elapsed = 0


def become_leader(raft: RaftState) -> None:
    """Leads ``raft.term``; its first entry commits what earlier terms left behind."""
    if raft.ledger.durable_term != raft.term:
        raise InvariantBroken(f"elected in term {raft.term} before that term was durable")
    raft.role = Role.LEADER
    raft.leader = raft.replica
    raft.votes = {}
    raft.elapsed = raft.heartbeat_elapsed = 0
    raft.term_start = raft.log.last_index + 1
    raft.watch_members(track({}, raft.configuration, raft.log.last_index + 1))
    for progress in raft.followers:
        progress.recent_active = progress.heard = False
    own = raft.progress.get(raft.replica)
    if own is not None:
        own.note_match(raft.ledger.durable_index)
        own.become_replicate()
    append_own(raft, EntryKind.NOOP, b"")
    raft.note_commit(raft.term_start)  # what earlier leaders have committed is below


def transfer(raft: RaftState, target: int) -> None:
    """Begins to hand leadership to ``target``, an incoming voter.

    Raises ProposalRefused. Ends when the target leads, or after one election timeout.
    """
    if raft.role is not Role.LEADER:
        raise ProposalRefused(Refusal.NOT_LEADER)
    if target == raft.replica or target not in raft.configuration.voters:
        raise ProposalRefused(Refusal.ILLEGAL, f"replica {target} is not another voter")
    raft.transferring = target
    raft.transfer_elapsed = 0
    hand_over_if_caught_up(raft)


def hand_over_if_caught_up(raft: RaftState) -> None:
    """Sends TimeoutNow once the transfer's target has the whole log."""
    target = raft.transferring
    if raft.progress[target].match == raft.log.last_index:
        raft.send(TimeoutNow(raft.shard, raft.replica, target, raft.term))
