"""Pipelines: many operations in flight at once.

    with db.pipeline() as p:
        for name, data in rows:
            p.put(name, data)
        found = p.get("user:1")
    print(p.results[-1], found.value())

Nothing is sent before ``execute`` or the end of the ``with`` block. Then operations
on different keys run side by side, those on one key one after another in the order
given (so a ``get`` behind a ``put`` of the same key sees it). A pipeline is not a
transaction: every operation succeeds, fails and is retried for itself.

One connection per leader carries them all; a few hundred operations cost hardly more
than one. Of a pipeline's at most ``UNDER_WAY_MAX`` are under way, or some megabytes of them,
and each end starts the next: more would only wait, and their time would pass behind others
of the same pipeline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from krita import checks, requests
from krita.call import Call
from krita.errors import BadRequest, KritaError
from krita.limits import REQUESTS_IN_FLIGHT_MAX
from krita.link import BYTES_IN_FLIGHT_MAX
from krita.parts import Step

if TYPE_CHECKING:
    from types import TracebackType

    from krita.operations import Consistency
    from krita.request import Request

UNDER_WAY_MAX = REQUESTS_IN_FLIGHT_MAX  # what one connection carries, and one session has places
# A few connections' worth: the last of those under way has to have its answer in time.
UNDER_WAY_BYTES_MAX = 4 * BYTES_IN_FLIGHT_MAX

Start = Callable[["Request[Any]", Callable[[Call], None]], Call]


@attrs.define(eq=False)
class Item:
    """One operation of a pipeline, and what became of it after ``execute``."""

    request: Request[Any]
    finished: bool = False
    result: object = None
    error: KritaError | None = None

    def value(self) -> object:
        """The result: a Value or None, PutResult, DeleteResult. Raises the error
        that the operation ended with."""
        if not self.finished:
            raise BadRequest("the pipeline has not been executed, or not to its end")
        error = self.error
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error, self  # the traceback holds this frame, and must not lead back: call.py


class Batch:
    """Items and the order they may run in; what both pipelines share."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.calls: list[Call] = []
        self._unfinished = 0
        self._under_way = 0
        self._under_way_bytes = 0
        self._behind: dict[bytes, deque[Item]] = {}  # key -> those that wait their turn
        self._ready: deque[Item] = deque()  # those that wait for a place among those under way
        self._starting = False
        self._start: Start | None = None

    def get(
        self,
        key: str | bytes,
        *,
        consistency: Consistency | str | None = None,
    ) -> Item:
        """Queue a get; see ``Client.get``. Raises BadRequest at once."""
        return self._add(requests.get(key, consistency))

    def put(
        self,
        key: str | bytes,
        value: str | bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_revision: int | None = None,
        ttl_ms: int | None = None,
    ) -> Item:
        """Queue a put; see ``Client.put``. Raises BadRequest or TooLarge at once."""
        return self._add(requests.put(key, value, content_type, if_revision, ttl_ms=ttl_ms))

    def delete(self, key: str | bytes, *, if_revision: int | None = None) -> Item:
        """Queue a delete; see ``Client.delete``. Raises BadRequest at once."""
        return self._add(requests.delete(key, if_revision))

    def step(self, step: Step) -> Item:
        """Queue what ``krita.steps`` has made: all that is no get, put or delete, say. Raises
        BadRequest at once."""
        return self._add(checks.made(step, Step, "step").request())

    @property
    def results(self) -> list[object]:
        """In the order given: each operation's result, or the KritaError it ended
        with, as a value. Raises BadRequest before the pipeline was executed."""
        return [item.error or item.value() for item in self.items]

    @property
    def errors(self) -> list[KritaError]:
        """The errors among the results."""
        return [item.error for item in self.items if item.error is not None]

    @property
    def begun(self) -> bool:
        """Whether its execution has begun; it may have been cut short."""
        return self._start is not None

    @property
    def finished(self) -> bool:
        """Whether every item has its result."""
        return self.begun and self._unfinished == 0

    def check_new(self) -> None:
        """Raises BadRequest when it is begun."""
        if self.begun:
            raise BadRequest("a pipeline is executed once", hint="make a new one")

    def __len__(self) -> int:
        return len(self.items)

    def on_finished(self) -> None:
        """Called when the last item has got its result."""

    def begin(self, start: Start) -> None:
        """Start what need not wait. For the clients. Raises BadRequest when it is begun."""
        self.check_new()
        self._start = start
        self._unfinished = len(self.items)
        for item in self.items:
            key = item.request.key
            assert key is not None
            behind = self._behind.get(key)
            if behind is None:
                self._behind[key] = deque()
                self._ready.append(item)
            else:
                behind.append(item)
        self._start_ready()

    def _add(self, request: Request[Any]) -> Item:
        if self.begun:
            raise BadRequest("the pipeline has been executed", hint="make a new one")
        item = Item(request)
        self.items.append(item)
        return item

    @property
    def _has_room(self) -> bool:
        return self._under_way < UNDER_WAY_MAX and self._under_way_bytes < UNDER_WAY_BYTES_MAX

    def _start_ready(self) -> None:
        assert self._start is not None
        self._starting = True
        try:
            while self._ready and self._has_room:
                item = self._ready.popleft()
                self._under_way += 1
                self._under_way_bytes += item.request.value_bytes

                def done(call: Call, item: Item = item) -> None:
                    self._item_done(item, call)

                self.calls.append(self._start(item.request, done))
        finally:  # interrupted, too: what is left of it has to end
            self._starting = False

    def _item_done(self, item: Item, call: Call) -> None:
        item.finished, item.result, item.error = True, call.result, call.error
        self._unfinished -= 1
        self._under_way -= 1
        self._under_way_bytes -= item.request.value_bytes
        key = item.request.key
        assert key is not None
        behind = self._behind[key]
        if behind:
            self._ready.appendleft(behind.popleft())  # or a key's turns would end last of all
        if not self._unfinished:
            self.on_finished()
        elif not self._starting:
            # Else the loop that is running starts the next: a thousand that fail at once
            # would be a thousand calls deep.
            self._start_ready()


class _Runner(Protocol):
    def run_batch(self, batch: Pipeline, timeout_ms: float | None) -> None: ...


class Pipeline(Batch):
    """The blocking client's pipeline; made by ``Client.pipeline``."""

    def __init__(self, client: _Runner, timeout_ms: float | None) -> None:
        super().__init__()
        self._client = client
        self._timeout_ms = timeout_ms

    def execute(self) -> list[object]:
        """Carry everything out; the results in order, errors as values.

        ``timeout_ms`` counts for every operation from when it is started. Raises
        BadRequest when that was done before, or for a bad ``timeout_ms``.
        """
        self.check_new()  # or it would look like an interruption
        self._client.run_batch(self, self._timeout_ms)
        return self.results

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An exception in the block means that not everything was queued.
        if kind is None and not self.begun:
            self.execute()
