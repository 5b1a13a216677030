"""Where a request goes: here, elsewhere, or nowhere until a leader is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.errors import NotLeader, Outcome, Status, WrongShard, to_wire
from krita.operations import Op
from kritad.host import router as router_module
from kritad.host.leaders import LeaderTable
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.router import OnReply, Router
from kritad.raft.messages import AppendReply
from tests.host.lone import SHARD, LoneNode, Replies

HERE, THERE, ELSEWHERE = 1, 2, 3


class Wire:
    """A Forwarder that remembers, and answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Request, OnReply]] = []
        self.refuses = False

    def request(self, node: int, request: Request, on_reply: OnReply) -> None:
        if self.refuses:
            on_reply(None, None, False)
        else:
            self.sent.append((node, request, on_reply))

    def address_of(self, node: int) -> str | None:
        return f"n{node}:8080"


@attrs.define
class Bench:
    """A router, and what is around it."""

    node: LoneNode
    wire: Wire
    leaders: LeaderTable
    router: Router
    marked: list[Replica]
    owners: dict[bytes, int]  # who owns a key, as far as this node knows
    served: list[int]  # of which shards requests were served here

    def request(self, replies: Replies, *, write: bool = True, forwarded: bool = False) -> Request:
        op = Op.PUT if write else Op.GET
        body = encode_body(op, 0, 0, 0, b"k", b"v") if write else encode_body(op, b"k")
        return Request(op, body, b"k", SHARD, replies, 1e12, forwarded, write=write)

    def route(self, **more: bool) -> Replies:
        replies = Replies()
        self.router.route(self.request(replies, **more))
        return replies


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    node, wire, leaders = LoneNode(tmp_path), Wire(), LeaderTable()
    marked: list[Replica] = []
    owners: dict[bytes, int] = {}
    served: list[int] = []
    router = Router(
        HERE, node.replicas, leaders, wire, node.clock, marked.append, owners.get, served.append
    )
    yield Bench(node, wire, leaders, router, marked, owners, served)
    node.close()


def test_a_write_for_a_shard_led_here_is_proposed_here(bench: Bench) -> None:
    bench.node.lead()
    before = bench.node.raft.last_index
    replies = bench.route()
    assert bench.node.raft.last_index == before + 1
    assert bench.marked == [bench.node.replica]
    assert bench.served == [SHARD]
    assert replies.all == []
    assert bench.wire.sent == []


