"""The bugs that other Raft implementations had, one test each (the B numbers of
the project's Raft notes), so that ours does not have them too.

Those of membership and of snapshots have files of their own beside this one.
"""

from __future__ import annotations

import random

import pytest

from kritad.raft.log import Log
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVoteReply,
    SnapshotInstalled,
    Vote,
    VoteReply,
)
from kritad.raft.progress import ProgressState
from kritad.raft.quorum import majority_index
from kritad.raft.types import Role, SnapshotMeta
from tests.raft.cluster import SHARD, Cluster
from tests.raft.lone import Lone, boot_of, one, only

# --- durability ---------------------------------------------------------------


def test_b2_term_and_vote_are_saved_in_one_piece() -> None:
    lone = Lone(boot_of(term=1))
    lone.raft.step(lone.vote(2, 7, (0, 0)))
    saves = [ready.save for ready in iter(lone.raft.ready, None)]
    states = [save.hard_state for save in saves if save is not None]
    assert [(s.term, s.vote) for s in states if s is not None] == [(7, 2)]


def test_b2_a_vote_in_the_present_term_is_told_only_once_it_is_durable() -> None:
    lone = Lone(boot_of(term=7))
    lone.raft.step(lone.vote(2, 7, (0, 0)))
    ready = lone.ready()
    assert ready.messages == []
    assert ready.save is not None
    assert ready.save.hard_state is not None
    assert (ready.save.hard_state.vote, ready.save.must_sync) == (2, True)
    assert one(ready.messages_after_save, VoteReply).granted


def test_b3_no_entry_is_saved_before_its_term() -> None:
    lone = Lone(boot_of(term=1))
    lone.raft.step(lone.append(2, 7, (0, 0), [7]))
    save = lone.ready().save
    assert save is not None
    assert save.hard_state is not None
    assert save.hard_state.term == 7
    assert [entry.term for entry in save.entries] == [7]


def test_b30_a_vote_request_leaves_only_when_the_log_it_speaks_of_is_durable() -> None:
    lone = Lone(boot_of())
    lone.raft.step(lone.append(2, 1, (0, 0), [1, 1]))
    first = lone.ready()
    lone.raft.campaign()
    lone.raft.ready()
    lone.raft.step(PreVoteReply(SHARD, 3, 1, 2, True))
    second = lone.ready()
    assert not only(second.messages, Vote)
    request = only(second.messages_after_save, Vote)[0]
    assert (request.last_index, request.last_term) == (2, 1)
    assert first.save is not None
    assert second.save is not None
    assert second.save.sequence > first.save.sequence


def test_b30_a_crash_with_an_unsynced_tail_loses_no_committed_entry() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    leader.propose(b"x")
    cluster.pump(1)
    cluster.deliver_all()  # 2 and 3 hold it, but only in memory
    assert leader.commit == 1
    cluster.crash(2)
    cluster.crash(3)
    cluster.restart(2)
    cluster.restart(3)
    cluster.settle(ticks=20)
    assert cluster.commands(1) == [b"x"]  # the leader has sent it again


def test_b31_a_late_save_does_not_attest_the_entries_that_replaced_its_own() -> None:
    lone = Lone(boot_of())
    lone.raft.step(lone.append(2, 1, (0, 0), [1, 1, 1]))
    first = lone.ready().save
    lone.raft.step(lone.append(3, 2, (1, 1), [2, 2]))
    second = lone.ready()
    assert first is not None
    assert second.save is not None
    lone.raft.saved(first.sequence)
    assert lone.raft.durable_index == 1
    lone.raft.saved(second.save.sequence)
    assert lone.raft.durable_index == 3


def test_b31_a_late_fetch_is_dropped_after_the_leadership_changed() -> None:
    lone = Lone(boot_of([1] * 9, commit=9), window_bytes=30)
    lone.flush()
    raft = lone.lead(2)
    lone.refuse(3, 9, 2, 1)
    raft.step(AppendReply(SHARD, 3, 1, raft.term, True, 2, 0, 0, 0))
    (fetch,) = lone.ready().fetches
    lone.step(lone.append(2, 9, (10, raft.term)))
    lone.raft.fetched(fetch, [])
    assert not only(lone.flush(), Append)
    lone.lead(2)
    raft.fetched(fetch, [])  # leads again, but in another term
    assert raft.progress[3].state is ProgressState.PROBE


def test_b31_an_old_applied_report_does_not_undo_a_snapshot() -> None:
    lone = Lone(boot_of([1, 1], commit=2))
    lone.raft.ready()  # hands out 1 and 2
    meta = SnapshotMeta(9, 1, lone.raft.configuration)
    lone.step(SnapshotInstalled(SHARD, 2, 1, 1, meta))
    lone.raft.applied(2)
    assert lone.raft.applied_index == 9


