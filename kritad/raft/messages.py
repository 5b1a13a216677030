"""One class per Raft RPC. Every one names shard, sender, recipient and term.

``sender`` and ``recipient`` are replica ids, never node ids: a message for a
replica that was removed reaches nobody (raft.md B27).

Which of them may leave before the sender's disk has answered is decided by
``Ready``, not here.

Sources: Ongaro's thesis 3.3 (AppendEntries), 3.4 (RequestVote), 3.10
(TimeoutNow), 6.4 (read index), 9.6 (PreVote).
"""

from __future__ import annotations

import attrs

from kritad.raft.types import Entry, SnapshotMeta


@attrs.define
class Message:
    """What all messages carry."""

    shard: int
    sender: int
    recipient: int
    term: int


@attrs.define
class PreVote(Message):
    """ "Would you vote for me in ``term``?" Changes nobody's term."""

    last_index: int
    last_term: int


@attrs.define
class PreVoteReply(Message):
    """``term`` is the asked one when granted, the voter's own when not."""

    granted: bool


@attrs.define
class Vote(Message):
    """RequestVote. ``transfer``: the leader asked for it (TimeoutNow), so a
    follower grants it although it has heard from that leader a moment ago."""

    last_index: int
    last_term: int
    transfer: bool


@attrs.define
class VoteReply(Message):
    """Answer to Vote."""

    granted: bool


@attrs.define
class Append(Message):
    """AppendEntries. ``entries`` begin at ``prev_index + 1``; may be empty."""

    prev_index: int
    prev_term: int
    commit: int
    read_sequence: int  # the leader's read counter; echoed, see raft/reads.py
    entries: list[Entry]


@attrs.define
class AppendReply(Message):
    """Answer to Append (and to SnapshotInstalled, accepted at its index).

    Accepted: everything up to ``index`` equals the leader's log and is durable.
    Refused: ``index`` is the refused prev_index, ``hint_index``/``hint_term``
    the follower's best guess of where the logs may still agree.
    """

    accepted: bool
    index: int
    hint_index: int
    hint_term: int
    read_sequence: int


@attrs.define
class Heartbeat(Message):
    """``commit`` is never above what the leader knows the follower to hold."""

    commit: int
    read_sequence: int
    behind: bool = False  # more is committed than ``commit`` says


@attrs.define
class HeartbeatReply(Message):
    """Echoes the read counter; proves contact for CheckQuorum."""

    read_sequence: int


@attrs.define
class SnapshotInstalled(Message):
    """Stepped into a follower's core by its own host, once every row of the
    leader's snapshot is durable in ``snapshot.generation``. ``sender`` is the
    leader that sent the rows, ``term`` that leader's term."""

    snapshot: SnapshotMeta


@attrs.define
class TimeoutNow(Message):
    """Leadership transfer: campaign at once."""
