"""A service on each node of a cluster, for tests of what stands at the door."""

from __future__ import annotations

import attrs

from krita.codec import encode
from krita.operations import Op
from kritad.access import ADMIN, ANONYMOUS, PEER, Access, Principal
from kritad.metrics import Metrics
from kritad.service import Service
from tests.host.cluster import Cluster, Node
from tests.host.lone import Replies

LOCAL = Principal(ANONYMOUS, loopback=True)
ROOT = Principal(ADMIN, loopback=True)
NODE = Principal(PEER, 2)

VALUE_BYTES_MAX = 1000


@attrs.define
class Bench:
    """A service on each node of a cluster."""

    cluster: Cluster
    services: dict[int, Service]

    @property
    def service(self) -> Service:
        return self.services[1]

    def submit(
        self,
        op: int,
        *fields: object,
        who: Principal = LOCAL,
        deadline_ms: float | None = None,
        flags: int = 0,
        node: int = 1,
        body: bytes | None = None,
    ) -> Replies:
        replies = Replies()
        data = encode(fields) if body is None else body
        self.services[node].submit(op, data, who, deadline_ms, flags, replies)
        return replies

    def do(self, op: int, *fields: object, **more: object) -> tuple[int, object]:
        replies = self.submit(op, *fields, **more)  # type: ignore[arg-type]
        self.cluster.run_until(lambda: bool(replies.all))
        return replies.one

    def put(self, key: object, value: object, **more: object) -> tuple[int, object]:
        return self.do(Op.PUT, None, None, None, key, value, **more)


def service_of(node: Node, nursery: object = None) -> Service:
    return Service(
        node.host,
        Access(b"token"),
        Metrics(),
        nursery,  # type: ignore[arg-type]
        receiver=node.receiver,
        value_bytes_max=VALUE_BYTES_MAX,
        request_timeout_ms=2000,
    )


def bench_of(cluster: Cluster) -> Bench:
    return Bench(cluster, {node.number: service_of(node) for node in cluster.nodes})
