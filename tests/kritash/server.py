"""A cluster small enough to hold in the head: a dict behind the real protocol.

One thread, one selector, any number of nodes that share the dict and the
shards' leaders. A test says in its key what should go wrong: ``fail:NAME`` is
answered with that error, ``drop:…`` by closing the connection, ``hang:…`` not at
all, and a put to ``lose:…`` is executed and its first answer lost. Run as a
program it serves until its stdin closes, to measure the load generator against.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from krita.codec import decode
from krita.connection import FLAG_FORWARDED, Connection, HelloReceived, Request, ServerConnection
from krita.errors import (
    ERRORS,
    ConditionFailed,
    KritaError,
    NotLeader,
    Status,
    Unauthenticated,
    to_wire,
)
from krita.hello import Identity
from krita.limits import VALUE_BYTES_MAX_DEFAULT, frame_bytes_max
from krita.operations import OPERATIONS, Access, Op
from krita.ring import ShardInfo, ShardMap
from tests.kritash.elastic import Elastic

CLUSTER_ID = bytes(range(16))
SHARDS = 4
SILENCE: list[object] = []


class Node:
    """One node's listener and who it is."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.identity = Identity(CLUSTER_ID, number, bytes([number]) * 16, 1, self.address)


class Client:
    """A client's connection to a node."""

    def __init__(self, sock: socket.socket, node: Node) -> None:
        self.socket = sock
        self.node = node
        self.connection: ServerConnection = Connection.server()
        self.admin = False


