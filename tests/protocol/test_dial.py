"""Connecting: the addresses of a name in turn, and nobody waits for it longer than he said."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from krita import KritaError, Outcome
from krita.aio import AsyncClient
from krita.client import Client
from tests.protocol.server import Cluster

UNKNOWN_FAMILY = 250  # of addresses: no kernel has it
Found = list[tuple[Any, ...]]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of this machine whose queue is full: the kernel drops who comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            waiting.append(sock)
        yield port
        for sock in waiting:
            sock.close()


def with_addresses(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Every name has the address 127.0.0.1 with each of these ports."""

    def found(*_: object, **__: object) -> Found:
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def with_an_unknown_family(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Every name has an address that this machine has no sockets for, in front of 127.0.0.1."""

    def found(*_: object, **__: object) -> Found:
        unknown = (UNKNOWN_FAMILY, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", port, 0, 0))
        known = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        return [unknown, known]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def port_of(cluster: Cluster) -> int:
    return int(cluster.nodes[1].address.rpartition(":")[2])


def test_an_address_that_does_not_answer_leaves_time_to_the_next(
    cluster: Cluster, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_addresses(monkeypatch, silent, port_of(cluster))
    with Client("db.example.org") as db:
        assert db.ping().node == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_so_it_does_in_an_event_loop(
    cluster: Cluster, silent: int, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    async def main() -> int:
        async with AsyncClient("db.example.org") as db:
            return (await db.ping()).node

    with_addresses(monkeypatch, silent, port_of(cluster))
    assert anyio.run(main, backend=backend) == 1


def test_one_that_refuses_is_passed_over_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_addresses(monkeypatch, 1, port_of(cluster))
    with Client("db.example.org", timeout_ms=900) as db:
        assert db.ping().node == 1


def test_a_family_that_the_machine_does_not_speak_is_passed_over(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_an_unknown_family(monkeypatch, port_of(cluster))
    with Client("db.example.org") as db:
        assert db.ping().node == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_so_it_is_in_an_event_loop(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    async def main() -> int:
        async with AsyncClient("db.example.org") as db:
            return (await db.ping()).node

    with_an_unknown_family(monkeypatch, port_of(cluster))
    assert anyio.run(main, backend=backend) == 1


def test_a_calls_timeout_holds_while_nodes_do_not_answer(silent: int) -> None:
    with Client(f"127.0.0.1:{silent},localhost:{silent}", timeout_ms=50) as db:
        db._dispatcher.links._dial_timeout_s = 200.0
        began = time.monotonic()
        with pytest.raises(KritaError) as caught:
            db.get("k")
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert time.monotonic() - began < 100


class Interrupted(Exception):
    """What a signal's handler raises."""


def interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    before = signal.signal(signal.SIGALRM, interrupt)

    def after(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


# A socket of which nobody knew yet is closed when its memory is freed, and Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_that_is_interrupted_again_and_again_is_of_use_afterwards(
    cluster: Cluster, alarm: Callable[[float], None]
) -> None:
    with Client(cluster.seeds, timeout_ms=2000) as db:
        db.put("k", "0")
        for number in range(300):
            try:
                alarm(0.00001 + 0.000003 * (number % 200))
                db.put("k", str(number))
                alarm(0)
            except Interrupted:
                alarm(0)
        for number in range(20):
            db.put("k", f"at last {number}")
        assert not db._dispatcher._calls
