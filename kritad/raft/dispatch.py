"""From a message to the rule it concerns; terms are settled first.

Rules (thesis 3.3, 3.4, 4.2.3):
* A higher term makes a follower, whatever the message; except that a pre-vote
  has no term of its own, and that a vote that disturbs a healthy group is as if
  it had never arrived.
* A message of a lower term changes nothing; its sender learns the present one.
"""

from __future__ import annotations

from kritad.raft import election, follower, membership, replication
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    SnapshotInstalled,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kritad.raft.progress import Progress
from kritad.raft.state import RaftState
from kritad.raft.types import NOBODY


def step(raft: RaftState, message: Message) -> None:
    """Settles the term, then does what the message asks. The frequent ones first."""
    kind = type(message)
    if message.term != raft.term and not _settle_term(raft, kind, message):
        return
    if isinstance(message, Append):
        election.follow(raft, message.sender)
        follower.on_append(raft, message)
    elif isinstance(message, AppendReply):
        progress = _heard(raft, message.sender, message.read_sequence)
        if progress is not None and replication.on_append_reply(raft, progress, message):
            advance(raft)
            if raft.transferring == message.sender:
                election.hand_over_if_caught_up(raft)
    elif isinstance(message, Heartbeat):
        election.follow(raft, message.sender)
        follower.on_heartbeat(raft, message)
    elif isinstance(message, HeartbeatReply):
        progress = _heard(raft, message.sender, message.read_sequence)
        if progress is not None:
            replication.on_heartbeat_reply(raft, progress)
    else:
        _step_rare(raft, message)


def _step_rare(raft: RaftState, message: Message) -> None:
    if isinstance(message, PreVote):
        election.on_pre_vote(raft, message)
    elif isinstance(message, PreVoteReply):
        election.on_pre_vote_reply(raft, message)
    elif isinstance(message, Vote):
        election.on_vote(raft, message)
    elif isinstance(message, VoteReply):
        election.on_vote_reply(raft, message)
    elif isinstance(message, SnapshotInstalled):
        follower.on_snapshot_installed(raft, message)
    elif isinstance(message, TimeoutNow):
        election.on_timeout_now(raft)


def _settle_term(raft: RaftState, kind: type[Message], message: Message) -> bool:
    """Deals with a term that is not the own one; whether to go on with the message."""
    if kind is PreVote:
        return True  # asks about a term, has none
    if message.term < raft.term:
        if kind is SnapshotInstalled:
            return True  # what was committed stays committed
        follower.answer_stale(raft, message)
        return False
    if isinstance(message, PreVoteReply) and message.granted:
        return True  # the term asked about
    if isinstance(message, Vote) and election.disturbs(raft, message):
        return False
    election.become_follower(raft, message.term, NOBODY)
    return True


def _heard(raft: RaftState, replica: int, read_sequence: int) -> Progress | None:
    """Notes that a follower has answered; None if it is none of ours."""
    progress = raft.progress.get(replica)
    if progress is not None:
        progress.heard = progress.recent_active = True
        if progress.read_sequence < read_sequence <= raft.reads.sequence:
            progress.read_sequence = read_sequence
            replication.confirm_reads(raft)
    return progress


def advance(raft: RaftState) -> None:
    """Counts the logs of the members, and does what a higher commit index asks for."""
    if replication.maybe_commit(raft):
        membership.after_commit(raft)
