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
from types import TracebackType

from krita.codec import decode
from krita.connection import FLAG_FORWARDED, Connection, HelloReceived, Request, ServerConnection
from krita.errors import ERRORS, KritaError, NotLeader, Status, Unauthenticated, to_wire
from krita.handshake import Identity
from krita.limits import VALUE_BYTES_MAX_DEFAULT, frame_bytes_max
from krita.operations import Op
from krita.ring import ShardInfo, ShardMap, equal_arcs

CLUSTER_ID = bytes(range(16))
SHARDS = 4


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
        self.leaders = {shard: shard % nodes + 1 for shard in range(SHARDS + 1)}
        self.term = 1
        self.rows: dict[bytes, tuple[bytes, int]] = {}
        self.revision = 0
        self.token = token
        self.requests = 0
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

    def shard_map(self) -> ShardMap:
        numbers = tuple(node.number for node in self.nodes)
        shards = tuple(
            ShardInfo(index + 1, low, high, self.leaders[index + 1], self.term, numbers)
            for index, (low, high) in enumerate(equal_arcs(SHARDS))
        )
        return ShardMap(1, shards, {node.number: node.address for node in self.nodes})

    def node_list(self) -> list[dict[str, object]]:
        leaders = [leader for shard, leader in self.leaders.items() if shard]
        return [
            {
                "node": node.number, "address": node.address, "zone": "", "state": "up",
                "leaders": leaders.count(node.number), "replicas": SHARDS, "reachable": True,
            }
            for node in self.nodes
        ]  # fmt: skip

    def shard_list(self) -> list[dict[str, object]]:
        return [
            {
                "shard": info.shard, "hash_lo": info.hash_lo, "hash_hi": info.hash_hi,
                "leader": info.leader, "term": info.term,
                "replicas": [
                    {
                        "node": node, "replica": node, "lag": 0, "applied": 7, "state_hash": "00",
                        "role": "leader" if node == info.leader else "voter",
                    }
                    for node in info.nodes
                ],
            }
            for info in self.shard_map().shards
        ]  # fmt: skip

    def cluster_status(self) -> dict[str, object]:
        return {
            "cluster_id": CLUSTER_ID.hex(), "health": "healthy", "problems": [],
            "nodes": self.node_list(), "shards": self.shard_list(),
            "replication_factor": 3, "failures_tolerated": (len(self.nodes) - 1) // 2,
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
                if not reply:
                    continue
                out.append(client.connection.reply(event.id, 0, reply))
        client.socket.sendall(b"".join(out))
        return keep

    def _execute(self, client: Client, request: Request) -> list[object] | None:
        """The reply's fields; None closes the connection, none at all is silence."""
        fields = decode(request.body)
        assert isinstance(fields, list)
        op = request.op
        if op in (Op.GET, Op.PUT, Op.DELETE):
            key = fields[0] if op == Op.GET else fields[3]
            if key.startswith(b"drop:"):
                return None
            if key.startswith(b"hang:"):
                return []
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
        if op == Op.LEADER_TRANSFER:
            if not client.admin:
                raise Unauthenticated("this needs the admin token", hint="set KRITA_ADMIN_TOKEN")
            self.transfer(fields[0], fields[1])
            return [fields[1]]
        documents = {
            Op.CLUSTER_STATUS: self.cluster_status,
            Op.NODE_LIST: self.node_list,
            Op.SHARD_LIST: self.shard_list,
        }
        return [documents[Op(op)]()]

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
