"""How entries reach followers: batches, windows, probes, fetches, commit news."""

from __future__ import annotations

import attrs
import pytest

from kritad.raft.core import ProposalRefused, Refusal
from kritad.raft.messages import Append, AppendReply, Heartbeat, VoteReply
from kritad.raft.progress import ProgressState
from kritad.raft.ready import Fetch
from tests.raft.cluster import SHARD, Cluster
from tests.raft.lone import Lone, boot_of, log_of, one, only


def _leading(**settings: int) -> Lone:
    """A leader whose follower 2 replicates and whose follower 3 is silent."""
    lone = Lone(boot_of(), **settings)
    lone.lead(2)
    lone.ack(2, 1)
    return lone


def _to(lone: Lone, recipient: int) -> list[Append]:
    return [append for append in only(lone.flush(), Append) if append.recipient == recipient]


def test_all_commands_of_a_turn_leave_in_one_append_per_follower() -> None:
    lone = _leading()
    for _ in range(50):
        lone.raft.propose(b"x")
    (append,) = _to(lone, 2)
    assert [entry.index for entry in append.entries] == list(range(2, 52))


def test_the_leader_sends_before_its_own_disk_has_answered() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    ready = lone.ready()
    assert only(ready.messages, Append)
    assert ready.save is not None
    lone.raft.step(AppendReply(SHARD, 2, 1, 1, True, 2, 0, 0, 0))
    assert lone.raft.commit == 1  # two of three, but the own one is not durable
    lone.raft.saved(ready.save.sequence)
    assert lone.raft.commit == 2


def test_heartbeats_leave_while_the_leaders_disk_is_slow() -> None:
    """Else its followers would elect another for each stall."""
    lone = _leading()
    lone.raft.propose(b"x")
    assert lone.ready().save is not None  # and it takes its time
    for _ in range(2):
        lone.raft.tick()
    assert [beat.recipient for beat in only(lone.ready().messages, Heartbeat)] == [2, 3]


def test_followers_alone_can_commit_while_the_leaders_disk_is_slow() -> None:
    lone = _leading()
    lone.ack(3, 1)
    lone.raft.propose(b"x")
    ready = lone.ready()
    for follower in (2, 3):
        lone.raft.step(AppendReply(SHARD, follower, 1, 1, True, 2, 0, 0, 0))
    assert lone.raft.commit == 2
    later = lone.raft.ready()
    assert later is None or not later.committed  # not applied before it is durable here
    assert ready.save is not None
    lone.raft.saved(ready.save.sequence)
    assert [entry.index for entry in lone.ready().committed] == [2]


def test_a_follower_gets_no_more_messages_than_its_window_has_places() -> None:
    lone = _leading(inflight_messages_max=3)
    for _ in range(10):
        lone.raft.propose(b"x")
        lone.flush()
    progress = lone.raft.progress[2]
    assert (len(progress.inflight), progress.next) == (3, 5)
    sent = [append for append in only(lone.ack(2, 3), Append) if append.recipient == 2]
    assert [[entry.index for entry in append.entries] for append in sent] == [list(range(5, 12))]
    assert [last for last, _ in progress.inflight] == [4, 11]


def test_a_full_window_stays_closed_when_a_lost_append_is_looked_for() -> None:
    lone = _leading(inflight_messages_max=1)
    for _ in range(2):
        lone.raft.propose(b"x")
        lone.flush()
    sent = []
    for _ in range(3):
        lone.tick(2)
        sent += only(lone.beat_back(2), Append)
    assert sent
    assert all(append.entries == [] for append in sent)


def test_a_follower_gets_no_more_bytes_than_its_window_has() -> None:
    lone = _leading(inflight_bytes_max=250, append_bytes_max=100)
    for _ in range(10):
        lone.raft.propose(bytes(100))
    assert [len(append.entries) for append in _to(lone, 2)] == [1, 1, 1]
    assert lone.raft.progress[2].inflight_bytes == 300
    lone.ack(2, 11)
    assert (lone.raft.progress[2].inflight_bytes, len(lone.raft.progress[2].inflight)) == (0, 0)


def test_a_probed_follower_gets_one_append_until_something_is_heard() -> None:
    lone = _leading()
    for _ in range(3):
        lone.raft.propose(b"x")
        assert _to(lone, 3) == []
    lone.tick(2)
    appends = [append for append in only(lone.beat_back(3), Append) if append.recipient == 3]
    assert [len(append.entries) for append in appends] == [4]


