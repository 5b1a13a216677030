"""``krita.aio.AsyncClient``: the client for trio and asyncio, over anyio.

The tasks of one client share one connection per node, and their requests travel
together: what the tasks of one turn of the event loop ask for leaves in one send,
and what arrives in one receive is handed out in one go.

    async with krita.aio.AsyncClient("10.0.0.1") as db:
        await db.put("user:1", "Ada")
        value = await db.get("user:1")

Cancelling a task that waits for a call is always safe: the call is forgotten. A
write that had been sent by then may still be applied.

``submit`` is the floor below: a request and a function to call with its outcome,
no task and no await. It is what load generators want.

How the bytes move: sockets of our own, tried first and waited for only when they
are not ready. Measured against anyio's SocketStream that spares a task switch per
send. A request that finds nothing in flight on its connection is sent at once;
others wait for the flusher task, which runs when all that are ready have run.
``krita.dispatch`` decides everything else.
"""

from __future__ import annotations

import math
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel

from krita import requests
from krita.address import parse
from krita.client import (
    RECEIVE_BYTES,
    TIMEOUT_MS,
    check_timeout,
    check_zone,
    seeds_of,
    token_bytes,
)
from krita.dispatch import Dispatcher
from krita.errors import BadRequest
from krita.operations import Consistency
from krita.pipeline import Batch

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

    from krita.call import Call
    from krita.link import Link
    from krita.requests import Request
    from krita.ring import ShardMap
    from krita.values import DeleteResult, Pong, PutResult, Value


