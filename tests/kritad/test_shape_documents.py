"""What people are told of a cluster that changes: nodes that go, moves, plans, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from krita.codec import encode_body
from krita.errors import KritaError
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.admin.moves import move_rows
from kritad.admin.nodes import is_complete, node_document, node_rows, vigil_of
from kritad.admin.plan import parse_plan, plan_document
from kritad.admin.shards import shard_rows, sizes_of
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from kritad.host.transfers import Standing
from tests.host.cluster import SETTINGS, Cluster, Node, write_some

Document = dict[str, Any]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Five nodes, three copies of each of four shards, something in them."""
    settings = attrs.evolve(SETTINGS, dead_after_ms=10_000.0)
    made = Cluster(tmp_path, shards=4, settings=settings)
    for _ in range(4):
        made.join()
    made.run_until(lambda: all(made.grown_shard(shard, 3) for shard in range(1, 5)), 60_000)
    write_some(made, 40)
    made.run(3000)
    yield made
    made.close()


def known(cluster: Cluster) -> dict[int, Document]:
    return {node.number: node_document(node.host) for node in cluster.alive}


def with_view(node: Node, **changes: Any) -> MetaView:
    node.host.view = attrs.evolve(node.host.view, **changes)
    return node.host.view


def set_node(node: Node, number: int, **changes: Any) -> None:
    view = node.host.view
    record = attrs.evolve(view.nodes[number], **changes)
    with_view(node, nodes={**view.nodes, number: record})


def set_shard(node: Node, number: int, **changes: Any) -> None:
    view = node.host.view
    record = attrs.evolve(view.shards[number], **changes)
    with_view(node, shards={**view.shards, number: record})


def row_of(rows: list[Document], name: str, number: int) -> Document:
    (found,) = [row for row in rows if row[name] == number]
    return found


# --- sizes ---------------------------------------------------------------------------------


def test_a_shard_is_as_large_as_its_leaders_copy(cluster: Cluster) -> None:
    rows = shard_rows(cluster.nodes[0].host, known(cluster))
    for row in rows:
        leader = cluster.leader(row["shard"])
        assert leader is not None
        extent = leader.replica(row["shard"]).state.extent
        assert (row["keys"], row["bytes"]) == (extent.keys, extent.bytes)
    data = [row for row in rows if row["shard"] != META_SHARD]
    assert sum(row["keys"] for row in data) == 40


def test_a_node_has_the_bytes_of_its_data_replicas(cluster: Cluster) -> None:
    rows = node_rows(cluster.nodes[0].host, known(cluster))
    total = sum(row["bytes"] for row in shard_rows(cluster.nodes[0].host, known(cluster))[1:])
    assert sum(row["bytes"] for row in rows) == 3 * total


def test_without_a_leader_the_copy_that_has_applied_most_tells_the_size(cluster: Cluster) -> None:
    host = cluster.nodes[0].host
    leader = cluster.leader(1)
    assert leader is not None
    documents = known(cluster)
    size = sizes_of(host, documents)[1]
    del documents[leader.number]
    assert sizes_of(host, documents)[1] == size
    row = row_of(shard_rows(host, documents), "shard", 1)
    assert row["bytes"] == size


# --- nodes ---------------------------------------------------------------------------------


