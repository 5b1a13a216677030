"""The state of one replica, which the rule modules share and ``core.Raft`` exposes.

Raft's rules (election, replication, membership, reads) all read and write the
same dozen variables, so these are one object, and each rule a function of it.
Besides the variables only what every rule needs is here: sending in the right
order, the election timer, the derived views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritad.raft.config import RaftConfig
from kritad.raft.ledger import Ledger
from kritad.raft.log import Log
from kritad.raft.messages import Message, PreVote, PreVoteReply
from kritad.raft.progress import Progress
from kritad.raft.reads import ReadQueue
from kritad.raft.ready import Ready
from kritad.raft.types import NOBODY, Boot, Configuration, Role

if TYPE_CHECKING:
    import random


class RaftState:
    """The variables; a host reads the documented ones and writes none.

    Raises ValueError for a ``boot`` that contradicts itself.
    """

    def __init__(self, config: RaftConfig, boot: Boot, random: random.Random) -> None:
        self.config = config
        self.shard = config.shard
        self.replica = config.replica
        self.random = random
        self.log = Log(boot, config.window_bytes)
        self.ledger = Ledger(boot.hard_state, boot.last_index)
        self.term = boot.hard_state.term
        self.vote = boot.hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = NOBODY  # of the present term, as far as known
        self.elapsed = 0  # ticks since a leader was heard; a leader: since check-quorum
        self.timeout_ticks = 0
        # For the age of what is read here (host/replica.py): how often it was heard how much is
        # committed in all, and what was heard last. A leader hears it of its check-quorums.
        self.told = 0
        self.told_commit = 0
        self.votes: dict[int, bool] = {}  # (pre-)candidate only
        self.outbox = Ready()  # what the next ready() hands out
        self.reads = ReadQueue()
        # Leader only:
        self.progress: dict[int, Progress] = {}  # all members, itself included
        self.followers: list[Progress] = []  # the same without itself
        self.term_start = 0  # index of the first entry of its own term
        self.heartbeat_elapsed = 0
        self.transferring = NOBODY  # the replica that is to lead
        self.transfer_elapsed = 0
        self.replicate_due = False  # something may be sent to followers
        self.commit_untold = False  # followers do not know the commit index
        self.quorum_changed = False  # the configuration changed: count again
        self.dirty = True  # ready() may have something
        # Why this replica does nothing any more; empty while it is well. Proposals
        # and reads that wait are not reported as lost: the host answers "unknown".
        self.poisoned = ""
        self.log_lost = False  # why: what it lacks, the others have
        self.reset_election_timer()

    def __repr__(self) -> str:
        poison = f" POISONED {self.poisoned}" if self.poisoned else ""
        return (
            f"<Raft shard={self.shard} replica={self.replica} {self.role.name} term={self.term} "
            f"vote={self.vote} leader={self.leader} {self.log} {self.ledger} {self.reads}{poison}>"
        )

    # --- views ------------------------------------------------------------

    @property
    def commit(self) -> int:
        """The commit index."""
        return self.log.commit

    @property
    def last_index(self) -> int:
        """Where the log ends, durable or not."""
        return self.log.last_index

    @property
    def applied_index(self) -> int:
        """What the host has reported as applied."""
        return self.log.applied

    @property
    def durable_index(self) -> int:
        """Up to where the log is on this replica's disk."""
        return self.ledger.durable_index

    @property
    def configuration(self) -> Configuration:
        """The configuration in force, committed or not."""
        return self.log.configuration

    @property
    def configuration_committed(self) -> bool:
        """Whether the configuration in force is committed."""
        return self.log.configuration_index <= self.log.commit

    # --- what every rule needs --------------------------------------------

    def note_commit(self, index: int) -> None:
        """No more than that is committed in all, as far as the leader knows."""
        self.told += 1
        self.told_commit = index

    def send(self, message: Message) -> None:
        """Sends at once if its term is durable, else after the save that makes it so."""
        if attested_term(message) <= self.ledger.durable_term:
            self.outbox.messages.append(message)
        else:
            self.outbox.messages_after_save.append(message)

    def send_after_save(self, message: Message) -> None:
        """Sends once everything that this replica knows by now is durable."""
        self.outbox.messages_after_save.append(message)

    def watch_members(self, progress: dict[int, Progress]) -> None:
        """The members changed: whom to follow from now on."""
        self.progress = progress
        self.followers = [member for replica, member in progress.items() if replica != self.replica]

    def reset_election_timer(self) -> None:
        """Waits anew, for a time of its own (thesis 3.4)."""
        ticks = self.config.election_ticks
        self.elapsed = 0
        self.timeout_ticks = self.random.randrange(ticks, 2 * ticks)


def attested_term(message: Message) -> int:
    """The term that must be durable before this may leave."""
    if isinstance(message, PreVote):
        return message.term - 1  # asks about the next one
    if isinstance(message, PreVoteReply) and message.granted:
        return 0  # promises nothing, names the term it was asked about
    return message.term
