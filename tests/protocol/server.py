"""A small cluster on real loopback sockets, to test the clients against.

Its nodes share the states of the shards (so a change of leader loses nothing), which are
real ones behind a real door: see tests/protocol/holdings.py. It counts what it executed by
(session, sequence). What it does to a request can be scripted: ``on`` puts an
action in front of the usual handling, for the next so many requests that match.

One thread of its own serves all nodes; what a test does to the cluster runs on
that thread too, between two requests.
"""

from __future__ import annotations

import queue
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from krita.codec import decode
from krita.connection import FLAG_FORWARDED, Connection, HelloReceived, Request
from krita.errors import (
    KritaError,
    NotLeader,
    Status,
    Unauthenticated,
    to_wire,
)
from krita.hello import Identity
from krita.limits import frame_bytes_max
from krita.operations import Op
from krita.ring import ShardInfo, ShardMap, equal_arcs
from kritad.host.request import Respond
from tests.protocol.holdings import Holdings

# What the sixteen bytes are does not matter; that they are always the same does.
CLUSTER_ID = bytes(range(16))

Action = Callable[["Exchange"], None]


@attrs.define(eq=False)
class Exchange:
    """One request as an action sees it."""

    cluster: Cluster
    talk: Talk
    request: Request
    fields: list[object]

    def apply(self) -> tuple[int, object] | None:
        """Execute the request as usual: the status and body of its reply. None: it waits,
        and is answered by itself."""
        answers: list[tuple[int, object]] = []
        returned = False

        def respond(status: int, body: object) -> None:
            if returned:
                self.answer(status, body)
                self.talk.flush()
            else:
                answers.append((status, body))

        self.cluster.execute(self.talk.node, self.request, respond)
        returned = True
        return answers[0] if answers else None

    def finish(self) -> None:
        """Execute and answer it as usual."""
        reply = self.apply()
        if reply is not None:
            self.answer(*reply)

    def answer(self, status: int, body: object) -> None:
        if self.talk.sock.fileno() >= 0:
            self.talk.send(self.talk.protocol.reply(self.request.id, status, body))


@attrs.define(eq=False)
class Rule:
    op: Op
    action: Action
    times: int
    node: int | None


