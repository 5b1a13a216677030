"""Reads of what a shard has given away, and nodes that a recovery has given up: both are
turned away also where nothing before has kept them out."""

from __future__ import annotations

import pytest

from krita.codec import encode_body
from krita.errors import Foreign, Status
from krita.operations import Op
from kritad.host.request import Request
from tests.host.cluster import Grow, write_some
from tests.host.lone import Replies
from tests.host.splits import NEW, OLD, leader_of, split


def test_a_read_that_was_waiting_while_its_shard_was_cut_sees_what_was_written_since(
    grow: Grow,
) -> None:
    """The router looks at the arc too, but before the read waits for its round. The rows are
    still in the generation that the halves share, as they were at the split."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    split(cluster)
    leader = leader_of(cluster, OLD)
    key = next(k for n in range(20) if not leader.replica(OLD).state.owns(k := b"k%d" % n))
    gone = cluster.submit(leader, Op.DELETE, encode_body(Op.DELETE, 0, 0, 0, key), NEW, key=key)
    cluster.run_until(lambda: bool(gone.all) and cluster.converged())
    deadline_ms = cluster.clock.monotonic_ms() + 10_000
    request = Request(Op.GET, encode_body(Op.GET, key), key, OLD, told := Replies(), deadline_ms)
    leader.host.deadlines.add(request)
    leader.replica(OLD).answer_read(request, None)
    cluster.run_until(lambda: bool(told.all))
    status, body = told.one
    assert status == Status.OK
    assert isinstance(body, list)
    assert body[0] is None, "the key is said to be there still"


def test_a_node_that_a_recovery_has_given_up_is_not_let_in(grow: Grow) -> None:
    cluster = grow()
    host, other = cluster.nodes[0].host, cluster.nodes[1].identity
    host.admit_peer(other)
    host.given_up = frozenset({other.node})
    with pytest.raises(Foreign, match="given up when this cluster was recovered"):
        host.admit_peer(other)
