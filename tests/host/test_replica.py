"""A replica and those who wait on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.errors import Outcome, Status
from krita.operations import Op
from krita.ring import RING_SIZE, token
from kritad.host.log_marks import LogMarks
from kritad.host.request import Request
from kritad.raft.errors import ProposalRefused
from kritad.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.storage.errors import Corrupt
from tests.host.lone import SHARD, LoneNode, Replies


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path)
    yield lone
    lone.close()


def write(node: LoneNode, key: bytes = b"k") -> tuple[Request, Replies]:
    replies = Replies()
    body = encode_body(Op.PUT, 0, 0, 0, key, b"v")
    request = Request(Op.PUT, body, key, SHARD, replies, 1e12, write=True)
    node.replica.propose(request, 1000)
    node.drive.mark(node.replica)
    return request, replies


def read(node: LoneNode, key: bytes = b"k") -> Replies:
    replies = Replies()
    node.replica.read(Request(Op.GET, encode_body(Op.GET, key), key, SHARD, replies, 1e12))
    node.drive.mark(node.replica)
    return replies


def acknowledge(node: LoneNode, index: int | None = None, read_sequence: int = 0) -> None:
    """Follower 2 has everything up to ``index`` (the end, if it is not said)."""
    up_to = node.raft.last_index if index is None else index
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, up_to, 0, 0, read_sequence))
    node.settle()


def command(index: int, term: int, key: bytes = b"other") -> Entry:
    body = encode_body(Op.PUT, 0, 0, 0, key, b"theirs")
    return Entry(index, term, EntryKind.COMMAND, pack_command(1000, Op.PUT, body))


def test_a_refused_proposal_says_so_and_leaves_no_trace(node: LoneNode) -> None:
    with pytest.raises(ProposalRefused):
        write(node)
    assert node.replica._writes == {}


def test_a_write_that_was_answered_while_it_waited_for_its_key_never_gets_into_the_log(
    node: LoneNode,
) -> None:
    """It has no body any more: an entry that nobody can read."""
    node.lead()
    node.replica.line.proposed(2, (b"k",))  # a transaction's, which is to be there
    request, late = write(node)
    _, replies = write(node)
    assert node.raft.last_index == 1
    request.expire()
    write(node, b"other")
    acknowledge(node)
    assert node.raft.last_index == 3
    acknowledge(node)
    assert late.one[0] == Status.DEADLINE
    assert replies.one[0] == Status.OK


def test_a_transaction_that_may_not_wait_for_its_keys_is_refused_at_once(node: LoneNode) -> None:
    node.lead()
    node.replica.line.proposed(2, (b"k",))
    answers = []
    for wait_until_ms in (0.0, 5_000.0):
        replies = Replies()
        request = Request(Op.TXN_PREPARE, b"", b"", SHARD, replies, 1e12, write=True)
        request.fields, request.wait_until_ms = (b"k",), wait_until_ms
        node.replica.propose(request, 1000)
        answers.append([status for status, _ in replies.all])
    assert answers == [[Status.BUSY], []]
    assert node.raft.last_index == 1


def test_a_lost_leadership_alone_answers_no_write(node: LoneNode) -> None:
    node.lead()
    _, replies = write(node)
    node.settle()
    node.step(Heartbeat(SHARD, 2, 1, node.raft.term + 1, 0, 0))
    node.settle()
    assert not node.replica.leads
    assert replies.all == []


def test_an_entry_of_another_term_in_its_place_proves_a_write_not_applied(node: LoneNode) -> None:
    node.lead()
    _, replies = write(node)  # index 2
    node.settle()
    term = node.raft.term + 1
    noop = Entry(1, 1, EntryKind.NOOP, b"")
    node.step(Append(SHARD, 2, 1, term, 0, 0, 2, 0, [noop, command(2, term)]))
    node.settle()
    assert node.replica.state.index == 2
    assert replies.one[0] == Status.UNAVAILABLE
    assert replies.outcome == Outcome.NOT_APPLIED


def test_a_write_that_the_next_leader_commits_is_answered_as_done(node: LoneNode) -> None:
    node.lead()
    _, replies = write(node)
    node.settle()
    term = node.raft.term + 1
    own = node.raft.log.held(1, 2)
    newer = command(3, term)
    node.step(Append(SHARD, 2, 1, term, 0, 0, 3, 0, [*own, newer]))
    node.settle()
    assert replies.one == (Status.OK, [2, False])


def test_two_writes_of_two_terms_at_one_index_are_each_told_their_own_fate(node: LoneNode) -> None:
    node.lead()
    old = [write(node)[1] for _ in range(3)]  # indexes 2, 3 and 4
    node.settle()
    # The next leader knows of none of them, and then it is this node's turn again.
    term = node.raft.term
    node.step(Append(SHARD, 2, 1, term + 1, 1, term, 1, 0, [command(2, term + 1)]))
    node.settle()
    node.lead_again()
    assert node.raft.last_index == 3
    _, new = write(node)
    assert node.raft.last_index == 4
    node.settle()
    assert all(replies.all == [] for replies in old)
    acknowledge(node)
    assert [replies.one[0] for replies in old] == [Status.UNAVAILABLE] * 3
    assert [replies.outcome for replies in old] == [Outcome.NOT_APPLIED] * 3
    assert new.one == (Status.OK, [4, False])


def test_one_round_serves_all_reads_that_waited_when_it_began(node: LoneNode) -> None:
    node.lead()
    node.settle()
    acknowledge(node)
    node.world.events.clear()
    replies = [read(node) for _ in range(50)]
    node.drive.turn()
    beats = [m for m in node.world.named("send") if isinstance(m, Heartbeat)]
    assert len(beats) == 2, "one heartbeat for each follower"
    node.step(HeartbeatReply(SHARD, 2, 1, node.raft.term, beats[0].read_sequence))
    node.settle()
    assert all(reply.one[0] == Status.OK for reply in replies)


def test_a_read_that_came_after_a_round_began_waits_for_the_next(node: LoneNode) -> None:
    node.lead()
    acknowledge(node)
    early = read(node)
    node.drive.turn()
    late = read(node)
    beats = [m for m in node.world.named("send") if isinstance(m, Heartbeat)]
    first_round = max(beat.read_sequence for beat in beats)
    node.step(HeartbeatReply(SHARD, 2, 1, node.raft.term, first_round))
    node.drive.turn()
    assert len(early.all) == 1
    assert late.all == []


def test_reads_go_back_into_the_queue_when_leadership_is_lost(node: LoneNode) -> None:
    node.lead()
    acknowledge(node)
    replies = read(node)
    node.drive.turn()
    node.step(Heartbeat(SHARD, 2, 1, node.raft.term + 1, 0, 0))
    node.settle()
    assert replies.all == []
    assert len(node.world.requeued) == 1


def test_reads_of_a_follower_go_back_into_the_queue(node: LoneNode) -> None:
    read(node)
    node.settle()
    assert len(node.world.requeued) == 1


def test_a_read_is_not_answered_before_its_index_is_applied(node: LoneNode) -> None:
    node.lead()
    acknowledge(node)
    replies = read(node)
    node.replica._reads._confirmed.append(
        (99, [Request(Op.GET, b"", b"k", SHARD, late := Replies(), 1e12)])
    )
    node.drive.turn()
    acknowledge(node, read_sequence=node.raft.reads.sequence)
    assert replies.one[0] == Status.OK
    assert late.all == []


def test_abandoning_answers_every_write_unknown_and_every_read_not_applied(node: LoneNode) -> None:
    node.lead()
    acknowledge(node)
    writes = [write(node)[1] for _ in range(3)]
    queued, begun = read(node), None
    node.drive.turn()
    begun, queued = queued, read(node)
    node.replica.abandon("gone")
    assert [w.one[0] for w in writes] == [Status.UNKNOWN] * 3
    for reply in (begun, queued):
        assert reply.one[0] == Status.UNAVAILABLE
        assert reply.outcome == Outcome.NOT_APPLIED


def test_a_write_that_is_repeated_out_of_the_answer_itself_does_not_disturb_abandoning(
    node: LoneNode,
) -> None:
    node.lead()
    again: list[Replies] = []

    def repeat(_status: int, _body: object) -> None:
        again.append(write(node, b"again")[1])

    for _ in range(3):
        request, _ = write(node)
        request.respond = repeat
    node.replica.abandon("gone")
    assert len(again) == 3
    assert all(reply.all == [] for reply in again)


def split_body(at: int, shard_new: int) -> bytes:
    halves = [[replica, 10 * shard_new + replica, replica] for replica in (1, 2, 3)]
    return encode_body(Op.SPLIT, SHARD, shard_new, at, 1, halves)


def split(node: LoneNode, at: int, shard_new: int = 9) -> None:
    """Propose that the shard is cut."""
    body = split_body(at, shard_new)
    node.replica.propose(Request(Op.SPLIT, body, b"", SHARD, None, 0.0, write=True), 1000)


HIGH, LOW = b"k0", b"k2"  # by their tokens
MIDDLE = RING_SIZE // 2
assert token(LOW) < MIDDLE < token(HIGH)


def test_a_write_that_the_log_has_turned_away_for_its_shard_is_handed_back_free_of_doubt(
    node: LoneNode,
) -> None:
    node.lead()
    split(node, MIDDLE)
    moved, replies = write(node, HIGH)
    _, kept = write(node, LOW)
    node.settle()
    acknowledge(node)
    assert node.world.misplaced == [moved]
    assert replies.all == []
    assert kept.one[0] == Status.OK
    moved.expire()
    assert replies.one[0] == Status.DEADLINE, "it is in no log any more"


def test_a_read_of_a_key_that_was_split_off_is_handed_back_and_not_said_to_be_absent(
    node: LoneNode,
) -> None:
    node.lead()
    write(node, HIGH)
    node.settle()
    acknowledge(node)
    replies = read(node, HIGH)
    node.settle()
    split(node, MIDDLE)  # committed while the read waits to be allowed
    node.drive.mark(node.replica)
    node.settle()
    acknowledge(node, read_sequence=node.raft.reads.sequence)
    assert len(node.world.misplaced) == 1
    assert replies.all == []
    stale = Replies()
    request = Request(Op.GET, encode_body(Op.GET, HIGH, 1), HIGH, SHARD, stale, 1e12)
    node.replica.answer_read(request, 5)
    assert stale.all == []
    assert node.world.misplaced[1:] == [request]


def test_each_shard_that_was_split_off_is_handed_on_before_the_next_entry_is_applied(
    node: LoneNode,
) -> None:
    node.lead()
    split(node, MIDDLE, 9)
    split(node, MIDDLE // 2, 10)
    node.drive.mark(node.replica)
    node.settle()
    acknowledge(node)
    assert [(o.shard, o.replica, o.state.index) for o in node.world.split_off] == [
        (9, 91, 2),
        (10, 101, 3),
    ]


def test_two_writes_at_one_index_of_which_one_is_turned_away_are_told_each_their_own_fate(
    node: LoneNode,
) -> None:
    node.lead()
    lost = [write(node, LOW)[1] for _ in range(4)]  # indexes 2 to 5
    node.settle()
    term = node.raft.term
    node.step(Append(SHARD, 2, 1, term + 1, 1, term, 1, 0, [command(2, term + 1)]))
    node.settle()
    node.lead_again()  # its entry is at 3
    split(node, MIDDLE)
    moved, replies = write(node, HIGH)
    assert node.raft.last_index == 5
    write(node, HIGH)
    node.settle()
    acknowledge(node)
    assert [reply.one[0] for reply in lost] == [Status.UNAVAILABLE] * 4
    assert node.world.misplaced[0] is moved
    assert replies.all == []
    assert moved.older is None


def test_a_damaged_row_answers_the_read_and_is_reported(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_key: bytes) -> None:
        raise Corrupt(SHARD, "a row is damaged")

    monkeypatch.setattr(node.replica.state, "read", damaged)
    replies = Replies()
    node.replica.answer_read(Request(Op.GET, b"", b"k", SHARD, replies, 1e12), 0)
    assert replies.one[0] == Status.UNAVAILABLE
    assert [str(problem) for problem in node.world.damage] == ["a row is damaged"]


def test_behind_a_damaged_row_nothing_is_applied_or_reported_as_applied(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.lead()
    apply = node.replica.state.apply

    def damaged(entry: Entry) -> object:
        if entry.index == 3:
            raise Corrupt(SHARD, "a row is damaged")
        return apply(entry)

    monkeypatch.setattr(node.replica.state, "apply", damaged)
    replies = [write(node)[1] for _ in range(3)]
    node.settle()
    acknowledge(node)
    assert replies[0].one[0] == Status.OK
    assert replies[1].all == replies[2].all == []
    assert node.replica.state.index == 2
    assert node.raft.applied_index < 3


def test_every_change_of_role_term_or_leader_is_told_once(node: LoneNode) -> None:
    node.settle()
    told = node.world.roles
    node.step(Heartbeat(SHARD, 2, 1, 5, 0, 0))
    node.settle()
    assert node.world.roles == told + 1
    node.step(Heartbeat(SHARD, 2, 1, 5, 0, 0))
    node.settle()
    assert node.world.roles == told + 1


def pass_tick(node: LoneNode, ms: int = 50) -> None:
    node.clock.advance(ms)
    node.raft.tick()
    node.replica.note_time(node.clock.monotonic_ms(), node.clock.wall_ms())


def hear_of_one_entry(node: LoneNode) -> None:
    """Between two ticks."""
    pass_tick(node)
    node.step(Append(SHARD, 2, 1, 5, 0, 0, 1, 0, [Entry(1, 5, EntryKind.NOOP, b"")]))
    node.settle()
    pass_tick(node)


def test_staleness_counts_from_the_tick_before_the_leader_was_heard(node: LoneNode) -> None:
    hear_of_one_entry(node)
    assert node.replica.staleness_ms(node.clock) == 50
    for _ in range(5):
        pass_tick(node)
    assert node.replica.staleness_ms(node.clock) == 300
    node.step(Heartbeat(SHARD, 2, 1, 5, 1, 0))
    pass_tick(node)
    assert node.replica.staleness_ms(node.clock) == 50


def test_the_time_for_which_a_process_was_stopped_is_in_its_staleness(node: LoneNode) -> None:
    hear_of_one_entry(node)
    node.clock.advance(5_000)
    node.step(Heartbeat(SHARD, 2, 1, 5, 1, 0))  # sent long ago, for all that is known
    pass_tick(node, 0)
    assert node.replica.staleness_ms(node.clock) == 5_000


def test_a_follower_that_has_not_applied_what_is_committed_is_not_fresh(node: LoneNode) -> None:
    pass_tick(node)
    node.step(Append(SHARD, 2, 1, 5, 0, 0, 1, 0, [Entry(1, 5, EntryKind.NOOP, b"")]))
    pass_tick(node)
    assert node.replica.fresh_ms is None
    node.settle()
    pass_tick(node)
    assert node.replica.staleness_ms(node.clock) == 100


def test_a_follower_whose_log_lacks_what_is_committed_is_not_fresh(node: LoneNode) -> None:
    hear_of_one_entry(node)
    node.step(Heartbeat(SHARD, 2, 1, 5, 1, 0, behind=True))
    pass_tick(node)
    node.step(Append(SHARD, 2, 1, 5, 1, 5, 9, 0, []))
    node.settle()
    pass_tick(node)
    assert node.replica.staleness_ms(node.clock) == 150


def test_a_new_leader_makes_nobody_fresh_before_it_has_committed_in_its_term(
    node: LoneNode,
) -> None:
    hear_of_one_entry(node)
    node.step(Heartbeat(SHARD, 3, 1, 6, 1, 0))
    node.settle()
    pass_tick(node)
    assert node.replica.staleness_ms(node.clock) == 100


def test_without_having_heard_a_leader_the_shards_own_clock_tells_the_age(node: LoneNode) -> None:
    node.replica.state._keyspace.clock_ms = node.clock.wall_ms() - 90_000
    assert node.replica.staleness_ms(node.clock) == 90_000


def test_a_poisoned_replica_and_one_without_a_vote_have_no_staleness(node: LoneNode) -> None:
    node.raft.poison("damaged")
    assert node.replica.staleness_ms(node.clock) is None


def mark(entries: int, size: int) -> LogMarks:
    marks = LogMarks()
    for index in range(1, entries + 1):
        marks.count(Entry(index, 1, EntryKind.COMMAND, b"x" * size))
    return marks


def test_a_tail_as_long_as_was_asked_for_stays_behind_a_cut() -> None:
    marks = mark(100, 10_000)
    at = marks.index_before_tail(200_000)
    assert 0 < at < 100
    behind = (100 - at) * (10_000 + 32)
    assert 200_000 <= behind <= 200_000 + (64 << 10) + 10_032


def test_a_log_shorter_than_its_tail_is_not_cut() -> None:
    assert mark(10, 100).index_before_tail(1 << 20) == 0


def test_marks_below_a_cut_are_forgotten_and_the_rest_counts_on() -> None:
    marks = mark(100, 10_000)
    before = marks.index_before_tail(200_000)
    marks.forget_below(before)
    assert marks.index_before_tail(200_000) == before
    assert marks.index_before_tail(900_000) == 0
