"""How the leader gets its log to the followers, and when it is committed.

Rules:
* A leader sends before its own disk has answered (thesis 10.2.1), but counts
  its own log only as far as it is durable.
* Only an entry of the leader's own term is committed by counting; all before it
  are committed along (thesis 3.6.2, Figure 3.7).
* All new entries leave in one Append per follower when ``ready()`` is asked for.

Commit news have no message of their own: the next Append carries them, else a
heartbeat at the next tick. That costs a follower a tick of staleness and saves
an answer per follower and commit.
"""

from __future__ import annotations

from kritad.raft.errors import InvariantBroken
from kritad.raft.log import UNKNOWN_TERM
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
)
from kritad.raft.progress import Progress, ProgressState
from kritad.raft.quorum import quorum_index
from kritad.raft.ready import Fetch
from kritad.raft.state import RaftState
from kritad.raft.types import Entry, EntryKind, Role

# Looked up once: an enum's member costs 0.1 µs each time.
_PROBE, _REPLICATE = ProgressState.PROBE, ProgressState.REPLICATE
_SNAPSHOT, _LEADER = ProgressState.SNAPSHOT, Role.LEADER

# --- the leader's own log -------------------------------------------------


def append_own(raft: RaftState, kind: EntryKind, data: bytes) -> int:
    """Appends one entry of the leader's term; its index."""
    log = raft.log
    index = log.last_index + 1
    log.append([Entry(index, raft.term, kind, data)])
    raft.replicate_due = True
    return index


def maybe_commit(raft: RaftState) -> bool:
    """Commits what a quorum has, if it ends in an entry of the own term."""
    progress, log = raft.progress, raft.log
    index = quorum_index(raft.configuration, lambda replica: progress[replica].match)
    if index <= log.commit or log.term(index) != raft.term:
        return False
    log.commit_to(index)
    raft.commit_untold = True
    return True


# --- sending --------------------------------------------------------------


def replicate_all(raft: RaftState) -> None:
    """Sends every follower what its window allows."""
    raft.replicate_due = False
    for progress in raft.followers:
        replicate(raft, progress)


def replicate(raft: RaftState, progress: Progress) -> None:
    """Sends one follower what it lacks, as far as its state and window allow."""
    log, config = raft.log, raft.config
    while _may_send(raft, progress):
        first = progress.next
        if log.term(first - 1) == UNKNOWN_TERM:
            _offer_snapshot(raft, progress)
            return
        entries: list[Entry] = []
        if first <= log.last_index and not progress.window_full(config):
            if first >= log.first_held:
                entries = log.batch(first, config.append_bytes_max)
            elif progress.state is _REPLICATE:
                _fetch(raft, progress)
                return
            # else: probe with an empty Append; the disk is read once agreement is known
        _send_append(raft, progress, entries)


def _may_send(raft: RaftState, progress: Progress) -> bool:
    if progress.state is _REPLICATE:
        if progress.fetch is not None:
            return False
        return progress.empty_due or (
            progress.next <= raft.log.last_index and not progress.window_full(raft.config)
        )
    return progress.state is _PROBE and not progress.probe_sent


def _send_append(raft: RaftState, progress: Progress, entries: list[Entry]) -> None:
    log = raft.log
    before = progress.next - 1
    raft.outbox.messages.append(
        Append(
            raft.shard,
            raft.replica,
            progress.replica,
            raft.term,
            before,
            log.term(before),
            log.commit,
            raft.reads.sequence,
            entries,
        )
    )
    progress.empty_due = False
    progress.append_sent = True
    progress.commit_sent = max(progress.commit_sent, min(log.commit, before + len(entries)))
    if progress.state is _PROBE:
        progress.probe_sent = True
    elif entries:
        last = entries[-1].index
        progress.sent(last, sum([len(entry.data) for entry in entries]))


def _offer_snapshot(raft: RaftState, progress: Progress) -> None:
    """Asks the host to stream a snapshot, unless nobody answers over there."""
    if progress.recent_active:
        progress.become_snapshot()
        raft.outbox.snapshots.append(progress.replica)
    else:
        progress.become_probe(progress.next)
        progress.probe_sent = True  # until a heartbeat is answered


def _fetch(raft: RaftState, progress: Progress) -> None:
    """Asks the storage for entries that left the window."""
    progress.fetch = Fetch(
        progress.replica,
        raft.term,
        progress.next,
        raft.log.first_held - 1,
        raft.config.append_bytes_max,
    )
    raft.outbox.fetches.append(progress.fetch)


