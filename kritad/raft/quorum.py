"""What a majority says. The one place where replicas are counted.

Votes, the commit index, read confirmation and check-quorum all ask
``quorum_index``; in a joint configuration it asks both halves (thesis 4.3).
Only voters are counted (raft.md B11), and a replica counts itself only if it
is one. The majority is ``sorted(...)[(n - 1) // 2]`` and stays so: clever
versions of this line are how sub-quorums commit (raft.md B8).

Checked against etcd raft's quorum files (tests/raft/test_quorum_oracle.py) and
against counting by hand.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping, Set

from kritad.raft.types import Configuration

# What an empty half has reached: everything, so that it never holds up a joint one.
UNBOUNDED = (1 << 64) - 1


class VoteResult(enum.Enum):
    """How an election stands."""

    PENDING = 0
    WON = 1
    LOST = 2


def majority_index(voters: Collection[int], value_of: Callable[[int], int]) -> int:
    """The largest value that a majority of ``voters`` has reached."""
    if not voters:
        return UNBOUNDED
    return sorted([value_of(voter) for voter in voters])[(len(voters) - 1) // 2]


def quorum_index(configuration: Configuration, value_of: Callable[[int], int]) -> int:
    """The largest value that a quorum of ``configuration`` has reached.

    ``value_of`` is asked for every voter, also of the outgoing half. ~1 µs.
    """
    index = majority_index(configuration.voters, value_of)
    if configuration.voters_outgoing:
        index = min(index, majority_index(configuration.voters_outgoing, value_of))
    return index


def quorum_reached(configuration: Configuration, replicas: Set[int]) -> bool:
    """Whether ``replicas`` hold a quorum."""
    return quorum_index(configuration, lambda replica: replica in replicas) >= 1


def vote_result(configuration: Configuration, votes: Mapping[int, bool]) -> VoteResult:
    """How an election with these answers stands; who has not answered still may."""
    if quorum_reached(configuration, {voter for voter, granted in votes.items() if granted}):
        return VoteResult.WON
    refused = {voter for voter, granted in votes.items() if not granted}
    if quorum_reached(configuration, configuration.voters_all - refused):
        return VoteResult.PENDING
    return VoteResult.LOST
