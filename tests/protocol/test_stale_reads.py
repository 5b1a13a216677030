"""Stale reads through the dispatcher: to the nearest replica, and elsewhere when that fails."""

from __future__ import annotations

import random

import attrs
import pytest

from krita import Client, requests
from krita.aio import AsyncClient
from krita.connection import Request
from krita.dispatch import Dispatcher
from krita.errors import BadRequest, Unavailable
from krita.link import ATTEMPT_TIMEOUT_S, Link
from krita.operations import Consistency, Op
from krita.values import Value
from tests.protocol.world import World, map_of

STALE = Consistency.STALE
A, B = "a:1", "b:1"  # A leads; the map of ``World`` has both


def world_in(zone: str) -> World:
    world = World(Dispatcher([A, B], random.Random(1), zone=zone))
    world.map = attrs.evolve(map_of(1), zones={1: "eu", 2: "us"})
    return world


def slow_down(world: World, address: str, seconds: float) -> None:
    """From now on each answer of the node takes that long."""
    answer = world.answer

    def late(link: Link, request: Request) -> tuple[int, object] | None:
        if link.address == address:
            world.now += seconds
        return answer(link, request)

    world.answer = late  # type: ignore[method-assign]


def read(world: World, count: int = 1) -> list[str]:
    """Stale reads, one after the other: which nodes were asked."""
    before = len(world.seen)
    for _ in range(count):
        assert world.start(requests.get("k", STALE)).error is None
    return [address for address, op, *_ in world.seen[before:] if op is Op.GET]


@pytest.mark.parametrize(("zone", "address"), [("eu", A), ("us", B)])
def test_a_stale_read_stays_in_the_clients_zone(zone: str, address: str) -> None:
    world = world_in(zone)
    assert read(world, 20) == [address] * 20


def test_a_linearizable_read_and_a_write_go_to_the_leader_from_any_zone() -> None:
    world = world_in("us")
    read(world)
    world.start(requests.get("k"))
    world.start(requests.put("k", "v"))
    asked = [
        address for address, op, fields, _ in world.seen if op is Op.GET and fields[1] != STALE
    ]
    assert asked == [A]
    assert [address for address, op, *_ in world.seen if op is Op.PUT] == [A]


def test_without_a_zone_stale_reads_settle_on_the_replica_that_answers_fast() -> None:
    world = world_in("")
    slow_down(world, A, 0.080)
    asked = read(world, 30)
    assert A in asked, "it was never measured"
    assert asked[10:] == [B] * 20


def test_what_the_leader_needs_for_other_requests_does_not_count() -> None:
    world = world_in("")
    slow_down(world, A, 0.080)
    for _ in range(5):
        world.start(requests.get("k"))
        world.start(requests.put("k", "v"))
    assert world.dispatcher.router.nearness.round_trip_s(A, world.now) is None


def test_a_stale_read_goes_elsewhere_when_the_node_of_its_zone_is_gone() -> None:
    world = world_in("us")
    world.gone.add(B)
    assert read(world, 20) == [A] * 20


def test_a_stale_read_goes_elsewhere_when_the_node_of_its_zone_falls_silent() -> None:
    world = world_in("us")
    read(world)
    world.mute.add(B)
    call = world.start(requests.get("k", STALE))
    assert not call.finished
    world.advance(ATTEMPT_TIMEOUT_S * 1.01)
    assert call.finished
    assert call.error is None
    assert read(world, 20) == [A] * 20


def test_a_stale_read_goes_elsewhere_when_the_node_of_its_zone_has_no_answer() -> None:
    world = world_in("us")
    read(world)
    world.errors[Op.GET] = [Unavailable("the replica that was asked is damaged")]
    assert read(world) == [B, A]


def test_a_stale_value_says_how_old_it_may_be() -> None:
    world = world_in("us")
    answer = world.answer

    def stale(link: Link, request: Request) -> tuple[int, object] | None:
        return (0, [b"v", 9, None, 9, 750]) if request.op == Op.GET else answer(link, request)

    world.answer = stale  # type: ignore[method-assign]
    value = world.start(requests.get("k", STALE)).value()
    assert isinstance(value, Value)
    assert value.staleness_ms == 750


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_zone_that_is_no_text_is_refused_where_it_is_given(kind: type) -> None:
    with pytest.raises(BadRequest, match="a zone is text"):
        kind("a:1", zone=7)
