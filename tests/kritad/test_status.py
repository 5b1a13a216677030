"""What people are told of a cluster: the shapes, and whether they are true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from krita.codec import decode, encode, encode_body
from krita.errors import Status as Code
from krita.operations import Op
from kritad import __version__
from kritad.admin.nodes import memory_bytes, node_document, role_of
from kritad.admin.status import Status
from kritad.cluster.view import MetaView
from kritad.gauges import register_gauges
from kritad.host.bootstrap import META_SHARD
from kritad.metrics import Metrics
from kritad.storage.errors import Corrupt
from tests.host.cluster import Cluster, Node, grown_cluster, key_in
from tests.host.lone import Replies
from tests.host.network import MemoryTransport

Answer = Callable[[Node], list[object] | None]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    grown = grown_cluster(tmp_path)
    grown.run(3000)
    yield grown
    grown.close()


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@asynccontextmanager
async def status_of(
    cluster: Cluster, answer: Answer, number: int = 1
) -> AsyncIterator[Callable[..., Any]]:
    """Asks node ``number``; ``answer`` says what the others reply (None: nothing)."""
    node = cluster.nodes[number - 1]
    transport = node.host.transport
    assert isinstance(transport, MemoryTransport)

    def ask(other: int, op: int, _body: bytes, _deadline: float, on_reply: Any) -> None:
        assert op == Op.NODE_STATUS
        body = answer(cluster.nodes[other - 1])
        if body is not None:
            on_reply(Code.OK, decode(encode(body)), True)

    transport.ask = ask
    async with trio.open_nursery() as nursery:
        status = Status(node.host, nursery)

        async def document(op: Op, *fields: object) -> Any:
            body = encode_body(op, *fields)
            replies = Replies()
            status.answer(op, body, replies)
            while not replies.all:  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.01)
            code, reply = replies.one
            assert code == Code.OK, reply
            assert isinstance(reply, list)
            assert decode(encode(reply)) == reply, "it does not survive the wire"
            return reply[0]

        yield document


def truth(node: Node) -> list[object]:
    return [node_document(node.host)]


def dead(*numbers: int) -> Answer:
    return lambda node: None if node.number in numbers else truth(node)


async def test_a_node_tells_what_it_knows_of_itself(cluster: Cluster) -> None:
    async with status_of(cluster, truth) as ask:
        document = await ask(Op.NODE_STATUS)
    assert document.keys() == {
        "node", "address", "version", "uptime_s", "boot_counter", "cluster_id", "clock_ms",
        "replicas", "transfers", "damaged", "broken", "remade", "disk_free_bytes", "disk_low",
        "memory_bytes", "vigil", "given_up",
    }  # fmt: skip
    host = cluster.nodes[0].host
    assert document["node"] == 1
    assert document["version"] == __version__
    assert document["cluster_id"] == host.identity.cluster_id.hex()
    assert document["memory_bytes"] > 1 << 20
    assert [replica["shard"] for replica in document["replicas"]] == [0, 1, 2]
    for replica in document["replicas"]:
        assert replica.keys() >= {
            "shard", "replica", "role", "term", "leader", "commit", "applied", "last",
            "state_hash", "log_first", "conf_version", "joint", "keys", "bytes",
        }  # fmt: skip
        held = host.replicas[replica["shard"]]
        assert replica["applied"] == held.state.index
        assert int(replica["state_hash"], 16) == held.state.state_hash
        assert len(replica["state_hash"]) == 16
        leader = cluster.leader(replica["shard"])
        assert leader is not None
        assert replica["leader"] == leader.number


async def test_the_nodes_are_listed_with_what_they_lead_and_hold(cluster: Cluster) -> None:
    async with status_of(cluster, truth) as ask:
        rows = await ask(Op.NODE_LIST)
    assert [row["node"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.keys() == {
            "node", "address", "zone", "weight", "state", "successor", "leaders", "replicas",
            "reachable", "dead", "dead_in_s", "drained", "bytes", "version", "disk_free_bytes",
        }  # fmt: skip
        assert row["reachable"] is True
        assert row["state"] == "up"
        assert row["replicas"] == 3
    assert sum(row["leaders"] for row in rows) == 3


async def test_the_shards_are_listed_with_their_replicas(cluster: Cluster) -> None:
    async with status_of(cluster, truth) as ask:
        rows = await ask(Op.SHARD_LIST)
    assert [row["shard"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row.keys() == {
            "shard", "hash_lo", "hash_hi", "version", "leader", "term", "replicas", "reported",
            "keys", "bytes", "in_motion", "held", "pinned", "splitting", "shard_new",
        }  # fmt: skip
        assert (row["in_motion"], row["held"], row["splitting"]) == (False, False, False)
        assert sorted(r["node"] for r in row["reported"]) == [1, 2, 3]
        assert sorted(r["role"] for r in row["replicas"]) == ["leader", "voter", "voter"]
        for replica in row["replicas"]:
            assert replica.keys() == {
                "node", "replica", "role", "lag", "applied", "state_hash",
            }  # fmt: skip
            assert replica["lag"] == 0
            assert (replica["role"] == "leader") == (replica["node"] == row["leader"])
        assert len({replica["state_hash"] for replica in row["replicas"]}) == 1
    assert rows[1]["hash_lo"] == 0
    assert rows[2]["hash_hi"] == 1 << 32


async def test_a_healthy_cluster_says_so_and_what_it_can_lose(cluster: Cluster) -> None:
    async with status_of(cluster, truth) as ask:
        document = await ask(Op.CLUSTER_STATUS)
    assert document.keys() == {
        "cluster_id", "health", "problems", "nodes", "shards", "replication_factor",
        "failures_tolerated", "tolerates", "paused", "healing", "moves", "moves_to_come", "zones",
        "shard_bytes_max",
    }  # fmt: skip
    assert document["health"] == "healthy"
    assert document["problems"] == []
    assert document["replication_factor"] == 3
    assert document["failures_tolerated"] == 1
    assert document["tolerates"] == {"availability": 1, "data": 2}
    assert (document["paused"], document["healing"], document["moves"]) == (False, "", [])


async def test_a_silent_node_costs_a_second_and_not_the_answer(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    assert autojump_clock.rate == 0
    async with status_of(cluster, dead(3)) as ask:
        began_s = trio.current_time()
        document = await ask(Op.CLUSTER_STATUS)
        assert trio.current_time() - began_s <= 1.5
    assert document["health"] == "degraded"
    assert document["failures_tolerated"] == 0
    assert document["tolerates"] == {"availability": 0, "data": 1}
    assert [node["reachable"] for node in document["nodes"]] == [True, True, False]
    for shard in document["shards"]:
        (lost,) = [r for r in shard["replicas"] if r["node"] == 3]
        assert lost["role"] == "unreachable"
        assert (lost["lag"], lost["applied"], lost["state_hash"]) == (None, None, None)


async def test_a_cluster_with_a_leaderless_shard_is_unavailable(cluster: Cluster) -> None:
    for one in cluster.nodes:
        cluster.cut(one, *(other for other in cluster.nodes if other is not one))
    cluster.run(6000)
    async with status_of(cluster, truth) as ask:
        document = await ask(Op.CLUSTER_STATUS)
    assert document["health"] == "unavailable"
    assert any("no leader is known" in problem for problem in document["problems"])


async def test_a_replica_that_lags_is_said_to_lag_by_so_many_entries(cluster: Cluster) -> None:
    leader = cluster.leader(1)
    assert leader is not None
    behind = next(node for node in cluster.nodes if node is not leader)
    cluster.cut(behind, *(node for node in cluster.nodes if node is not behind))
    replies = [cluster.put(leader, key_in(leader, 1, b"%d-" % n), b"v") for n in range(7)]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    async with status_of(cluster, truth) as ask:
        (row,) = [row for row in await ask(Op.SHARD_LIST) if row["shard"] == 1]
    lags = {replica["node"]: replica["lag"] for replica in row["replicas"]}
    assert lags[behind.number] == 7
    assert lags[leader.number] == 0


MALFORMED: list[Any] = [
    [],
    [None],
    ["text"],
    [{}],
    [{"replicas": None}],
    [{"replicas": [None]}],
    [{"replicas": [{"shard": 1}]}],
    [{"replicas": [{"shard": "1", "last": 1, "applied": 1, "role": "x", "state_hash": ""}]}],
]


@pytest.mark.parametrize("body", MALFORMED)
async def test_a_node_that_answers_nonsense_counts_as_silent(
    cluster: Cluster, body: list[object]
) -> None:
    def answer(node: Node) -> list[object]:
        return body if node.number == 2 else truth(node)

    async with status_of(cluster, answer) as ask:
        document = await ask(Op.CLUSTER_STATUS)
    assert [node["reachable"] for node in document["nodes"]] == [True, False, True]


async def test_damage_on_another_node_is_no_health(cluster: Cluster) -> None:
    victim = cluster.nodes[2]
    victim.host.on_damage(victim.replica(1), Corrupt(1, "a row is damaged"))
    async with status_of(cluster, truth) as ask:
        document = await ask(Op.CLUSTER_STATUS)
    assert document["health"] == "degraded"
    assert "shard 1 is damaged on node 3: a row is damaged" in document["problems"]
    assert document["tolerates"] == {"availability": 0, "data": 1}
    assert document["failures_tolerated"] == 0
    roles = {r["node"]: r["role"] for r in document["shards"][1]["replicas"]}
    assert roles[3] == "damaged"
    metrics = Metrics()
    register_gauges(metrics, victim.host)
    assert "\nkrita_replicas_damaged 1" in metrics.render()


async def test_a_lonely_nodes_documents_ask_nobody(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1)
    async with status_of(cluster, truth) as ask:
        document = await ask(Op.CLUSTER_STATUS)
        await wait_all_tasks_blocked()
    assert document["failures_tolerated"] == 0
    assert len(document["nodes"]) == 1
    cluster.close()


def test_a_nodes_own_problems_are_named(cluster: Cluster) -> None:
    host = cluster.nodes[0].host
    status = Status(host, None)  # type: ignore[arg-type]
    assert status.problems() == []
    assert status.serves()
    host.transport.peers[2].connected = False  # type: ignore[misc]
    host.replicas[1].raft.poison("both lead")
    host.tick()
    host.turn()
    host.note_space(1, True)
    problems = " | ".join(status.problems())
    assert "node 2 at n2:8080 cannot be reached" in problems
    assert "shard 1 is damaged here: it has stopped itself: both lead" in problems
    assert "below its reserve" in problems


async def test_a_damaged_meta_shard_is_told_by_the_node_that_knows_no_map_for_it(
    tmp_path: Path,
) -> None:
    """Started with the damage, it has heard nothing of the cluster."""
    cluster = Cluster(tmp_path, shards=1)
    host = cluster.nodes[0].host
    host.damaged[META_SHARD] = "a row does not match"
    host.view = MetaView()
    async with status_of(cluster, truth) as ask:
        document = await ask(Op.CLUSTER_STATUS)
    assert document["health"] == "unavailable"
    assert document["problems"] == [
        "shard 0 is damaged here: a row does not match",
        "this node has not heard from the cluster yet",
    ]
    cluster.close()


def test_roles_are_named_as_people_name_them(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1)
    assert role_of(cluster.nodes[0].replica(1)) == "leader"
    joiner = cluster.join()
    cluster.run_until(lambda: 1 in joiner.host.replicas)
    assert role_of(joiner.replica(1)) == "learner"
    cluster.run_until(lambda: cluster.grown(2))
    cluster.run(1000)
    assert role_of(joiner.replica(1)) == "follower"
    cluster.crash(cluster.nodes[0])
    cluster.run(5000)
    assert role_of(joiner.replica(1)) == "candidate"
    cluster.close()


def test_the_memory_of_this_process_is_a_number_of_bytes() -> None:
    assert 1 << 20 < memory_bytes() < 1 << 40
