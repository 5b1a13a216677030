"""Nodes that shall go, die, or come back: what becomes of what they held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.errors import Foreign, Status
from krita.operations import Op
from kritad.admin.nodes import node_rows
from kritad.cluster.model import NodeState
from kritad.cluster.moves import moves
from kritad.cluster.view import MetaView
from kritad.host import steward
from kritad.host.bootstrap import META_SHARD
from kritad.host.departure import has_gone, may_leave
from kritad.host.opening import HostSettings
from kritad.raft.types import Configuration
from tests.host.cluster import (
    SETTINGS,
    Cluster,
    Node,
    check_written,
    grown_cluster,
    write_some,
)

HASTY = attrs.evolve(SETTINGS, dead_after_ms=3_000.0)
SLOW_MS = 60_000


def make(path: Path, nodes: int, *, shards: int = 4, settings: HostSettings = HASTY) -> Cluster:
    """A cluster at rest, with something in it."""
    cluster = Cluster(path, shards=shards, settings=settings)
    for _ in range(nodes - 1):
        cluster.join()
    cluster.run_until(lambda: at_rest(cluster), SLOW_MS)
    write_some(cluster, 12)
    return cluster


@pytest.fixture
def four(tmp_path: Path) -> Cluster:
    return make(tmp_path, 4)


@pytest.fixture
def five(tmp_path: Path) -> Cluster:
    return make(tmp_path, 5)


def view_of(cluster: Cluster) -> MetaView:
    return max((node.host.view for node in cluster.alive), key=lambda view: view.version)


def at_rest(cluster: Cluster) -> bool:
    """Whether every data shard is where it is wanted, on three nodes."""
    view = view_of(cluster)
    return not moves(view) and all(len(record.nodes) == 3 for record in view.data_shards)


def admin(cluster: Cluster, op: Op, *fields: object, node: Node | None = None) -> object:
    """An operation that has to be granted; its reply."""
    through = node or next(n for n in cluster.alive if not n.host.belonging.removed)
    replies = cluster.submit(through, op, encode_body(op, *fields), META_SHARD)
    cluster.run_until(lambda: bool(replies.all))
    status, body = replies.one
    assert status == Status.OK, body
    return body


def set_state(
    cluster: Cluster, node: Node, state: NodeState, successor: Node | None = None
) -> None:
    wanted = None if successor is None else successor.number
    admin(cluster, Op.NODE_SET, node.number, int(state), wanted)


def is_drained(cluster: Cluster, node: Node) -> bool:
    own = next(other for other in cluster.alive if other is not node)
    rows = {row["node"]: row for row in node_rows(own.host, {})}
    held = set(node.host.replicas) - {META_SHARD} if node.alive else set()
    return rows[node.number]["drained"] is True and not held


# --- drained -------------------------------------------------------------------------------


def test_a_node_that_is_drained_holds_and_leads_nothing_and_nobody_missed_a_thing(
    four: Cluster,
) -> None:
    leaving = four.nodes[1]
    assert not is_drained(four, leaving)
    set_state(four, leaving, NodeState.DRAINING)
    four.run_until(lambda: is_drained(four, leaving), SLOW_MS)
    assert all(four.leader(shard) is not leaving for shard in view_of(four).shards)
    four.crash(leaving)
    check_written(four, four.nodes[0], 12)
    assert at_rest(four)


def test_a_drain_that_is_taken_back_lets_the_node_hold_its_share_again(four: Cluster) -> None:
    leaving = four.nodes[1]
    set_state(four, leaving, NodeState.DRAINING)
    four.run_until(lambda: is_drained(four, leaving), SLOW_MS)
    set_state(four, leaving, NodeState.UP)
    four.run_until(lambda: bool(set(leaving.host.replicas) - {META_SHARD}), SLOW_MS)
    assert not is_drained(four, leaving)


def test_a_node_is_drained_while_one_that_shares_no_shard_with_it_is_down(
    tmp_path: Path,
) -> None:
    cluster = make(tmp_path, 5, shards=1)
    held = view_of(cluster).shards[1].nodes
    bystander = next(n for n in cluster.nodes[1:] if n.number not in held)
    leaving = next(n for n in cluster.nodes[1:] if n.number in held)
    cluster.crash(bystander)
    set_state(cluster, leaving, NodeState.DRAINING)
    cluster.run_until(lambda: is_drained(cluster, leaving), SLOW_MS)
    check_written(cluster, cluster.nodes[0], 12)


def test_a_shard_gives_up_no_copy_while_one_of_its_others_is_missing(tmp_path: Path) -> None:
    cluster = make(tmp_path, 5, shards=1, settings=SETTINGS)  # nobody is dead for minutes
    held = [n for n in cluster.nodes if n.number in view_of(cluster).shards[1].nodes]
    missing, leaving = [n for n in held if n is not cluster.nodes[0]][:2]
    cluster.crash(missing)
    set_state(cluster, leaving, NodeState.DRAINING)
    cluster.run(10_000)
    assert leaving.number in view_of(cluster).shards[1].nodes
    missing.restart()
    cluster.run_until(lambda: is_drained(cluster, leaving), SLOW_MS)


def test_a_successor_gets_what_its_predecessor_held(four: Cluster) -> None:
    old = four.nodes[1]
    held = {s for s in view_of(four).replicas_on(old.number) if s != META_SHARD}
    admin(four, Op.SHARD_HOLD, META_SHARD, True)
    new = four.join()
    set_state(four, old, NodeState.REMOVING, new)
    admin(four, Op.SHARD_HOLD, META_SHARD, False)
    four.run_until(lambda: old.host.belonging.removed, SLOW_MS)
    assert held <= view_of(four).replicas_on(new.number).keys()


# --- removed -------------------------------------------------------------------------------


def test_a_node_that_was_removed_learns_it_and_is_known_to_nobody_any_more(
    four: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = four.nodes[1]
    set_state(four, leaving, NodeState.REMOVING)
    four.run_until(lambda: leaving.host.belonging.removed, SLOW_MS)
    assert leaving.host.failure is None, "that is no failure"
    assert "this node has been removed from the cluster" in caplog.text
    view = view_of(four)
    assert view.nodes[leaving.number].state is NodeState.LEFT
    assert not any(leaving.number in record.nodes for record in view.shards.values())
    four.crash(leaving)
    four.run(2000)
    leader = four.leader(META_SHARD)
    assert leader is not None
    conf = leader.replica(META_SHARD).raft.configuration
    assert leaving.number not in {conf.nodes[member] for member in conf.members}
    assert all(leaving.number not in node.host.transport.peers for node in four.alive)
    check_written(four, four.nodes[0], 12)
    set_label = encode_body(Op.NODE_LABEL, four.nodes[0].number, "zone", None)
    four.submit(four.nodes[0], Op.NODE_LABEL, set_label, META_SHARD)
    four.run_until(lambda: view_of(four).nodes[four.nodes[0].number].zone == "zone")
    four.run(1000)
    assert all(leaving.number not in node.host.transport.peers for node in four.alive), "by a view"
    four.crash(four.nodes[2])
    four.nodes[2].restart()
    four.run(1000)
    assert leaving.number not in four.nodes[2].host.transport.peers, "by a restart"


def test_who_has_left_and_votes_still_is_not_forgotten(tmp_path: Path) -> None:
    """Of two voters each is needed to let the other go."""
    cluster = Cluster(tmp_path, shards=1, factor=1)
    leaving = cluster.join()
    cluster.run_until(lambda: cluster.grown_shard(META_SHARD, 2))
    first = cluster.nodes[0]
    seen: list[bool] = []
    forget = first.host.transport.forget

    def forgetting(node: int) -> None:
        conf = first.replica(META_SHARD).raft.configuration
        seen.append(conf.voters == {first.replica(META_SHARD).id})
        forget(node)

    first.host.transport.forget = forgetting  # type: ignore[method-assign]
    set_state(cluster, leaving, NodeState.REMOVING)
    cluster.run_until(lambda: leaving.host.belonging.removed, SLOW_MS)
    cluster.run(1000)
    assert seen == [True]
    cluster.close()


def test_a_node_that_left_and_starts_again_is_told_so(four: Cluster) -> None:
    leaving = four.nodes[1]
    set_state(four, leaving, NodeState.REMOVING)
    four.run_until(lambda: leaving.host.belonging.removed, SLOW_MS)
    four.crash(leaving)
    four.run(2000)
    with pytest.raises(Foreign, match="has been removed from this cluster"):
        four.nodes[0].host.admit_peer(leaving.identity)
    leaving.restart()
    four.run_until(lambda: leaving.host.belonging.removed, 10_000)
    assert leaving.host.failure is None


def test_one_that_was_removed_while_it_was_down_fails_with_the_reason(five: Cluster) -> None:
    """It knows nothing of it, so that nobody expects it to end in peace."""
    gone = five.nodes[4]
    five.crash(gone)
    set_state(five, gone, NodeState.REMOVING)
    five.run_until(lambda: view_of(five).nodes[gone.number].left, SLOW_MS)
    five.run(2000)
    gone.restart()
    five.run_until(lambda: gone.host.failure is not None, 10_000)
    assert f"node {gone.number} has been removed" in str(gone.host.failure)


def test_a_node_that_has_left_goes_only_once_the_meta_shard_does_without_its_vote(
    tmp_path: Path,
) -> None:
    """Of two voters each is needed: if one went at once, the other could never let it go."""
    cluster = Cluster(tmp_path, shards=1, factor=1)
    leaving = cluster.join()
    cluster.run_until(lambda: cluster.grown_shard(META_SHARD, 2))
    first = cluster.nodes[0]
    went: list[bool] = []
    leave = leaving.host.belonging.leave

    def going() -> None:
        conf = first.replica(META_SHARD).raft.configuration
        went.append(conf.voters == {first.replica(META_SHARD).id})
        leave()

    leaving.host.belonging.leave = going  # type: ignore[method-assign]
    set_state(cluster, leaving, NodeState.REMOVING)
    cluster.run_until(lambda: leaving.host.belonging.removed, SLOW_MS)
    assert went[0]
    cluster.crash(leaving)
    admin(cluster, Op.NODE_LABEL, 1, "z", None)


def test_who_votes_in_the_meta_shard_has_not_gone(four: Cluster) -> None:
    host = four.nodes[0].host
    meta = host.replicas[META_SHARD]
    voting = {meta.raft.configuration.nodes[m] for m in meta.raft.configuration.voters}
    view = host.view
    for number, record in view.nodes.items():
        left = attrs.evolve(record, state=NodeState.LEFT)
        after = attrs.evolve(view, nodes={**view.nodes, number: left})
        assert not has_gone(view, number, meta)
        assert has_gone(after, number, meta) is (number not in voting)
        assert may_leave(after, number, meta) is (number not in voting)
        assert not may_leave(view, number, None)
        assert may_leave(after, number, None)


def test_a_node_whose_meta_replica_is_made_anew_sends_nobody_away(four: Cluster) -> None:
    """It does not know who votes. Whom it expels stops for good, and of two voters that are
    left each is the meta shard's majority."""
    node, left = four.nodes[0], four.nodes[1]
    view = node.host.view
    record = attrs.evolve(view.nodes[left.number], state=NodeState.LEFT)
    node.host.view = attrs.evolve(view, nodes={**view.nodes, left.number: record})
    node.host.belonging.check_stays(left.number)  # it votes
    meta = node.host.replicas[META_SHARD]
    known, meta.raft.log.configurations = meta.raft.log.configurations, [(0, Configuration())]
    node.host.belonging.check_stays(left.number)  # the new one has come, and its log has not
    del node.host.replicas[META_SHARD]
    node.host.belonging.check_stays(left.number)
    node.host.replicas[META_SHARD] = meta
    conf = known[-1][1]
    others = attrs.evolve(conf, voters=frozenset({meta.id}))
    meta.raft.log.configurations = [(0, others)]
    with pytest.raises(Foreign, match="has been removed from this cluster"):
        node.host.belonging.check_stays(left.number)


