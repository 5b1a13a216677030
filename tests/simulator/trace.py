"""A cluster that writes down what happens, one line for each thing.

::

    1 -> 2 Vote t2 last=3@1          left replica 1; in flight now
    1 => 2 Vote t2 last=3@1          arrived at replica 2
    1 x- 2 Vote t2 last=3@1 (cut)    never arrives
    2 is a follower in term 2, voted 1
    2 saves #3: term=2 vote=1 cut=4 [4@2 5@2=a]   handed to the disk, not durable
    2 durable #3                     and now it is
    2 uses v2 (1 2 4)&&(1 2 3)       configuration in force
    2 commits 5@2                    its commit index rose
    2 applies 4@2 5@2=a
    1 answers read 7 at 5            or: 1 loses read 7

``5@2`` is an entry by index and term; ``=a`` its command, ``=v2`` the version of
the configuration it is, nothing for an empty one. Every line says something that
a host, a disk or a peer could see; nothing depends on chance or on hashes, for
replica *r* always waits ``election_ticks + r`` ticks before it campaigns.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import attrs

from kritad.raft.configuration import decode_configuration
from kritad.raft.core import Raft
from kritad.raft.log import Log
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    SnapshotInstalled,
    Vote,
    VoteReply,
)
from kritad.raft.ready import Ready
from kritad.raft.types import NOBODY, Configuration, Entry, EntryKind, HardState, Role, Save
from tests.raft.cluster import Cluster, Node, command

ROLES = {
    Role.FOLLOWER: "follower",
    Role.PRE_CANDIDATE: "pre-candidate",
    Role.CANDIDATE: "candidate",
    Role.LEADER: "leader",
}


class Patience(random.Random):
    """In place of chance: how long replica ``replica`` waits can be told beforehand."""

    def __init__(self, replica: int) -> None:
        super().__init__(replica)
        self._replica = replica

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """``start`` and as many more as the replica's id says, below ``stop``."""
        assert step == 1
        assert stop is None or start + self._replica < stop, "too many replicas for the timeout"
        return start + self._replica


@attrs.frozen
class Seen:
    """What was last written about a replica."""

    leads: bool = False
    who: str = ""
    commit: int = 0
    configuration: str = ""
    transferring: int = NOBODY