def on_fetched(raft: RaftState, fetch: Fetch, entries: list[Entry]) -> None:
    """Sends what the storage has read, if it is still wanted and still fits.

    Role, term and follower may all have changed since (raft.md B31), and what
    came from the disk is compared with the log's own terms (raft.md B38).
    """
    progress = raft.progress.get(fetch.recipient)
    if raft.role is not _LEADER or fetch.term != raft.term or progress is None:
        return
    if progress.fetch != fetch:
        return
    progress.fetch = None
    raft.replicate_due = True
    if progress.next != fetch.first:
        return
    log = raft.log
    indexes = range(fetch.first, fetch.first + len(entries))
    fits = [(entry.index, entry.term) for entry in entries] == [
        (index, log.term(index)) for index in indexes
    ]
    if not entries or not fits or log.term(fetch.first - 1) == UNKNOWN_TERM:
        progress.become_probe(progress.next)
        progress.probe_sent = log.term(progress.next - 1) != UNKNOWN_TERM
        return
    _send_append(raft, progress, entries)


def send_heartbeat(raft: RaftState, progress: Progress) -> None:
    """Tells one follower that the leader lives, and what of *its* log is committed."""
    commit = min(progress.match, raft.log.commit)
    progress.commit_sent = max(progress.commit_sent, commit)
    raft.send(
        Heartbeat(
            raft.shard,
            raft.replica,
            progress.replica,
            raft.term,
            commit,
            raft.reads.sequence,
            commit < raft.log.commit,
        )
    )


def broadcast_heartbeat(raft: RaftState) -> None:
    """The timer's heartbeat: also finds followers that stopped moving."""
    for progress in raft.followers:
        stuck = progress.match == progress.match_noted
        progress.poke_due = progress.state is _PROBE or stuck
        progress.match_noted = progress.match
        send_heartbeat(raft, progress)


def tell_commit(raft: RaftState) -> None:
    """A tick after commits: heartbeats to those whom no Append tells."""
    raft.commit_untold = False
    for progress in raft.followers:
        if progress.append_sent:
            progress.append_sent = False
            raft.commit_untold = True  # look again at the next tick
        elif min(progress.match, raft.log.commit) > progress.commit_sent:
            send_heartbeat(raft, progress)


def begin_read_round(raft: RaftState) -> None:
    """One round of heartbeats to the voters for all reads that came since the last."""
    raft.reads.begin_round(raft.log.commit)
    voters = raft.configuration.voters_all
    for progress in raft.followers:
        if progress.replica in voters:
            send_heartbeat(raft, progress)


def confirm_reads(raft: RaftState) -> None:
    """Hands out the reads whose round a quorum has echoed."""
    reads, progress, own = raft.reads, raft.progress, raft.replica
    if reads.unconfirmed:
        raft.outbox.reads += reads.confirm(
            raft.configuration,
            lambda voter: reads.sequence if voter == own else progress[voter].read_sequence,
        )


# --- the answers ----------------------------------------------------------


def on_append_reply(raft: RaftState, progress: Progress, message: AppendReply) -> bool:
    """A follower has, or lacks, what an Append built upon; whether its match moved."""
    if not message.accepted:
        _on_refused(raft, progress, message)
        return False
    log = raft.log
    if message.index > log.last_index:
        raise InvariantBroken(
            f"replica {message.sender} has {message.index}, the leader ends at {log.last_index}"
        )
    moved = progress.note_match(message.index)
    state = progress.state
    if state is _PROBE:
        if message.index >= progress.match:
            progress.become_replicate()
            raft.replicate_due = True
    elif state is _SNAPSHOT and progress.match >= log.snapshot.index:
        # However it came by it: a snapshot of anybody's is adequate (raft.md B34).
        progress.become_replicate()
        raft.replicate_due = True
    if progress.next <= log.last_index:
        raft.replicate_due = True
    return moved


def _on_refused(raft: RaftState, progress: Progress, message: AppendReply) -> None:
    """Steps back to where the logs may agree; old refusals change nothing.

    What was acknowledged cannot be refused: such a refusal is old, or that replica
    has lost its disk, which the next heartbeat's commit index makes it notice.
    """
    if message.index <= progress.match:
        return
    if progress.state is _REPLICATE:
        progress.become_probe(progress.match + 1)
        raft.replicate_due = True
    elif progress.state is _PROBE and message.index == progress.next - 1:
        guess = raft.log.guess(message.hint_index, message.hint_term)
        progress.become_probe(min(message.index, guess + 1))
        raft.replicate_due = True


def on_heartbeat_reply(raft: RaftState, progress: Progress) -> None:
    """Contact. One answer per timer's heartbeat gets a stuck follower moving."""
    if not progress.poke_due:
        return
    progress.poke_due = False
    probing = progress.state is _PROBE
    if probing or progress.match < raft.log.last_index:
        progress.probe_sent = False
        progress.empty_due = not probing
        raft.replicate_due = True


def on_snapshot_sent(raft: RaftState, progress: Progress, ok: bool) -> None:
    """A snapshot's transfer has ended. After success the follower is probed right
    behind what was compacted; after failure the next heartbeat's answer begins anew."""
    if progress.state is not _SNAPSHOT:
        return
    progress.become_probe(raft.log.snapshot.index + 1 if ok else progress.match + 1)
    progress.probe_sent = not ok
    raft.replicate_due = True
