"""Reshaping a cluster through the service: who may, what comes of it, and readiness."""

from __future__ import annotations

import attrs
import pytest

from krita.errors import Status
from krita.operations import Op
from kritad.access import ANONYMOUS, Principal
from kritad.cluster.model import NodeState
from tests.kritad.service_bench import ROOT, Bench


def test_what_the_meta_shard_decides_is_decided_through_any_node(three: Bench) -> None:
    view = three.cluster.nodes[0].host.view
    assert three.do(Op.NODE_LABEL, 2, "eu", 5, who=ROOT, node=3) == (Status.OK, [])
    assert three.do(Op.SHARD_HOLD, 1, True, who=ROOT, node=2) == (Status.OK, [])
    assert three.do(Op.SHARD_HOLD, 0, True, who=ROOT) == (Status.OK, [])
    assert three.do(Op.NODE_SET, 2, 1, None, who=ROOT) == (Status.OK, [1])
    three.cluster.run_until(lambda: three.cluster.nodes[0].host.view.nodes[2].state == 1)
    now = three.cluster.nodes[0].host.view
    assert (now.nodes[2].zone, now.nodes[2].weight) == ("eu", 5)
    assert now.shards[1].held
    assert now.paused
    assert not view.paused
    assert three.do(Op.NODE_SET, 2, 0, None, who=ROOT) == (Status.OK, [0])
    refused = three.do(Op.SHARD_MOVE, 1, 1, 1, who=ROOT)
    assert refused[0] == Status.CONDITION_FAILED
    assert three.do(Op.MOVE_CANCEL, 2, who=ROOT)[0] == Status.CONDITION_FAILED


def test_a_split_that_was_decided_is_carried_out(three: Bench) -> None:
    for n in range(40):
        assert three.put(b"k%d" % n, b"v")[0] == Status.OK
    status, body = three.do(Op.SHARD_SPLIT, 1, who=ROOT)
    assert (status, body) == (Status.OK, [3])
    three.cluster.run_until(lambda: 3 in three.cluster.nodes[0].host.view.shards)
    three.cluster.run(2000)
    for n in range(40):
        value = three.do(Op.GET, b"k%d" % n, node=1 + n % 3)[1]
        assert isinstance(value, list)
        assert value[0] == b"v"


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        (Op.NODE_SET, (2, 1, None)),
        (Op.NODE_LABEL, (2, "eu", None)),
        (Op.SHARD_SPLIT, (1,)),
        (Op.SHARD_MOVE, (1, 1, 2)),
        (Op.SHARD_HOLD, (0, True)),
        (Op.MOVE_CANCEL, (1,)),
    ],
)
def test_the_cluster_is_reshaped_by_administrators_only(
    three: Bench, op: Op, fields: tuple[object, ...]
) -> None:
    remote = Principal(ANONYMOUS, loopback=False)
    assert three.submit(op, *fields, who=remote).one[0] == Status.UNAUTHENTICATED


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.REMOVING])
def test_a_node_that_is_drained_is_healthy_and_serves_and_is_not_ready(
    three: Bench, state: NodeState
) -> None:
    host = three.cluster.nodes[0].host
    own = attrs.evolve(host.view.nodes[1], state=state)
    host.view = attrs.evolve(host.view, nodes={**host.view.nodes, 1: own})
    health = three.service.health()
    assert (health.live, health.ready, health.healthy, health.serving) == (True, False, True, True)
    assert "this node is draining" in health.problems[0]
    assert three.services[2].health().ready, "the others are"
