"""What the collector is spared, what it finds all the same, and that requests leave it nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import count

import pytest
import trio
from trio.testing import MockClock

from krita.operations import Op
from kritad import collector
from kritad.access import Access
from kritad.server.http_exchange import Exchange
from kritad.server.http_routes import Routes
from kritad.server.http_wire import HttpRequest
from kritad.server.limits import ServerLimits
from tests.kritad.service_bench import LOCAL, Bench

REQUESTS = 40


class Circle:
    """It leads to itself."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def installed() -> Iterator[None]:
    """The process's collector as a node has it; afterwards as it was."""
    thresholds, callbacks = gc.get_threshold(), gc.callbacks[:]
    collector.install()
    try:
        yield
    finally:
        gc.callbacks[:] = callbacks
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def live_through_young_collections() -> list[list[object]]:
    """More new objects than one young collection waits for."""
    return [[] for _ in range(3 * gc.get_threshold()[0])]


@pytest.mark.usefixtures("installed")
def test_what_survives_a_young_collection_is_not_walked_through_again() -> None:
    frozen = gc.get_freeze_count()
    kept = live_through_young_collections()
    assert gc.get_freeze_count() - frozen > len(kept) // 2
    assert not gc.get_objects(generation=1)
    assert not gc.get_objects(generation=2)


@pytest.mark.usefixtures("installed")
def test_a_new_circle_is_found_by_a_young_collection() -> None:
    found = weakref.ref(Circle())
    kept = live_through_young_collections()
    assert found() is None
    assert kept


@pytest.mark.usefixtures("installed")
def test_a_circle_that_was_frozen_is_found_by_the_full_pass_only() -> None:
    circle = Circle()
    kept = live_through_young_collections()
    gone = weakref.ref(circle)
    del circle
    kept += live_through_young_collections()
    assert gone() is not None, "it was not frozen: this test says nothing"
    assert collector.collect_all() > 0
    assert gone() is None
    assert gc.get_freeze_count() > len(kept)  # and the rest is frozen again


@pytest.mark.usefixtures("installed")
async def test_the_full_pass_comes_about_every_hour(autojump_clock: MockClock) -> None:
    circle = Circle()
    gc.freeze()
    gone = weakref.ref(circle)
    del circle
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector.collect_seldom)
        await trio.sleep(1_700)
        assert gone() is not None
        await trio.sleep(3_800)
        assert gone() is None
        assert autojump_clock.current_time() >= 5_500
        nursery.cancel_scope.cancel()


async def test_a_full_pass_that_takes_long_is_made_less_often(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    passes: list[float] = []

    def collect_all() -> int:
        passes.append(trio.current_time())
        return 0

    monkeypatch.setattr(collector, "collect_all", collect_all)
    monkeypatch.setattr(collector, "perf_counter", count(step=10).__next__)  # 10 s each
    with trio.move_on_after(200_000):
        await collector.collect_seldom()
    assert 2 <= len(passes) <= 5, passes
    assert autojump_clock.rate == 0


# --- requests, which are to leave nothing for it ------------------------------------------


def ask(bench: Bench, routes: Routes, request: HttpRequest) -> None:
    """One HTTP request to node 1, from the table of routes to its answer."""
    exchange = Exchange(request, bench.service, Access(None), True, lambda: None)
    exchange.run(routes.handle)
    bench.cluster.run_until(lambda: exchange.answer is not None)


HTTP = [
    (b"PUT", b"/v1/kv/a", b"value"),
    (b"PUT", b"/v1/kv/a?ttl=60", b"value"),
    (b"GET", b"/v1/kv/a", b""),
    (b"GET", b"/v1/kv/absent", b""),
    (b"GET", b"/v1/kv/a?consistency=stale", b""),
    (b"POST", b"/v1/kv/n?do=add", b"1"),
    (b"DELETE", b"/v1/kv/a", b""),
    (b"PUT", b"/a", b"value"),
    (b"GET", b"/a", b""),
    (b"GET", b"/v1/nowhere", b""),
    (b"PATCH", b"/v1/kv/a", b""),
    (b"GET", b"/v1/kv/a?no_such_option=1", b""),
    (b"GET", b"/health", b""),
]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is collected unless it is asked for."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(("method", "target", "body"), HTTP)
def test_an_http_request_leaves_no_circle(
    three: Bench, method: bytes, target: bytes, body: bytes
) -> None:
    path, _, query = target.partition(b"?")
    request = HttpRequest(method, path, query, {}, body, keep_alive=True)
    routes = Routes(ServerLimits(), three.service.metrics)
    ask(three, routes, request)  # what is made once
    gc.collect()
    for _ in range(REQUESTS):
        ask(three, routes, request)
    assert gc.collect() < REQUESTS  # fewer than one object a request


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("op", "fields"),
    [
        (Op.PUT, (None, None, None, b"a", b"value")),
        (Op.GET, (b"a",)),
        (Op.GET, (b"",)),  # refused
        (Op.DELETE, (None, None, None, b"a")),
        (Op.SHARD_MAP, ()),
    ],
)
def test_an_operation_leaves_no_circle_on_any_node(
    three: Bench, op: Op, fields: tuple[object, ...]
) -> None:
    def ask_all() -> None:
        for node in (1, 2, 3):  # one of them leads, the others forward
            three.do(op, *fields, who=LOCAL, node=node)

    ask_all()
    gc.collect()
    for _ in range(REQUESTS):
        ask_all()
    assert gc.collect() < REQUESTS
