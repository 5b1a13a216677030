"""Closing a blocking client while it waits: from another thread, and out of a signal's handler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from krita.client import Client
from krita.errors import BadRequest, KritaError, OutcomeUnknown, Unavailable
from krita.operations import Op
from tests.protocol import server
from tests.protocol.server import Cluster


def interrupt(_: server.Exchange) -> None:
    """Do not answer, and send this process a signal: its main thread waits for the answer."""
    os.kill(os.getpid(), signal.SIGALRM)


@pytest.fixture
def closing(db: Client) -> Iterator[Client]:
    """A client that a signal closes."""
    before = signal.signal(signal.SIGALRM, lambda *_: db.close())
    yield db
    signal.signal(signal.SIGALRM, before)


def test_a_client_that_waits_is_closed_by_another_thread(cluster: Cluster, db: Client) -> None:
    held, found = server.Hold(), []
    cluster.on(Op.GET, held, times=1000)

    def wait() -> None:
        try:
            db.get("k", timeout_ms=20_000)
        except KritaError as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not held.held:
        thread.join(0.001)
    db.close()
    thread.join(30)
    assert [type(error) for error in found] == [Unavailable]
    assert "the client was closed" in str(found[0])
    with pytest.raises(BadRequest, match="closed"):
        db.get("k")


def test_a_signal_s_handler_may_close_the_client_in_the_middle_of_a_read(
    cluster: Cluster, closing: Client
) -> None:
    cluster.on(Op.GET, interrupt)
    with pytest.raises(Unavailable, match="the client was closed"):
        closing.get("k", timeout_ms=20_000)
    with pytest.raises(BadRequest, match="closed"):
        closing.get("k")


def test_a_write_during_which_a_handler_closes_the_client_is_in_doubt(
    cluster: Cluster, closing: Client
) -> None:
    cluster.on(Op.PUT, interrupt)
    with pytest.raises(OutcomeUnknown, match="may have been applied"):
        closing.put("k", "1", timeout_ms=20_000)


def test_a_handler_may_close_the_client_while_a_watch_waits(
    cluster: Cluster, closing: Client
) -> None:
    with closing.watch("k") as watch:
        watch.begin()
        cluster.on(Op.CHANGES, interrupt)
        with pytest.raises(BadRequest, match="closed"):
            next(watch)


def test_what_a_handler_raises_after_it_has_closed_the_client_is_raised(
    cluster: Cluster, db: Client
) -> None:
    def stop(*_: object) -> None:
        db.close()
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        cluster.on(Op.GET, interrupt)
        with pytest.raises(ZeroDivisionError):
            db.get("k", timeout_ms=20_000)
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(BadRequest, match="closed"):
        db.get("k")
