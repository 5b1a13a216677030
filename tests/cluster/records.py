"""The meta shard's records in a dict, and what tests do to them."""

from __future__ import annotations

import pytest

from krita.errors import Status
from krita.operations import Op
from kritad.cluster.meta import handlers
from kritad.cluster.view import MetaView

CLUSTER_ID = b"c" * 16


def store_uuid(number: int) -> bytes:
    return b"%016d" % number


class DictRecords:
    """What handlers and MetaView need, and a view of what they wrote."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.index = 0

    def get(self, key: bytes) -> bytes | None:
        return self.data.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.data[key] = value

    def delete(self, key: bytes) -> None:
        self.data.pop(key, None)

    def scan(self, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        return sorted(item for item in self.data.items() if item[0].startswith(prefix))

    def call(self, op: Op, *fields: object) -> object:
        """The reply of one more entry; raises what the handler raises."""
        self.index += 1
        status, body = handlers()[op](self, list(fields), self.index)
        assert status == Status.OK
        return body

    @property
    def view(self) -> MetaView:
        return MetaView.load(self)


def bootstrapped(shards: int = 16, factor: int = 3, zone: str = "") -> DictRecords:
    records = DictRecords()
    records.call(Op.META_BOOTSTRAP, CLUSTER_ID, shards, factor, store_uuid(1), "node-1:8080", zone)
    return records


def add_node(records: DictRecords, zone: str = "") -> int:
    """One more node; its id."""
    number = len(records.view.nodes) + 1
    reply = records.call(Op.META_NODE_ADD, store_uuid(number), f"node-{number}:8080", zone)
    assert isinstance(reply, list)
    node = reply[0]
    assert isinstance(node, int)
    return node


def report_all(records: DictRecords) -> None:
    """Let every shard's leader report that it is held by those who are wanted."""
    for shard, record in sorted(records.view.shards.items()):
        members = [[replica.replica, replica.node, True] for replica in record.replicas]
        records.call(Op.META_REPORT, shard, record.report.conf_version + 1, 1, members)


def refused(
    records: DictRecords, error: type[Exception], why: str, op: Op, *fields: object
) -> None:
    """The entry is refused for this reason, and has changed nothing."""
    before = dict(records.data)
    with pytest.raises(error, match=why):
        records.call(op, *fields)
    assert records.data == before
