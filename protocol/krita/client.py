"""``krita.Client``: the blocking client, for scripts and the shell.

No event loop and no threads: whoever calls does the work, for as long as the call
takes. Between calls nothing happens; a connection that broke meanwhile is found
out, and made anew, by the next call. One thread at a time uses a client, others
wait, also while it waits for a change; for parallel work use one client per thread, a
pipeline, or ``krita.aio``. Only ``close`` does not wait. In a forked process it begins
anew, with connections and sessions of its own.

Every call takes at most its ``timeout_ms``. Within it, failures that cannot have
had an effect are retried, and so are writes in doubt, which a session executes
once (``krita.retry`` has the rules). What is raised is a ``KritaError`` whose
``outcome`` says what became of the request.

    with krita.Client("10.0.0.1,10.0.0.2") as db:
        db.put("user:1", "Ada")
        value = db.get("user:1")
        print(value.text(), value.revision)

``krita.dispatch`` decides, ``krita.sockets`` moves the bytes.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from krita import checks, forks
from krita.blocking.cluster import Cluster
from krita.blocking.groups import Groups
from krita.blocking.holding import Holding
from krita.blocking.keeper import Keeper
from krita.blocking.keys import Keys
from krita.blocking.mailbox import Mailbox
from krita.blocking.past import Past
from krita.blocking.ranges import Ranges
from krita.dispatch import Dispatcher
from krita.errors import BadRequest, KritaError
from krita.pipeline import Pipeline
from krita.sockets import Sockets

if TYPE_CHECKING:
    from types import TracebackType

    from krita.call import Call
    from krita.request import Request
    from krita.ring import ShardMap

T = TypeVar("T")
TIMEOUT_MS = 5000.0
LAST_WORD_S = 2.0  # for giving something up, when a block has ended


class Client(Keys, Groups, Cluster, Ranges, Past, Holding):
    """A client of one cluster. Nothing is connected before the first call.

    ``nodes``: any of the cluster's nodes, ``"host:port,host"`` or a list; the others
    are found. ``timeout_ms``: for every call that brings none of its own. ``token``:
    the cluster's admin token, if it has one. ``sessions=False`` spares the first write to each
    shard a round trip and ends retries of writes in doubt. ``zone``: where the caller
    is, as nodes name it (the setting ``zone``); stale reads stay there if they can.

    Its operations are in the classes that it is made of.

    Raises AddressError (a BadRequest) for a bad address, BadRequest for another bad argument.
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
        seeds, place = checks.seeds(nodes), checks.zone_name(zone)
        secret = checks.token_bytes(token)
        # Chance is new each time: forked processes are many, and would all do the same.
        self._make_dispatcher: Callable[[], Dispatcher] = lambda: Dispatcher(
            seeds, random.Random(), token=secret, sessions=sessions, zone=place
        )
        self._dispatcher = self._make_dispatcher()
        self._sockets = Sockets(self._dispatcher)
        self._lock = threading.RLock()
        self._timeout_s_max = math.inf  # of any call
        self._closed = False
        self._at_work = 0  # the thread that is in the middle of something; 0: none
        forks.tell(self)

    # What the surface is made of

    def run(self, request: Request[T], timeout_ms: float | None = None) -> T:
        """Carry out a request made by ``krita.requests``. Raises KritaError."""
        timeout_s = self._timeout_s(timeout_ms)
        with self._working():
            self._sockets.look()
            call = self._dispatcher.start(request, timeout_s, time.monotonic())
            while not call.finished:
                self._turn()
        try:
            return cast("T", call.value())
        finally:
            del call  # an error's traceback holds this frame: see Call

    def submit(
        self,
        request: Request[Any],
        done: Callable[[Call], None],
        timeout_ms: float | None = None,
    ) -> Call:
        """Start a request made by ``krita.requests``, without waiting for it: that is done
        by ``turn``. ``done(call)`` is called once, perhaps before this returns."""
        timeout_s = self._timeout_s(timeout_ms)
        with self._working():
            self._sockets.look()
            return self._dispatcher.start(request, timeout_s, time.monotonic(), done)

    def turn(self) -> None:
        """Send what there is to send, then wait until something happens."""
        with self._working():
            self._turn()

    def cancel(self, call: Call) -> None:
        """Forget a submitted call: ``done`` is not called any more."""
        with self._lock:
            if not call.finished:
                self._dispatcher.cancel(call, time.monotonic())

    def pipeline(self, *, timeout_ms: float | None = None) -> Pipeline:
        """Many operations in flight at once; see ``krita.pipeline``."""
        return Pipeline(self, timeout_ms)

    def mailbox(self) -> Mailbox:
        """Calls in flight whose outcomes are taken one by one."""
        return Mailbox(self)

    def keeper(self, renew: Callable[[], object], ttl_ms: int, lost: type[KritaError]) -> Keeper:
        """What would keep a lease or a lock alive, if there were tasks."""
        del renew, ttl_ms, lost
        return Keeper()

    def last_word(self, action: Callable[[], object]) -> None:
        """Give something up behind a block, within ``LAST_WORD_S`` for each of its calls. If
        it fails, time does it: nothing is raised."""
        with self._lock, suppress(KritaError):
            self._timeout_s_max = LAST_WORD_S
            try:
                action()
            finally:
                self._timeout_s_max = math.inf

    def pause(self, seconds: float) -> None:
        """Wait for a while."""
        time.sleep(seconds)

    @property
    def map_known(self) -> ShardMap | None:
        """The newest shard map that calls have brought; None: none yet."""
        return self._dispatcher.router.map

    # Life

    def close(self) -> None:
        """Close all connections. Idempotent; the client cannot be used again. Calls that other
        threads wait for, or that a signal's handler has come in between of, end as Unavailable,
        and writes that may have been applied as OutcomeUnknown."""
        self._closed = True
        self._sockets.ring()
        if self._at_work != threading.get_ident():  # else this thread does it, a little later
            with self._lock:
                self._end()

    def _end(self) -> None:
        self._dispatcher.close(time.monotonic())
        self._sockets.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed " if self._closed else ""
        return f"<Client {state}{self._dispatcher!r}>"

    # Carrying out

    def run_batch(self, batch: Pipeline, timeout_ms: float | None) -> None:
        """Carry out a pipeline's requests. For ``krita.pipeline``."""
        timeout_s = self._timeout_s(timeout_ms)
        with self._working():
            self._sockets.look()
            # This dispatcher's and no other's: the rest of a batch that was interrupted must
            # not be started on the one that comes after it.
            start = self._dispatcher.start
            batch.begin(lambda request, done: start(request, timeout_s, time.monotonic(), done))
            while not batch.finished:
                self._turn()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One thread at a time, while the client is open.

        What is raised in the block is none of our errors, but KeyboardInterrupt, say, in the
        middle of anything: half a frame may be sent and known of nowhere. So all calls end,
        and the next begins with a new dispatcher and new connections. A block that begins
        calls looks first for connections that broke while nobody looked, so that no write is
        put into doubt by being sent there."""
        with self._lock:
            if self._closed:
                raise BadRequest("the client is closed")
            before, self._at_work = self._at_work, threading.get_ident()
            try:
                yield
            except BaseException:
                self._begin_anew("the client was interrupted")
                raise
            finally:
                self._at_work = before
                if self._closed:
                    self._end()

    def _turn(self) -> None:
        if not self._closed:  # else the ring may have been heard already, by ``look``
            self._sockets.turn()
        if self._closed:
            self._end()

    def forked(self) -> None:
        """This is a child process now (``krita.forks``); what was under way is the parent's."""
        self._lock = threading.RLock()  # a thread that is not here may have held the old one
        if self._at_work != threading.get_ident():
            self._at_work = 0
        if not self._closed:
            self._begin_anew("the process was forked meanwhile, and its parent has the answer")

    def _begin_anew(self, why: str) -> None:
        former, self._dispatcher = self._dispatcher, self._make_dispatcher()
        self._dispatcher.router.cluster_id = former.router.cluster_id
        self._sockets.close()
        self._sockets = Sockets(self._dispatcher)
        former.abandon(why)

    def _timeout_s(self, timeout_ms: float | None) -> float:
        wanted_ms = self.timeout_ms if timeout_ms is None else checks.timeout(timeout_ms)
        return min(wanted_ms / 1000, self._timeout_s_max)


def connect(
    nodes: str | Sequence[str] = "127.0.0.1:8080",
    *,
    timeout_ms: float = TIMEOUT_MS,
    token: str | bytes | None = None,
    sessions: bool = True,
    zone: str = "",
) -> Client:
    """A client whose cluster has answered: ``krita://host:port,host``.

    Contrast ``Client``, which connects with its first call. Raises KritaError when
    no node answers within ``timeout_ms``, or refuses the token.
    """
    client = Client(nodes, timeout_ms=timeout_ms, token=token, sessions=sessions, zone=zone)
    try:
        client.ping()
    except BaseException:
        client.close()
        raise
    return client
