"""What may never be seen, in any replica, on any disk, in any message (raft.md 2.6).

``look`` is called after each turn of a node, ``on_send`` for every Raft message that
leaves, ``on_save`` for every save that has become durable. The rules are written here
anew, from the papers, and use nothing of what they check: a majority is counted by
hand, and what is durable is asked of the simulated disks, not of the cores.

Safety (thesis Figure 3.2, 3.6.3): one leader a term; one vote a term; log matching;
leader completeness; what is committed never changes; a leader's commit index is durable
on a majority (of both configurations while they are joint); nothing of a term leaves
before the term and the vote are durable; nothing is acknowledged before it is; equal
applied index, equal state; nothing goes back while a process lives; logs are cut only
where the state is durable; who votes by the newest configuration that is committed anywhere
is not deleted, and its node does not leave.

To add an invariant: a method here, called from one of these. (Others are called when a replica
was deleted, a node has left, a snapshot is on its way.)
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from zlib import crc32

from kritad.host.replica import Replica
from kritad.raft.errors import InvariantBroken
from kritad.raft.log import Log
from kritad.raft.messages import (
    Append,
    AppendReply,
    Message,
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
)
from kritad.raft.types import Configuration, Role, Save

if TYPE_CHECKING:
    from tests.simulator.node import SimNode

# The core's own full list costs 20 µs: one look in so many.
_FULL_CHECK_EVERY = 64

_NOBODY = Configuration()
_LEADER = Role.LEADER  # each look-up of an enum's member costs a tenth of a microsecond

# Of one replica at its last look: term, vote, role, commit, applied, id.
Seen = tuple[int, ...]
# A shard, and an index of its log with its term.
Place = tuple[int, int, int]


class Violation(AssertionError):
    """A promise is broken. ``rule`` names it in a word."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class Invariants:
    """See the module's docstring. One for a whole cluster, across all crashes."""

    def __init__(self) -> None:
        self.looks = 0
        self.commits = 0
        self._leaders: dict[tuple[int, int], int] = {}  # (shard, term) -> replica
        self._votes: dict[tuple[int, int, int], int] = {}  # (shard, replica, term) -> whom
        self._written: dict[
            tuple[int, int, int], tuple[int, int]
        ] = {}  # (shard, index, term) -> (crc, term before)
        self._committed: dict[int, dict[int, int]] = {}  # shard -> index -> term
        self._last_committed: dict[int, int] = {}
        self._hashes: dict[tuple[int, int], int] = {}
        self._homes: dict[tuple[int, int], SimNode] = {}  # (shard, replica) -> node
        self._versions: dict[tuple[int, int], int] = {}  # of their configurations, when looked at
        # shard -> the newest configuration that is committed, and its index
        self._members: dict[int, tuple[int, Configuration]] = {}

    def look(self, node: SimNode) -> None:
        """After a turn of ``node``: every replica of it that has moved. 0.5 µs for one
        that has not, some 8 for one that has."""
        if not node.alive:
            return
        seen = node.seen
        for shard, replica in node.host.replicas.items():
            raft = replica.raft
            if raft.poisoned:
                self._check_poisoned(node, replica)
                continue
            commit, applied = raft.log.commit, replica.state.index
            now = (raft.term, raft.vote, raft.role, commit, applied, replica.id)
            before = seen.get(shard)
            if before != now:
                seen[shard] = now
                self._homes[shard, replica.id] = node
                self._check(node, replica, before or (0, 0, 0, 0, 0, replica.id))
        for shard, problem in node.host.damaged.items():
            if not node.world.is_rotten(shard, node):
                raise Violation("undamaged", f"{node} found damage in shard {shard}: {problem}")

    def _check_poisoned(self, node: SimNode, replica: Replica) -> None:
        """Only damage that was done on purpose excuses it."""
        if not node.world.is_rotten(replica.shard, node):
            raise Violation("core", f"{node}: {replica.raft.poisoned}")

    def _check(self, node: SimNode, replica: Replica, before: Seen) -> None:
        raft = replica.raft
        self.looks += 1
        if self.looks % _FULL_CHECK_EVERY == 0:
            try:
                raft.check_invariants()
            except InvariantBroken as broken:
                raise Violation("core", f"{node}: {broken}") from broken
        term, _vote, _role, commit, applied, same = before
        log, applied_now = raft.log, replica.state.index
        if same == replica.id and (
            raft.term < term or log.commit < commit or applied_now < applied
        ):
            raise Violation("monotone", f"{node} went back from {before}: {replica!r}")
        if log.commit > commit:
            self._check_commit(node, replica, commit)
        if raft.role is _LEADER:
            self._check_leader(node, replica)
        if applied_now != applied:
            self._check_state(node, replica)
        self._versions[raft.shard, raft.replica] = log.configuration.version

    def _check_leader(self, node: SimNode, replica: Replica) -> None:
        raft = replica.raft
        known = self._leaders.get((raft.shard, raft.term))
        if known == raft.replica:
            return
        if known is not None:
            raise Violation("one-leader", f"{known} led this term too: {raft!r} on {node}")
        self._leaders[raft.shard, raft.term] = raft.replica
        last = self._last_committed.get(raft.shard, 0)
        if not last or last < raft.log.snapshot.index:
            return
        term = self._committed[raft.shard][last]
        if last > raft.last_index or raft.log.term(last) != term:
            raise Violation(
                "leader-completeness",
                f"entry {last} is committed in term {term}; the new leader, {node}, has {raft!r}",
            )

    def _check_commit(self, node: SimNode, replica: Replica, before: int) -> None:
        shard, log = replica.shard, replica.raft.log
        committed = self._committed.get(shard)
        if committed is None:
            committed = self._committed[shard] = {}
        commit, begins = log.commit, log.snapshot.index
        for index in range(max(before + 1, begins, 1), commit + 1):
            term = log.term(index)
            if committed.setdefault(index, term) != term:
                raise Violation(
                    "commit-immutable",
                    f"entry {index} of shard {shard} was committed in term {committed[index]},"
                    f" and {node} has it committed in term {term}",
                )
        known = self._last_committed.get(shard, 0)
        if commit > known:
            self._note_members(shard, log)
            self.commits += 1
            # A group that was split off begins behind an entry of another group's log.
            if known or commit > begins:
                self._check_durable(node, replica)
            self._last_committed[shard] = commit

    def _note_members(self, shard: int, log: Log) -> None:
        for index, conf in reversed(log.configurations):
            if index <= log.commit:
                known = self._members.get(shard)
                if known is None or known[0] < index:
                    self._members[shard] = index, conf
                return

    def _voters_on(self, shard: int, node: SimNode) -> set[int]:
        """Those of its replicas that vote by the newest configuration, if that is of use."""
        _, conf = self._members.get(shard, (0, _NOBODY))
        voters = {v for v in conf.voters | conf.voters_outgoing if conf.nodes[v] == node.number}
        return set() if node.world.is_rotten(shard, node) else voters

    def _check_durable(self, node: SimNode, replica: Replica) -> None:
        """The first to know of a commit is the leader that has counted. (It may have
        followed a new one since, within the same turn.)"""
        raft = replica.raft
        term = raft.log.term(raft.commit)
        if raft.role is _LEADER and term != raft.term:
            raise Violation(
                "commit-own-term", f"{node} committed an older term's entry by counting: {raft!r}"
            )
        place = (raft.shard, raft.commit, term)
        for conf in self._configurations_since(replica):
            if self._majority_holds(conf.voters, place) and (
                not conf.voters_outgoing or self._majority_holds(conf.voters_outgoing, place)
            ):
                return
        have = [voter for voter in sorted(raft.configuration.members) if self._holds(voter, place)]
        raise Violation(
            "commit-durable",
            f"entry {raft.commit} is committed by {node}, and of its members only the disks of"
            f" {have} have it: {raft.configuration}",
        )

    def _majority_holds(self, voters: Collection[int], place: Place) -> bool:
        missing = len(voters) // 2 + 1
        for voter in voters:
            if self._holds(voter, place):
                missing -= 1
                if not missing:
                    return True
        return not voters

    def _configurations_since(self, replica: Replica) -> list[Configuration]:
        """Those that were in force at some time since the last look: a turn may commit by
        one and append the next, and may commit by that one too."""
        log = replica.raft.log
        newest = log.configuration.version
        known = min(newest, self._versions.get((replica.shard, replica.id), newest))
        return [conf for _, conf in log.configurations if conf.version >= known]

    def _holds(self, replica: int, place: Place) -> bool:
        shard, index, term = place
        node = self._homes.get((shard, replica))
        if node is None or node.raft_db.replica_of(shard) != replica:
            return False
        store = node.raft_db
        return store.first_index(shard) >= index or store.term_at(shard, index) == term

    def _check_state(self, node: SimNode, replica: Replica) -> None:
        state, shard = replica.state, replica.shard
        if state.index > replica.raft.log.commit:
            raise Violation("applied-committed", f"{node} applied beyond its commit: {replica!r}")
        found = state.state_hash  # counts all of the shard's cells: not twice
        known = self._hashes.setdefault((shard, state.index), found)
        if known != found:
            raise Violation(
                "state-hash",
                f"shard {shard} at index {state.index} has hash {found:016x} on {node},"
                f" elsewhere it was {known:016x}",
            )

    def _check_vote(self, node: SimNode, message: Message, whom: int) -> None:
        """A vote that leaves is given for good: saved, and the only one of its term."""
        hard = node.raft_db.hard_state(message.shard)
        if hard.term == message.term and hard.vote != whom:
            raise Violation("vote-durable", f"{node} sends {message} and has saved {hard}")
        known = self._votes.setdefault((message.shard, message.sender, message.term), whom)
        if known != whom:
            raise Violation("one-vote", f"{node} voted for {known}, and sends {message}")

    # --- disks --------------------------------------------------------------------------

    def on_save(self, node: SimNode, shard: int, save: Save) -> None:
        """A save of ``node`` has become durable: log matching."""
        if not save.entries:
            return
        first = save.entries[0]
        previous = node.raft_db.term_at(shard, first.index - 1) or 0
        for entry in save.entries:
            content = crc32(entry.data, entry.kind)
            known = self._written.setdefault((shard, entry.index, entry.term), (content, previous))
            if known[0] != content or (previous and known[1] and known[1] != previous):
                raise Violation(
                    "log-matching",
                    f"two different entries {entry.index} of term {entry.term} in shard {shard},"
                    f" one on {node}",
                )
            previous = entry.term

    # --- who goes -----------------------------------------------------------------------

    def on_removal(self, node: SimNode, shard: int, replica: int) -> None:
        """What ``node`` had of a replica is deleted. (One that is damaged is of no use.)"""
        if replica in self._voters_on(shard, node):
            place = self._members[shard]
            raise Violation(
                "voter-stays", f"{node} deletes {replica} of {shard}, a voter by {place}"
            )

    def on_leave(self, node: SimNode) -> None:
        """``node`` takes itself for no member of the cluster any more, and has stopped."""
        for shard, place in sorted(self._members.items()):
            if self._voters_on(shard, node):
                raise Violation("voter-stays", f"{node} has left, and votes in {shard} by {place}")

    # --- snapshots ----------------------------------------------------------------------

    def on_chunk(self, node: SimNode, replica: Replica, term: int) -> None:
        """``node`` sends a piece of a snapshot that a leader of ``term`` was asked for."""
        if replica.raft.term != term:
            raise Violation(
                "snapshot-term", f"{node} sends on what it began in {term}: {replica!r}"
            )

    def on_displaced(self, node: SimNode, shard: int, term: int, before: int) -> None:
        """``node`` begins to receive a snapshot, and was receiving another one of this shard."""
        if term < before:
            raise Violation(
                "snapshot-term",
                f"{node}: a leader of {before} gives way to one of {term} in {shard}",
            )

    # --- messages -----------------------------------------------------------------------

    def on_send(self, node: SimNode, message: Message) -> None:
        """What a message claims has to be on its sender's disk by now."""
        shard, store = message.shard, node.raft_db
        if store.replica_of(shard) != message.sender:
            raise Violation("sender", f"{node} does not hold the sender of {message}")
        replica = node.replica(shard)
        if replica is not None and replica.raft.poisoned:
            raise Violation("poisoned-silent", f"{node} is poisoned, and sends {message}")
        hard = store.hard_state(shard)
        if message.term > hard.term and not _only_asks(message, hard.term):
            raise Violation("term-durable", f"{node} sends {message} and has saved {hard}")
        if isinstance(message, AppendReply):
            if message.accepted and message.index > store.last_index(shard):
                raise Violation(
                    "ack-durable",
                    f"{node} sends {message} and has saved up to {store.last_index(shard)}",
                )
        elif isinstance(message, Append):
            known = self._leaders.setdefault((shard, message.term), message.sender)
            if known != message.sender:
                raise Violation("one-leader", f"{known} leads the term of {message}")
        elif isinstance(message, Vote):
            self._check_vote(node, message, message.sender)
        elif isinstance(message, VoteReply) and message.granted:
            self._check_vote(node, message, message.recipient)


def _only_asks(message: Message, term: int) -> bool:
    """Of a higher term than the own: a pre-vote asks about the next one, and an answer
    repeats the term that it was asked about."""
    if isinstance(message, PreVote):
        return message.term - 1 <= term
    return isinstance(message, PreVoteReply) and message.granted
