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

A request that finds nothing in flight on its connection is sent at once; others wait for
the flusher task, which runs when all that are ready have run. ``krita.aio.wire`` moves the
bytes, and ``krita.dispatch`` decides everything else.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.lowlevel

from krita import checks, forks
from krita.aio.cluster import AsyncCluster
from krita.aio.groups import AsyncGroups
from krita.aio.holding import AsyncHolding
from krita.aio.keeper import AsyncKeeper
from krita.aio.keys import AsyncKeys
from krita.aio.mailbox import AsyncMailbox
from krita.aio.past import AsyncPast
from krita.aio.pipeline import AsyncPipeline
from krita.aio.ranges import AsyncRanges
from krita.aio.wire import Wire
from krita.client import LAST_WORD_S, TIMEOUT_MS
from krita.dispatch import Dispatcher
from krita.errors import BadRequest, KritaError

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

    from krita.call import Call
    from krita.link import Link
    from krita.request import Request
    from krita.ring import ShardMap

T = TypeVar("T")


class AsyncClient(AsyncKeys, AsyncGroups, AsyncCluster, AsyncRanges, AsyncPast, AsyncHolding):
    """A client of one cluster, to be used in an ``async with`` block and in the
    event loop that entered it, once. What the block raises leaves it as it is.

    Its parameters are those of ``krita.Client``, and its operations are in the classes that
    it is made of. Entering it again raises BadRequest.
    """

    def __init__(
        self,
        nodes: str | Sequence[str] = "127.0.0.1:8080",
        *,
        timeout_ms: float = TIMEOUT_MS,
        token: str | bytes | None = None,
        sessions: bool = True,
        zone: str = "",
    ) -> None:
        self.timeout_ms = checks.timeout(timeout_ms)
        self._dispatcher = Dispatcher(
            checks.seeds(nodes),
            random.Random(),
            token=checks.token_bytes(token),
            sessions=sessions,
            zone=checks.zone_name(zone),
        )
        self._tasks: TaskGroup | None = None
        self._forked = False  # this is not the process that has entered it
        self._wires: dict[Link, Wire] = {}
        # Set to wake the flusher, which replaces it.
        self._flush_wanted = False
        self._flush_event: anyio.Event | None = None
        self._timer_due = math.inf  # when the timekeeper will wake by itself
        self._timer_event: anyio.Event | None = None

    # What the surface is made of

    async def run(self, request: Request[T], timeout_ms: float | None = None) -> T:
        """Carry out a request made by ``krita.requests``. Raises KritaError."""
        if self._tasks is None:
            raise BadRequest("the client is not open", hint="use it in `async with`")
        event = anyio.Event()
        call = self.submit(request, lambda _: event.set(), timeout_ms)
        try:
            await event.wait()
        finally:
            if not call.finished:
                self.cancel(call)
        try:
            return cast("T", call.value())
        finally:
            del call  # an error's traceback holds this frame: see Call

    def pipeline(self, *, timeout_ms: float | None = None) -> AsyncPipeline:
        """Many operations in flight at once; see ``krita.pipeline``. It is carried out by
        ``await p.execute()`` or at the end of an ``async with`` block."""
        return AsyncPipeline(self, timeout_ms)

    def mailbox(self) -> AsyncMailbox:
        """Calls in flight whose outcomes are taken one by one."""
        return AsyncMailbox(self)

    def keeper(
        self, renew: Callable[[], Awaitable[object]], ttl_ms: int, lost: type[KritaError]
    ) -> AsyncKeeper:
        """What keeps a lease or a lock alive beside the block that needs it; ``lost`` is what
        the block ends with when the time has passed without an answer."""
        if self._tasks is None:
            raise BadRequest("the client is not open", hint="use it in `async with`")
        return AsyncKeeper(self._tasks, renew, ttl_ms, lost)

    async def last_word(self, action: Callable[[], Awaitable[object]]) -> None:
        """Give something up behind a block, also when the task is being cancelled. If it
        fails, time does it: nothing is raised."""
        with anyio.move_on_after(LAST_WORD_S, shield=True), suppress(KritaError):
            await action()

    async def pause(self, seconds: float) -> None:
        """Wait for a while."""
        await anyio.sleep(seconds)

    @property
    def map_known(self) -> ShardMap | None:
        """The newest shard map that calls have brought; None: none yet."""
        return self._dispatcher.router.map

    def submit(
        self,
        request: Request[Any],
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
        if self._forked:
            raise BadRequest("the client is the parent process's", hint="make one behind the fork")
        timeout_s = (self.timeout_ms if timeout_ms is None else checks.timeout(timeout_ms)) / 1000
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
        if self._flush_event is not None:
            raise BadRequest("an AsyncClient is entered once", hint="make a new one")
        self._flush_event, self._timer_event = anyio.Event(), anyio.Event()
        forks.tell(self)
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
            try:
                swallowed = await tasks.__aexit__(kind, error, traceback)
            except BaseExceptionGroup as group:
                # The tasks are nobody's business: with nothing of theirs in it, what the
                # block has raised leaves as it is, and `except KritaError` catches it.
                if error is None or _leaves(group) != _leaves(error):
                    raise
                swallowed = False
        return swallowed

    def forked(self) -> None:
        """This is a child process now (``krita.forks``): the event loop that it lives in is the
        parent's, and so is the client."""
        self._forked = True

    def __repr__(self) -> str:
        state = "" if self._tasks is not None else "closed "
        return f"<AsyncClient {state}{self._dispatcher!r}>"

    # Waiting for calls

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
        try:
            while True:
                assert self._flush_event is not None
                await self._flush_event.wait()
                self._flush_event, self._flush_wanted = anyio.Event(), False
                self._run_errands()
        finally:
            # Without this task nothing moves: who still waits, shielded, waits for nothing.
            self._dispatcher.close(time.monotonic())

    def _run_errands(self) -> None:
        links = self._dispatcher.links
        while links.has_errands:
            for link in links.take_closes():
                wire = self._wires.pop(link, None)
                if wire is not None:
                    wire.close()
            for link in links.take_dials():
                wire = self._wires[link] = Wire(self._dispatcher, link, self._follow_up)
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
            if time.monotonic() >= dispatcher.due:
                # Where the loop was busy, answers may have come in time and wait to be read.
                for wire in list(self._wires.values()):
                    wire.look()
            dispatcher.tick(time.monotonic())
            self._follow_up()


def _leaves(error: BaseException) -> set[BaseException]:
    """What there is in it besides groups. (Trio may have put together a group anew.)"""
    if isinstance(error, BaseExceptionGroup):
        return {leaf for part in error.exceptions for leaf in _leaves(part)}
    return {error}


class _Connected(AsyncClient):
    """Whose block begins when the cluster has answered."""

    async def __aenter__(self) -> AsyncClient:
        await super().__aenter__()
        try:
            await self.ping()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self


def connect(
    nodes: str | Sequence[str] = "127.0.0.1:8080",
    *,
    timeout_ms: float = TIMEOUT_MS,
    token: str | bytes | None = None,
    sessions: bool = True,
    zone: str = "",
) -> AsyncClient:
    """A client whose cluster has answered when its block begins:

        async with krita.aio.connect("krita://host:port,host") as db:
            ...

    Contrast ``AsyncClient``, which connects with its first call. Entering it raises KritaError
    when no node answers within ``timeout_ms``, or refuses the token.
    """
    return _Connected(nodes, timeout_ms=timeout_ms, token=token, sessions=sessions, zone=zone)
