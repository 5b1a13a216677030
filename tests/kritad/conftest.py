"""Clusters with a service on each node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.cluster import Cluster, grown_cluster
from tests.kritad.service_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """One node, four shards."""
    cluster = Cluster(tmp_path, shards=4, factor=1)
    yield bench_of(cluster)
    cluster.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Bench]:
    cluster = grown_cluster(tmp_path)
    cluster.run(2000)
    yield bench_of(cluster)
    cluster.close()