def test_a_node_is_drained_when_it_is_to_go_and_holds_nothing(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    empty = with_view(node).nodes  # none is: every node holds something
    assert not any(row["drained"] for row in node_rows(node.host, {}))
    set_node(node, 2, state=NodeState.DRAINING)
    assert row_of(node_rows(node.host, {}), "node", 2)["drained"] is False
    view = node.host.view
    for shard in view.data_shards:
        keep = tuple(r for r in shard.replicas if r.node != 2)
        told = tuple(r for r in shard.report.replicas if r.node != 2)
        set_shard(
            node, shard.shard, replicas=keep, report=attrs.evolve(shard.report, replicas=told)
        )
    assert row_of(node_rows(node.host, {}), "node", 2)["drained"] is True
    set_node(node, 2, state=NodeState.UP)
    assert row_of(node_rows(node.host, {}), "node", 2)["drained"] is False
    assert empty.keys() == node.host.view.nodes.keys()


def test_what_people_gave_a_node_is_in_its_row(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    set_node(node, 2, zone="eu", weight=7, state=NodeState.REMOVING, successor=3, dead=True)
    row = row_of(node_rows(node.host, known(cluster)), "node", 2)
    assert (row["zone"], row["weight"], row["state"]) == ("eu", 7, "removing")
    assert (row["successor"], row["dead"]) == (3, True)


def test_a_silent_node_says_when_it_will_be_dead_through_whoever_keeps_watch(
    cluster: Cluster,
) -> None:
    leader = cluster.leader(META_SHARD)
    assert leader is not None
    victim = next(n for n in cluster.nodes if n not in (leader, cluster.nodes[0]))
    cluster.crash(victim)
    cluster.run(6000)
    row = row_of(node_rows(cluster.nodes[0].host, known(cluster)), "node", victim.number)
    assert row["reachable"] is False
    assert 2 <= row["dead_in_s"] <= 7
    assert (row["bytes"], row["version"]) == (None, "")


def test_of_two_vigils_that_of_the_newer_term_counts(cluster: Cluster) -> None:
    documents = known(cluster)
    for number, (term, healing) in {1: (3, "old"), 2: (4, "new"), 3: (2, "older")}.items():
        documents[number]["vigil"] = {"healing": healing, "silent": []}
        for replica in documents[number]["replicas"]:
            replica["term"] = term
    for number in (4, 5):
        documents[number]["vigil"] = None
    assert vigil_of(documents)["healing"] == "new"
    assert vigil_of({}) == {}


def test_nonsense_of_another_node_is_left_out_and_breaks_nothing(cluster: Cluster) -> None:
    documents = known(cluster)
    odd = documents[2]
    odd["transfers"] = [None, {"shard": "1"}, 7]
    odd["vigil"] = {"healing": 5, "silent": [None, {"node": "x"}]}
    odd["version"] = 7
    for replica in odd["replicas"]:
        replica["bytes"] = replica["keys"] = None
    assert is_complete(odd)
    host = cluster.nodes[0].host
    assert row_of(node_rows(host, documents), "node", 2)["version"] == ""
    assert shard_rows(host, documents)
    assert move_rows(host.view, documents) == []


# --- moves ---------------------------------------------------------------------------------


@attrs.define
class Moving:
    """Shard 1 on its way from its last holder to a node that has no copy."""

    node: Node
    leader: Node
    source: int
    target: int
    replica: int = 900

    def documents(self, cluster: Cluster) -> dict[int, Document]:
        return known(cluster)

    def row(self, cluster: Cluster) -> Document:
        (row,) = move_rows(self.node.host.view, known(cluster))
        return row


@pytest.fixture
def moving(cluster: Cluster) -> Moving:
    node, leader = cluster.nodes[0], cluster.leader(1)
    assert leader is not None
    record = node.host.view.shards[1]
    source = next(n for n in reversed(record.nodes) if n != leader.number)
    target = next(n.number for n in cluster.nodes if n.number not in record.nodes)
    wanted = tuple(
        attrs.evolve(r, replica=900, node=target) if r.node == source else r
        for r in record.replicas
    )
    members = (*record.report.replicas, attrs.evolve(record.report.replicas[0], replica=900,
               node=target, voter=False))  # fmt: skip
    told = attrs.evolve(record.report, replicas=members)
    set_shard(node, 1, replicas=wanted, report=told)
    return Moving(node, leader, source, target)


def test_a_move_says_from_where_to_where_and_how_far_it_is(
    cluster: Cluster, moving: Moving
) -> None:
    transfers = moving.leader.host.transfers
    outgoing = transfers.expect(1, 900, moving.target)
    other = transfers.expect(2, 901, moving.target)
    outgoing.total_bytes = other.total_bytes = 10_000
    transfers.stand(outgoing, Standing.SENDING)
    cluster.clock.advance(2000)
    transfers.note(outgoing, 4_000, 4_000)
    row = moving.row(cluster)
    assert row == {
        "shard": 1, "from": [moving.source], "to": [moving.target], "step": "copying",
        "held": False, "sent_bytes": 4_000, "total_bytes": 10_000, "bytes_per_s": 2_000,
        "eta_s": 3.0, "reason": "",
    }  # fmt: skip


def test_a_move_of_which_nothing_is_sent_has_no_figures(cluster: Cluster, moving: Moving) -> None:
    row = moving.row(cluster)
    figures = ("sent_bytes", "total_bytes", "bytes_per_s", "eta_s")
    assert [row[name] for name in figures] == [None] * 4


def test_a_move_that_waits_says_why(cluster: Cluster, moving: Moving) -> None:
    transfers = moving.leader.host.transfers
    outgoing = transfers.expect(1, 900, moving.target)
    assert "other snapshots go first" in moving.row(cluster)["reason"]
    transfers.stand(outgoing, Standing.HELD)
    assert "below its reserve" in moving.row(cluster)["reason"]
    set_shard(moving.node, 1, held=True)
    row = moving.row(cluster)
    assert (row["step"], row["held"]) == ("waiting", True)
    assert row["reason"] == "the moves of this shard are paused"
    with_view(moving.node, paused=True)
    assert moving.row(cluster)["reason"] == "all moves are paused"


def test_a_move_to_a_node_that_is_away_says_so(cluster: Cluster, moving: Moving) -> None:
    documents = known(cluster)
    del documents[moving.target]
    (row,) = move_rows(moving.node.host.view, documents)
    assert row["reason"] == f"node {moving.target} does not answer"


def test_several_that_are_away_are_told_in_one_sentence(cluster: Cluster, moving: Moving) -> None:
    wanted = moving.node.host.view.shards[1].replicas
    more = attrs.evolve(wanted[0], replica=901, node=99)
    set_shard(moving.node, 1, replicas=(*wanted, more))
    documents = known(cluster)
    del documents[moving.target]
    (row,) = move_rows(moving.node.host.view, documents)
    assert row["reason"] == f"nodes {moving.target} and 99 do not answer"


def test_a_joint_configuration_shows(cluster: Cluster, moving: Moving) -> None:
    documents = known(cluster)
    for replica in documents[moving.leader.number]["replicas"]:
        replica["joint"] = replica["shard"] == 1
    (row,) = move_rows(moving.node.host.view, documents)
    assert row["step"] == "joint"


def test_a_shard_on_the_move_shows_in_its_row(cluster: Cluster, moving: Moving) -> None:
    row = row_of(shard_rows(moving.node.host, known(cluster)), "shard", 1)
    assert row["in_motion"] is True
    assert [r["node"] for r in row["reported"] if not r["voter"]] == [moving.target]


# --- plans ---------------------------------------------------------------------------------


def plan(cluster: Cluster, *fields: object) -> Document:
    wish = parse_plan(encode_body(Op.NODE_PLAN, *fields))
    return plan_document(cluster.nodes[0].host, wish, known(cluster))


def test_a_plan_has_the_sizes_that_the_nodes_tell(cluster: Cluster) -> None:
    host = cluster.nodes[0].host
    sizes = sizes_of(host, known(cluster))
    document = plan(cluster, 2, int(NodeState.DRAINING), None)
    assert document["refusals"] == []
    assert set(document["shards"]) >= {
        shard for shard in host.view.replicas_on(2) if shard != META_SHARD
    }
    assert document["bytes"] == sum(flow["bytes"] for flow in document["moves"]) > 0
    assert document["bytes"] <= 3 * sum(sizes.values())
    assert document["before"] == {"availability": 1, "data": 2}


def test_a_plan_changes_nothing(cluster: Cluster) -> None:
    version = cluster.nodes[0].host.view.version
    plan(cluster, 2, int(NodeState.REMOVING), 3)
    cluster.run(2000)
    assert cluster.nodes[0].host.view.version == version


@pytest.mark.parametrize(
    "fields", [(), (None, 1, None), (2, "drain", None), (2, 1, "x"), (99, 1, None), (2, 3, None)]
)
def test_a_plan_of_what_there_is_not_is_refused(
    cluster: Cluster, fields: tuple[object, ...]
) -> None:
    padded = (*fields, *(None,) * (3 - len(fields)))
    with pytest.raises(KritaError):
        plan(cluster, *padded)