class TracedCluster(Cluster):
    """See the module's docstring. ``take`` hands out the lines since the last time."""

    def __init__(self, size: int, *, extra: int = 0, **settings: int) -> None:
        self._lines: list[str] = []
        self._seen: dict[int, Seen] = {}
        super().__init__(size, extra=extra, **settings)

    def add_node(self, replica: int, configuration: Configuration | None = None) -> Node:
        """As Cluster's."""
        node = super().add_node(replica, configuration)
        self._awake(node)
        return node

    def _awake(self, node: Node) -> None:
        """A new core: nothing has been written about it, and it knows no chance."""
        node.raft.random = Patience(node.replica)
        node.raft.reset_election_timer()
        self._seen[node.replica] = _seen(node.raft)

    def take(self) -> list[str]:
        """The lines written since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def note(self, line: str) -> None:
        """Writes a line."""
        self._lines.append(line)

    def load(self, replica: int, hard_state: HardState, terms: Sequence[int]) -> None:
        """Boots ``replica`` from a disk with a log of empty commands of these terms, or
        with the log that is there."""
        node = self.nodes[replica]
        assert not terms or not node.disk.entries, f"replica {replica} has a log"
        node.disk.hard_state = hard_state
        for index, term in enumerate(terms, start=1):
            entry = self.written.setdefault((index, term), command(index, term, b""))
            node.disk.entries.append(entry)
        self.restart(replica)

    # --- what the cluster does, with a line for it ----------------------------

    def pump(self, replica: int) -> None:
        """As Cluster's."""
        if self.nodes[replica].up:
            self._note_changes(self.nodes[replica])
        super().pump(replica)

    def check(self, node: Node) -> None:
        """As Cluster's; what has changed is written before it can be found wrong."""
        self._note_changes(node)
        super().check(node)

    def sync(self, replica: int, count: int = 1 << 30) -> bool:
        """As Cluster's."""
        for save, messages in self.nodes[replica].disk.pending[:count]:
            self.note(f"{replica} durable #{save.sequence}")
            self._note_sent(messages)
        return super().sync(replica, count)

    def deliver(self, message: Message) -> None:
        """As Cluster's."""
        node = self.nodes.get(message.recipient)
        reason = ""
        if node is None or not node.up:
            reason = "down"
        elif (message.sender, message.recipient) in self.cut:
            reason = "cut"
        if reason:
            self.lose(message, reason)
        else:
            self.note(f"{message.sender} => {message.recipient} {message_text(message)}")
        super().deliver(message)

    def lose(self, message: Message, reason: str) -> None:
        """Writes that ``message`` never arrives."""
        text = message_text(message)
        self.note(f"{message.sender} x- {message.recipient} {text} ({reason})")

    def crash(self, replica: int) -> None:
        """As Cluster's."""
        for save, _ in self.nodes[replica].disk.pending:
            self.note(f"{replica} loses #{save.sequence}")
        super().crash(replica)

    def restart(self, replica: int) -> None:
        """As Cluster's."""
        node = self.nodes[replica]
        node.boot()
        self._awake(node)
        self.note(f"{replica} boots: {state_text(node)}")
        self.pump(replica)

    def stream(self, replica: int, recipient: int, *, ok: bool = True) -> None:
        """As Cluster's."""
        target = self.nodes.get(recipient)
        arrives = ok and target is not None and target.up and (replica, recipient) not in self.cut
        raft = self.nodes[replica].raft
        meta = raft.snapshot_at(raft.applied_index)
        what = f"{meta.index}@{meta.term} with {configuration_text(meta.configuration)}"
        outcome = "arrives" if arrives else "fails"
        self.note(f"{replica} streams {what} to {recipient}: it {outcome}")
        super().stream(replica, recipient, ok=ok)

    def _perform(self, node: Node, ready: Ready) -> None:
        replica = node.replica
        self._note_changes(node)
        self._note_sent(ready.messages)
        if ready.save is not None:
            self.note(f"{replica} saves {save_text(ready.save)}")
        if ready.committed:
            self.note(f"{replica} applies {entries_text(ready.committed)}")
        for read in ready.reads:
            self.note(f"{replica} answers read {read.token} at {read.index}")
        for token in ready.reads_lost:
            self.note(f"{replica} loses read {token}")
        for recipient in ready.snapshots:
            self.note(f"{replica} wants a snapshot sent to {recipient}")
        for fetch in ready.fetches:
            self.note(f"{replica} fetches from {fetch.first} on for {fetch.recipient}")
        super()._perform(node, ready)

    # --- what has become of a replica -----------------------------------------

    def _note_sent(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.note(f"{message.sender} -> {message.recipient} {message_text(message)}")

    def _note_changes(self, node: Node) -> None:
        replica, before, now = node.replica, self._seen[node.replica], _seen(node.raft)
        leads_no_more = before.leads and not now.leads  # because of what comes before it
        if now.who != before.who and not leads_no_more:
            self.note(f"{replica} is a {now.who}")
        if now.configuration != before.configuration:
            self.note(f"{replica} uses {now.configuration}")
        if now.commit != before.commit:
            self.note(f"{replica} commits {place_text(node.raft.log, now.commit)}")
        if now.transferring != before.transferring:
            heir = now.transferring
            self.note(
                f"{replica} hands over to {heir}" if heir else f"{replica} hands over no more"
            )
        if leads_no_more:
            self.note(f"{replica} is a {now.who}")
        self._seen[replica] = now


def _seen(raft: Raft) -> Seen:
    follows = f" of {raft.leader}" if raft.leader not in (NOBODY, raft.replica) else ""
    voted = f", voted {raft.vote}" if raft.vote != NOBODY else ""
    return Seen(
        raft.role is Role.LEADER,
        f"{ROLES[raft.role]}{follows} in term {raft.term}{voted}",
        raft.commit,
        configuration_text(raft.configuration),
        raft.transferring,
    )


# --- texts ------------------------------------------------------------------------


def place_text(log: Log, index: int) -> str:
    """``index`` with its term, as far as the log knows it."""
    return f"{index}@{log.term(index)}"


def entry_text(entry: Entry) -> str:
    """``5@2=a``."""
    place = f"{entry.index}@{entry.term}"
    if entry.kind is EntryKind.CONF:
        return f"{place}=v{decode_configuration(entry.data).version}"
    return f"{place}={entry.data.decode()}" if entry.data else place


def entries_text(entries: Iterable[Entry]) -> str:
    """All of them, in order."""
    return " ".join(entry_text(entry) for entry in entries)


def ids_text(replicas: Iterable[int]) -> str:
    """``(1 2 3)``."""
    return "(" + " ".join(str(replica) for replica in sorted(replicas)) + ")"


def configuration_text(configuration: Configuration) -> str:
    """``v2 (1 2 4)&&(1 2 3) learners (5) next (3)``."""
    text = f"v{configuration.version} {ids_text(configuration.voters)}"
    if configuration.joint:
        text += f"&&{ids_text(configuration.voters_outgoing)}"
    if configuration.learners:
        text += f" learners {ids_text(configuration.learners)}"
    if configuration.learners_next:
        text += f" next {ids_text(configuration.learners_next)}"
    return text


def save_text(save: Save) -> str:
    """What one save carries; ``place only`` when nothing but its place in the order."""
    parts = []
    if save.hard_state is not None:
        state = save.hard_state
        parts.append(f"term={state.term} vote={state.vote} commit={state.commit}")
    if save.snapshot is not None:
        parts.append(f"snapshot={save.snapshot.index}@{save.snapshot.term}")
    if save.truncate_from:
        parts.append(f"cut={save.truncate_from}")
    if save.entries:
        parts.append(f"[{entries_text(save.entries)}]")
    return f"#{save.sequence}: " + (" ".join(parts) or "place only")


def message_text(message: Message) -> str:
    """Kind, term and fields; a read counter of 0 is left out."""
    return f"{type(message).__name__} t{message.term}{_fields_text(message)}"


def _fields_text(message: Message) -> str:
    read = getattr(message, "read_sequence", 0)
    reads = f" read={read}" if read else ""
    match message:
        case PreVote(last_index=index, last_term=term):
            return f" last={index}@{term}"
        case Vote(last_index=index, last_term=term):
            return f" last={index}@{term}" + (" transfer" if message.transfer else "")
        case PreVoteReply(granted=granted) | VoteReply(granted=granted):
            return " yes" if granted else " no"
        case Append(prev_index=index, prev_term=term):
            entries = f" [{entries_text(message.entries)}]" if message.entries else ""
            return f" after {index}@{term} commit={message.commit}{reads}{entries}"
        case AppendReply(accepted=True, index=index):
            return f" has {index}{reads}"
        case AppendReply(index=index):
            return f" lacks {index} hint={message.hint_index}@{message.hint_term}{reads}"
        case Heartbeat(commit=commit):
            return f" commit={commit}{reads}"
        case HeartbeatReply():
            return reads
        case SnapshotInstalled(snapshot=meta):
            configuration = configuration_text(meta.configuration)
            return f" {meta.index}@{meta.term} {configuration}"
    return ""


def state_text(node: Node) -> str:
    """Role, term, vote, commit and applied index, and the log as the terms of its
    entries; ``[4@2]`` stands for what a snapshot replaced, ``|`` for where the
    disk's knowledge ends."""
    if not node.up:
        state, terms = node.disk.hard_state, [entry.term for entry in node.disk.entries]
        return f"down, term={state.term} vote={state.vote} log={terms_text(terms)}"
    raft, log = node.raft, node.raft.log
    first = log.snapshot.index + 1
    durable = [log.term(index) for index in range(first, raft.durable_index + 1)]
    rest = [
        log.term(index) for index in range(max(first, raft.durable_index + 1), raft.last_index + 1)
    ]
    text = terms_text(durable) + (f" | {terms_text(rest)}" if rest else "")
    if log.snapshot.index:
        text = f"[{log.snapshot.index}@{log.snapshot.term}] {text}"
    return (
        f"{ROLES[raft.role]} term={raft.term} vote={raft.vote} "
        f"commit={raft.commit} applied={raft.applied_index} log={text}"
    )


def terms_text(terms: Sequence[int]) -> str:
    """``1 1 2``, or ``-``."""
    return " ".join(str(term) for term in terms) or "-"
