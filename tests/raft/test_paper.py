"""One test for each rule of the Raft paper's Figure 2 (thesis Figure 3.1)."""

from __future__ import annotations

import pytest

from kritad.raft.configuration import Change, ChangeKind
from kritad.raft.core import ProposalRefused, Refusal
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
)
from kritad.raft.types import EntryKind, Role
from tests.raft.cluster import SHARD, Cluster
from tests.raft.lone import Lone, boot_of, one, only

# --- AppendEntries, receiver implementation ---------------------------------


def test_append_of_an_older_term_is_refused_with_the_newer_term() -> None:
    """Receiver 1: reply false if term < currentTerm."""
    lone = Lone(boot_of([1], term=5))
    reply = one(lone.step(lone.append(2, 4, (1, 1), [4])), AppendReply)
    assert (reply.accepted, reply.term) == (False, 5)
    assert lone.raft.last_index == 1


@pytest.mark.parametrize("before", [(3, 1), (2, 2)], ids=["missing", "of another term"])
def test_append_behind_an_entry_the_log_lacks_is_refused(before: tuple[int, int]) -> None:
    """Receiver 2: reply false if the log has no entry at prevLogIndex with prevLogTerm."""
    lone = Lone(boot_of([1, 1]))
    reply = one(lone.step(lone.append(2, 2, before, [2])), AppendReply)
    assert (reply.accepted, reply.index) == (False, before[0])
    assert lone.raft.last_index == 2


def test_a_conflicting_entry_and_all_behind_it_are_deleted() -> None:
    """Receiver 3."""
    lone = Lone(boot_of([1, 1, 1, 1]))
    lone.raft.step(lone.append(2, 2, (2, 1), [2]))
    save = lone.ready().save
    assert save is not None
    assert (save.truncate_from, [(e.index, e.term) for e in save.entries]) == (3, [(3, 2)])
    assert lone.raft.last_index == 3


def test_entries_that_are_already_there_are_not_appended_again() -> None:
    """Receiver 4: append any new entries not already in the log."""
    lone = Lone(boot_of([1, 1]))
    lone.raft.step(lone.append(2, 2, (0, 0), [1, 1, 2]))
    save = lone.ready().save
    assert save is not None
    assert (save.truncate_from, [entry.index for entry in save.entries]) == (0, [3])


@pytest.mark.parametrize(("leader_commit", "commit"), [(1, 1), (9, 2)])
def test_the_commit_index_follows_the_leaders_up_to_the_last_new_entry(
    leader_commit: int, commit: int
) -> None:
    """Receiver 5: commitIndex = min(leaderCommit, index of last new entry)."""
    lone = Lone(boot_of([1, 1, 1]))  # the third may conflict: the leader has not named it
    lone.step(lone.append(2, 2, (1, 1), [1], commit=leader_commit))
    assert lone.raft.commit == commit


# --- RequestVote, receiver implementation -----------------------------------


def test_a_vote_is_refused_to_an_older_term() -> None:
    """Receiver 1: reply false if term < currentTerm."""
    lone = Lone(boot_of([1], term=3))
    reply = one(lone.step(lone.vote(2, 2, (9, 2))), VoteReply)
    assert (reply.granted, reply.term) == (False, 3)


@pytest.mark.parametrize(
    ("last", "granted"),
    [((3, 2), True), ((4, 2), True), ((1, 3), True), ((2, 2), False), ((9, 1), False)],
)
def test_a_vote_goes_only_to_a_log_at_least_as_up_to_date(
    last: tuple[int, int], granted: bool
) -> None:
    """Receiver 2 and 5.4.1: the later term wins, then the longer log."""
    lone = Lone(boot_of([1, 2, 2]))
    assert one(lone.step(lone.pre_vote(2, 5, last)), PreVoteReply).granted is granted
    assert one(lone.step(lone.vote(2, 5, last)), VoteReply).granted is granted
    assert lone.raft.vote == (2 if granted else 0)


def test_only_one_vote_is_given_per_term() -> None:
    """Receiver 2: votedFor is null or candidateId."""
    lone = Lone(boot_of())
    assert one(lone.step(lone.vote(2, 5, (0, 0))), VoteReply).granted
    assert not one(lone.step(lone.vote(3, 5, (0, 0))), VoteReply).granted
    assert one(lone.step(lone.vote(2, 5, (0, 0))), VoteReply).granted  # the same again


# --- all servers ------------------------------------------------------------


