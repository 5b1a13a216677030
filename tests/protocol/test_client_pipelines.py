"""Pipelines of the blocking client: in their order, each for itself, and carried out once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from krita.call import Call
from krita.client import Client
from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
)
from krita.operations import Op
from krita.pipeline import UNDER_WAY_BYTES_MAX, UNDER_WAY_MAX, Batch
from krita.request import Request
from krita.values import Value
from tests.protocol import server
from tests.protocol.conftest import once
from tests.protocol.server import Cluster


def test_the_results_of_a_pipeline_are_in_the_order_given(db: Client) -> None:
    with db.pipeline() as p:
        for number in range(300):
            p.put(f"k{number}", str(number))
        found = [p.get(f"k{number}") for number in range(300)]
        p.delete("k0")
    assert [item.value().text() for item in found] == [str(n) for n in range(300)]  # type: ignore[attr-defined]
    assert len(p.results) == 601
    assert not p.errors


def test_operations_of_a_pipeline_on_one_key_happen_in_their_order(
    cluster: Cluster, db: Client
) -> None:
    cluster.on(Op.PUT, server.answer(Busy("full")))
    with db.pipeline() as p:
        for number in range(20):
            p.put("k", str(number))
        last = p.get("k")
    value = last.value()
    assert isinstance(value, Value)
    assert value.text() == "19"


def test_an_item_of_a_pipeline_fails_for_itself(db: Client) -> None:
    with db.pipeline() as p:
        p.put("a", "1", if_revision=99)
        p.put("b", "1")
    assert isinstance(p.results[0], ConditionFailed)
    assert [type(error) for error in p.errors] == [ConditionFailed]
    assert db.get("b") is not None
    with pytest.raises(ConditionFailed):
        p.items[0].value()


def test_a_pipeline_beyond_the_window_of_its_session_is_carried_out_once(
    cluster: Cluster, db: Client
) -> None:
    with db.pipeline() as p:
        for number in range(3000):
            p.put(f"{{tag}}{number}", "v")
    assert not p.errors
    assert len(cluster.executed) == 3000
    assert once(cluster)


def test_a_pipeline_whose_connection_breaks_is_carried_out_once(
    cluster: Cluster, db: Client
) -> None:
    for _ in range(5):
        cluster.on(Op.PUT, server.apply_then_drop)
        with db.pipeline() as p:
            for number in range(200):
                p.put(f"k{number}", "v")
        assert not p.errors
    assert once(cluster)
    assert len(cluster.executed) == 1000


def test_a_pipeline_whose_session_expired_is_carried_out_in_a_new_one(
    cluster: Cluster, db: Client
) -> None:
    with db.pipeline() as p:
        p.put("k", "1")
    cluster.expire_sessions()
    with db.pipeline() as p:
        for number in range(100):
            p.put(f"k{number}", "v")
    assert not p.errors
    assert cluster.count(Op.SESSION_OPEN) <= 4
    assert once(cluster)


def test_a_pipeline_larger_than_the_sockets_buffers_does_not_block_itself(db: Client) -> None:
    with db.pipeline() as p:
        for number in range(40):
            p.put(f"k{number}", bytes(500_000))
            p.get(f"k{number}")
    assert not p.errors


def test_a_value_too_large_in_a_pipeline_spares_the_others(cluster: Cluster, db: Client) -> None:
    cluster.value_bytes_max = 1000
    with db.pipeline() as p:
        for number in range(1500):
            p.put(f"{{t}}{number}", "v")
        for _ in range(1500):
            p.put("{t}large", bytes(80_000))
    assert [type(error) for error in p.errors] == [TooLarge] * 1500


def test_a_pipeline_is_not_executed_when_its_block_fails(cluster: Cluster, db: Client) -> None:
    p = db.pipeline()

    def fail() -> None:
        with p:
            p.put("k", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not cluster.executed
    with pytest.raises(BadRequest, match="not been executed"):
        _ = p.results


def test_what_is_left_of_a_pipeline_that_was_interrupted_is_never_sent(
    cluster: Cluster, db: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.put("k", "0")
    turn, turns = db._sockets.turn, iter(range(3))

    def interrupted() -> None:
        if next(turns, None) is None:
            raise KeyboardInterrupt
        turn()

    monkeypatch.setattr(db._sockets, "turn", interrupted)
    p = db.pipeline()
    for number in range(20):
        p.put("k", str(number))
    with pytest.raises(KeyboardInterrupt):
        p.execute()
    sent = cluster.count(Op.PUT)
    db.put("k", "newer")
    for _ in range(20):
        db.get("another")
    assert cluster.count(Op.PUT) <= sent + 2  # one was on its way, and the newer one
    value = db.get("k")
    assert value is not None
    assert value.text() == "newer"
    assert all(isinstance(error, (Unavailable, OutcomeUnknown)) for error in p.errors)
    assert len(p.results) == 20


def test_executing_a_pipeline_twice_leaves_the_connections_as_they_are(
    cluster: Cluster, db: Client
) -> None:
    p = db.pipeline()
    p.put("k", "1")
    p.execute()
    with pytest.raises(BadRequest, match="once"):
        p.execute()
    db.put("k", "2")
    assert cluster.connections == 1


Started = list[tuple[Call, Callable[[Call], None]]]


def begin(started: Started, request: Request[Any], done: Callable[[Call], None]) -> Call:
    """What a client does with an operation of a batch, but for sending it."""
    call = Call(request, 0.0, 5.0, 5.0)
    started.append((call, done))
    return call


def test_an_operation_of_a_pipeline_is_started_when_there_is_a_place_for_it() -> None:
    started: Started = []
    batch = Batch()
    for number in range(UNDER_WAY_MAX + 2):
        batch.put(f"k{number}", "v")
    batch.put("k0", "the next turn of its key")
    batch.begin(partial(begin, started))
    assert len(started) == UNDER_WAY_MAX
    for number, key in enumerate([b"k0", f"k{UNDER_WAY_MAX}".encode()]):
        call, done = started[number]
        done(call)
        assert started[-1][0].request.key == key
        assert len(started) == UNDER_WAY_MAX + 1 + number
    for call, done in started[2:]:
        done(call)
    assert len(started) == UNDER_WAY_MAX + 3
    assert not batch.finished
    call, done = started[-1]
    done(call)
    assert batch.finished


def test_so_many_large_operations_of_a_pipeline_are_under_way_as_their_time_suffices_for() -> None:
    started: Started = []
    batch = Batch()
    for number in range(20):
        batch.put(f"k{number}", bytes(UNDER_WAY_BYTES_MAX // 4))
    batch.begin(partial(begin, started))
    assert len(started) == 4
    call, done = started[0]
    done(call)
    assert len(started) == 5
