"""What a call needed is freed when it is dropped, and not when the collector comes by."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from krita.aio import AsyncClient
from krita.call import Call
from krita.client import Client
from krita.errors import ConditionFailed
from krita.link import Link
from krita.pipeline import Item
from krita.request import Request
from tests.protocol.server import Cluster

KINDS = (Call, Item, Link, Request, ConditionFailed)


Left = Callable[..., list[object]]


@pytest.fixture
def left() -> Iterator[Left]:
    """Which objects of these kinds (else: of all) there are that the test has made. Until its end
    nothing is freed but by being dropped."""
    gc.collect()
    gc.disable()

    def found(*kinds: type) -> list[object]:
        # By the type alone: some of the objects that the collector knows fail at anything else.
        return [one for one in gc.get_objects() if issubclass(type(one), kinds or KINDS)]

    old = found()
    known = set(map(id, old))
    try:
        yield lambda *kinds: [one for one in found(*kinds) if id(one) not in known]
    finally:
        gc.enable()


def test_calls_are_freed(db: Client, left: Left) -> None:
    db.put("a", "1")
    assert db.get("a") is not None
    assert not left(Call, Request)


def test_calls_that_fail_are_freed_with_their_errors(db: Client, left: Left) -> None:
    db.put("a", "1")
    with pytest.raises(ConditionFailed) as refused:
        db.put("a", "2", if_revision=99)
    del refused
    assert not left(Call, Request, ConditionFailed)


def test_pipelines_are_freed_with_all_their_values(db: Client, left: Left) -> None:
    with db.pipeline() as p:
        for number in range(20):
            p.put(f"k{number % 7}", "value")
        p.put("k0", "value", if_revision=99)
    assert len(left(Item)) == 21
    with pytest.raises(ConditionFailed) as refused:
        p.items[-1].value()
    del p, refused
    assert not left(Call, Item, Request, ConditionFailed)


def test_a_client_that_was_closed_is_freed_with_its_links(cluster: Cluster, left: Left) -> None:
    with Client(cluster.seeds) as client:
        client.put("a", "1")
    del client
    assert not left()


async def test_calls_of_the_asynchronous_client_are_freed(cluster: Cluster, left: Left) -> None:
    async with AsyncClient(cluster.seeds) as client:
        await client.put("a", "1")
        with pytest.raises(ConditionFailed) as refused:
            await client.put("a", "2", if_revision=99)
        del refused
        async with client.pipeline() as p:
            for number in range(20):
                p.put(f"k{number}", "value")
        del p
        assert not left(Call, Item, Request, ConditionFailed)
