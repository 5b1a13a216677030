"""What a follower does with its leader's messages.

Rules:
* The log is truncated on a real conflict only, never because an Append is old,
  short or repeated (raft.md B10), and never at or below the commit index.
* Whatever attests something to the leader waits for the save that holds it.

Who leads has been settled before anything here is called (dispatch.py).
"""

from __future__ import annotations

from kritad.raft.errors import InvariantBroken, LogLost
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    SnapshotInstalled,
    Vote,
    VoteReply,
)
from kritad.raft.state import RaftState
from kritad.raft.types import NOBODY, Entry, Role


def on_append(raft: RaftState, message: Append) -> None:
    """AppendEntries of the present term (thesis Figure 3.1)."""
    log, entries, before = raft.log, message.entries, message.prev_index
    if [entry.index for entry in entries] != list(range(before + 1, before + 1 + len(entries))):
        return  # malformed: nothing it says can be trusted
    if before < log.commit:
        entries = _behind_commit(raft, message)
        before = log.commit
    elif log.term(before) != message.prev_term:
        answer_refused(raft, message.sender, message.read_sequence, message)
        return
    last = before + len(entries)
    if before < log.last_index and entries:
        entries = _drop_known(raft, entries)
    if entries:
        log.append(entries)
    log.commit_to(min(message.commit, last))
    _note_told(raft, message.commit)
    _acknowledge(raft, message.sender, last, message.read_sequence)


def _behind_commit(raft: RaftState, message: Append) -> list[Entry]:
    """What an Append that begins below the commit index has above it. What is
    committed is the same in all logs (it may be compacted here), so it is skipped."""
    log = raft.log
    known = log.commit - message.prev_index
    if len(message.entries) >= known and message.entries[known - 1].term != log.term(log.commit):
        raise InvariantBroken(
            f"committed entry {log.commit}@{log.term(log.commit)} is of term "
            f"{message.entries[known - 1].term} in the log of leader {message.sender}"
        )
    return message.entries[known:]


def _drop_known(raft: RaftState, entries: list[Entry]) -> list[Entry]:
    """The entries that the log lacks; the log loses what conflicts with the first."""
    log = raft.log
    for position, entry in enumerate(entries):
        if entry.index > log.last_index:
            return entries[position:]
        if log.term(entry.index) != entry.term:
            log.truncate(entry.index)
            raft.ledger.forget_from(entry.index)
            return entries[position:]
    return []


def _acknowledge(raft: RaftState, leader: int, index: int, read_sequence: int) -> None:
    """Accepts up to ``index`` once all of it is durable. Of several answers that
    wait for the same save only the largest is sent."""
    waiting = raft.outbox.messages_after_save
    if waiting:
        last = waiting[-1]
        if (
            isinstance(last, AppendReply)
            and last.accepted
            and last.recipient == leader
            and last.term == raft.term
        ):
            last.index = max(last.index, index)
            last.read_sequence = max(last.read_sequence, read_sequence)
            return
    raft.send_after_save(
        AppendReply(raft.shard, raft.replica, leader, raft.term, True, index, 0, 0, read_sequence)
    )


def answer_refused(
    raft: RaftState, leader: int, read_sequence: int, message: Append | None = None
) -> None:
    """Refuses ``message``, with the best guess where the logs may agree. Without
    one: tells the leader of an older term that there is a newer."""
    index = hint_index = hint_term = 0
    if message is not None:
        log = raft.log
        index = message.prev_index
        # Up to the commit index all logs agree: a guess below it would be wasted.
        hint_index = max(log.guess(index, message.prev_term), log.commit)
        hint_term = log.term(hint_index)
    raft.send_after_save(
        AppendReply(
            raft.shard,
            raft.replica,
            leader,
            raft.term,
            False,
            index,
            hint_index,
            hint_term,
            read_sequence,
        )
    )


def on_heartbeat(raft: RaftState, message: Heartbeat) -> None:
    """Contact and commit news. A commit index behind the log's end means that
    this replica has lost entries it had acknowledged: it must not go on."""
    log = raft.log
    if message.commit > log.last_index:
        raise LogLost(f"commit index {message.commit}, the log ends at {log.last_index}")
    log.commit_to(message.commit)
    if not message.behind:
        _note_told(raft, message.commit)
    raft.send(
        HeartbeatReply(raft.shard, raft.replica, message.sender, raft.term, message.read_sequence)
    )


def _note_told(raft: RaftState, commit: int) -> None:
    """The leader says that no more than this is committed. It does not know that before it has
    committed an entry of its own term: what was acknowledged of earlier ones may be above."""
    if raft.log.term(commit) == raft.term:
        raft.note_commit(commit)


def on_snapshot_installed(raft: RaftState, message: SnapshotInstalled) -> None:
    """The own host holds every row of a committed state.

    Its term does not matter: what was committed once stays so. A snapshot that
    the log has overtaken, or whose last entry the log has, is not needed; the
    leader is told what this replica has instead.
    """
    log, snapshot = raft.log, message.snapshot
    if raft.role is Role.LEADER:
        return
    if snapshot.index > log.commit:
        if log.term(snapshot.index) == snapshot.term:
            log.commit_to(snapshot.index)
        else:
            log.restart(snapshot)
            raft.ledger.forget_from(snapshot.index)
    leader = raft.leader if raft.leader != NOBODY else message.sender
    _acknowledge(raft, leader, log.commit, 0)


def answer_stale(raft: RaftState, message: Message) -> None:
    """A message of an older term: whoever sent it learns the newer one.

    An answer to an old leader matters: after an election that nobody won, it is
    the only thing that gets a replica with the highest term back into the group,
    since its pre-votes are refused by those who hear that leader.
    """
    if isinstance(message, Append | Heartbeat):
        answer_refused(raft, message.sender, 0)
    elif isinstance(message, Vote):
        raft.send_after_save(VoteReply(raft.shard, raft.replica, message.sender, raft.term, False))
