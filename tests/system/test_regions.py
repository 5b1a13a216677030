"""Three regions, 40 ms apart each way: who leads, who answers, and what goes on when links
or a whole region are lost. Nothing here is judged by how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from krita import Client
from krita.operations import Consistency
from krita.values import Value
from tests.system.namespaces import why_not
from tests.system.node import wait_until
from tests.system.regions import RegionalCluster

REGIONS = ("eu", "us", "asia")
KEYS = [f"region:{number}" for number in range(24)]  # of all four shards

_missing = why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_missing), reason=_missing or "regions can be made"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegionalCluster]:
    """One cluster for all tests; each leaves it as it found it."""
    folder = tmp_path_factory.mktemp("regions")
    with RegionalCluster(folder, REGIONS, delay_ms=40) as cluster:
        cluster.start()
        yield cluster
        for node in cluster.nodes:
            assert "Traceback" not in node.log_text(), f"{node} has logged a traceback"


@pytest.fixture
def cluster(shared: RegionalCluster) -> Iterator[RegionalCluster]:
    yield shared
    shared.network.heal()
    shared.wait_whole()


def put_all(client: Client, value: str) -> None:
    with client.pipeline() as pipeline:
        for key in KEYS:
            pipeline.put(key, value)
    assert pipeline.errors == []


def read_all(client: Client, consistency: Consistency) -> Counter[str]:
    """How often each value was read; "" stands for a key that has none."""
    with client.pipeline() as pipeline:
        for key in KEYS:
            pipeline.get(key, consistency=consistency)
    assert pipeline.errors == []
    values = [found for found in pipeline.results if isinstance(found, Value)]
    absent = Counter({"": len(KEYS) - len(values)})
    return +(Counter(value.text() for value in values) + absent)


def all_in_eu(cluster: RegionalCluster, region: str) -> bool:
    """Whether the leaders are, as the region's node sees it."""
    return set(cluster.leader_zones(region).values()) == {"eu"}


def test_all_leaders_are_in_the_zone_that_is_preferred(cluster: RegionalCluster) -> None:
    for region in REGIONS:
        wait_until(
            f"{region} knows that all leaders are in eu", partial(all_in_eu, cluster, region)
        )


def test_a_stale_read_is_answered_in_the_clients_region_even_without_a_link_to_the_leader(
    cluster: RegionalCluster,
) -> None:
    with cluster.client("us") as client:
        put_all(client, "before")

        # The leader has it; its followers learn that with its next message.
        wait_until(
            "the replica in us has what was written",
            lambda: read_all(client, Consistency.STALE) == {"before": len(KEYS)},
        )
        cluster.network.cut("eu", "us")
        answered = cluster.gets_answered()
        assert read_all(client, Consistency.STALE) == {"before": len(KEYS)}
        expected = answered | {"us": answered["us"] + len(KEYS)}
        assert cluster.gets_answered() == expected


def test_stale_reads_of_each_region_stay_there(cluster: RegionalCluster) -> None:
    for region in REGIONS:
        with cluster.client(region) as client:
            put_all(client, "spread")
            before = cluster.gets_answered()
            read_all(client, Consistency.STALE)
            expected = before | {region: before[region] + len(KEYS)}
            assert cluster.gets_answered() == expected


def test_without_a_node_in_its_region_a_client_reads_in_another(cluster: RegionalCluster) -> None:
    with cluster.client("us") as client:
        put_all(client, "safe")
        node = cluster.node_in("us")
        node.kill()
        try:
            assert read_all(client, Consistency.LINEARIZABLE) == {"safe": len(KEYS)}
            read_all(client, Consistency.STALE)
        finally:
            node.restart()


def test_writes_go_on_when_a_region_of_followers_is_lost(cluster: RegionalCluster) -> None:
    cluster.network.isolate("asia")
    with cluster.client("us") as client:
        put_all(client, "without asia")
        assert read_all(client, Consistency.LINEARIZABLE) == {"without asia": len(KEYS)}
    assert set(cluster.leader_zones("eu").values()) == {"eu"}


def test_writes_go_on_when_the_region_of_the_leaders_is_lost_and_they_return_with_it(
    cluster: RegionalCluster,
) -> None:
    cluster.network.isolate("eu")
    with cluster.client("us", timeout_ms=20_000) as client:
        put_all(client, "without eu")
        assert read_all(client, Consistency.LINEARIZABLE) == {"without eu": len(KEYS)}
    assert "eu" not in cluster.leader_zones("us").values()
    cluster.network.heal()
    cluster.wait_whole()
    with cluster.client("asia") as client:
        assert read_all(client, Consistency.LINEARIZABLE) == {"without eu": len(KEYS)}