def test_what_is_committed_is_applied_in_order_and_once() -> None:
    """If commitIndex > lastApplied: apply."""
    lone = Lone(boot_of())
    lone.step(lone.append(2, 1, (0, 0), [1, 1, 1], commit=2))
    lone.step(lone.append(2, 1, (3, 1), [], commit=3))
    lone.step(lone.append(2, 1, (0, 0), [1, 1, 1], commit=3))
    assert [entry.index for entry in lone.committed] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["append", "heartbeat", "vote", "answer"])
def test_a_higher_term_in_any_message_makes_a_follower(kind: str) -> None:
    """If RPC request or response contains term T > currentTerm: convert to follower."""
    lone = Lone(boot_of())
    lone.lead(2)
    lone.raft.step(
        {
            "append": lone.append(2, 9, (0, 0)),
            "heartbeat": Heartbeat(SHARD, 2, 1, 9, 0, 0),
            "vote": lone.vote(2, 9, (0, 0), transfer=True),
            "answer": AppendReply(SHARD, 2, 1, 9, False, 0, 0, 0, 0),
        }[kind]
    )
    assert (lone.raft.role, lone.raft.term) == (Role.FOLLOWER, 9)


# --- followers --------------------------------------------------------------


def test_a_follower_answers_candidates_and_leaders() -> None:
    lone = Lone(boot_of())
    assert one(lone.step(lone.vote(2, 1, (0, 0))), VoteReply).granted
    assert one(lone.step(lone.append(2, 1, (0, 0), [1])), AppendReply).accepted
    assert one(lone.step(Heartbeat(SHARD, 2, 1, 1, 1, 4)), HeartbeatReply).read_sequence == 4


def test_a_follower_that_hears_nobody_asks_for_an_election() -> None:
    """If election timeout elapses: convert to candidate (by way of a pre-vote)."""
    lone = Lone(boot_of([1], term=1))
    assert not only(lone.tick(9), PreVote)
    requests = only(lone.tick(11), PreVote)
    assert [(r.recipient, r.term, r.last_index, r.last_term) for r in requests[:2]] == [
        (2, 2, 1, 1),
        (3, 2, 1, 1),
    ]
    assert lone.raft.term == 1


def test_a_leaders_messages_put_the_election_off() -> None:
    lone = Lone(boot_of())
    lone.step(lone.append(2, 1, (0, 0)))
    for message in [Heartbeat(SHARD, 2, 1, 1, 0, 0), lone.append(2, 1, (0, 0))] * 5:
        assert not only(lone.tick(9), PreVote)
        lone.step(message)


def test_a_vote_given_puts_the_election_off() -> None:
    lone = Lone(boot_of(term=1))
    for _ in range(5):
        assert not only(lone.tick(9), PreVote)
        assert one(lone.step(lone.vote(2, 1, (0, 0))), VoteReply).granted


# --- candidates -------------------------------------------------------------


def test_a_candidate_takes_the_next_term_votes_for_itself_and_asks_all_voters() -> None:
    """On conversion to candidate."""
    lone = Lone(boot_of([1], term=1))
    lone.raft.campaign()
    lone.flush()
    lone.raft.step(_pre_vote_yes(2, 2))
    ready = lone.ready()
    assert ready.save is not None
    assert ready.save.hard_state is not None
    assert (ready.save.hard_state.term, ready.save.hard_state.vote) == (2, 1)
    requests = only(ready.messages_after_save, Vote)
    assert [(r.recipient, r.term, r.transfer) for r in requests] == [(2, 2, False), (3, 2, False)]


def _pre_vote_yes(sender: int, term: int) -> PreVoteReply:
    return PreVoteReply(SHARD, sender, 1, term, True)


def test_votes_of_a_majority_make_a_leader_and_fewer_do_not() -> None:
    lone = Lone(boot_of(voters=range(1, 6)))
    lone.raft.campaign()
    lone.flush()
    lone.step(_pre_vote_yes(2, 1))
    lone.step(_pre_vote_yes(3, 1))
    lone.step(VoteReply(SHARD, 2, 1, 1, True))
    lone.step(VoteReply(SHARD, 2, 1, 1, True))
    assert (lone.raft.role, lone.raft.term) == (Role.CANDIDATE, 1)
    lone.step(VoteReply(SHARD, 5, 1, 1, True))
    assert lone.raft.role is Role.LEADER


