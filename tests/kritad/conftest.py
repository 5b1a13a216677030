"""Clusters with a service on each node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.cluster import Cluster, grown_cluster
from tests.host.conftest import closed_clusters
from tests.kritad.service_bench import Bench, bench_of

__all__ = ["closed_clusters"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """One node, four shards."""
    return bench_of(Cluster(tmp_path, shards=4, factor=1))


@pytest.fixture
def three(tmp_path: Path) -> Bench:
    cluster = grown_cluster(tmp_path)
    cluster.run(2000)
    return bench_of(cluster)