def test_a_lost_append_is_noticed_by_the_heartbeats() -> None:
    lone = _leading()
    lone.raft.propose(b"lost")
    assert _to(lone, 2)
    sent = []
    for _ in range(3):
        lone.tick(2)
        sent += only(lone.beat_back(2), Append)
    assert [(append.prev_index, append.entries) for append in sent[:1]] == [(2, [])]
    again = one(lone.refuse(2, 2, 1, 1), Append)
    assert [entry.data for entry in again.entries] == [b"lost"]


def test_heartbeats_bring_no_appends_while_answers_keep_coming() -> None:
    lone = _leading()
    for index in range(2, 12):
        lone.raft.propose(b"x")
        lone.flush()
        lone.ack(2, index)
        lone.tick(2)
        assert not only(lone.beat_back(2), Append)


def test_an_unreachable_follower_is_probed_again() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    lone.flush()
    lone.raft.unreachable(2)
    progress = lone.raft.progress[2]
    assert (progress.state, progress.next) == (ProgressState.PROBE, 2)
    lone.tick(2)
    assert [len(a.entries) for a in only(lone.beat_back(2), Append)] == [1]


def test_that_a_message_was_dropped_is_news_of_a_follower_that_is_sent_ahead_to_only() -> None:
    lone = _leading()
    progress = lone.raft.progress[3]
    progress.become_snapshot()
    for replica in (3, 9):  # 9: who was removed meanwhile
        lone.raft.unreachable(replica)
    assert progress.state is ProgressState.SNAPSHOT


def test_one_probe_per_term_is_enough_to_find_where_logs_agree() -> None:
    lone = Lone(boot_of([1] * 5 + [4] * 50))
    lone.lead(2)
    found = one(lone.refuse(3, 55, 45, 2), Append)  # it has terms 1 and 2 up to 45
    assert (found.prev_index, found.prev_term) == (5, 1)


def test_an_old_refusal_moves_nothing_back() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    lone.flush()
    assert not only(lone.refuse(2, 1, 0, 0), Append)
    assert lone.raft.progress[2].state is ProgressState.REPLICATE


def _needs_fetch() -> tuple[Lone, Fetch]:
    lone = Lone(boot_of([1] * 20, commit=20), window_bytes=60)
    lone.flush()
    lone.lead(2)
    assert one(lone.refuse(3, 20, 4, 1), Append).entries == []  # do the logs agree at all?
    lone.raft.step(AppendReply(SHARD, 3, 1, lone.raft.term, True, 4, 0, 0, 0))
    ready = lone.ready()
    assert not only(ready.messages, Append)
    (fetch,) = ready.fetches
    return lone, fetch


def test_entries_that_left_memory_are_fetched_and_sent() -> None:
    lone, fetch = _needs_fetch()
    assert (fetch.recipient, fetch.first, fetch.last) == (3, 5, lone.raft.log.first_held - 1)
    lone.raft.fetched(fetch, log_of([1] * (fetch.last - 4), 5))
    sent = [append for append in only(lone.flush(), Append) if append.recipient == 3]
    indexes = [entry.index for append in sent for entry in append.entries]
    assert indexes == list(range(5, lone.raft.last_index + 1))


def test_while_entries_are_fetched_nothing_is_sent_or_fetched_twice() -> None:
    lone, _ = _needs_fetch()
    lone.raft.propose(b"x")
    ready = lone.ready()
    assert ready.fetches == []
    assert [append.recipient for append in only(ready.messages, Append)] != [3]


@pytest.mark.parametrize(
    "read", [[], log_of([1, 1], 6), log_of([9, 9], 5)], ids=["gone", "shifted", "other terms"]
)
def test_what_the_disk_read_wrongly_is_never_sent(read: list) -> None:  # type: ignore[type-arg]
    lone, fetch = _needs_fetch()
    lone.raft.fetched(fetch, read)
    assert not [a for a in only(lone.flush(), Append) if a.recipient == 3 and a.entries]
    assert lone.raft.progress[3].state is ProgressState.PROBE


def test_a_malformed_append_is_ignored() -> None:
    lone = Lone(boot_of())
    append = lone.append(2, 1, (0, 0), [1, 1, 1])
    del append.entries[1]
    assert only(lone.step(append), AppendReply) == []
    assert lone.raft.last_index == 0


def test_several_appends_of_one_turn_are_acknowledged_once() -> None:
    lone = Lone(boot_of())
    appends = [lone.append(2, 1, (0, 0), [1, 1]), lone.append(2, 1, (2, 1), [1])]
    for append, read in zip([*appends, appends[0]], (4, 7, 4), strict=True):
        lone.raft.step(attrs.evolve(append, read_sequence=read))
    reply = one(lone.ready().messages_after_save, AppendReply)
    assert (reply.index, reply.read_sequence) == (3, 7)