class AsyncClient:
    """A client of one cluster, to be used in an ``async with`` block and in the
    event loop that entered it. Its parameters are those of ``krita.Client``."""

    def __init__(
        self,
        nodes: str | Sequence[str] = "127.0.0.1:8080",
        *,
        timeout_ms: float = TIMEOUT_MS,
        token: str | bytes | None = None,
        sessions: bool = True,
        zone: str = "",
    ) -> None:
        self.timeout_ms = check_timeout(timeout_ms)
        self._dispatcher = Dispatcher(
            seeds_of(nodes),
            random.Random(),
            token=token_bytes(token),
            sessions=sessions,
            zone=check_zone(zone),
        )
        self._tasks: TaskGroup | None = None
        self._wires: dict[Link, _Wire] = {}
        # Set to wake the flusher, which replaces it.
        self._flush_wanted = False
        self._flush_event: anyio.Event | None = None
        self._timer_due = math.inf  # when the timekeeper will wake by itself
        self._timer_event: anyio.Event | None = None

    # Operations

    async def get(
        self,
        key: str | bytes,
        *,
        consistency: Consistency | str = Consistency.LINEARIZABLE,
        timeout_ms: float | None = None,
    ) -> Value | None:
        """As ``Client.get``."""
        return cast("Value | None", await self._run(requests.get(key, consistency), timeout_ms))

    async def put(
        self,
        key: str | bytes,
        value: str | bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_revision: int | None = None,
        timeout_ms: float | None = None,
    ) -> PutResult:
        """As ``Client.put``."""
        request = requests.put(key, value, content_type, if_revision)
        return cast("PutResult", await self._run(request, timeout_ms))

    async def delete(
        self,
        key: str | bytes,
        *,
        if_revision: int | None = None,
        timeout_ms: float | None = None,
    ) -> DeleteResult:
        """As ``Client.delete``."""
        return cast("DeleteResult", await self._run(requests.delete(key, if_revision), timeout_ms))

    async def ping(self, node: int | str | None = None, *, timeout_ms: float | None = None) -> Pong:
        """As ``Client.ping``."""
        return cast("Pong", await self._run(requests.ping(node), timeout_ms))

    async def shard_map(self, *, timeout_ms: float | None = None) -> ShardMap:
        """As ``Client.shard_map``."""
        return cast("ShardMap", await self._run(requests.shard_map(), timeout_ms))

    async def call(
        self,
        operation: str | int,
        *fields: object,
        node: int | str | None = None,
        timeout_ms: float | None = None,
    ) -> list[Any]:
        """As ``Client.call``."""
        request = requests.any_operation(operation, fields, node)
        return cast("list[Any]", await self._run(request, timeout_ms))

    def pipeline(self, *, timeout_ms: float | None = None) -> AsyncPipeline:
        """As ``Client.pipeline``, with ``async with`` and ``await p.execute()``."""
        return AsyncPipeline(self, timeout_ms)

    def submit(
        self,
        request: Request,
        done: Callable[[Call], None],
        timeout_ms: float | None = None,
    ) -> Call:
        """Start a request made by ``krita.requests``, without waiting for it.

        ``done(call)`` is called once, in the event loop's thread, perhaps before this
        returns; ``call.error`` and ``call.result`` hold the outcome. It must not raise
        or block, and may submit more. Whatever is unfinished when the client closes
        fails then, and what is submitted later fails at once.
        It costs about half of what ``await client.put`` does.
        """
        if self._flush_event is None:
            raise BadRequest("the client was never opened", hint="use it in `async with`")
        timeout_s = (self.timeout_ms if timeout_ms is None else check_timeout(timeout_ms)) / 1000
        call = self._dispatcher.start(request, timeout_s, time.monotonic(), done)
        link = call.link
        if link is not None and len(link.calls) == 1 and link.replies_last <= 1:
            # Nobody else is about to ask for something: waiting would only cost.
            self._run_errands()
        self._follow_up()
        return call

    def cancel(self, call: Call) -> None:
        """Forget a submitted call: ``done`` is not called any more."""
        self._dispatcher.cancel(call, time.monotonic())
        self._follow_up()

    # Life

    async def __aenter__(self) -> AsyncClient:
        assert self._tasks is None, "an AsyncClient is entered once"
        self._flush_event, self._timer_event = anyio.Event(), anyio.Event()
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks = tasks
        tasks.start_soon(self._flush_forever)
        tasks.start_soon(self._keep_time)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel()
        try:
            self._dispatcher.close(time.monotonic())
        finally:  # whatever the caller's functions raised: the tasks end here
            swallowed = await tasks.__aexit__(kind, error, traceback)
        return swallowed

    def __repr__(self) -> str:
        state = "" if self._tasks is not None else "closed "
        return f"<AsyncClient {state}{self._dispatcher!r}>"

    # Waiting for calls

    async def _run(self, request: Request, timeout_ms: float | None) -> object:
        if self._tasks is None:
            raise BadRequest("the client is not open", hint="use it in `async with`")
        event = anyio.Event()
        call = self.submit(request, lambda _: event.set(), timeout_ms)
        try:
            await event.wait()
        finally:
            if not call.finished:
                self.cancel(call)
        return call.value()

    async def run_batch(self, batch: AsyncPipeline, timeout_ms: float | None) -> None:
        """Carry out a pipeline's requests. For ``AsyncPipeline``."""
        event = batch.all_done = anyio.Event()
        try:
            batch.begin(lambda request, done: self.submit(request, done, timeout_ms))
            if batch.finished:
                event.set()
            await event.wait()
        finally:
            for call in batch.calls:
                if not call.finished:
                    self.cancel(call)

    # Moving bytes

    def _follow_up(self) -> None:
        """See to what a change in the dispatcher asks for; soon, not now."""
        dispatcher = self._dispatcher
        if dispatcher.links.has_errands and not self._flush_wanted:
            self._flush_wanted = True
            assert self._flush_event is not None
            self._flush_event.set()
        if dispatcher.due < self._timer_due:
            assert self._timer_event is not None
            self._timer_event.set()

    async def _flush_forever(self) -> None:
        while True:
            assert self._flush_event is not None
            await self._flush_event.wait()
            self._flush_event, self._flush_wanted = anyio.Event(), False
            self._run_errands()

    def _run_errands(self) -> None:
        links = self._dispatcher.links
        while links.has_errands:
            for link in links.take_closes():
                wire = self._wires.pop(link, None)
                if wire is not None:
                    wire.close()
            for link in links.take_dials():
                wire = self._wires[link] = _Wire(self._dispatcher, link, self._follow_up)
                assert self._tasks is not None
                self._tasks.start_soon(wire.run)
            for link in links.take_sends():
                wire = self._wires.get(link)
                if wire is not None:
                    wire.send(link.take_outgoing())

    async def _keep_time(self) -> None:
        dispatcher = self._dispatcher
        while True:
            self._timer_event = anyio.Event()
            self._timer_due = dispatcher.due
            left_s = dispatcher.due - time.monotonic()
            if left_s > 0:
                with anyio.move_on_after(left_s if left_s < math.inf else None):
                    await self._timer_event.wait()
            else:
                await anyio.lowlevel.checkpoint()
            dispatcher.tick(time.monotonic())
            self._follow_up()


