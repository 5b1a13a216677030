"""What the tests of whole processes share: clusters that end with their test, and
the logs of their nodes in the report of a test that fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster import Cluster

LOG_LINES = 30
TOKEN = "the-token-of-a-test"

MakeCluster = Callable[..., Cluster]

_clusters = pytest.StashKey[list[Cluster]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - the hook's signature
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the ends of the nodes' logs into the report of a failure."""
    report = yield
    if report.failed:
        shared = getattr(item, "funcargs", {}).get("shared")
        for cluster in [*item.stash.get(_clusters, []), *([shared] if shared else [])]:
            for node in cluster.nodes:
                report.sections.append((f"log of {node}", node.log_tail(LOG_LINES)))
    return report


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeCluster]:
    """``make_cluster(count=3, flags=[...], extra={...})``: a cluster, not started yet."""
    made = request.node.stash.setdefault(_clusters, [])
    with ExitStack() as stack:

        def make(**options: Any) -> Cluster:
            folder = tmp_path / f"cluster{len(made) + 1}"
            folder.mkdir()
            cluster = stack.enter_context(Cluster(folder, **options))
            made.append(cluster)
            return cluster

        yield make
        for cluster in made:
            cluster.check_logs()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """Three nodes of its own for a test that is going to hurt them."""
    cluster = make_cluster()
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for all the tests of a file that do not hurt them."""
    with Cluster(tmp_path_factory.mktemp("shared"), extra={"KRITA_ADMIN_TOKEN": TOKEN}) as cluster:
        cluster.start()
        yield cluster
        cluster.check_logs()
