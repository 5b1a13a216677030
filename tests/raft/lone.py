"""One core without a cluster: the test plays its peers and its disk."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from kritad.raft.core import Raft, RaftConfig
from kritad.raft.messages import (
    Append,
    AppendReply,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
)
from kritad.raft.ready import Ready
from kritad.raft.types import Boot, Configuration, Entry, HardState, Role, SnapshotMeta
from tests.raft.cluster import SHARD, command

Kind = TypeVar("Kind", bound=Message)


def log_of(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """Commands of these terms, one after the other."""
    return [command(first + i, term, b"%d.%d" % (first + i, term)) for i, term in enumerate(terms)]


def boot_of(
    terms: Sequence[int] = (),
    *,
    term: int = 0,
    vote: int = 0,
    commit: int = 0,
    voters: Iterable[int] = (1, 2, 3),
    snapshot: SnapshotMeta | None = None,
    configurations: Sequence[tuple[int, Configuration]] = (),
) -> Boot:
    """What a disk with this log says."""
    configuration = Configuration(1, frozenset(voters), nodes={v: v for v in sorted(voters)})
    base = snapshot or SnapshotMeta(configuration=configuration)
    entries = log_of(terms, base.index + 1)
    runs = [
        (entry.index, entry.term)
        for before, entry in zip([None, *entries], entries, strict=False)
        if before is None or before.term != entry.term
    ]
    return Boot(
        hard_state=HardState(max([term, *terms]), vote, commit),
        snapshot=base,
        last_index=base.index + len(entries),
        terms=runs,
        configurations=list(configurations),
        entries=entries,
        applied_index=base.index,
    )


class Lone:
    """A core whose messages and saves are looked at by hand."""

    def __init__(self, boot: Boot, replica: int = 1, **settings: int) -> None:
        chosen = {"election_ticks": 10, "heartbeat_ticks": 2, **settings}
        config = RaftConfig(SHARD, replica, strict=True, **chosen)
        self.raft = Raft(config, boot, random.Random(1))
        self.sent: list[Message] = []  # what has left, in order
        self.committed: list[Entry] = []

    def ready(self) -> Ready:
        """The next Ready, which must not be None; nothing of it is done."""
        ready = self.raft.ready()
        assert ready is not None, "nothing to do"
        return ready

    def flush(self) -> list[Message]:
        """Does and syncs everything; what left meanwhile."""
        before = len(self.sent)
        while (ready := self.raft.ready()) is not None:
            self.sent += ready.messages
            if ready.save is not None:
                self.raft.saved(ready.save.sequence)
                self.sent += ready.messages_after_save
            self.committed += ready.committed
            if ready.committed:
                self.raft.applied(ready.committed[-1].index)
            self.raft.check_invariants()
        return self.sent[before:]

    def step(self, message: Message) -> list[Message]:
        """One message, with all its consequences."""
        self.raft.step(message)
        return self.flush()

    def tick(self, count: int = 1) -> list[Message]:
        before = len(self.sent)
        for _ in range(count):
            self.raft.tick()
            self.flush()
        return self.sent[before:]

    def lead(self, *voters: int) -> Raft:
        """Wins an election with the votes of ``voters``."""
        self.raft.campaign()
        self.flush()
        for voter in voters:
            self.step(PreVoteReply(SHARD, voter, self.raft.replica, self.raft.term + 1, True))
        for voter in voters:
            self.step(VoteReply(SHARD, voter, self.raft.replica, self.raft.term, True))
        assert self.raft.role is Role.LEADER, self.raft
        return self.raft

    def ack(self, sender: int, index: int, *, read: int = 0) -> list[Message]:
        """``sender`` acknowledges everything up to ``index``."""
        raft = self.raft
        return self.step(
            AppendReply(SHARD, sender, raft.replica, raft.term, True, index, 0, 0, read)
        )

    def refuse(self, sender: int, index: int, hint: int, hint_term: int) -> list[Message]:
        raft = self.raft
        return self.step(
            AppendReply(SHARD, sender, raft.replica, raft.term, False, index, hint, hint_term, 0)
        )

    def beat_back(self, sender: int, *, read: int = 0) -> list[Message]:
        """``sender`` answers a heartbeat."""
        raft = self.raft
        return self.step(HeartbeatReply(SHARD, sender, raft.replica, raft.term, read))

    def append(
        self,
        leader: int,
        term: int,
        before: tuple[int, int],
        terms: Sequence[int] = (),
        commit: int = 0,
    ) -> Append:
        """An Append of commands with ``terms`` behind ``before`` = (index, term)."""
        entries = log_of(terms, before[0] + 1)
        return Append(SHARD, leader, self.raft.replica, term, *before, commit, 0, entries)

    def vote(
        self, sender: int, term: int, last: tuple[int, int], *, transfer: bool = False
    ) -> Vote:
        return Vote(SHARD, sender, self.raft.replica, term, *last, transfer)

    def pre_vote(self, sender: int, term: int, last: tuple[int, int]) -> PreVote:
        return PreVote(SHARD, sender, self.raft.replica, term, *last)


def only(messages: Iterable[Message], kind: type[Kind]) -> list[Kind]:
    """Those of one kind."""
    return [message for message in messages if isinstance(message, kind)]


def one(messages: Iterable[Message], kind: type[Kind]) -> Kind:
    """The only one of one kind."""
    (found,) = only(messages, kind)
    return found
