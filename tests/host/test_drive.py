"""The drive loop's durability order: each rule of kritad/host/drive.py, by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.operations import Op
from kritad.host.request import Request
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    SnapshotInstalled,
    Vote,
    VoteReply,
)
from kritad.raft.types import Entry, EntryKind, SnapshotMeta
from kritad.storage.errors import Corrupt, StoreFailed
from tests.host.lone import SHARD, LoneNode, Replies, configuration


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path)
    yield lone
    lone.close()


@pytest.fixture
def two_shards(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path, shards=2)
    yield lone
    lone.close()


def put(node: LoneNode, key: bytes, shard: int = SHARD) -> Replies:
    """Propose a put to the leader on this node."""
    replies = Replies()
    body = encode_body(Op.PUT, 0, 0, 0, key, b"value")
    request = Request(Op.PUT, body, key, shard, replies, 1e12, write=True)
    node.replicas[shard].propose(request, node.clock.wall_ms())
    node.drive.mark(node.replicas[shard])
    return replies


def append(first: int, count: int, *, commit: int = 0, term: int = 1) -> Append:
    """What leader 2 sends: ``count`` entries from ``first`` on."""
    entries = [
        Entry(index, term, EntryKind.COMMAND, b"x" * 20) for index in range(first, first + count)
    ]
    before_term = term if first > 1 else 0
    return Append(SHARD, 2, 1, term, first - 1, before_term, commit, 0, entries)


def test_a_leaders_entries_leave_while_its_own_disk_still_works_on_them(node: LoneNode) -> None:
    node.lead()
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, 1, 0, 0, 0))
    node.settle()
    node.world.events.clear()
    put(node, b"k")
    node.drive.turn()
    assert [type(message) for message in node.world.named("send")] == [Append]
    assert len(node.log.jobs) == 1
    assert node.raft.durable_index == 1


def test_a_vote_leaves_only_after_it_is_durable(node: LoneNode) -> None:
    node.step(Vote(SHARD, 2, 1, 5, 0, 0, False))
    node.drive.turn()
    node.log.work()  # on the disk, but not reported yet
    node.drive.turn()
    assert node.world.named("send") == []
    node.log.report()
    node.drive.turn()
    assert node.world.order == ["save", "send"]
    assert node.world.named("send") == [VoteReply(SHARD, 1, 2, 5, True)]


def test_a_followers_acknowledgement_waits_for_its_own_save_and_not_for_an_earlier_one(
    node: LoneNode,
) -> None:
    node.step(append(1, 1))
    node.drive.turn()
    node.step(append(2, 1))
    node.drive.turn()
    node.log.run_one()
    node.drive.turn()
    replies = [m for m in node.world.named("send") if isinstance(m, AppendReply)]
    assert [reply.index for reply in replies] == [1]
    node.settle()
    replies = [m for m in node.world.named("send") if isinstance(m, AppendReply)]
    assert [reply.index for reply in replies] == [1, 2]


def test_what_arrives_during_a_save_is_the_next_batch_for_all_shards_together(
    two_shards: LoneNode,
) -> None:
    node = two_shards
    node.lead(1)
    node.lead(2)
    put(node, b"a", 1)
    node.drive.turn()
    for key in (b"b", b"c"):
        put(node, key, 1)
        put(node, key, 2)
        node.drive.turn()
    assert len(node.log.jobs) == 1, "the writer was given a second batch before it was free"
    node.log.run_one()
    node.drive.turn()
    node.log.run_one()
    batches = node.world.named("save")
    assert len(batches) == 2
    second = batches[1]
    assert isinstance(second, list)
    assert [shard for shard, _ in second] == [1, 2, 1, 2]


def test_saves_of_a_replica_reach_the_disk_in_the_order_the_core_made_them(node: LoneNode) -> None:
    node.lead()
    for number in range(6):
        put(node, b"k%d" % number)
        node.drive.turn()
        if number % 3 == 2:
            node.log.run_one()
    node.settle()
    sequences = [
        save.sequence
        for batch in node.world.named("save")
        for _, save in batch  # type: ignore[attr-defined]
    ]
    assert len(sequences) == 6
    assert sequences == sorted(sequences)
    assert node.raft_db.load(SHARD, 0).last_index == node.raft.last_index == 7


def test_saved_is_reported_to_the_core_only_after_the_transaction_has_returned(
    node: LoneNode,
) -> None:
    node.lead()
    put(node, b"k")
    node.drive.turn()
    assert node.raft.durable_index == 1
    node.log.work()
    assert node.raft.durable_index == 1
    node.log.report()
    assert node.raft.durable_index == 2


def test_a_write_is_answered_only_when_a_majority_has_it_and_it_is_applied(node: LoneNode) -> None:
    node.lead()
    replies = put(node, b"k")
    node.drive.turn()
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, 1, 0, 0, 0))
    node.settle()  # own disk: durable. One follower has entry 1, not 2.
    assert replies.all == []
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, 2, 0, 0, 0))
    node.settle()
    assert replies.one == (0, [2, False])


def test_a_committed_write_is_not_applied_before_the_own_disk_has_it(node: LoneNode) -> None:
    node.lead()
    replies = put(node, b"k")
    node.drive.turn()
    for follower in (2, 3):
        node.step(AppendReply(SHARD, follower, 1, node.raft.term, True, 2, 0, 0, 0))
    node.drive.turn()
    assert node.raft.commit == 2
    assert replies.all == []
    assert node.replica.state.index < 2
    node.settle()
    assert replies.one == (0, [2, False])


def test_a_batch_without_must_sync_costs_no_transaction(node: LoneNode) -> None:
    node.step(append(1, 1))
    node.settle()
    node.world.events.clear()
    # A refusal attests nothing new: with a save outstanding it needs a place in
    # the order, and that is all.
    node.step(append(2, 1))
    node.drive.turn()
    node.step(append(9, 1))  # a gap: refused
    node.drive.turn()
    node.log.run_one()
    node.drive.turn()
    assert not node.log.jobs, "an empty save went to the disk"
    assert len(node.world.named("save")) == 1
    replies = [m for m in node.world.named("send") if isinstance(m, AppendReply)]
    assert [reply.accepted for reply in replies] == [True, False]


def test_an_empty_save_still_waits_for_the_saves_before_it(node: LoneNode) -> None:
    node.step(append(1, 1))
    node.drive.turn()
    node.step(append(9, 1))
    node.drive.turn()
    assert node.world.named("send") == [], "a later answer has overtaken an earlier save"


def test_after_a_failed_save_nothing_is_sent_and_the_disk_is_not_asked_again(
    node: LoneNode,
) -> None:
    node.lead()
    node.log.fails_with = StoreFailed("I/O error")
    put(node, b"k")
    node.drive.turn()
    node.world.events.clear()
    node.log.run_one()
    assert [str(failure) for failure in node.world.failures] == ["I/O error"]
    put(node, b"later")
    node.step(append(1, 1, term=9))
    node.drive.turn()
    assert node.world.events == []
    assert not node.log.jobs


def test_messages_that_waited_for_a_failed_save_never_leave(node: LoneNode) -> None:
    node.log.fails_with = StoreFailed("I/O error")
    node.step(Vote(SHARD, 2, 1, 5, 0, 0, False))
    node.drive.turn()
    node.log.run_one()
    node.drive.turn()
    assert node.world.named("send") == []


def snapshot(index: int) -> SnapshotInstalled:
    meta = SnapshotMeta(index, 1, configuration(3), generation=7)
    return SnapshotInstalled(SHARD, 2, 1, 1, meta)


def test_a_snapshot_is_saved_in_the_log_then_installed_then_reported(node: LoneNode) -> None:
    node.step(Heartbeat(SHARD, 2, 1, 1, 0, 0))
    node.settle()
    node.world.events.clear()
    node.step(snapshot(50))
    node.drive.turn()
    node.log.run_one()
    assert node.world.order == ["save", "installing"]
    assert node.raft_db.load(SHARD, 50).snapshot.index == 50
    assert node.raft.durable_index < 50, "reported before its rows are the shard's state"
    node.data.work()
    assert node.world.order == ["save", "installing", "install"]
    assert node.raft.durable_index < 50
    node.data.report()
    assert node.world.order == ["save", "installing", "install", "installed"]
    assert node.raft.durable_index == 50
    node.drive.turn()
    acknowledged = [m for m in node.world.named("send") if isinstance(m, AppendReply)]
    assert [reply.index for reply in acknowledged] == [50]


def test_a_failed_installation_ends_the_node_and_acknowledges_nothing(node: LoneNode) -> None:
    node.step(snapshot(50))
    node.drive.turn()
    node.log.run_one()
    node.data.fails_with = StoreFailed("no")
    node.data.run_one()
    node.drive.turn()
    assert len(node.world.failures) == 1
    assert node.world.named("installed") == []
    assert node.world.named("send") == []


def test_entries_behind_a_snapshot_are_not_applied_before_it_is_installed(node: LoneNode) -> None:
    node.step(snapshot(50))
    node.step(append(51, 2, commit=52))
    node.drive.turn()
    node.log.run_one()
    node.drive.turn()
    assert node.replica.state.index == 0


def test_a_poisoned_replicas_answers_do_not_leave_although_its_save_succeeds(
    node: LoneNode,
) -> None:
    node.step(Vote(SHARD, 2, 1, 5, 0, 0, False))
    node.drive.turn()
    node.raft.poison("damaged")
    node.settle()
    assert node.world.named("send") == []


def test_a_damaged_row_met_while_applying_poisons_this_shard_and_the_others_go_on(
    two_shards: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = two_shards
    node.lead(1)
    node.lead(2)

    def broken(_entry: Entry) -> None:
        raise Corrupt(1, "a row is damaged")

    monkeypatch.setattr(node.replicas[1].state, "apply", broken)
    replies = {shard: put(node, b"k", shard) for shard in (1, 2)}
    node.settle()
    for shard in (1, 2):
        term = node.replicas[shard].raft.term
        node.step(AppendReply(shard, 2, 1, term, True, 2, 0, 0, 0))
    node.settle()
    assert [str(problem) for problem in node.world.damage] == ["a row is damaged"]
    assert node.replicas[1].raft.poisoned
    assert node.replicas[1].raft.applied_index < 2
    assert replies[2].one == (0, [2, False])


def test_reads_of_a_turn_are_answered_after_its_commits(node: LoneNode) -> None:
    node.lead()
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, 1, 0, 0, 0))
    node.settle()
    put(node, b"k")
    node.drive.turn()
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, 2, 0, 0, 0))
    node.settle()
    replies = Replies()
    node.replica.read(Request(Op.GET, b"", b"k", SHARD, replies, 1e12))
    node.drive.mark(node.replica)
    node.drive.turn()
    heartbeat = next(m for m in node.world.named("send") if isinstance(m, Heartbeat))
    assert replies.all == [], "answered before a majority has confirmed the leader"
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, 2, 0, 0, heartbeat.read_sequence))
    node.drive.turn()
    assert replies.one[0] == 0
    assert replies.one[1][:2] == [b"value", 2]  # type: ignore[index]


def test_a_failed_save_installs_none_of_the_snapshots_in_it(node: LoneNode) -> None:
    """Else the state would be ahead of the log, as if that had lost its tail."""
    node.log.fails_with = StoreFailed("I/O error")
    node.step(snapshot(50))
    node.drive.turn()
    node.log.run_one()
    node.settle()
    assert [str(failure) for failure in node.world.failures] == ["I/O error"]
    assert node.world.named("install") == node.world.named("installed") == []


def test_a_snapshot_is_no_state_of_a_replica_that_was_poisoned_meanwhile(node: LoneNode) -> None:
    node.step(snapshot(50))
    node.drive.turn()
    node.log.run_one()
    node.raft.poison("removed")
    node.settle()
    assert len(node.world.named("install")) == 1
    assert node.world.named("installed") == []


def test_forgotten_replicas_are_neither_saved_nor_heard_of_any_more(two_shards: LoneNode) -> None:
    """And all others as before, whatever of theirs is on its way."""
    node = two_shards
    gone = node.replicas[1]
    for term in (5, 6, 7):  # of these one save is being written, one waits, one is to be made
        if term > 5:
            node.drive.turn()
        for shard in (1, 2):
            node.step(Vote(shard, 2, 1, term, 0, 0, False))
    gone.raft.poison("removed")
    node.drive.forget([gone])
    node.settle()
    assert node.drive.idle
    votes = [(vote.shard, vote.term) for vote in node.world.named("send")]  # type: ignore[attr-defined]
    assert votes == [(2, 5), (2, 6), (2, 7)]
    saved = [[shard for shard, _ in batch] for batch in node.world.named("save")]  # type: ignore[attr-defined]
    assert saved == [[1, 2], [2, 2]]


def test_the_time_the_disk_takes_is_measured_while_it_takes_it(node: LoneNode) -> None:
    assert node.drive.writing_ms == 0
    node.step(append(1, 1))
    node.drive.turn()
    node.clock.advance(700)
    assert node.drive.writing_ms == 700
    assert not node.drive.idle
    node.settle()
    assert node.drive.writing_ms == 0
    assert node.drive.idle


@pytest.mark.parametrize("saves", [1, 5])
def test_the_repr_says_what_waits(node: LoneNode, saves: int) -> None:
    for number in range(saves):
        node.step(append(1 + number, 1))
        node.drive.turn()
    assert repr(node.drive) == f"<Drive 0 dirty, {saves - 1} collecting, writing 1>"
