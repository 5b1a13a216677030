"""Planted bugs: who may be voted for, how often, and when a vote counts."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kritad.raft import core, election, ledger, log, membership, quorum, state
from kritad.raft.messages import Message, PreVoteReply
from kritad.raft.types import NOBODY, HardState, Role, Save
from tests.simulator.mutants.mutant import Mutant

_become_follower = election.become_follower
_become_leader = election.become_leader
_take = ledger.Ledger.take


def _lose_the_vote(
    book: ledger.Ledger, written: log.Log, term: int, vote: int, place_needed: bool
) -> Save | None:
    """Only the term reaches the disk."""
    save = _take(book, written, term, vote, place_needed)
    if save is not None and save.hard_state is not None:
        hard_state = save.hard_state
        save.hard_state = HardState(hard_state.term, NOBODY, hard_state.commit)
    return save


def _term_first_vote_later(
    book: ledger.Ledger, written: log.Log, term: int, vote: int, place_needed: bool
) -> Save | None:
    """Of a new term and a new vote, the term is saved with this save and the vote with
    the next; what the vote allows leaves after the first."""
    before = book._asked
    save = _take(book, written, term, vote, place_needed)
    if save is not None and save.hard_state is not None and term != before.term:
        save.hard_state = HardState(term, before.vote, save.hard_state.commit)
        book._asked = save.hard_state
    return save


def _vote_again_after_stepping_down(raft: state.RaftState, term: int, leader: int) -> None:
    """Stepping down clears the vote, also within a term."""
    _become_follower(raft, term, leader)
    raft.vote = NOBODY


def _never_behind(_log: log.Log, _last_index: int, _last_term: int) -> bool:
    """Any log is good enough to be voted for."""
    return True


def _longer_is_newer(own: log.Log, last_index: int, _last_term: int) -> bool:
    """Logs are compared by their length; the terms do not matter."""
    return last_index >= own.last_index


def _each_part_has_to_be_newer(own: log.Log, last_index: int, last_term: int) -> bool:
    """Index and term are compared each for itself, instead of the term first."""
    return last_index >= own.last_index and last_term >= own.last_term


def _count_any_reply(raft: state.RaftState, message: PreVoteReply) -> None:
    """A candidate counts answers to its pre-vote among the votes."""
    if raft.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
        raft.votes.setdefault(message.sender, message.granted)
        election._count(raft)


def _half_is_enough(voters: Collection[int], value_of: Callable[[int], int]) -> int:
    """Half of an even number of voters is taken for a majority."""
    return sorted([value_of(voter) for voter in voters] or [quorum.UNBOUNDED])[len(voters) // 2]


def _send_all_at_once(raft: state.RaftState, message: Message) -> None:
    """What may leave early, and what only after the save, is not told apart."""
    raft.outbox.messages.append(message)


def _attests_nothing(_message: Message) -> int:
    """No message but an answer has to wait for its term to be durable."""
    return 0


def _lead_before_the_term_is_durable(raft: state.RaftState) -> None:
    """The votes of others suffice, the own one may still be on its way to the disk."""
    book = raft.ledger
    durable_term, book.durable_term = book.durable_term, raft.term
    try:
        _become_leader(raft)
    finally:
        book.durable_term = durable_term


MUTANTS = (
    Mutant(
        name="vote-not-persisted",
        rule="a vote is durable before anybody hears of it",
        source="raft.md B1",
        hint="invariant: one leader per term, one vote per replica and term; needs a crash "
        "between a vote and the same term's next candidate",
        patches=((ledger.Ledger, "take", _lose_the_vote),),
    ),
    Mutant(
        name="term-and-vote-saved-apart",
        rule="a new term and the vote in it are one write",
        source="raft.md B2",
        hint="invariant: one vote per replica and term; needs a crash right behind the first save",
        patches=((ledger.Ledger, "take", _term_first_vote_later),),
    ),
    Mutant(
        name="votes-again-after-stepping-down",
        rule="at most one vote a term, whatever happens within it",
        source="raft.md B12 (CCF#8094)",
        hint="invariant: one leader per term, vote changed within a term",
        patches=(
            (election, "become_follower", _vote_again_after_stepping_down),
            (membership, "become_follower", _vote_again_after_stepping_down),
        ),
    ),
    Mutant(
        name="votes-for-a-log-behind",
        rule="no vote for a log that lacks what the voter's has",
        source="thesis 3.6.1",
        hint="invariant: leader completeness; acknowledged write lost",
        patches=((log.Log, "is_up_to_date", _never_behind),),
    ),
    Mutant(
        name="log-compared-by-length",
        rule="the term of the last entry comes first, then its index",
        source="thesis 3.6.1, raft.md B7",
        hint="invariant: leader completeness; needs an old leader with a long undelivered tail",
        patches=((log.Log, "is_up_to_date", _longer_is_newer),),
    ),
    Mutant(
        name="log-compared-by-parts",
        rule="(term, index) is compared as a pair, or nobody may be electable",
        source="raft.md B7",
        hint="liveness: no leader; needs an old leader with a long undelivered tail, and a "
        "majority made of it and one of the others",
        patches=((log.Log, "is_up_to_date", _each_part_has_to_be_newer),),
    ),
    Mutant(
        name="pre-vote-taken-for-a-vote",
        rule="an answer to a pre-vote promises nothing",
        source="raft.md B12 (canonical#196)",
        hint="invariant: one leader per term; needs two candidates and a late answer",
        patches=((election, "on_pre_vote_reply", _count_any_reply),),
    ),
    Mutant(
        name="half-is-a-majority",
        rule="more than half",
        source="raft.md B8",
        hint="invariant: one leader per term, committed on a quorum; needs two or four voters "
        "(also a joint configuration on its way)",
        patches=((quorum, "majority_index", _half_is_enough),),
    ),
    Mutant(
        name="sent-before-the-term-is-durable",
        rule="nothing of a term leaves before the term is durable",
        source="raft.md B48",
        hint="invariant: the core's own check of what leaves early poisons the replica",
        patches=((state.RaftState, "send", _send_all_at_once),),
    ),
    Mutant(
        name="leads-before-its-own-vote-is-durable",
        rule="nobody leads a term that a crash may make it forget",
        source="raft.md B48 (the rule of etcd's asynchronous writes)",
        hint="invariant: no message of a term that is not durable; one leader per term; two "
        "entries of one index and term. Needs a slow save and a crash right after winning",
        patches=(
            (core, "attested_term", _attests_nothing),
            (state, "attested_term", _attests_nothing),
            (election, "become_leader", _lead_before_the_term_is_durable),
        ),
    ),
)
