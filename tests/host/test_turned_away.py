"""Who is served and who is turned away, also where nothing before has sorted them: requests
for what a shard has given away, and nodes that a recovery has given up."""

from __future__ import annotations

import pytest

from krita.codec import encode_body
from krita.connection import FLAG_FORWARDED
from krita.errors import Foreign, Status
from krita.operations import Op
from kritad.access import PEER, Access, Principal
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from kritad.host.belonging import Belonging
from kritad.host.link import Expelled
from kritad.host.request import Request
from kritad.metrics import Metrics
from kritad.service import Service
from tests.cluster.views import with_node
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


def test_who_leads_the_new_half_serves_it_by_a_map_that_has_only_the_old_one(grow: Grow) -> None:
    """It may not hear the meta shard's leader, nor the old half's, and leads nevertheless."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    old_map = cluster.nodes[0].host.build_shard_map()
    split(cluster)
    other = next(node for node in cluster.nodes if node is not cluster.leader(OLD))
    born = leader_of(cluster, NEW)
    if born is not other:
        born.replica(NEW).raft.transfer(other.replica(NEW).id)
        born.host.drive.mark(born.replica(NEW))
        cluster.run_until(lambda: cluster.leader(NEW) is other)
    other.host.shard_map = old_map
    key = next(k for n in range(20) if other.replica(NEW).state.owns(k := b"k%d" % n))
    service = Service(
        other.host,
        Access(None),
        Metrics(),
        None,  # type: ignore[arg-type]  # nobody asks for reports here
        receiver=None,  # type: ignore[arg-type]  # nor sends snapshots
        value_bytes_max=100,
        request_timeout_ms=5_000,
    )
    body = encode_body(Op.GET, key)
    service.submit(Op.GET, body, Principal(PEER, 1), 5_000.0, FLAG_FORWARDED, told := Replies())
    cluster.run_until(lambda: bool(told.all))
    assert told.one[0] == Status.OK, told.one


def test_a_node_that_a_recovery_has_given_up_is_not_let_in(grow: Grow) -> None:
    cluster = grow()
    host, other = cluster.nodes[0].host, cluster.nodes[1].identity
    host.admit_peer(other)
    host.belonging.given_up = frozenset({other.node})
    with pytest.raises(Foreign, match="given up when this cluster was recovered"):
        host.admit_peer(other)


def told_to_leave(kind: type[Foreign]) -> Foreign:
    return kind("node 2 has been removed from this cluster", detail={"removed": 2})


@pytest.mark.parametrize(
    ("state", "error", "outcome"),
    [
        (NodeState.UP, told_to_leave(Expelled), "fails"),
        (NodeState.DRAINING, told_to_leave(Expelled), "fails"),
        (None, told_to_leave(Expelled), "fails"),
        (NodeState.REMOVING, Expelled("node 2 came back with another disk"), "fails"),
        (NodeState.REMOVING, told_to_leave(Foreign), "waits"),
        (NodeState.REMOVING, told_to_leave(Expelled), "leaves"),
        (NodeState.LEFT, told_to_leave(Expelled), "leaves"),
    ],
)
def test_to_be_refused_is_the_end_but_for_a_node_that_is_leaving(
    state: NodeState | None, error: Foreign, outcome: str
) -> None:
    """That one waits for the word of a member: the meta shard may need its vote yet."""
    view = MetaView() if state is None else with_node(MetaView(), 2, state=state)
    failures: list[BaseException] = []
    woken: list[bool] = []
    belonging = Belonging(
        2,
        None,  # type: ignore[arg-type]  # nobody is spoken to here
        {},
        (),
        view=lambda: view,
        on_failure=failures.append,
        wake=lambda: woken.append(belonging.removed),
    )
    for _ in range(2):
        belonging.refused(error)
    assert bool(failures) is (outcome == "fails")
    assert belonging.removed is (outcome == "leaves")
    assert woken == ([True] if outcome == "leaves" else [])
