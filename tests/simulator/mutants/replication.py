"""Planted bugs: what a follower does to its log, and what the leader counts."""

from __future__ import annotations

from kritad.raft import dispatch, election, follower, ledger, membership, quorum, state
from kritad.raft import replication as product
from kritad.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply, Message
from kritad.raft.progress import Progress
from kritad.raft.types import Entry, EntryKind
from tests.simulator.mutants.mutant import Mutant

_append_own = product.append_own
_on_append_reply = product.on_append_reply
_acknowledge = follower._acknowledge
_on_append = follower.on_append
_settle_term = dispatch._settle_term


def _commit_by_counting(raft: state.RaftState) -> bool:
    """Whatever a majority has is committed, of whichever term it is."""
    index = quorum.quorum_index(raft.configuration, lambda voter: raft.progress[voter].match)
    if index <= raft.log.commit:
        return False
    raft.log.commit_to(index)
    raft.commit_untold = True
    return True


def _truncate_always(raft: state.RaftState, entries: list[Entry]) -> list[Entry]:
    """An Append replaces all that lies behind its beginning, also what is the same."""
    first = entries[0].index
    if first <= raft.log.last_index:
        raft.log.truncate(first)
        raft.ledger.forget_from(first)
    return entries


def _never_truncate(raft: state.RaftState, entries: list[Entry]) -> list[Entry]:
    """Entries that the log has are taken for the same, whatever their terms."""
    return [entry for entry in entries if entry.index > raft.log.last_index]


def _forget_nothing(_book: ledger.Ledger, _index: int) -> None:
    """A save that is confirmed late speaks for entries that have replaced its own."""


def _acknowledge_all(raft: state.RaftState, leader: int, _index: int, read_sequence: int) -> None:
    """An acknowledgement names the end of the follower's log, not of what came."""
    _acknowledge(raft, leader, raft.log.last_index, read_sequence)


def _commit_what_is_here(raft: state.RaftState, message: Append) -> None:
    """The leader's commit index is cut to the end of the log, not of what the leader
    is known to share."""
    _on_append(raft, message)
    commit = min(message.commit, raft.log.last_index)
    if raft.log.term(message.prev_index) == message.prev_term and commit > raft.log.commit:
        raft.log.commit_to(commit)


def _tell_the_whole_commit(raft: state.RaftState, progress: Progress) -> None:
    """A heartbeat carries the leader's commit index, whatever the follower has."""
    raft.send(
        Heartbeat(
            raft.shard,
            raft.replica,
            progress.replica,
            raft.term,
            raft.log.commit,
            raft.reads.sequence,
        )
    )


def _commit_up_to_the_end(raft: state.RaftState, message: Heartbeat) -> None:
    """A heartbeat's commit index is cut to the end of the own log."""
    raft.log.commit_to(min(message.commit, raft.log.last_index))
    raft.send(
        HeartbeatReply(raft.shard, raft.replica, message.sender, raft.term, message.read_sequence)
    )


def _count_own_log_at_once(raft: state.RaftState, kind: EntryKind, data: bytes) -> int:
    """The leader holds what it has appended, before its disk says so."""
    index = _append_own(raft, kind, data)
    own = raft.progress.get(raft.replica)
    if own is not None:
        own.note_match(index)
        raft.quorum_changed = True
    return index


def _count_old_acknowledgements(
    raft: state.RaftState, kind: type[Message], message: Message
) -> bool:
    """What a follower said in an earlier term counts, whatever happened to its log since."""
    if message.term < raft.term and kind is AppendReply:
        return True
    return _settle_term(raft, kind, message)


def _take_refusals_for_consent(
    raft: state.RaftState, progress: Progress, message: AppendReply
) -> bool:
    """A refused probe moves the follower's match to the hint that came with it."""
    if not message.accepted and message.hint_index > progress.match:
        progress.note_match(min(message.hint_index, raft.log.last_index))
    return _on_append_reply(raft, progress, message)


MUTANTS = (
    Mutant(
        name="old-terms-committed-by-counting",
        rule="only an entry of the own term is committed by counting",
        source="thesis 3.6.2 (Figure 3.7), raft.md B9",
        hint="invariant: commit advances to an entry of the own term; directed: Figure 3.7",
        patches=((product, "maybe_commit", _commit_by_counting),),
    ),
    Mutant(
        name="truncates-what-matches",
        rule="a log is cut at a conflict only",
        source="raft.md B10",
        hint="invariant: committed on a quorum, truncation above the commit index; needs repeated "
        "or reordered Appends",
        patches=((follower, "_drop_known", _truncate_always),),
    ),
    Mutant(
        name="conflicts-are-kept",
        rule="what conflicts with the leader's log goes",
        source="thesis Figure 3.1",
        hint="invariant: log matching; state hash",
        patches=((follower, "_drop_known", _never_truncate),),
    ),
    Mutant(
        name="late-save-attests-replaced-entries",
        rule="a confirmed save speaks of the entries it carried only",
        source="raft.md B31",
        hint="invariant: committed on a quorum's disks; needs a slow save and a change of leader",
        patches=((ledger.Ledger, "forget_from", _forget_nothing),),
    ),
    Mutant(
        name="acknowledges-the-whole-log",
        rule="an acknowledgement covers what was compared with the leader's log",
        source="thesis Figure 3.1",
        hint="invariant: committed on a quorum; a leader that hears of more than it has; needs a "
        "former leader with a tail of its own",
        patches=((follower, "_acknowledge", _acknowledge_all),),
    ),
    Mutant(
        name="commits-an-unverified-tail",
        rule="commit = min(the leader's, the last new entry)",
        source="thesis Figure 3.1",
        hint="invariant: a committed entry never changes; state hash; needs a former leader with a "
        "tail of its own",
        patches=((follower, "on_append", _commit_what_is_here),),
    ),
    Mutant(
        name="heartbeat-commits-beyond-the-match",
        rule="a heartbeat's commit index is not above what the follower is known to hold",
        source="raft.md 2.6, B26 (tocommit out of range)",
        hint="invariant: a committed entry never changes; state hash",
        patches=(
            (product, "send_heartbeat", _tell_the_whole_commit),
            (membership, "send_heartbeat", _tell_the_whole_commit),
            (follower, "on_heartbeat", _commit_up_to_the_end),
        ),
    ),
    Mutant(
        name="leader-counts-its-undurable-log",
        rule="a leader's own log counts as far as it is durable",
        source="thesis 10.2.1, raft.md B30 and B4 (etcd#14370)",
        hint="invariant: committed on a quorum's disks; needs a slow or lost save of the leader",
        patches=(
            (product, "append_own", _count_own_log_at_once),
            (election, "append_own", _count_own_log_at_once),
            (membership, "append_own", _count_own_log_at_once),
        ),
    ),
    Mutant(
        name="counts-old-acknowledgements",
        rule="an acknowledgement is worth its own term only",
        source="raft.md B31",
        hint="invariant: committed on a quorum; needs a leader, another, the first again, delays",
        patches=((dispatch, "_settle_term", _count_old_acknowledgements),),
    ),
    Mutant(
        name="refusal-taken-for-a-match",
        rule="a hint says where logs may agree, not that they do",
        source="thesis 3.5",
        hint="invariant: committed on a quorum; log matching",
        patches=((product, "on_append_reply", _take_refusals_for_consent),),
    ),
)