def test_an_acknowledgement_joins_no_answer_that_says_something_else() -> None:
    """Neither a vote, nor a refusal, nor one that another term's leader waits for."""
    lone = Lone(boot_of(term=1))
    lone.raft.step(lone.vote(2, 1, (0, 0)))
    lone.raft.step(lone.append(2, 1, (0, 0), [1]))
    lone.raft.step(lone.append(2, 1, (9, 1), [1]))
    lone.raft.step(lone.append(2, 1, (1, 1), [1]))
    lone.raft.step(lone.append(2, 2, (2, 1), [2]))
    vote, *replies = lone.ready().messages_after_save
    assert isinstance(vote, VoteReply)
    assert [(r.term, r.accepted, r.index) for r in only(replies, AppendReply)] == [
        (1, True, 1),
        (1, False, 9),
        (1, True, 2),
        (2, True, 3),
    ]


@pytest.mark.parametrize(
    ("term", "commit", "hint"),
    [(3, 0, (3, 2)), (1, 0, (2, 1)), (1, 4, (4, 4)), (9, 0, (5, 4))],
    ids=["skips a term", "skips two", "committed", "too short"],
)
def test_a_refusal_names_the_last_place_where_the_logs_may_agree(
    term: int, commit: int, hint: tuple[int, int]
) -> None:
    lone = Lone(boot_of([1, 1, 2, 4, 4], commit=commit))
    reply = one(lone.step(lone.append(2, 9, (7, term))), AppendReply)
    assert (reply.accepted, reply.hint_index, reply.hint_term) == (False, *hint)


def test_followers_learn_the_commit_index_a_tick_after_the_last_append() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    lone.flush()
    lone.ack(2, 2)
    lone.raft.heartbeat_elapsed = -100  # keep the timer's heartbeats out of this
    beats = only(lone.tick(2), Heartbeat)
    assert [(beat.recipient, beat.commit) for beat in beats] == [(2, 2)]
    assert not only(lone.tick(5), Heartbeat)


def test_a_commit_index_that_an_append_has_told_gets_no_message_of_its_own() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    lone.flush()
    lone.ack(2, 2)
    lone.raft.propose(b"y")
    assert [append.commit for append in _to(lone, 2)] == [2]
    lone.raft.heartbeat_elapsed = -100  # as above
    assert not only(lone.tick(4), Heartbeat)


def test_a_heartbeat_never_names_a_commit_index_the_follower_may_lack() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    lone.flush()
    lone.ack(2, 2)
    beats = {beat.recipient: beat.commit for beat in only(lone.tick(2), Heartbeat)}
    assert beats == {2: 2, 3: 0}


def test_a_heartbeat_says_whether_more_is_committed_than_the_follower_has() -> None:
    lone = _leading()
    lone.raft.propose(b"x")
    lone.flush()
    lone.ack(2, 2)
    beats = {beat.recipient: beat.behind for beat in only(lone.tick(2), Heartbeat)}
    assert beats == {2: False, 3: True}


def test_a_new_leader_does_not_know_what_is_committed_before_it_has_committed_itself() -> None:
    lone = Lone(boot_of())
    lone.lead(2)
    assert lone.raft.commit < lone.raft.told_commit == lone.raft.term_start


def test_too_much_uncommitted_is_refused_until_it_is_committed() -> None:
    lone = _leading(uncommitted_bytes_max=1000)
    for _ in range(8):
        lone.raft.propose(bytes(100))
    with pytest.raises(ProposalRefused) as refused:
        lone.raft.propose(bytes(100))
    assert refused.value.reason is Refusal.BUSY
    last = lone.raft.last_index
    lone.flush()
    lone.ack(2, last)
    assert lone.raft.propose(bytes(100)) == (last + 1, 1)


def test_one_entry_is_taken_however_small_the_bound() -> None:
    lone = _leading(uncommitted_bytes_max=10)
    lone.raft.propose(bytes(100))
    with pytest.raises(ProposalRefused):
        lone.raft.propose(b"")


def test_an_entry_larger_than_allowed_is_refused() -> None:
    lone = _leading(entry_bytes_max=10)
    with pytest.raises(ProposalRefused) as refused:
        lone.raft.propose(bytes(11))
    assert refused.value.reason is Refusal.TOO_LARGE
    assert lone.raft.last_index == 1


def test_a_follower_far_behind_catches_up_through_fetches_and_small_windows() -> None:
    cluster = Cluster(
        3, window_bytes=200, append_bytes_max=150, inflight_messages_max=2, inflight_bytes_max=300
    )
    leader = cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(leader, *[b"%d" % number for number in range(300)])
    cluster.heal()
    cluster.settle(ticks=40)
    assert cluster.states_agree([1, 2, 3])
    assert cluster[3].applied_index == cluster.leader().commit
