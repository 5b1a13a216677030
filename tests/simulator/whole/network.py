"""The network between whole nodes and their clients: links with delays, and what breaks them.

A *link* is one direction between two hosts. What a connection sends over it arrives
in order (it is TCP), after the link's delay and some jitter. A link can be

    clogged   everything takes longer by so much
    cut       nothing arrives; bytes wait, as in a sender that transmits again and
              again, and arrive some time after the link is mended

and a host can be down, which looks to others like a cut of all links to it. What a
sender makes of the silence is its own affair (``MemoryStream.close_when_silent``).

Everything that is to happen at a time of its own goes through one heap and one task
(``Network.run``): the order of events is that of (time, moment of scheduling).
"""

from __future__ import annotations

import errno
import heapq
import math
import random
from collections import deque
from collections.abc import Callable

import attrs
import trio

from tests.simulator.whole.digest import Digest
from tests.simulator.whole.stream import MemoryStream

Pair = tuple[str, str]

_CONNECT_TRIES = 7  # SYNs, each waiting twice as long as the one before: 127 s
_RETRANSMIT_MAX_S = 0.4  # until a sender tries again over a mended link


@attrs.define
class Link:
    """One direction between two hosts."""

    delay_s: float
    jitter_s: float  # the mean of what is added to the delay
    clog_s: float = 0.0
    cut: bool = False
    held: list[Callable[[], None]] = attrs.field(factory=list)  # to be tried again once open


class MemoryListening:
    """A port of one host; the ``Listening`` of kritad/stream.py."""

    def __init__(self, network: Network, host: str, port: int) -> None:
        self._network = network
        self.address = (host, port)
        self._arrived: deque[MemoryStream] = deque()
        self._event = trio.Event()

    def arrive(self, stream: MemoryStream) -> None:
        """A connection is there."""
        self._arrived.append(stream)
        self._event.set()

    async def wait(self) -> None:
        if self._arrived:
            await trio.lowlevel.checkpoint()
            return
        self._event = trio.Event()
        await self._event.wait()

    def accept(self) -> MemoryStream:
        if not self._arrived:
            raise BlockingIOError
        return self._arrived.popleft()

    def close(self) -> None:
        """Refuse from now on; who was not accepted yet is reset."""
        self._network.ports.pop(self.address, None)
        while self._arrived:
            self._arrived.popleft().abort()


class Network:
    """See the module's docstring. ``run`` is a task."""

    def __init__(
        self, chance: random.Random, digest: Digest, *, delay_s: float, jitter_s: float
    ) -> None:
        self.chance = chance
        self.digest = digest
        self.ports: dict[tuple[str, int], MemoryListening] = {}
        self._delay_s = delay_s
        self._jitter_s = jitter_s
        self._links: dict[Pair, Link] = {}
        self._down: set[str] = set()
        self._streams: dict[MemoryStream, None] = {}  # open ones, in the order of opening
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._wake = trio.Event()

    # --- time --------------------------------------------------------------------------

    def at(self, due: float, act: Callable[[], None]) -> None:
        """Call ``act`` at this virtual time (seconds)."""
        self._scheduled += 1
        item = (due, self._scheduled, act)
        heapq.heappush(self._due, item)
        if self._due[0] is item:
            self._wake.set()

    async def run(self) -> None:
        """Let things happen in their time, until cancelled."""
        while True:
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            self._wake = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._wake.wait()

    # --- links -------------------------------------------------------------------------

    def link(self, source: str, target: str) -> Link:
        """The link from one host to another."""
        link = self._links.get((source, target))
        if link is None:
            delay_s = self._delay_s * self.chance.uniform(0.7, 1.3)
            link = self._links[source, target] = Link(delay_s, self._jitter_s)
        return link

    def delay_s(self, source: str, target: str) -> float:
        """How long the next piece takes over this link."""
        link = self.link(source, target)
        return link.delay_s + link.clog_s + self.chance.expovariate(1.0) * link.jitter_s

    def is_open(self, source: str, target: str) -> bool:
        """Whether anything passes now."""
        return target not in self._down and not self.link(source, target).cut

    def hold(self, source: str, target: str, again: Callable[[], None]) -> None:
        """Call ``again`` some time after the link is open again."""
        self.link(source, target).held.append(again)

    def cut(self, source: str, target: str) -> None:
        """Nothing passes from now on, until ``mend``."""
        self.link(source, target).cut = True

    def mend(self, source: str, target: str) -> None:
        """Undo ``cut`` and ``clog``."""
        link = self.link(source, target)
        link.cut, link.clog_s = False, 0.0
        self._release(target, link)

    def clog(self, source: str, target: str, seconds: float) -> None:
        """Everything takes so much longer, until ``mend``."""
        self.link(source, target).clog_s = seconds

    def mend_all(self) -> None:
        """No link is cut or clogged any more."""
        for source, target in list(self._links):
            self.mend(source, target)

    def _release(self, target: str, link: Link) -> None:
        if target in self._down or link.cut:
            return
        held, link.held = link.held, []
        for again in held:
            self.at(trio.current_time() + self.chance.uniform(0.0, _RETRANSMIT_MAX_S), again)

    # --- hosts -------------------------------------------------------------------------

    def up(self, host: str) -> None:
        """The machine is there (again)."""
        self._down.discard(host)
        for (_, target), link in list(self._links.items()):
            if target == host:
                self._release(target, link)

    def end_process(self, host: str) -> None:
        """kill -9: the kernel closes what the process had open."""
        for stream in [s for s in self._streams if s.local == host]:
            stream.close()
        self._close_ports(host)

    def end_machine(self, host: str) -> None:
        """The power is gone: nobody says a word any more, until ``up``."""
        self._down.add(host)
        for stream in [s for s in self._streams if s.local == host]:
            stream.vanish()
        self._close_ports(host)

    def reset(self, one: str, other: str) -> None:
        """Something between the two resets all their connections."""
        for stream in [s for s in self._streams if s.local == one and s.remote == other]:
            stream.reset()

    def _close_ports(self, host: str) -> None:
        for address in [address for address in self.ports if address[0] == host]:
            self.ports[address].close()

    # --- connections -------------------------------------------------------------------

    def listen(self, host: str, port: int) -> MemoryListening:
        """Take connections to a port that nobody listens on."""
        assert (host, port) not in self.ports, f"{host}:{port} is taken"
        self.up(host)
        listening = self.ports[host, port] = MemoryListening(self, host, port)
        return listening

    async def connect(self, source: str, target: str, port: int) -> MemoryStream:
        """A connection from one host to another's port. Raises OSError."""
        await self._pass(source, target)
        listening = self.ports.get((target, port))
        if listening is None:
            await self._pass(target, source)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        stream, other = MemoryStream(self, source, target), MemoryStream(self, target, source)
        stream.peer, other.peer = other, stream
        listening.arrive(other)
        try:
            await self._pass(target, source)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _pass(self, source: str, target: str) -> None:
        """A packet of the handshake gets through, perhaps only when repeated."""
        for number in range(_CONNECT_TRIES):
            if self.is_open(source, target):
                await trio.sleep(self.delay_s(source, target))
                return
            await trio.sleep(1 << number)
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    def opened(self, stream: MemoryStream) -> None:
        """For MemoryStream: there is one more."""
        self._streams[stream] = None

    def forget(self, stream: MemoryStream) -> None:
        """For MemoryStream: it is closed."""
        self._streams.pop(stream, None)