class Talk:
    """One accepted connection."""

    def __init__(self, cluster: Cluster, node: Node, sock: socket.socket) -> None:
        self.cluster = cluster
        self.node = node
        self.sock = sock
        self.protocol = Connection.server()
        self.unsent = b""

    def send(self, data: bytes) -> None:
        self.unsent += data

    def flush(self) -> None:
        if self.unsent:
            try:
                sent = self.sock.send(self.unsent)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.cluster.hang_up(self)
                return
            self.unsent = self.unsent[sent:]
        self.cluster.watch(self)

    def readable(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.cluster.hang_up(self)
            return
        for event in self.protocol.receive_data(data):
            if isinstance(event, HelloReceived):
                self._hello(event)
            else:
                assert isinstance(event, Request)
                self.cluster.handle(self, event)
            if self.sock.fileno() < 0:
                return
        self.flush()

    def _hello(self, event: HelloReceived) -> None:
        if self.cluster.refusal is not None:
            self.send(self.protocol.refuse(self.cluster.refusal))
        elif self.cluster.token is not None and event.hello.token != self.cluster.token:
            self.send(self.protocol.refuse(Unauthenticated("the token is unknown")))
        else:
            limit = frame_bytes_max(self.cluster.value_bytes_max)
            self.cluster.connections += 1
            self.send(self.protocol.accept(self.node.identity(), limit))


@attrs.define(eq=False)
class Node:
    number: int
    listener: socket.socket | None
    address: str

    def identity(self) -> Identity:
        return Identity(CLUSTER_ID, self.number, bytes(16), 1, self.address)


class Cluster:
    """See the module. Node 1 leads every shard at first, in term 1."""

    def __init__(self, nodes: int = 1, shards: int = 2) -> None:
        self.token: bytes | None = None
        self.refusal: KritaError | None = None
        self.value_bytes_max = 1 << 20
        self.forwarding = True
        self.hints = True
        self.moved_to: str | None = None  # advertise this address instead of the real ones
        # What happened, for assertions
        self.requests: list[tuple[int, int, list[object]]] = []  # node, op, fields
        self.executed: Counter[tuple[int, int, int]] = Counter()  # shard, session, sequence
        self.forwards = 0
        self.connections = 0
        self.receives = 0  # how often something could be read from a connection
        # The state
        self.holdings = Holdings(equal_arcs(shards), self._lead_check, self.executed)
        self.leaders = dict.fromkeys(range(1, shards + 1), (1, 1))  # shard -> node, term
        self.map_version = 1
        # Shards and terms as the map tells them, when it is to be behind the truth.
        self.told: dict[int, tuple[int, int]] | None = None
        self.nodes: dict[int, Node] = {}
        self.rules: list[Rule] = []
        self._frozen: list[socket.socket] = []  # open, and nobody looks at them
        self._selector = selectors.DefaultSelector()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._stopping = False
        self._failure: BaseException | None = None
        for number in range(1, nodes + 1):
            self._listen(number)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    # What a test does

    @property
    def seeds(self) -> str:
        return ",".join(node.address for node in self.nodes.values())

    def address(self, number: int) -> str:
        return self.nodes[number].address

    def on(self, op: Op, action: Action, *, times: int = 1, node: int | None = None) -> None:
        """The next ``times`` requests of this kind get the action instead."""
        self.do(lambda: self.rules.append(Rule(op, action, times, node)))

    def lead(self, number: int, term: int) -> None:
        """This node leads every shard from now on."""
        self.do(lambda: self.leaders.update(dict.fromkeys(self.leaders, (number, term))))

    def expire_sessions(self) -> None:
        self.do(self.holdings.expire_sessions)

    def advance(self, milliseconds: int) -> None:
        """The shards' clock goes on by so much, and what is due then ends."""
        self.do(lambda: self.holdings.advance(milliseconds))

    def split(self, shard: int, shard_new: int) -> None:
        """Cut a shard in the middle; the map of the cluster tells it at once."""

        def cut() -> None:
            self.holdings.split(shard, shard_new)
            self.leaders[shard_new] = self.leaders[shard]
            self.map_version += 1

        self.do(cut)

    def forget_changes(self) -> None:
        """The shards' feeds are empty, as on nodes that were restarted."""
        self.do(self.holdings.forget_changes)

    def stop(self, number: int) -> None:
        """The node is gone; connecting to it is refused."""
        self.do(lambda: self._stop(number))

    def restart(self, number: int) -> None:
        self.do(lambda: self._listen(number))

    def freeze(self, number: int) -> None:
        """The node keeps its connections and does nothing, as after SIGSTOP."""
        self.do(lambda: self._freeze(number))

    def count(self, op: Op, node: int | None = None) -> int:
        """How many requests of this kind have come."""
        return sum(1 for n, o, _ in self.requests if o == op and node in (None, n))

    def do(self, order: Callable[[], None]) -> None:
        """Run this on the cluster's thread, and wait until it is done."""
        done = threading.Event()

        def ordered() -> None:
            order()
            done.set()

        self._orders.put(ordered)
        self._bell.send(b".")
        # Not one long wait: where the thread has died, hundreds of tests would each wait it out.
        for _ in range(100):
            if done.wait(0.1) or not self._thread.is_alive():
                break
        assert done.is_set(), f"the cluster's thread is gone: {self._failure!r}"

    def close(self) -> None:
        self._stopping = True
        self._orders.put(lambda: None)
        self._bell.send(b".")
        self._thread.join(10)
        self.holdings.close()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        for sock in self._frozen:
            sock.close()
        self._selector.close()
        self._bell.close()
        assert self._failure is None

    # Requests

    def handle(self, talk: Talk, request: Request) -> None:
        fields = decode(request.body)
        assert isinstance(fields, list)
        self.requests.append((talk.node.number, request.op, fields))
        exchange = Exchange(self, talk, request, fields)
        for rule in self.rules:
            if rule.op == request.op and rule.node in (None, talk.node.number):
                rule.times -= 1
                if not rule.times:
                    self.rules.remove(rule)
                rule.action(exchange)
                return
        exchange.finish()

    def execute(self, node: Node, request: Request, respond: Respond) -> None:
        try:
            match request.op:
                case Op.PING:
                    respond(Status.OK, [node.number, CLUSTER_ID, "test", 1000])
                case Op.SHARD_MAP:
                    respond(Status.OK, self.shard_map(self.told or self.leaders).to_wire())
                case Op.NODE_STATUS:
                    respond(Status.OK, [{"node": node.number}])
                case _:
                    forwarded = bool(request.flags & FLAG_FORWARDED)
                    deadline_ms = request.deadline_ms
                    self.holdings.submit_at(
                        node.number, request.op, request.body, deadline_ms, forwarded, respond
                    )
        except KritaError as error:
            respond(error.status, to_wire(error))

    def _lead_check(self, number: int, shard: int, forwarded: bool) -> None:
        """Raises NotLeader when this node would not see to it."""
        leader, term = self.leaders[shard]
        if leader == number:
            return
        if self.forwarding and not forwarded:
            self.forwards += 1
            return
        detail: dict[str, object] = {}
        if self.hints:
            detail = {"node": leader, "address": self.nodes[leader].address, "term": term}
        raise NotLeader(f"node {number} does not lead shard {shard}", detail=detail)

    def shard_map(self, leaders: dict[int, tuple[int, int]]) -> ShardMap:
        nodes = tuple(self.nodes)
        shards = [
            ShardInfo(shard, lo, hi, *leaders[shard], nodes)
            for shard, (lo, hi) in self.holdings.arcs().items()
        ]
        places = {n: self.moved_to or node.address for n, node in self.nodes.items()}
        return ShardMap(self.map_version, tuple(shards), places)

    # Sockets

    def _serve(self) -> None:
        try:
            while not self._stopping:
                for key, events in self._selector.select(self.holdings.wait_s()):
                    if key.fileobj is self._ear:
                        self._ear.recv(1)
                        self._orders.get()()
                    elif isinstance(key.data, Node):
                        self._accept(key.data)
                    elif key.data.sock.fileno() >= 0:
                        self._serve_talk(key.data, events)
                self.holdings.end_polls()
        except BaseException as error:
            self._failure = error
            raise

    def _serve_talk(self, talk: Talk, events: int) -> None:
        if events & selectors.EVENT_READ:
            self.receives += 1
            talk.readable()
        elif events & selectors.EVENT_WRITE:
            talk.flush()

    def _listen(self, number: int) -> None:
        old = self.nodes.get(number)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(old.address.split(":")[1]) if old else 0))
        listener.listen()
        node = Node(number, listener, f"127.0.0.1:{listener.getsockname()[1]}")
        self.nodes[number] = node
        self._selector.register(listener, selectors.EVENT_READ, node)

    def _accept(self, node: Node) -> None:
        assert node.listener is not None
        sock, _ = node.listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, Talk(self, node, sock))

    def _talks(self, number: int) -> list[Talk]:
        entries = list(self._selector.get_map().values())
        talks = [entry.data for entry in entries if isinstance(entry.data, Talk)]
        return [talk for talk in talks if talk.node.number == number]

    def _stop(self, number: int) -> None:
        node = self.nodes[number]
        assert node.listener is not None
        self._selector.unregister(node.listener)
        node.listener.close()
        for talk in self._talks(number):
            self.hang_up(talk)

    def _freeze(self, number: int) -> None:
        node = self.nodes[number]
        assert node.listener is not None
        socks = [node.listener, *(talk.sock for talk in self._talks(number))]
        for sock in socks:
            self._selector.unregister(sock)
        self._frozen += socks

    def watch(self, talk: Talk) -> None:
        if talk.sock.fileno() >= 0:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if talk.unsent else 0)
            self._selector.modify(talk.sock, wanted, talk)

    def hang_up(self, talk: Talk) -> None:
        if talk.sock.fileno() >= 0:
            self._selector.unregister(talk.sock)
            talk.sock.close()


