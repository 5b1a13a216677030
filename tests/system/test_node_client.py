"""The Node.js client of docs/examples/node with real nodes: it finds leaders by the shard
map, and its sessions make every write happen once while a leader is killed."""

from __future__ import annotations

import pytest

from tests.protocol.node_agent import Agent, Refused, needs_node, run_node
from tests.system.cluster import Cluster, split
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.node import wait_until

pytestmark = [pytest.mark.slow, needs_node]

WRITES = 400
KEY = {"hex": "00ff7b7d"}


def test_a_conversation_with_a_cluster(shared: Cluster) -> None:
    with Agent(shared.nodes[1].address, token=TOKEN) as db:
        for node in shared.nodes:
            assert db.call("ping", {"node": node.address})["node"] == shared.id_of(node)
        assert db.call("get", KEY) is None
        created = db.call("put", KEY, "one", {"contentType": "text/plain", "ifRevision": 0})
        assert created["existed"] is False
        with pytest.raises(Refused) as caught:
            db.call("put", KEY, "two", {"ifRevision": 0})
        assert caught.value.status == "CONDITION_FAILED"
        assert caught.value.detail["revision"] == created["revision"]
        value = db.call("get", KEY)
        assert value["data"] == {"hex": b"one".hex()}
        assert (value["revision"], value["contentType"]) == (created["revision"], "text/plain")
        assert db.call("get", KEY, {"stale": True})["stalenessMs"] >= 0
        assert db.call("delete", KEY, {"ifRevision": created["revision"]})["existed"] is True
        assert db.call("delete", KEY)["existed"] is False


def test_many_requests_at_once_go_to_every_shard(shared: Cluster) -> None:
    with Agent(shared.addresses, token=TOKEN) as db, shared.client() as witness:
        puts = [db.start("put", f"many:{number}", str(number)) for number in range(WRITES)]
        for call in puts:
            assert db.finish(call)["existed"] is False
        for number in range(0, WRITES, 7):
            value = witness.get(f"many:{number}")
            assert value is not None
            assert value.text() == str(number)


def test_a_wrong_token_is_refused(shared: Cluster) -> None:
    with (
        Agent(shared.addresses, token="not the token of a test") as db,
        pytest.raises(Refused) as caught,
    ):
        db.call("ping")
    assert caught.value.status == "UNAUTHENTICATED"


def test_every_write_happens_once_while_the_busiest_leader_is_killed(cluster: Cluster) -> None:
    """Each write creates its key: one that was executed twice would find it there."""
    with Agent(cluster.addresses) as db:
        calls = []
        victim = cluster.busiest()
        for number in range(WRITES):
            calls.append(db.start("put", f"once:{number}", "v", {"ifRevision": 0}))
            if number % 20 == 0:
                db.finish(db.start("ping"))  # so that they do not all leave at once
            if number == WRITES // 2:
                victim.kill()
        for call in calls:
            assert db.finish(call)["existed"] is False
        victim.restart()
        assert db.call("get", f"once:{WRITES - 1}")["data"] == {"hex": b"v".hex()}


def test_every_write_happens_once_while_all_shards_are_split(make_cluster: MakeCluster) -> None:
    """Keys move to new shards with their sessions, and the client finds them there."""
    cluster = make_cluster(extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.start()
    shards = list(cluster.leaders())
    with Agent(cluster.addresses, token=TOKEN) as db, cluster.client(token=TOKEN) as admin:
        calls = []
        for number in range(WRITES):
            calls.append(db.start("put", f"split:{number}", "v", {"ifRevision": 0}))
            if number % 10 == 0:
                db.call("ping")
            if number % 100 == 50:
                split(admin, shards[number // 100])
        for call in calls:
            assert db.finish(call)["existed"] is False
        wait_until("all are split", lambda: len(cluster.leaders()) == 2 * len(shards))
        for number in range(WRITES):  # with a map that is older than the shards
            assert db.call("put", f"split:{number}", "w")["existed"] is True


def test_the_first_steps_are_shown(shared: Cluster) -> None:
    done = run_node("first_steps.js", shared.addresses)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first.startswith("node ")
    assert others[0] == "node:greeting is hello"
    assert others[1].startswith("refused, not applied: ")
    assert others[2] == "12 squared is 144"
