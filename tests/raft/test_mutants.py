"""The fuzz test tested: known bugs planted into the core must be found.

Each mutant is one of raft.md's bugs brought back; a random life (nemesis.py) must
break an invariant within SEEDS seeds, or the checkers are blind to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from kritad.raft import election, follower, ledger, quorum, replication, state
from kritad.raft.errors import InvariantBroken
from kritad.raft.messages import Message
from kritad.raft.types import NOBODY, Entry
from tests.raft.nemesis import Nemesis

SEEDS = 60
STEPS = 3000


def _quorum_of_half(voters: Collection[int], value_of: Callable[[int], int]) -> int:
    """B8: half of an even number of voters taken for a majority."""
    return sorted([value_of(voter) for voter in voters] or [quorum.UNBOUNDED])[len(voters) // 2]


def _commit_by_counting(raft: state.RaftState) -> bool:
    """B9: entries of earlier terms committed by counting (Figure 3.7)."""
    index = quorum.quorum_index(raft.configuration, lambda voter: raft.progress[voter].match)
    if index <= raft.log.commit:
        return False
    raft.log.commit_to(index)
    return True


def _always_truncate(raft: state.RaftState, entries: list[Entry]) -> list[Entry]:
    """B10: an old Append truncates the entries behind it although they match."""
    first = entries[0].index
    if first <= raft.log.last_index:
        raft.log.truncate(first)
        raft.ledger.forget_from(first)
    return entries


def _append_known_durable(raft: state.RaftState, message: Message) -> None:
    """B4: what may leave early, and what only after the save, is not told apart."""
    del raft.outbox.messages_after_save[:]
    raft.outbox.messages.append(message)


def _forget_nothing(book: ledger.Ledger, index: int) -> None:
    """B31: a late confirmation attests entries that replaced those it was about."""


def _vote_twice(raft: state.RaftState, term: int, leader: int) -> None:
    """B12: stepping down within a term clears the vote."""
    _become_follower(raft, term, leader)
    raft.vote = NOBODY


def _read_too_early(raft: state.RaftState) -> None:
    """B39: a new leader serves reads before an entry of its own is committed."""
    _become_leader(raft)
    raft.term_start = 0


_become_follower = election.become_follower
_become_leader = election.become_leader

MUTANTS: dict[str, tuple[object, str, object]] = {
    "B4 answers before the save": (state.RaftState, "send_after_save", _append_known_durable),
    "B8 half is a majority": (quorum, "majority_index", _quorum_of_half),
    "B9 commits old terms": (replication, "maybe_commit", _commit_by_counting),
    "B10 truncates what matches": (follower, "_drop_known", _always_truncate),
    "B12 votes twice": (election, "become_follower", _vote_twice),
    "B31 late confirmation": (ledger.Ledger, "forget_from", _forget_nothing),
    "B39 reads too early": (election, "become_leader", _read_too_early),
    "B48 sends too early": (state.RaftState, "send", _append_known_durable),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_fuzz_test_finds_this_bug(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, bug = MUTANTS[mutant]
    monkeypatch.setattr(where, name, bug)
    for seed in range(SEEDS):
        nemesis = Nemesis(seed, 2 + seed % 4)
        try:
            nemesis.run(STEPS)
            nemesis.recover()
            held = nemesis.cluster.commands(nemesis.cluster.leader().replica)
            assert set(nemesis.acknowledged) <= set(held)
        except (AssertionError, InvariantBroken):
            return
    pytest.fail(f"{SEEDS} seeds did not find it")
