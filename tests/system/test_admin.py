"""Administration asks for the token, and with it does what it says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from krita import Client, Forbidden, Unauthenticated
from tests.system.cluster import Cluster
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.node import wait_until

pytestmark = pytest.mark.slow


def somebody_else(cluster: Cluster) -> tuple[int, int]:
    """A shard of the busiest node, and the id of a node that leads fewer shards."""
    leaders = cluster.wait_leaders()
    busiest = cluster.id_of(cluster.busiest())
    shard = next(shard for shard, node in leaders.items() if node == busiest)
    return shard, next(node for node in (1, 2, 3) if node != busiest)


def test_a_leader_is_transferred_for_the_token_and_for_nothing_else(shared: Cluster) -> None:
    wait_until("the leaders are spread", lambda: set(shared.leaders().values()) == {1, 2, 3})
    shard, target = somebody_else(shared)
    for token in (None, "another-token-of-a-test"):
        with Client(shared.addresses, token=token) as db, pytest.raises(Unauthenticated) as refusal:
            db.call("leader_transfer", shard, target)
        assert "KRITA_ADMIN_TOKEN" in str(refusal.value)
    assert shared.leaders()[shard] != target
    with Client(shared.addresses, token=TOKEN) as db:
        assert db.call("leader_transfer", shard, target) == [target]
        wait_until(f"node {target} leads shard {shard}", lambda: shared.leaders()[shard] == target)


def test_data_needs_no_token_on_loopback_but_a_wrong_one_is_refused(shared: Cluster) -> None:
    with shared.client() as db:
        db.put("open", b"1")
    with shared.client(token="another-token-of-a-test") as db, pytest.raises(Unauthenticated):
        db.get("open")
    node = shared.nodes[0]
    request = urllib.request.Request(
        f"http://{node.address}/open", headers={"Authorization": "Bearer another"}
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=10)
    with refusal.value as answer:
        assert answer.code == 401
        assert json.loads(answer.read())["outcome"] == "not applied"


def test_a_cluster_without_a_token_has_no_administration(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(count=1)
    cluster.start()
    with cluster.client() as db, pytest.raises(Forbidden, match="has no admin token"):
        db.call("leader_transfer", 1, 1)