def test_b48_nothing_of_a_new_term_leaves_before_term_and_vote_are_durable() -> None:
    lone = Lone(boot_of(term=4))
    lone.raft.campaign()
    lone.flush()
    lone.raft.step(PreVoteReply(SHARD, 2, 1, 5, True))
    ready = lone.ready()
    assert ready.messages == []
    assert {type(message) for message in ready.messages_after_save} == {Vote}
    lone.raft.step(Vote(SHARD, 3, 1, 5, 0, 0, False))
    assert all(
        message.term < 5 for later in iter(lone.raft.ready, None) for message in later.messages
    )


def test_b48_the_own_vote_counts_only_once_durable() -> None:
    lone = Lone(boot_of(voters=[1]))
    lone.raft.campaign()
    ready = lone.ready()
    assert (lone.raft.role, lone.raft.vote) == (Role.CANDIDATE, 1)
    assert ready.save is not None
    lone.raft.saved(ready.save.sequence)
    assert lone.raft.role is Role.LEADER


def test_b4_a_single_replica_commits_only_what_its_disk_has() -> None:
    lone = Lone(boot_of(voters=[1]))
    lone.lead()
    lone.raft.propose(b"x")
    ready = lone.ready()
    assert (lone.raft.commit, ready.committed) == (1, [])
    assert ready.save is not None
    lone.raft.saved(ready.save.sequence)
    assert lone.raft.commit == 2


# --- counting -----------------------------------------------------------------


def test_b7_logs_are_compared_by_term_first_and_then_by_index() -> None:
    dice = random.Random(7)
    for _ in range(300):
        terms = sorted(dice.choices(range(1, 5), k=dice.randint(0, 5)))
        log = Log(boot_of(terms), 1 << 20)
        last = (dice.randint(0, 6), dice.randint(0, 5))
        expected = (last[1], last[0]) >= (log.last_term, log.last_index)
        assert log.is_up_to_date(*last) is expected


def test_b8_a_majority_is_more_than_half_whatever_the_number_of_voters() -> None:
    dice = random.Random(8)
    for size in range(1, 8):
        for _ in range(100):
            matches = {voter: dice.randint(0, 9) for voter in range(size)}
            index = majority_index(list(matches), matches.__getitem__)
            assert sum(match >= index for match in matches.values()) * 2 > size
            assert sum(match > index for match in matches.values()) * 2 <= size


def test_b9_figure_8_an_old_entry_on_a_majority_may_still_be_overwritten() -> None:
    lone = Lone(boot_of([1, 2], term=3, voters=range(1, 6)))
    raft = lone.lead(2, 3)
    lone.ack(2, 2)
    lone.ack(3, 2)
    assert raft.commit == 0


def test_b10_a_repeated_or_late_append_truncates_nothing() -> None:
    lone = Lone(boot_of())
    appends = [lone.append(2, 1, (0, 0), [1, 1, 1]), lone.append(2, 1, (3, 1), [1, 1])]
    for message in [*appends, appends[0], lone.append(2, 1, (1, 1), [1])]:
        reply = one(lone.step(message), AppendReply)
        assert reply.accepted
    assert lone.raft.last_index == 5
    assert reply.index == 2  # and it attests no more than that Append showed


def test_b10_an_append_that_begins_below_the_compacted_log_is_no_conflict() -> None:
    lone = Lone(boot_of([1] * 5, commit=5))
    lone.flush()
    lone.raft.compact(4)
    reply = one(lone.step(lone.append(2, 1, (1, 1), [1] * 6)), AppendReply)
    assert (reply.accepted, reply.index, lone.raft.last_index) == (True, 7, 7)


@pytest.mark.parametrize(
    ("before", "terms", "last"),
    [((0, 0), [1, 1], 4), ((2, 1), [], 4), ((0, 0), [1, 1, 2, 2], 4), ((1, 1), [1, 2, 2, 2], 5)],
    ids=["ends below", "is empty", "ends there", "goes on"],
)
def test_b10_an_append_that_begins_below_the_commit_index_is_accepted_wherever_it_ends(
    before: tuple[int, int], terms: list[int], last: int
) -> None:
    lone = Lone(boot_of([1, 1, 2, 2], commit=4))
    reply = one(lone.step(lone.append(2, 2, before, terms)), AppendReply)
    assert (reply.accepted, reply.index, lone.raft.last_index) == (True, last, last)


# --- pre-vote -----------------------------------------------------------------


def test_b12_asking_for_pre_votes_changes_neither_term_nor_vote() -> None:
    lone = Lone(boot_of(term=4, vote=3))
    lone.raft.campaign()
    lone.flush()
    assert (lone.raft.role, lone.raft.term, lone.raft.vote) == (Role.PRE_CANDIDATE, 4, 3)