# Actions


def answer(error: KritaError) -> Action:
    """Reply with this error and do nothing."""
    return lambda exchange: exchange.answer(error.status, to_wire(error))


def apply_then_answer(error: KritaError) -> Action:
    """Execute the request, and reply with this error nevertheless."""

    def action(exchange: Exchange) -> None:
        exchange.apply()
        exchange.answer(error.status, to_wire(error))

    return action


def drop(exchange: Exchange) -> None:
    """Close the connection instead of executing the request."""
    exchange.cluster.hang_up(exchange.talk)


def apply_then_drop(exchange: Exchange) -> None:
    """Execute the request, then close the connection instead of replying."""
    exchange.apply()
    exchange.cluster.hang_up(exchange.talk)


def ignore(exchange: Exchange) -> None:
    """Neither execute the request nor reply."""


def apply_then_ignore(exchange: Exchange) -> None:
    """Execute the request and do not reply."""
    exchange.apply()


class Hold:
    """Keeps requests until ``release``; ``held`` says how many there are."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    @property
    def held(self) -> int:
        return len(self.exchanges)

    def release(self) -> None:
        """Execute and answer what is held. Call it through ``Cluster.do``."""
        for exchange in self.exchanges:
            exchange.finish()
            exchange.talk.flush()
        self.exchanges.clear()


@contextmanager
def running(nodes: int = 1, shards: int = 2) -> Iterator[Cluster]:
    """A cluster for the length of a ``with`` block."""
    cluster = Cluster(nodes, shards)
    try:
        yield cluster
    finally:
        cluster.close()
