"""The service while a shard is split: what a node says that knows a half only, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.errors import Status
from krita.operations import Consistency, Op
from tests.host.cluster import Cluster
from tests.kritad.service_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    cluster = Cluster(tmp_path, shards=4)
    yield bench_of(cluster)
    cluster.close()


def test_a_session_in_a_shard_that_is_not_known_yet_is_asked_for_elsewhere(bench: Bench) -> None:
    """Another node may have heard of a split that this one has not."""
    assert bench.do(Op.SESSION_OPEN, 5)[0] == Status.UNAVAILABLE


def test_a_stale_read_of_a_key_that_was_split_off_is_not_said_to_be_absent(bench: Bench) -> None:
    """By its map the node takes the key for the old shard's, whose replica knows better."""
    bench.put(b"k", b"v")
    host = bench.cluster.nodes[0].host
    shard = host.shard_of(b"k")
    assert shard is not None
    extent = host.replicas[shard].state.extent
    extent.cut(extent.hash_lo + extent.step)
    assert not host.replicas[shard].state.owns(b"k")
    replies = bench.submit(Op.GET, b"k", Consistency.STALE)
    assert replies.all == []
    bench.cluster.run(2100)
    assert replies.one[0] == Status.DEADLINE, "it was forgotten"
