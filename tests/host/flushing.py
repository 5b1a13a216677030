"""A flusher in front of one replica, whose data.db notes what it is told to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from krita.codec import encode_body
from krita.operations import Op
from kritad.host.flush import Flusher
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.raft.types import SnapshotMeta
from kritad.storage.data_db import ShardFlush
from kritad.storage.data_wal import Sizes
from tests.host.lone import SHARD, LoneNode, Replies
from tests.host.worker import QueuedWorker

KIB = 1 << 10


class Database:
    """data.db as the flusher sees it, in front of the real one."""

    def __init__(self, node: LoneNode) -> None:
        self._db = node.data_db
        self.durable = True  # what a checkpoint says
        self.did: list[str] = []
        self.rows_max = 0  # flushed at once
        self.rows_unused = 0
        self.sizes = Sizes(file_bytes=1 << 40)

    def flush(self, batch: list[ShardFlush], durable: bool = False) -> None:
        how = " durably" if durable else ""
        self.did.append(f"flush {max(item.applied.index for item in batch)}{how}")
        self._db.flush(batch, durable=durable)
        self.rows_max = max(self.rows_max, sum(len(item.rows) for item in batch))
        self.sizes.unchecked_bytes = self._db.sizes.unchecked_bytes

    def checkpoint(self) -> bool:
        self.did.append("checkpoint")
        if self.durable:
            assert self._db.checkpoint()
            self.sizes.unchecked_bytes = 0
        return self.durable

    def sweep(self, limit: int) -> int:
        swept = min(limit, self.rows_unused)
        self.rows_unused -= swept
        return swept


@attrs.define
class Bench:
    """A leader of a group of one, its flusher, and the cuts it has asked for."""

    node: LoneNode
    database: Database
    worker: QueuedWorker
    flusher: Flusher
    cuts: list[tuple[Replica, SnapshotMeta]]
    failures: list[BaseException]

    def write(self, count: int = 1, size: int = 10) -> None:
        for number in range(count):
            body = encode_body(Op.PUT, 0, 0, 0, b"k%d" % number, b"x" * size)
            request = Request(Op.PUT, body, b"k", SHARD, Replies(), 1e12, write=True)
            self.node.replica.propose(request, 1000)
            self.node.drive.mark(self.node.replica)
            self.node.settle()

    def tick(self, ms: int = 50) -> None:
        self.node.clock.advance(ms)
        self.flusher.tick()

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // 50):
            self.tick()
            self.worker.run_all()

    @property
    def cut_at(self) -> list[int]:
        return [meta.index for _, meta in self.cuts]

    @property
    def applied(self) -> int:
        return self.node.replica.state.index


Make = Callable[..., Bench]


@contextlib.contextmanager
def benches(path: Path) -> Iterator[Make]:
    """Makes them; they are closed in the end."""
    nodes: list[LoneNode] = []

    def bench(
        *, voters: int = 1, memtable_bytes: int = 64 * KIB, log_tail_bytes: int = 16 * KIB
    ) -> Bench:
        node = LoneNode(path, voters=voters)
        nodes.append(node)
        node.lead()
        database, worker = Database(node), QueuedWorker()
        cuts: list[tuple[Replica, SnapshotMeta]] = []
        failures: list[BaseException] = []
        flusher = Flusher(
            database,
            worker,
            node.clock,
            node=0,
            memtable_bytes=memtable_bytes,
            log_tail_bytes=log_tail_bytes,
            flush_interval_ms=2000.0,  # the product's own numbers are a matter of speed
            checkpoint_interval_ms=30_000.0,
            compact=cuts.extend,
            resume=node.drive.resume,
            on_failure=failures.append,
        )
        flusher.adopt(node.replica, 0)
        return Bench(node, database, worker, flusher, cuts, failures)

    yield bench
    for node in nodes:
        node.close()
