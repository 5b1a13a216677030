"""Fixtures of the host's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.cluster import Cluster, Grow, grown_cluster


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[Grow]:
    """Makes a cluster whose every shard is on three of its nodes."""
    made: list[Cluster] = []

    def make(nodes: int = 3, **more: object) -> Cluster:
        made.append(grown_cluster(tmp_path, nodes, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
