"""The dispatcher by virtual clock: deadlines, silence, what calls wait for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from types import NoneType

import pytest

from krita import requests, wide_requests
from krita.call import Call, CallState
from krita.connection import FLAG_FORWARDED, Request, ServerConnection
from krita.dispatch import Dispatcher
from krita.errors import (
    BadRequest,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    KritaError,
    Outcome,
    OutcomeUnknown,
    SessionExpired,
    Unauthenticated,
    Unavailable,
    WrongShard,
    to_wire,
)
from krita.hello import Identity
from krita.limits import POLLS_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX
from krita.link import ATTEMPT_TIMEOUT_S, DIAL_TIMEOUT_S, Link
from krita.operations import Op
from krita.session import WINDOW
from krita.values import read_put, read_value
from tests.protocol.world import World, error_of


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_write_fetches_the_map_and_opens_a_session(world: World) -> None:
    call = world.start(requests.put("k", "v"))
    assert call.finished
    assert call.error is None
    assert [op for _, op, *_ in world.seen] == [Op.SHARD_MAP, Op.SESSION_OPEN, Op.PUT]
    session = world.seen[-1][2][0]
    assert world.seen[-1][2][:3] == [session, 1, 0]
    world.start(requests.put("k", "v"))
    assert world.seen[-1][2][:3] == [session, 2, 1]


class _Trap(Mapping[str, object]):
    """What cannot even be gone through."""

    def __getitem__(self, name: str) -> object:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("a trap")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("field", ["\udc80", object(), _Trap()])
@pytest.mark.parametrize("sessions", [False, True])
def test_what_cannot_be_sent_ends_its_own_call_and_no_other(field: object, sessions: bool) -> None:
    world = World(Dispatcher(["a:1", "b:1"], random.Random(1), sessions=sessions))
    world.unanswered.add(Op.SHARD_MAP)
    wrong = world.start(requests.Request(Op.PUT, (b"k", b"v", field, None), read_put, b"k"))
    right = world.start(requests.put("k", "v"))
    read = world.start(requests.Request(Op.GET, (b"k", field), read_value, b"k"))
    assert not wrong.finished  # it waits, like the others
    world.unanswered.clear()
    world.advance(ATTEMPT_TIMEOUT_S + 0.1)
    assert isinstance(error_of(wrong), BadRequest)
    assert isinstance(error_of(read), BadRequest)
    assert right.error is None
    assert right.finished
    assert repr(world.dispatcher).startswith("<Dispatcher 0 calls")


def test_a_call_that_cannot_be_sent_gives_its_sequence_back(world: World) -> None:
    world.start(requests.put("k", "v"))
    world.start(requests.Request(Op.PUT, (b"k", object()), read_put, b"k"))
    world.start(requests.put("k", "v"))
    assert world.seen[-1][2][1:3] == [3, 2]


def test_many_first_writes_open_one_session(world: World) -> None:
    world.unanswered.add(Op.SESSION_OPEN)
    for _ in range(10):
        world.start(requests.put("k", "v"))
    assert world.count(Op.SESSION_OPEN) == 1
    assert world.count(Op.PUT) == 0


def test_the_leader_is_asked_not_to_forward_and_others_are_allowed_to(world: World) -> None:
    world.start(requests.get("k"))
    assert world.seen[-1][::3] == ("a:1", FLAG_FORWARDED)
    world.errors[Op.GET] = [Unavailable("no quorum")]
    world.start(requests.get("k"))
    gets = [(address, flags) for address, op, _, flags in world.seen if op is Op.GET]
    assert gets[-2:] == [("a:1", FLAG_FORWARDED), ("b:1", 0)]


def test_a_node_that_falls_silent_is_left_for_another_and_the_write_keeps_its_number(
    world: World,
) -> None:
    world.start(requests.put("k", "v"))
    world.mute.add("a:1")
    call = world.start(requests.put("k", "w"))
    world.advance(ATTEMPT_TIMEOUT_S - 0.01)
    assert not call.finished
    world.advance(0.1)
    assert call.finished
    assert call.error is None
    assert [link.address for link in world.closed] == ["a:1"]
    address, op, fields, _ = next(seen for seen in reversed(world.seen) if seen[1] is Op.PUT)
    assert (address, op, fields[1]) == ("b:1", Op.PUT, 2)


def test_a_node_that_answers_others_in_time_keeps_its_connection(world: World) -> None:
    world.start(requests.get("k"))
    world.unanswered.add(Op.PUT)
    call = world.start(requests.put("k", "v"))
    world.advance(ATTEMPT_TIMEOUT_S / 2)
    world.start(requests.get("k"))
    world.unanswered.clear()
    world.advance(ATTEMPT_TIMEOUT_S)
    assert call.finished
    assert not world.closed
    puts = [fields[:2] for _, op, fields, _ in world.seen if op is Op.PUT]
    assert puts[0] == puts[1]


@pytest.mark.parametrize("sessions", [False, True])
def test_only_one_call_waits_at_a_node_that_its_peers_do_not_hear(sessions: bool) -> None:
    world = World(Dispatcher(["a:1", "b:1"], random.Random(1), sessions=sessions))
    world.start(requests.put("k", "v"))
    world.cut_off.add("a:1")
    waiting = world.start(requests.put("k", "w"))
    world.advance(ATTEMPT_TIMEOUT_S / 2)
    world.start(requests.shard_map())  # which it answers: its connection stands
    world.advance(ATTEMPT_TIMEOUT_S / 2)
    assert waiting.finished
    assert isinstance(waiting.error, NoneType if sessions else OutcomeUnknown)
    assert not world.closed
    following = world.start(requests.put("k", "x"))
    assert following.finished
    assert following.error is None


def test_a_write_never_answered_is_unknown_at_its_deadline(world: World) -> None:
    world.unanswered.add(Op.PUT)
    call = world.start(requests.put("k", "v"), timeout_s=5.0)
    world.advance(4.9)
    assert not call.finished
    world.advance(0.2)
    assert type(error_of(call)) is OutcomeUnknown
    assert world.dispatcher.due > world.now


def test_a_write_that_waits_for_its_session_is_not_applied_at_its_deadline(world: World) -> None:
    world.unanswered.add(Op.SESSION_OPEN)
    call = world.start(requests.put("k", "v"), timeout_s=1.0)
    world.advance(1.0)
    assert error_of(call).outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("timeout_s", [3.0, 5.0, 8.0])
@pytest.mark.parametrize(
    "failure", [None, OutcomeUnknown("the connection was lost", hint="read the key")]
)
def test_a_write_whose_session_may_or_may_not_have_been_opened_is_surely_not_applied(
    world: World, failure: KritaError | None, timeout_s: float
) -> None:
    if failure is None:
        world.unanswered.add(Op.SESSION_OPEN)
    else:
        world.errors[Op.SESSION_OPEN] = [failure] * 1000
    call = world.start(requests.put("k", "v"), timeout_s=timeout_s)
    world.advance(timeout_s)
    error = error_of(call)
    assert error.outcome is Outcome.NOT_APPLIED
    assert "applied" not in str(error), "it speaks of the session as if it were the write"
    assert "read the key" not in str(error)
    assert world.count(Op.PUT) == 0


def test_a_connection_that_is_not_usable_in_time_is_given_up(world: World) -> None:
    world.mute.add("a:1")
    call = world.start(requests.get("k"))
    world.advance(DIAL_TIMEOUT_S + 0.01)
    assert call.finished
    assert call.error is None
    assert {address for address, *_ in world.seen} == {"b:1"}


def test_a_deadline_before_the_first_answer_says_what_stood_in_the_way(world: World) -> None:
    world.gone |= {"a:1", "b:1"}
    call = world.start(requests.put("k", "v"), timeout_s=0.5)
    world.advance(0.6)
    error = error_of(call)
    assert isinstance(error, ConnectionFailed)
    assert "refused; gave up after 500 ms" in str(error)


def test_attempts_at_nodes_that_are_gone_get_rarer(world: World) -> None:
    world.gone |= {"a:1", "b:1"}
    world.start(requests.ping(), timeout_s=10.0)
    world.advance(8.0)
    before = len(world.closed)
    world.advance(1.0)
    # Two calls, the ping and one for a map, try two addresses each.
    assert 0 < len(world.closed) - before <= 16


def test_a_refused_hello_fails_what_waits_for_a_map(world: World) -> None:
    world.refusal = Unauthenticated("the token is unknown")
    assert isinstance(error_of(world.start(requests.put("k", "v"))), Unauthenticated)


def test_a_refused_session_fails_what_waits_for_it(world: World) -> None:
    world.errors[Op.SESSION_OPEN] = [Forbidden("no")]
    assert isinstance(error_of(world.start(requests.put("k", "v"))), Forbidden)
    assert world.count(Op.PUT) == 0


def test_a_session_that_expires_again_and_again_does_not_spin(world: World) -> None:
    world.errors[Op.PUT] = [SessionExpired("gone")] * 10_000
    call = world.start(requests.put("k", "v"), timeout_s=1.0)
    world.advance(1.0)
    assert error_of(call).outcome is Outcome.NOT_APPLIED
    assert world.count(Op.PUT) < 20


def test_writes_beyond_the_window_wait_until_the_oldest_is_answered(world: World) -> None:
    world.start(requests.put("k", "v"))
    world.unanswered.add(Op.PUT)
    calls = [world.start(requests.put(f"k{number}", "v")) for number in range(WINDOW + 2)]
    assert calls[WINDOW].state is CallState.PARKED
    world.dispatcher.cancel(calls[5], world.now)
    world.settle()
    assert calls[WINDOW].state is CallState.PARKED  # the oldest still holds the window
    world.dispatcher.cancel(calls[0], world.now)
    world.settle()
    assert calls[WINDOW].state is CallState.SENT
    assert calls[WINDOW + 1].state is CallState.PARKED


def test_no_more_is_in_flight_on_a_connection_than_the_server_reads_ahead(world: World) -> None:
    world.start(requests.get("k"))
    world.unanswered.add(Op.GET)
    calls = [world.start(requests.get("k")) for _ in range(REQUESTS_IN_FLIGHT_MAX + 1)]
    assert world.count(Op.GET) == 1 + REQUESTS_IN_FLIGHT_MAX
    assert calls[-1].state is CallState.QUEUED


def test_polls_have_places_of_their_own_and_keep_no_request_out(world: World) -> None:
    world.start(requests.put("k", "v"))
    world.unanswered |= {Op.CHANGES, Op.GET}
    polls = [
        world.start(wide_requests.changes(1, 1, None, None, 10_000))
        for _ in range(POLLS_IN_FLIGHT_MAX + 2)
    ]
    assert [poll.state for poll in polls[-3:]] == [CallState.SENT] + 2 * [CallState.QUEUED]
    assert world.start(requests.put("k", "w")).finished
    gets = [world.start(requests.get("k")) for _ in range(REQUESTS_IN_FLIGHT_MAX + 1)]
    assert [get.state for get in gets[-2:]] == [CallState.SENT, CallState.QUEUED]
    for number, queued in enumerate(polls[-2:]):
        world.dispatcher.cancel(polls[number], world.now)
        assert queued.state is CallState.SENT
    world.dispatcher.cancel(gets[0], world.now)
    assert gets[-1].state is CallState.SENT


def test_polls_that_wait_for_a_place_end_with_their_connection_or_when_they_are_cancelled(
    world: World,
) -> None:
    world.start(requests.put("k", "v"))
    world.unanswered.add(Op.CHANGES)
    poll = wide_requests.changes(1, 1, None, None, 10_000, node=1)
    polls = [world.start(poll) for _ in range(POLLS_IN_FLIGHT_MAX + 2)]
    world.dispatcher.cancel(polls[-1], world.now)
    assert world.count(Op.CHANGES) == POLLS_IN_FLIGHT_MAX
    world.disconnect()
    assert {call.state for call in polls[:-1]} == {CallState.PAUSED}


def test_a_cancelled_call_is_forgotten_wherever_it_is(world: World) -> None:
    heard: list[Call] = []
    world.unanswered |= {Op.SESSION_OPEN, Op.GET}
    world.start(requests.get("k"))
    parked = world.start(requests.put("k", "v"), done=heard.append)
    sent = world.start(requests.get("k"), done=heard.append)
    assert (parked.state, sent.state) == (CallState.PARKED, CallState.SENT)
    for call in (parked, sent):
        world.dispatcher.cancel(call, world.now)
    world.unanswered.clear()
    world.advance(10.0)
    assert not heard
    assert world.count(Op.PUT) == 0


def test_a_call_may_be_cancelled_by_another_that_fails_with_it(world: World) -> None:
    world.dispatcher = Dispatcher(["a:1"], random.Random(1), sessions=False)
    world.start(requests.get("k"))
    world.unanswered.add(Op.PUT)
    heard: list[Call] = []

    def fail(call: Call) -> None:
        heard.append(call)
        world.dispatcher.cancel(second, world.now)

    world.start(requests.put("a", "v"), done=fail)
    second = world.start(requests.put("b", "v"), done=heard.append)
    for link in world.dispatcher.links:
        world.dispatcher.closed(link, "reset", world.now)
    assert len(heard) == 1
    assert type(heard[0].error) is OutcomeUnknown


def test_closing_ends_every_call_and_says_which_may_have_been_applied(world: World) -> None:
    world.start(requests.get("k"))
    world.unanswered |= {Op.PUT, Op.GET}
    write, read = world.start(requests.put("k", "v")), world.start(requests.get("k"))
    world.dispatcher.close(world.now)
    assert type(error_of(write)) is OutcomeUnknown
    assert type(error_of(read)) is Unavailable
    after = world.start(requests.put("k", "v"))
    assert type(error_of(after)) is Unavailable


def test_what_is_started_behind_the_end_of_an_abandoned_call_ends_as_well(world: World) -> None:
    world.start(requests.get("k"))
    world.unanswered.add(Op.PUT)
    following: list[Call] = []

    def start_next(_call: Call) -> None:
        following.append(world.dispatcher.start(requests.put("k", "next"), 5.0, world.now))

    world.start(requests.put("k", "v"), done=start_next)
    world.dispatcher.abandon("interrupted")
    (call,) = following
    assert type(error_of(call)) is Unavailable
    assert world.count(Op.PUT) == 1


def test_a_call_sent_to_the_wrong_shard_waits_for_the_new_map(world: World) -> None:
    world.start(requests.get("k"))
    world.errors[Op.GET] = [WrongShard("moved")]
    world.unanswered.add(Op.SHARD_MAP)
    call = world.start(requests.get("k"))
    assert (call.state, world.count(Op.GET)) == (CallState.PARKED, 2)
    world.unanswered.clear()
    world.advance(ATTEMPT_TIMEOUT_S * 1.1)
    assert call.finished
    assert world.count(Op.GET) == 3


def test_a_read_never_answered_exceeds_its_deadline(world: World) -> None:
    world.start(requests.get("k"))
    world.unanswered.add(Op.GET)
    call = world.start(requests.get("k"), timeout_s=1.0)
    world.advance(1.0)
    assert type(error_of(call)) is DeadlineExceeded


def test_the_deadline_that_the_node_is_told_is_what_is_left_of_it(world: World) -> None:
    told: list[int | None] = []
    answer = world.answer

    def listen(link: Link, request: Request) -> tuple[int, object] | None:
        told.append(request.deadline_ms)
        return answer(link, request)

    world.answer = listen  # type: ignore[method-assign]
    world.start(requests.ping(), timeout_s=3.0)
    assert told == [3000]


def test_a_node_that_keeps_calls_waiting_is_not_asked_first_however_short_they_are() -> None:
    world = World()
    assert world.start(requests.get("k")).finished
    assert world.seen[-1][0] == "a:1"
    world.unanswered.add(Op.GET)  # it answers everything else: it is not silent
    late = world.start(requests.get("k"), timeout_s=0.3)
    world.now += 0.3
    world.dispatcher.tick(world.now)
    world.settle()
    assert isinstance(late.error, DeadlineExceeded)
    world.unanswered.clear()
    world.start(requests.get("k"), timeout_s=0.3)
    assert world.seen[-1][0] == "b:1", "a call shorter than an attempt never leaves a hung node"


def test_a_reply_to_be_tried_again_survives_the_goodbye_behind_it() -> None:
    dispatcher = Dispatcher(["a:1"], random.Random(1))
    call = dispatcher.start(requests.ping(), 5.0, 0.0)
    (link,) = dispatcher.links.take_dials()
    dispatcher.dialed(link)
    server = ServerConnection()
    assert server.receive_data(link.take_outgoing())
    identity = Identity(bytes(16), 1, bytes(16), 1, "a:1")
    dispatcher.received(link, server.accept(identity, 1 << 20), 0.0)
    (request,) = server.receive_data(link.take_outgoing())
    assert isinstance(request, Request)
    error = Unavailable("no leader")
    last_words = server.reply(request.id, int(error.status), to_wire(error)) + server.goodbye(error)
    dispatcher.received(link, last_words, 0.1)
    assert not call.finished
    assert dispatcher.links.take_closes() == [link]
