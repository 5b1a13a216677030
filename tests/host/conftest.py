"""Fixtures of the host's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.cluster import Cluster, Grow, grown_cluster
from tests.host.steering import Bench, open_bench


@pytest.fixture(autouse=True)
def closed_clusters() -> Iterator[None]:
    """Whatever clusters a test makes are closed behind it."""
    yield
    while Cluster.made:
        Cluster.made.pop().close()


@pytest.fixture
def grow(tmp_path: Path) -> Grow:
    """Makes a cluster whose every shard is on three of its nodes."""

    def make(nodes: int = 3, **more: object) -> Cluster:
        return grown_cluster(tmp_path, nodes, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A steward's; some files have another bench of their own."""
    with open_bench(tmp_path) as opened:
        yield opened
