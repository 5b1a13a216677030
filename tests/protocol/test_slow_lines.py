"""Large requests and replies: what the line takes is not counted as the node's time."""

from __future__ import annotations

import pytest

from krita import requests
from krita.call import Call, CallState
from krita.errors import Outcome
from krita.link import ATTEMPT_TIMEOUT_S, BYTES_IN_FLIGHT_MAX
from krita.operations import Op
from tests.protocol.world import World, error_of

LARGE = bytes(1 << 20)


@pytest.fixture
def world() -> World:
    world = World()
    world.start(requests.put("k", "v"))
    return world


def put_large(world: World, count: int, timeout_s: float = 5.0) -> list[Call]:
    return [world.start(requests.put(f"k{n}", LARGE), timeout_s) for n in range(count)]


def test_a_reply_that_comes_in_parts_is_waited_for_as_long_as_they_come(world: World) -> None:
    world.unanswered.add(Op.GET)
    call = world.start(requests.get("k"), timeout_s=60.0)
    link = world.link("a:1")
    reply = world.servers[link].reply(call.id, 0, [LARGE, 9, None, 9, 0])
    for start in range(0, len(reply), 1 << 17):
        world.advance(ATTEMPT_TIMEOUT_S * 0.9)
        world.dispatcher.received(link, reply[start : start + (1 << 17)], world.now)
    assert call.finished
    assert call.error is None
    assert world.count(Op.GET) == 1


def test_a_reply_that_stops_in_the_middle_is_asked_for_elsewhere(world: World) -> None:
    world.unanswered.add(Op.GET)
    call = world.start(requests.get("k"), timeout_s=60.0)
    link = world.link("a:1")
    reply = world.servers[link].reply(call.id, 0, [LARGE, 9, None, 9, 0])
    world.advance(1.0)
    world.dispatcher.received(link, reply[:1000], world.now)
    world.unanswered.clear()
    world.advance(ATTEMPT_TIMEOUT_S * 0.9)
    assert world.count(Op.GET) == 1
    world.advance(ATTEMPT_TIMEOUT_S * 0.2)
    assert call.finished
    assert world.seen[-1][0] == "b:1"


def test_a_request_is_not_late_while_it_is_being_sent_and_is_when_nothing_moves(
    world: World,
) -> None:
    world.mute.add("a:1")
    (call,) = put_large(world, 1, timeout_s=60.0)
    link = world.link("a:1")
    for left in range(len(LARGE), 0, -(1 << 17)):
        world.dispatcher.wrote(link, 1 << 17, left, world.now)
        world.advance(ATTEMPT_TIMEOUT_S * 0.9)
    assert call.link is link
    for _ in range(2):  # it is tried, in vain
        world.dispatcher.wrote(link, 0, 1 << 17, world.now)
        world.advance(ATTEMPT_TIMEOUT_S * 0.09)
    assert call.finished
    assert world.closed == [link]
    assert world.seen[-1][:2] == ("b:1", Op.PUT)


def test_what_is_in_flight_is_bounded_in_bytes_and_the_rest_is_surely_not_applied(
    world: World,
) -> None:
    world.unanswered.add(Op.PUT)
    calls = put_large(world, 10, timeout_s=1.0)
    assert world.link("a:1").bytes_in_flight > BYTES_IN_FLIGHT_MAX
    assert [call.state for call in calls].count(CallState.SENT) == 4
    world.advance(0.5)
    world.start(requests.get("none"), timeout_s=0.4)  # behind them
    world.advance(0.5)
    outcomes = [error_of(call).outcome for call in calls]
    assert outcomes == 4 * [Outcome.UNKNOWN] + 6 * [Outcome.NOT_APPLIED]


def test_a_request_larger_than_the_bound_goes_alone(world: World) -> None:
    world.unanswered.add(Op.PUT)
    link = world.link("a:1")
    link.connection.frame_bytes_max = 1 << 25
    server = world.servers[link]
    server.frame_bytes_max = server._buffer.frame_bytes_max = 1 << 25
    first, second = (world.start(requests.put(f"k{n}", bytes(1 << 24))) for n in range(2))
    assert (first.state, second.state) == (CallState.SENT, CallState.QUEUED)
    world.dispatcher.cancel(first, world.now)
    world.settle()
    assert second.state is CallState.SENT


def test_nothing_is_given_to_a_line_that_does_not_take_what_it_has(world: World) -> None:
    link = world.link("a:1")
    world.dispatcher.wrote(link, 0, BYTES_IN_FLIGHT_MAX, world.now)
    call = world.start(requests.put("k", "v"))
    assert call.state is CallState.QUEUED
    world.dispatcher.wrote(link, BYTES_IN_FLIGHT_MAX, 0, world.now)
    world.settle()
    assert call.finished


def test_those_behind_calls_that_a_node_does_not_answer_do_not_wait_there_in_turn(
    world: World,
) -> None:
    world.cut_off.add("a:1")
    ping = world.start(requests.ping("a:1"))
    calls = put_large(world, 20)
    world.advance(ATTEMPT_TIMEOUT_S / 2)
    link = world.link("a:1")
    pong = world.servers[link].reply(ping.id, 0, [1, bytes(16), "t", 0])
    world.dispatcher.received(link, pong, world.now)  # its connection stands
    world.advance(ATTEMPT_TIMEOUT_S * 0.6)
    assert not world.closed
    assert all(call.finished and call.error is None for call in calls)