def hand_over(cluster: Cluster, shard: int, node: Node) -> None:
    leader = cluster.leader(shard)
    assert leader is not None
    if leader is not node:
        leader.replica(shard).raft.transfer(node.replica(shard).id)
        leader.host.drive.mark(leader.replica(shard))
    cluster.run_until(lambda: cluster.leader(shard) is node)


def test_a_node_that_has_left_is_made_a_voter_by_no_later_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People move a shard to a node, take that back and remove the node. The shard's leader
    knows all that, and says so; the next one knows the first alone. The writes that the node
    had acknowledged would be on one disk less than they should."""
    cluster = grown_cluster(tmp_path, 3, shards=1)
    monkeypatch.setattr(steward, "placements", lambda *_: [])  # people move, nobody else
    monkeypatch.setattr(steward, "leader_transfers", lambda *_, **__: [])
    leaving = cluster.join()
    cluster.run(5000)
    first, second, meta = cluster.nodes[:3]
    hand_over(cluster, META_SHARD, meta)
    hand_over(cluster, 1, first)
    with monkeypatch.context() as patched:
        patched.setattr(first.host.steward, "step", lambda _view: None)  # it is slow
        admin(cluster, Op.SHARD_MOVE, 1, meta.number, leaving.number, node=meta)
        cluster.run_until(lambda: leaving.number in second.host.view.shards[1].nodes)
        cluster.cut(leaving, first, meta)
        cluster.cut(second, meta)
        admin(cluster, Op.MOVE_CANCEL, 1, node=meta)
        admin(cluster, Op.NODE_SET, leaving.number, int(NodeState.REMOVING), None, node=meta)
        cluster.run_until(lambda: first.host.view.version == meta.host.view.version)
    cluster.run_until(lambda: meta.host.view.nodes[leaving.number].left)
    hand_over(cluster, 1, second)
    cluster.run(5000)
    assert second.host.view.nodes[leaving.number].state is NodeState.UP, "as far as it knows"
    assert leaving.number not in second.replica(1).raft.configuration.nodes.values()
    cluster.heal()
    cluster.run_until(lambda: leaving.host.belonging.removed or leaving.host.failure is not None)
    assert leaving.number not in second.replica(1).raft.configuration.nodes.values()
    write_some(cluster, 1)


# --- dead ----------------------------------------------------------------------------------


def test_what_a_dead_node_held_is_made_again_elsewhere(five: Cluster) -> None:
    victim = five.nodes[1]
    five.crash(victim)
    five.run_until(lambda: view_of(five).nodes[victim.number].dead, SLOW_MS)
    five.run_until(lambda: at_rest(five) and not view_of(five).holds_data(victim.number), SLOW_MS)
    check_written(five, five.nodes[0], 12)


def test_a_node_that_is_back_in_time_has_nothing_moved(five: Cluster) -> None:
    before = {s: r.placement_version for s, r in view_of(five).shards.items()}
    victim = five.nodes[1]
    five.crash(victim)
    five.run(2000)
    victim.restart()
    five.run(10_000)
    assert not view_of(five).nodes[victim.number].dead
    assert before == {s: r.placement_version for s, r in view_of(five).shards.items()}


def test_a_node_that_comes_back_too_late_gives_up_what_others_have_and_serves_on(
    five: Cluster,
) -> None:
    victim = five.nodes[1]
    five.crash(victim)
    five.run_until(
        lambda: (
            view_of(five).nodes[victim.number].dead
            and at_rest(five)
            and not view_of(five).holds_data(victim.number)
        ),
        SLOW_MS,
    )
    write_some(five, 12, b"n")
    victim.restart()
    five.run_until(
        lambda: (
            not view_of(five).nodes[victim.number].dead
            and at_rest(five)
            and set(victim.host.replicas) == set(view_of(five).replicas_on(victim.number))
        ),
        SLOW_MS,
    )
    check_written(five, victim, 12)
    check_written(five, victim, 12, b"n")
    five.run_until(five.converged)


# --- held ----------------------------------------------------------------------------------


def test_moves_that_are_paused_stop_and_go_on_where_they_were(four: Cluster) -> None:
    leaving = four.nodes[1]
    admin(four, Op.SHARD_HOLD, META_SHARD, True)
    set_state(four, leaving, NodeState.DRAINING)
    four.run(5000)
    assert view_of(four).holds_data(leaving.number)
    assert not moves(view_of(four))
    admin(four, Op.SHARD_HOLD, META_SHARD, False)
    four.run_until(lambda: is_drained(four, leaving), SLOW_MS)


def test_a_move_that_is_cancelled_leaves_everything_as_it_was(five: Cluster) -> None:
    shard, source, target = next(even_moves(five))
    before = view_of(five).shards[shard].nodes
    target.log.held = True  # it can acknowledge nothing, and so stays a learner
    admin(five, Op.SHARD_MOVE, shard, source, target.number)

    def learns() -> bool:
        leader = five.leader(shard)
        return leader is not None and bool(leader.replica(shard).raft.configuration.learners)

    five.run_until(learns)
    admin(five, Op.MOVE_CANCEL, shard)
    target.log.held = False
    five.run_until(lambda: not learns() and not moves(view_of(five)))
    five.run(3000)
    assert set(view_of(five).shards[shard].nodes) == set(before)
    assert shard not in target.host.replicas
    assert view_of(five).shards[shard].held


def even_moves(cluster: Cluster) -> Iterator[tuple[int, int, Node]]:
    """(shard, source, target) of moves that leave the nodes as evenly filled as they are:
    the planner would take any other back."""
    view = view_of(cluster)
    held = {node: len(view.replicas_on(node)) for node in view.nodes}
    for record in view.data_shards:
        for source in record.nodes:
            for target in cluster.nodes[1:]:
                even = held[source] - held[target.number] == 1
                if even and target.number not in record.nodes:
                    yield record.shard, source, target