def test_a_candidate_that_hears_the_new_leader_follows_it() -> None:
    """If AppendEntries RPC received from new leader: convert to follower."""
    lone = Lone(boot_of())
    lone.raft.campaign()
    lone.flush()
    lone.step(_pre_vote_yes(2, 1))
    assert lone.raft.role is Role.CANDIDATE
    lone.step(lone.append(3, 1, (0, 0)))
    assert (lone.raft.role, lone.raft.leader, lone.raft.term) == (Role.FOLLOWER, 3, 1)
    assert lone.raft.vote == 1


def test_a_split_vote_ends_in_a_new_election_in_a_later_term() -> None:
    """If election timeout elapses: start new election."""
    cluster = Cluster(4)
    cluster.filter = lambda message: {message.sender, message.recipient} in ({1, 2}, {3, 4})
    for replica in (1, 3):
        cluster[replica].campaign()
    cluster.settle()
    cluster.heal()
    assert cluster.until_leader().term >= 1


# --- leaders ----------------------------------------------------------------


def test_a_new_leader_announces_itself_at_once_and_then_keeps_on() -> None:
    """Upon election: send initial empty AppendEntries; repeat during idle periods."""
    lone = Lone(boot_of())
    lone.lead(2)
    assert {append.recipient for append in only(lone.sent, Append)} == {2, 3}
    beats = only(lone.tick(2), Heartbeat)
    assert {beat.recipient for beat in beats} == {2, 3}


def test_a_command_is_answered_only_after_it_is_committed_and_applied() -> None:
    """If command received: append to local log, respond after entry applied."""
    lone = Lone(boot_of())
    raft = lone.lead(2)
    index, term = raft.propose(b"x")
    lone.flush()
    assert (index, term, lone.committed) == (2, 1, [])
    lone.ack(2, 2)
    assert [(e.index, e.kind) for e in lone.committed] == [
        (1, EntryKind.NOOP),
        (2, EntryKind.COMMAND),
    ]


def test_a_follower_refuses_commands() -> None:
    raft = Lone(boot_of()).raft
    learner = [Change(ChangeKind.ADD_LEARNER, 4)]
    for attempt in (
        lambda: raft.propose(b"x"),
        lambda: raft.propose_conf(learner, {4: 4}, 1),
        lambda: raft.read_index(1),
    ):
        with pytest.raises(ProposalRefused) as refused:
            attempt()
        assert refused.value.reason is Refusal.NOT_LEADER
    assert raft.last_index == 0


def test_a_follower_that_is_behind_gets_what_it_lacks() -> None:
    """If last log index >= nextIndex: send entries starting at nextIndex."""
    lone = Lone(boot_of([1, 1, 1]))
    raft = lone.lead(2)
    sent = one(lone.refuse(3, 3, 1, 1), Append)
    assert (sent.recipient, sent.prev_index, [e.index for e in sent.entries]) == (3, 1, [2, 3, 4])
    lone.ack(3, 4)
    assert (raft.progress[3].match, raft.progress[3].next) == (4, 5)


def test_a_refused_append_is_tried_again_further_back_until_the_logs_agree() -> None:
    """If AppendEntries fails because of log inconsistency: decrement nextIndex and retry."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(leader, b"a")
    cluster.isolate(1)
    for number in range(5):
        leader.propose(b"lost %d" % number)
    cluster.settle()
    leader = cluster.elect(2)
    cluster.propose(leader, b"b")
    cluster.heal()
    cluster.settle(ticks=20)
    assert cluster.commands(1) == [b"a", b"b"]
    assert cluster.states_agree([1, 2, 3])


def test_an_entry_of_the_own_term_is_committed_once_a_majority_has_it() -> None:
    """If there exists an N > commitIndex, a majority of matchIndex[i] >= N, and
    log[N].term == currentTerm: set commitIndex = N."""
    lone = Lone(boot_of(voters=range(1, 6)))
    raft = lone.lead(2, 3)
    raft.propose(b"x")
    lone.flush()
    lone.ack(2, 2)
    assert raft.commit == 0
    lone.ack(3, 1)
    assert raft.commit == 1
    lone.ack(3, 2)
    assert raft.commit == 2


def test_an_entry_of_an_earlier_term_is_never_committed_by_counting() -> None:
    """5.4.2 and Figure 8."""
    lone = Lone(boot_of([1, 2], term=3))
    raft = lone.lead(2)
    lone.ack(2, 2)
    assert raft.commit == 0
    lone.ack(2, 3)
    assert raft.commit == 3