class _Wire:
    """A link's socket: one task that connects and reads, and sends that need none
    unless the socket is full."""

    def __init__(self, dispatcher: Dispatcher, link: Link, follow_up: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._link = link
        self._follow_up = follow_up
        self._sock: socket.socket | None = None
        self._unsent = bytearray()
        self._scope = anyio.CancelScope()
        self._tasks: TaskGroup | None = None

    def close(self) -> None:
        """Idempotent. The task ends at its next turn and closes the socket."""
        self._scope.cancel()

    async def run(self) -> None:
        """Connect and read until the connection ends, however it does."""
        with self._scope:
            try:
                reason = await self._live()
            except OSError as error:
                reason = error.strerror or str(error)
            self._dispatcher.closed(self._link, reason, time.monotonic())
            self._follow_up()

    async def _live(self) -> str:
        sock = await _connect(self._link.address)
        try:
            async with anyio.create_task_group() as tasks:
                self._sock, self._tasks = sock, tasks
                self._dispatcher.dialed(self._link)
                self._follow_up()
                reason = await self._read(sock)
                tasks.cancel_scope.cancel()
        finally:
            self._sock = None
            sock.close()
        return reason

    async def _read(self, sock: socket.socket) -> str:
        """Until the node ends it, or its death does; why it ended. An error is
        returned too: raised, the task group would wrap it."""
        while True:
            await anyio.wait_readable(sock)
            try:
                data = sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                return error.strerror or str(error)
            if not data:
                return "the node closed the connection"
            self._dispatcher.received(self._link, data, time.monotonic())
            self._follow_up()

    def send(self, data: bytes) -> None:
        """Send now what the socket takes; a task sends the rest."""
        if self._sock is None:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader finds out, and why
        if sent < len(data):
            self._unsent += data[sent:]
            assert self._tasks is not None
            self._tasks.start_soon(self._send_rest)

    async def _send_rest(self) -> None:
        while self._unsent and (sock := self._sock) is not None:
            await anyio.wait_writable(sock)
            try:
                sent = sock.send(self._unsent)
            except BlockingIOError:
                continue
            except OSError:
                return  # the reader finds out, and why
            del self._unsent[:sent]


class AsyncPipeline(Batch):
    """``krita.pipeline`` for an AsyncClient; made by its ``pipeline``."""

    def __init__(self, client: AsyncClient, timeout_ms: float | None) -> None:
        super().__init__()
        self._client = client
        self._timeout_ms = timeout_ms
        self.all_done: anyio.Event | None = None

    async def execute(self) -> list[object]:
        """Carry everything out; the results in order, errors as values."""
        await self._client.run_batch(self, self._timeout_ms)
        return self.results

    def on_finished(self) -> None:
        """The last item has its result."""
        assert self.all_done is not None
        self.all_done.set()

    async def __aenter__(self) -> AsyncPipeline:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and not self.finished:
            await self.execute()


async def _connect(address: str) -> socket.socket:
    """A connected non-blocking socket. Raises OSError, of the last place tried."""
    place = parse(address)
    last: OSError = OSError(f"{place.host} has no address")
    for family, kind, protocol, _, where in await anyio.getaddrinfo(
        place.host, place.port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _connect_to(sock, where)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


async def _connect_to(sock: socket.socket, where: tuple[Any, ...]) -> None:
    try:
        sock.connect(where)
    except BlockingIOError:
        await anyio.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None


def connect(
    nodes: str | Sequence[str] = "127.0.0.1:8080",
    *,
    timeout_ms: float = TIMEOUT_MS,
    token: str | bytes | None = None,
    sessions: bool = True,
    zone: str = "",
) -> AsyncClient:
    """``async with krita.aio.connect("krita://host:port,host") as db``"""
    return AsyncClient(nodes, timeout_ms=timeout_ms, token=token, sessions=sessions, zone=zone)
