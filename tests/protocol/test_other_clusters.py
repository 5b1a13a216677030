"""A client stays with the cluster that it has begun with, whoever has its addresses later."""

from __future__ import annotations

import random

import pytest

from krita import requests
from krita.client import Client
from krita.dispatch import Dispatcher
from krita.errors import Foreign, Outcome, OutcomeUnknown
from krita.operations import Op
from tests.protocol import server
from tests.protocol.world import World, error_of

OTHER = bytes([7]) * 16


@pytest.fixture
def world() -> World:
    """A client that has written, and has lost its connections."""
    world = World()
    world.start(requests.put("k", "v"))
    world.disconnect()
    world.advance(2.0)
    return world


def test_a_cluster_that_was_made_anew_gets_nothing_of_what_was_meant_for_the_old_one(
    world: World,
) -> None:
    world.cluster_ids = {"a:1": OTHER, "b:1": OTHER}
    seen = len(world.seen)
    for request in (requests.put("k", "w"), requests.get("k"), requests.ping()):
        error = error_of(world.start(request))
        assert type(error) is Foreign
        assert "make a new client" in error.hint
        assert error.outcome is Outcome.NOT_APPLIED
    assert len(world.seen) == seen


def test_a_write_that_was_sent_to_the_old_cluster_is_of_unknown_outcome(world: World) -> None:
    world.start(requests.get("k"))
    world.unanswered.add(Op.PUT)
    call = world.start(requests.put("k", "w"))
    world.cluster_ids = {"a:1": OTHER, "b:1": OTHER}
    world.disconnect()
    world.advance(1.0)
    error = error_of(call)
    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, Foreign)
    assert world.count(Op.PUT) == 2


def test_an_address_that_another_cluster_has_is_passed_over(world: World) -> None:
    world.cluster_ids = {"a:1": OTHER}
    call = world.start(requests.put("k", "w"))
    assert call.finished
    assert call.error is None
    assert world.seen[-1][:2] == ("b:1", Op.PUT)


def test_whose_nodes_are_gone_but_for_an_address_of_another_cluster_is_waited_for(
    world: World,
) -> None:
    world.cluster_ids, world.gone = {"a:1": OTHER}, {"b:1"}
    call = world.start(requests.put("k", "w"), timeout_s=5.0)
    world.advance(4.9)
    assert not call.finished
    world.advance(0.2)
    assert type(error_of(call)) is Foreign
    assert "gave up after" in str(error_of(call))


def test_a_node_of_another_cluster_that_is_named_is_told_at_once(world: World) -> None:
    world.cluster_ids = {"c:1": OTHER}
    assert type(error_of(world.start(requests.ping("c:1")))) is Foreign
    assert world.start(requests.ping()).error is None


def test_the_old_cluster_is_gone_on_with_when_it_is_back(world: World) -> None:
    world.cluster_ids = {"a:1": OTHER, "b:1": OTHER}
    assert error_of(world.start(requests.put("k", "w")))
    world.cluster_ids = {}
    world.advance(2.0)
    assert world.start(requests.put("k", "x")).error is None
    assert world.count(Op.SESSION_OPEN) == 1


def test_the_first_that_answers_says_which_cluster_is_ours() -> None:
    world = World(Dispatcher(["a:1", "b:1"], random.Random(1)), cluster_ids={"b:1": OTHER})
    world.start(requests.put("k", "v"))
    world.gone.add("a:1")
    world.disconnect()
    call = world.start(requests.put("k", "w"), timeout_s=1.0)
    world.advance(1.0)
    assert type(error_of(call)) is Foreign


def test_a_client_that_was_interrupted_still_knows_its_cluster(
    db: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.put("k", "1")

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(db._sockets, "turn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        db.get("k")
    monkeypatch.setattr(server, "CLUSTER_ID", OTHER)
    with pytest.raises(Foreign):
        db.get("k")