def test_a_request_for_a_shard_led_elsewhere_is_sent_there_once(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = bench.route()
    assert [node for node, _, _ in bench.wire.sent] == [THERE]
    assert bench.served == []
    bench.router.retry_parked()
    assert len(bench.wire.sent) == 1
    bench.wire.sent[0][2](Status.OK, [7, False], True)
    assert replies.one == (Status.OK, [7, False])


def test_a_forwarded_request_is_served_here_or_refused_with_a_hint(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 4)
    replies = bench.route(forwarded=True)
    status, body = replies.one
    assert status == Status.NOT_LEADER
    assert isinstance(body, list)
    assert body[3] == {"shard": SHARD, "term": 4, "node": THERE, "address": "n2:8080"}
    assert bench.wire.sent == []


def test_a_forwarded_request_without_any_leader_is_refused_without_a_hint(bench: Bench) -> None:
    body = bench.route(forwarded=True).one[1]
    assert isinstance(body, list)
    assert body[3] == {"shard": SHARD, "term": 0}


def test_a_request_waits_until_a_leader_is_known(bench: Bench) -> None:
    replies = bench.route()
    assert replies.all == []
    bench.leaders.learn(SHARD, THERE, 1)
    bench.router.retry_parked()
    assert [node for node, _, _ in bench.wire.sent] == [THERE]


def test_a_request_that_has_expired_while_it_waited_is_not_sent(bench: Bench) -> None:
    replies = Replies()
    request = bench.request(replies)
    bench.router.route(request)
    request.expire()
    bench.leaders.learn(SHARD, THERE, 1)
    bench.router.retry_parked()
    assert bench.wire.sent == []
    assert replies.one[0] == Status.DEADLINE


def test_a_refusal_by_a_node_that_does_not_lead_sends_the_request_on(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = bench.route()
    bench.leaders.learn(SHARD, ELSEWHERE, 2)
    error = NotLeader("not I")
    bench.wire.sent[0][2](error.status, to_wire(error), True)
    assert replies.all == []
    bench.router.retry_parked()
    assert [node for node, _, _ in bench.wire.sent] == [THERE, ELSEWHERE]


def test_a_write_whose_connection_was_lost_ends_unknown_and_is_not_sent_again(
    bench: Bench,
) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = bench.route()
    bench.wire.sent[0][2](None, None, True)
    assert replies.one[0] == Status.UNKNOWN
    assert replies.outcome == Outcome.UNKNOWN
    bench.router.retry_parked()
    assert len(bench.wire.sent) == 1


def test_a_read_whose_connection_was_lost_is_sent_again(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = bench.route(write=False)
    bench.wire.sent[0][2](None, None, True)
    bench.router.retry_parked()
    assert len(bench.wire.sent) == 2
    assert replies.all == []


def test_a_write_that_was_surely_not_sent_waits_and_expires_as_not_applied(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    bench.wire.refuses = True
    replies = Replies()
    request = bench.request(replies)
    bench.router.route(request)
    assert replies.all == []
    request.expire()
    assert replies.one[0] == Status.DEADLINE


def test_a_write_on_its_way_to_another_node_expires_as_unknown(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = Replies()
    request = bench.request(replies)
    bench.router.route(request)
    request.expire()
    assert replies.one[0] == Status.UNKNOWN
    bench.wire.sent[0][2](Status.OK, [7, False], True)
    assert len(replies.all) == 1


def test_an_error_of_the_leader_reaches_the_client_as_it_is(bench: Bench) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = bench.route()
    bench.wire.sent[0][2](Status.CONDITION_FAILED, ["no", "", 0, {}], True)
    assert replies.one == (Status.CONDITION_FAILED, ["no", "", 0, {}])


def test_a_node_that_is_said_to_lead_and_does_not_keeps_the_request(bench: Bench) -> None:
    bench.leaders.learn(SHARD, HERE, 1)
    assert bench.route().all == []
    assert bench.wire.sent == []


def test_too_many_waiting_requests_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "_PARKED_MAX", 2)
    assert bench.route().all == []
    assert bench.route().all == []
    assert bench.route().one[0] == Status.UNAVAILABLE


def test_a_full_log_answers_busy_and_not_applied(bench: Bench) -> None:
    bench.node.lead()
    bench.node.raft.config = attrs.evolve(bench.node.raft.config, uncommitted_bytes_max=1)
    bench.route()
    replies = bench.route()
    assert replies.one[0] == Status.BUSY
    assert replies.outcome == Outcome.NOT_APPLIED


def test_a_command_that_is_too_large_for_an_entry_is_refused(bench: Bench) -> None:
    bench.node.lead()
    bench.node.raft.config = attrs.evolve(bench.node.raft.config, entry_bytes_max=4)
    assert bench.route().one[0] == Status.TOO_LARGE


def test_a_write_during_a_hand_over_waits_for_the_next_leader(bench: Bench) -> None:
    bench.node.lead()
    bench.node.raft.transfer(3)
    assert bench.route().all == []
    assert bench.route(forwarded=True).one[0] == Status.NOT_LEADER


def test_below_the_reserve_puts_are_refused_and_deletes_and_reads_go_on(bench: Bench) -> None:
    bench.node.lead()
    bench.router.space_low = True
    assert bench.route().one[0] == Status.NO_SPACE
    replies = Replies()
    body = encode_body(Op.DELETE, 0, 0, 0, b"k")
    bench.router.route(Request(Op.DELETE, body, b"k", SHARD, replies, 1e12, write=True))
    assert replies.all == []
    assert bench.route(write=False).all == []


def test_on_a_disk_that_is_nearly_full_deletes_are_told_to_come_again_and_reads_go_on(
    bench: Bench,
) -> None:
    bench.node.lead()
    bench.router.space_low = bench.router.nearly_full = True
    replies = Replies()
    body = encode_body(Op.DELETE, 0, 0, 0, b"k")
    bench.router.route(Request(Op.DELETE, body, b"k", SHARD, replies, 1e12, write=True))
    assert replies.one[0] == Status.BUSY
    assert bench.route(write=False).all == []


def test_a_requeued_read_waits_and_a_forwarded_one_is_sent_back(bench: Bench) -> None:
    waiting, forwarded = Replies(), Replies()
    bench.router.requeue(bench.request(waiting, write=False))
    bench.router.requeue(bench.request(forwarded, write=False, forwarded=True))
    assert waiting.all == []
    assert forwarded.one[0] == Status.NOT_LEADER


OTHER = 2  # the half that was split off


def cut(bench: Bench) -> None:
    """Let the shard lose all of its keys but those with the lowest token."""
    bench.node.lead()
    bench.node.replica.state.extent.cut(bench.node.replica.state.extent.step)
    assert not bench.node.replica.state.owns(b"k")


def test_what_a_shard_does_not_own_costs_its_log_nothing_and_waits_for_a_newer_map(
    bench: Bench,
) -> None:
    cut(bench)
    before = bench.node.raft.last_index
    write, read = bench.route(), bench.route(write=False)
    assert bench.node.raft.last_index == before
    assert write.all == read.all == []
    bench.owners[b"k"] = OTHER
    bench.leaders.learn(OTHER, THERE, 1)
    bench.router.retry_parked()
    assert [(node, request.shard) for node, request, _ in bench.wire.sent] == [(THERE, OTHER)] * 2


def test_what_a_shard_does_not_own_goes_where_it_belongs_if_that_is_known(bench: Bench) -> None:
    cut(bench)
    bench.owners[b"k"] = OTHER
    bench.leaders.learn(OTHER, THERE, 1)
    assert bench.route().all == []
    assert [(node, request.shard) for node, request, _ in bench.wire.sent] == [(THERE, OTHER)]


@pytest.mark.parametrize("forwarded", [False, True])
def test_what_was_answered_meanwhile_is_not_routed_anew(bench: Bench, forwarded: bool) -> None:
    """A log has refused it, for its shard was split, after its deadline had passed."""
    bench.node.lead()
    bench.owners[b"k"] = SHARD
    last = bench.node.raft.last_index
    for again in (bench.router.misplaced, bench.router.requeue):
        request = bench.request(Replies(), forwarded=forwarded)
        request.shard, request.term = 9, 1
        request.expire()
        again(request)
        request.shard = SHARD
        bench.router.retry_parked()
    assert (bench.node.raft.last_index, bench.wire.sent) == (last, [])


def test_who_has_forwarded_what_the_shard_does_not_own_is_told_so(bench: Bench) -> None:
    cut(bench)
    for write in (False, True):
        replies = bench.route(forwarded=True, write=write)
        assert replies.one[0] == Status.WRONG_SHARD
        assert replies.outcome == Outcome.NOT_APPLIED


def test_a_request_that_another_node_says_is_for_another_shard_is_routed_anew_by_its_key(
    bench: Bench,
) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = bench.route()
    error = WrongShard("it was split")
    bench.wire.sent[0][2](error.status, to_wire(error), True)
    assert replies.all == []
    bench.owners[b"k"] = OTHER
    bench.leaders.learn(OTHER, ELSEWHERE, 1)
    bench.router.retry_parked()
    assert [node for node, _, _ in bench.wire.sent] == [THERE, ELSEWHERE]
    bench.wire.sent[1][2](Status.OK, [7, False], True)
    assert replies.one == (Status.OK, [7, False])


def test_as_long_as_nobody_knows_better_it_is_sent_once_a_tick_until_its_deadline(
    bench: Bench,
) -> None:
    bench.leaders.learn(SHARD, THERE, 1)
    replies = Replies()
    request = bench.request(replies)
    bench.router.route(request)
    error = WrongShard("it was split")
    for tick in range(5):
        assert len(bench.wire.sent) == tick + 1
        bench.wire.sent[tick][2](error.status, to_wire(error), True)
        bench.router.retry_parked()
    bench.wire.sent[5][2](error.status, to_wire(error), True)
    request.expire()
    assert replies.one[0] == Status.DEADLINE, "a write that was turned away is in no doubt"
    bench.router.retry_parked()
    assert len(bench.wire.sent) == 6


def test_what_is_for_a_shard_by_its_number_stays_with_it(bench: Bench) -> None:
    """A session is opened in the shard that was named, and its key is none."""
    cut(bench)
    bench.owners[b""] = OTHER
    replies = Replies()
    body = encode_body(Op.SESSION_OPEN, SHARD)
    request = Request(Op.SESSION_OPEN, body, b"", SHARD, replies, 1e12, write=True)
    before = bench.node.raft.last_index
    bench.router.requeue(request)
    bench.router.retry_parked()
    assert bench.node.raft.last_index == before + 1
    error = WrongShard("it names another shard")
    bench.node.raft.step_down()
    bench.leaders.learn(SHARD, THERE, 99)
    body = encode_body(Op.SESSION_OPEN, SHARD)
    answer = Replies()
    bench.router.route(Request(Op.SESSION_OPEN, body, b"", SHARD, answer, 1e12, write=True))
    bench.wire.sent[0][2](error.status, to_wire(error), True)
    assert answer.one[0] == Status.WRONG_SHARD, "it would be sent again and again"


def transfer_to(bench: Bench, node: int) -> Replies:
    replies = Replies()
    body = encode_body(Op.LEADER_TRANSFER, SHARD, node)
    bench.router.route(Request(Op.LEADER_TRANSFER, body, str(node).encode(), SHARD, replies, 1e12))
    return replies


def test_leadership_is_handed_to_a_voter_that_answers(bench: Bench) -> None:
    bench.node.lead()
    bench.node.step(AppendReply(SHARD, 2, 1, bench.node.raft.term, True, 1, 0, 0, 0))
    assert transfer_to(bench, THERE).one == (Status.OK, [THERE])
    assert bench.node.raft.transferring == 2


def test_leadership_is_not_handed_to_a_node_that_is_silent_or_has_no_voter(bench: Bench) -> None:
    bench.node.lead()
    assert transfer_to(bench, ELSEWHERE).one[0] == Status.UNAVAILABLE
    assert transfer_to(bench, 77).one[0] == Status.UNAVAILABLE
    assert not bench.node.raft.transferring


def test_a_leader_that_is_asked_to_lead_says_yes(bench: Bench) -> None:
    bench.node.lead()
    assert transfer_to(bench, HERE).one == (Status.OK, [HERE])