class Cluster:
    """``with Cluster(3) as cluster:`` serves on a thread; ``cluster.addresses``."""

    def __init__(self, nodes: int = 1, token: bytes | None = None) -> None:
        self.nodes = [Node(number + 1) for number in range(nodes)]
        self.elastic = Elastic(nodes, SHARDS)
        self.term = 1
        self.rows: dict[bytes, tuple[bytes, int]] = {}
        self.revision = 0
        self.token = token
        self.requests = 0
        self.administered: list[tuple[object, ...]] = []  # operation, fields
        self.health = ""  # what cluster_status says, if not what it is
        self.joins_after = 0  # a node joins when the status has been asked for so often
        self.hints = True  # whether NotLeader says who leads
        self.applied: set[tuple[int, int]] = set()  # session, sequence
        self.repeated = 0  # puts that a session recognised
        self._sessions = 0
        self._map = self.shard_map()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="test cluster")
        self._stopping = False

    @property
    def addresses(self) -> str:
        """For --nodes."""
        return ",".join(node.address for node in self.nodes)

    def __enter__(self) -> Cluster:
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        for node in self.nodes:
            self._selector.register(node.listener, selectors.EVENT_READ, node)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._wake_out.send(b"x")
        self._thread.join(10)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake_out.close()
        self._selector.close()

    @property
    def leaders(self) -> dict[int, int]:
        """shard -> the number of the node that leads it."""
        return self.elastic.leaders

    def shard_map(self) -> ShardMap:
        elastic = self.elastic
        shards = tuple(
            ShardInfo(shard, lo, hi, self.leaders[shard], self.term, tuple(elastic.holders[shard]))
            for shard, (lo, hi) in elastic.arcs.items()
        )
        return ShardMap(1, shards, {node.number: node.address for node in self.nodes})

    def node_list(self) -> list[dict[str, object]]:
        return self.elastic.node_rows({node.number: node.address for node in self.nodes})

    def shard_list(self) -> list[dict[str, object]]:
        return self.elastic.shard_rows(self.term)

    def move_list(self) -> list[dict[str, object]]:
        """What moves; the next one to ask sees it one step further."""
        moves = self.elastic.move_rows()
        self.elastic.step()
        return moves

    def node_status(self, node: Node) -> dict[str, object]:
        return {
            "node": node.number, "address": node.address, "version": "0.1.0",
            "disk_free_bytes": 50 << 30, "disk_low": False, "damaged": {}, "replicas": [],
        }  # fmt: skip

    def cluster_status(self) -> dict[str, object]:
        elastic = self.elastic
        self.joins_after -= 1
        if self.joins_after == 0:
            elastic.join()
        down = elastic.dead | elastic.silent
        tolerated = max(0, (elastic.factor - 1) // 2 - len(down))
        return {
            "cluster_id": CLUSTER_ID.hex(),
            "health": self.health or ("degraded" if down else "healthy"),
            "problems": [f"node {node} cannot be reached" for node in sorted(down)],
            "nodes": self.node_list(), "shards": self.shard_list(),
            "replication_factor": elastic.factor, "failures_tolerated": tolerated,
            "tolerates": {"availability": tolerated, "data": elastic.factor - 1 - len(down)},
            "paused": elastic.paused, "healing": "", "moves": self.move_list(),
            "moves_to_come": 0, "zones": sorted(set(elastic.zones.values()) - {""}),
            "shard_bytes_max": 1 << 30,
        }  # fmt: skip

    def _serve(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if isinstance(key.data, Node):
                    self._accept(key.data)
                elif isinstance(key.data, Client):
                    self._serve_client(key.data)

    def _accept(self, node: Node) -> None:
        sock, _ = node.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, Client(sock, node))

    def _serve_client(self, client: Client) -> None:
        try:
            data = client.socket.recv(1 << 18)
            keep = bool(data) and self._answer(client, data)
        except (OSError, KritaError):
            keep = False
        if not keep:
            self._selector.unregister(client.socket)
            client.socket.close()

    def _answer(self, client: Client, data: bytes) -> bool:
        """Answers what the bytes ask; False to close the connection."""
        out: list[bytes] = []
        keep = True
        for event in client.connection.receive_data(data):
            if isinstance(event, HelloReceived):
                token = event.hello.token
                if token is not None and token != self.token:
                    refusal = client.connection.refuse(Unauthenticated("the token is not known"))
                    client.socket.sendall(refusal)
                    return False
                client.admin = token is not None
                limit = frame_bytes_max(VALUE_BYTES_MAX_DEFAULT)
                out.append(client.connection.accept(client.node.identity, limit))
            elif isinstance(event, Request):
                self.requests += 1
                try:
                    reply = self._execute(client, event)
                except KritaError as error:
                    body: object = to_wire(error)
                    out.append(client.connection.reply(event.id, int(error.status), body))
                    continue
                if reply is None:
                    keep = False
                    break
                if reply is SILENCE:
                    continue
                out.append(client.connection.reply(event.id, 0, reply))
        client.socket.sendall(b"".join(out))
        return keep

    def _execute(self, client: Client, request: Request) -> list[object] | None:
        """The reply's fields; None closes the connection, SILENCE is no reply at all."""
        fields = decode(request.body)
        assert isinstance(fields, list)
        op = request.op
        if op in (Op.GET, Op.PUT, Op.DELETE):
            key = fields[0] if op == Op.GET else fields[3]
            if key.startswith(b"drop:"):
                return None
            if key.startswith(b"hang:"):
                return SILENCE
            self._check(client, request, key)
            known = self.repeated
            reply = self._data(op, key, fields)
            lost = op == Op.PUT and key.startswith(b"lose:") and self.repeated == known
            return None if lost else reply
        if op == Op.PING:
            return [client.node.number, CLUSTER_ID, "0.1.0", 0]
        if op == Op.SHARD_MAP:
            return self.shard_map().to_wire()
        if op == Op.SESSION_OPEN:
            self._sessions += 1
            return [self._sessions]
        if OPERATIONS[op].access is Access.ADMIN:
            if not client.admin:
                raise Unauthenticated("this needs the admin token", hint="set KRITA_ADMIN_TOKEN")
            return self._administer(op, fields)
        if op == Op.NODE_STATUS:
            return [self.node_status(client.node)]
        if op == Op.NODE_PLAN:
            return [self.elastic.plan(*fields)]
        documents: dict[int, Callable[[], object]] = {
            Op.CLUSTER_STATUS: self.cluster_status,
            Op.NODE_LIST: self.node_list,
            Op.SHARD_LIST: self.shard_list,
            Op.MOVE_LIST: self.move_list,
        }
        return [documents[op]()]

    def _administer(self, op: int, fields: list[Any]) -> list[object]:
        self.administered.append((Op(op).name.lower(), *fields))
        elastic = self.elastic
        if op == Op.LEADER_TRANSFER:
            self.transfer(fields[0], fields[1])
            return [fields[1]]
        if op == Op.NODE_LABEL:
            elastic.label(*fields)
            return []
        if op == Op.SHARD_HOLD:
            elastic.hold(*fields)
            return []
        actions: dict[int, Callable[..., object]] = {
            Op.NODE_SET: elastic.node_set,
            Op.SHARD_SPLIT: elastic.split,
            Op.SHARD_MOVE: elastic.move,
            Op.MOVE_CANCEL: elastic.cancel,
        }
        return [actions[op](*fields)]

    def transfer(self, shard: int, node: int) -> None:
        """Another node leads the shard from now on."""
        self.leaders[shard] = node
        self.term += 1
        self._map = self.shard_map()

    def _check(self, client: Client, request: Request, key: bytes) -> None:
        if key.startswith(b"fail:"):
            status = Status[key[5:].decode().upper()]
            raise ERRORS[status]("the test asked for it", hint="ask for something else")
        shard = self._map.shard_of(key).shard
        leader = self.leaders[shard]
        if request.flags & FLAG_FORWARDED and leader != client.node.number:
            address = self.nodes[leader - 1].address
            detail = {"node": leader, "address": address, "term": self.term}
            raise NotLeader("led elsewhere", detail=dict(detail) if self.hints else {})

    def _data(self, op: int, key: bytes, fields: list[object]) -> list[object]:
        found = self.rows.get(key)
        if op == Op.GET:
            value, revision = found or (None, 0)
            return [value, revision, None, self.revision, None]
        session, sequence = fields[0], fields[1]
        assert isinstance(session, int)
        assert isinstance(sequence, int)
        if session and (session, sequence) in self.applied:
            self.repeated += 1
        self.applied.add((session, sequence))
        revision = found[1] if found else 0
        if fields[-1] not in (None, revision):
            detail = {"revision": revision}
            raise ConditionFailed(f"the key is at revision {revision}", detail=dict(detail))
        self.revision += 1
        if op == Op.PUT:
            assert isinstance(fields[4], bytes)
            self.rows[key] = (fields[4], self.revision)
        else:
            self.rows.pop(key, None)
        return [self.revision, found is not None]


def main() -> None:
    """Serves one node until stdin closes; prints its address first."""
    with Cluster(int(sys.argv[1]) if len(sys.argv) > 1 else 1) as cluster:
        print(cluster.addresses, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