def test_b12_a_pre_vote_is_not_taken_for_a_vote() -> None:
    lone = Lone(boot_of(voters=range(1, 6)))
    lone.raft.campaign()
    lone.flush()
    for voter in (2, 3):
        lone.step(PreVoteReply(SHARD, voter, 1, 1, True))
    for voter in (4, 5):
        lone.step(PreVoteReply(SHARD, voter, 1, 1, True))  # late
    assert lone.raft.role is Role.CANDIDATE


def test_b12_a_granted_pre_vote_names_the_term_that_was_asked_about() -> None:
    lone = Lone(boot_of(term=4))
    reply = one(lone.step(lone.pre_vote(2, 9, (0, 0))), PreVoteReply)
    assert (reply.granted, reply.term, lone.raft.term) == (True, 9, 4)


def test_b12_a_refused_pre_vote_names_the_own_term_so_that_a_late_replica_catches_up() -> None:
    lone = Lone(boot_of(term=4))
    for asked in (3, 4):
        reply = one(lone.step(lone.pre_vote(2, asked, (0, 0))), PreVoteReply)
        assert (reply.granted, reply.term) == (False, 4)
    late = Lone(boot_of(term=2))
    late.raft.campaign()
    late.flush()
    late.step(PreVoteReply(SHARD, 2, 1, 4, False))
    assert late.raft.term == 4


def test_b12_a_follower_grants_a_pre_vote_to_its_own_leader_that_restarted() -> None:
    lone = Lone(boot_of())
    lone.step(lone.append(2, 1, (0, 0)))
    assert not one(lone.step(lone.pre_vote(3, 2, (0, 0))), PreVoteReply).granted
    assert one(lone.step(lone.pre_vote(2, 2, (0, 0))), PreVoteReply).granted


def test_b12_a_pre_vote_is_no_contact_with_a_leader() -> None:
    lone = Lone(boot_of())
    for _ in range(30):
        lone.tick()
        lone.step(lone.pre_vote(3, 1, (0, 0)))
    assert lone.raft.role is Role.PRE_CANDIDATE


def test_b12_stepping_down_within_a_term_keeps_the_vote() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    raft.step_down()
    assert (raft.term, raft.vote) == (1, 1)
    assert not one(lone.step(lone.vote(3, 1, (9, 1))), VoteReply).granted


def test_b12_a_replica_stuck_in_a_higher_term_gets_back_into_the_group() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    stuck = cluster[3]
    stuck.step(Vote(SHARD, 2, 3, 9, 99, 9, True))  # an election that nobody won
    cluster.settle()
    cluster.heal()
    leader = cluster.until_leader()
    cluster.propose(leader, b"x")
    assert leader.term >= 9
    assert cluster.commands(3) == [b"x"]


# --- reads --------------------------------------------------------------------


def test_b39_a_new_leaders_reads_wait_for_an_own_entry_to_be_committed() -> None:
    lone = Lone(boot_of([1], term=1))
    raft = lone.lead(2)
    raft.read_index(5)
    assert not only(lone.flush(), Heartbeat)
    lone.beat_back(2, read=9)
    raft.step(AppendReply(SHARD, 2, 1, raft.term, True, 2, 0, 0, 0))
    ready = lone.ready()
    assert ready.reads == []
    beat = only(ready.messages, Heartbeat)[0]
    assert beat.read_sequence == raft.reads.sequence


def test_b39_an_answer_to_an_earlier_round_confirms_no_later_read() -> None:
    lone = Lone(boot_of(voters=range(1, 6)))
    raft = lone.lead(2, 3)
    lone.ack(2, 1)
    lone.ack(3, 1)
    reads = []
    raft.read_index(7)
    lone.raft.ready()
    first = raft.reads.sequence
    raft.read_index(7)  # the same token again
    lone.raft.ready()
    for voter in (2, 3):
        raft.step(_beat(voter, raft.term, first))
        ready = raft.ready()
        reads += ready.reads if ready else []
    assert len(reads) == 1
    for voter in (4, 5):
        raft.step(_beat(voter, raft.term, first + 1))
        ready = raft.ready()
        reads += ready.reads if ready else []
    assert len(reads) == 2


def _beat(sender: int, term: int, sequence: int) -> Message:
    return HeartbeatReply(SHARD, sender, 1, term, sequence)


def test_b39_a_deposed_leader_answers_no_read() -> None:
    cluster = Cluster(3)
    old = cluster.elect(1)
    cluster.isolate(1)
    new = cluster.elect(2)
    cluster.propose(new, b"x")
    if old.role is Role.LEADER:
        cluster.read(old, 1)
    cluster.settle(ticks=25)
    assert cluster.nodes[1].reads == {}
    assert old.role is not Role.LEADER
