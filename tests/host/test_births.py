"""Shards that are split off, on nodes that write, lag, crash and have too much to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad.host import steward
from kritad.host.bootstrap import META_SHARD
from kritad.host.opening import HostSettings
from kritad.host.splitting import propose_split
from kritad.storage.errors import Corrupt
from tests.host.cluster import Cluster, Grow, check_written, key_in, write_some
from tests.host.splits import NEW, OLD, ask, flush, follower_of, is_cut, is_told, leader_of, split

SMALL = HostSettings(memtable_bytes=1 << 20, log_tail_bytes=1)


# --- a split among those who use the shard ----------------------------------------------


def test_a_shard_is_split_while_it_is_written_to_and_nothing_is_lost(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 50)
    replies = [cluster.put(cluster.nodes[0], b"before", b"x")]
    ask(cluster)
    written = 50
    while not is_told(cluster):
        for node in cluster.nodes:
            replies.append(cluster.put(node, b"k%d" % written, b"value %d" % written))
            written += 1
        cluster.tick()
        assert written < 1000, "the split takes for ever"
    cluster.run_until(lambda: all(reply.all for reply in replies) and cluster.converged())
    assert {reply.one[0] for reply in replies} == {Status.OK}, "a write was turned away"
    for node in cluster.nodes:
        check_written(cluster, node, written)
        extents = [node.replica(shard).state.extent for shard in (OLD, NEW)]
        assert extents[0].hash_hi == extents[1].hash_lo
        assert all(extent.keys for extent in extents)
    assert cluster.snapshots_sent == 0, "rows were sent that had been there"


def test_a_write_right_behind_the_split_in_the_log_is_done_by_the_new_shard(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 50)
    leader = leader_of(cluster, OLD)
    ask(cluster)
    # Both go into the log before either is applied.
    record = leader.host.view.shards[OLD]
    assert propose_split(leader.replica(OLD), record, leader.host.clock.wall_ms())
    replies = [cluster.put(node, b"k%d" % n, b"again") for n in range(50) for node in [leader]]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    assert {reply.one[0] for reply in replies} == {Status.OK}
    assert is_cut(leader)
    moved = key_in(leader, NEW)
    row = leader.replica(NEW).state.read(moved)
    assert row is not None
    assert row.value == b"again"


def test_a_client_that_asks_a_node_itself_is_told_that_the_key_has_moved(grow: Grow) -> None:
    """It may not be sent on: it will come back with the new map."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    leader = leader_of(cluster, OLD)
    leader.data.held = True  # nothing is born here for now
    ask(cluster)
    cluster.run_until(lambda: is_cut(leader))
    key = next(k for n in range(20) if not leader.replica(OLD).state.owns(k := b"k%d" % n))
    body = encode_body(Op.PUT, 0, 0, 0, key, b"v")
    direct = cluster.submit(leader, Op.PUT, body, OLD, key=key, forwarded=True)
    waits = cluster.submit(leader, Op.PUT, body, OLD, key=key)
    read = cluster.submit(leader, Op.GET, encode_body(Op.GET, key), OLD, key=key, write=False)
    cluster.settle()
    assert direct.one[0] == Status.WRONG_SHARD
    assert direct.outcome == 0
    assert waits.all == read.all == []
    leader.data.held = False
    cluster.run_until(lambda: bool(waits.all and read.all))
    assert waits.one[0] == read.one[0] == Status.OK
    assert isinstance(read.one[1], list)
    assert read.one[1][0] is not None, "the key is said to be absent"


def test_a_write_that_was_done_before_the_split_is_not_done_again_behind_it(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    node = cluster.nodes[0]
    opened = cluster.submit(node, Op.SESSION_OPEN, encode_body(Op.SESSION_OPEN, OLD), OLD)
    cluster.run_until(lambda: bool(opened.all))
    session = opened.one[1][0]  # type: ignore[index]

    def write(n: int) -> tuple[int, object]:
        body = encode_body(Op.PUT, session, n + 1, 0, b"s%d" % n, b"v")
        replies = cluster.submit(node, Op.PUT, body, OLD, key=b"s%d" % n)
        cluster.run_until(lambda: bool(replies.all))
        return replies.one

    first = [write(n) for n in range(20)]
    split(cluster)
    assert {node.host.shard_of(b"s%d" % n) for n in range(20)} == {OLD, NEW}
    assert [write(n) for n in range(20)] == first
    assert {status for status, _ in (write(n) for n in range(20, 30))} == {Status.OK}


def test_a_session_of_one_half_is_never_taken_for_one_of_the_other(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    split(cluster)
    node = cluster.nodes[0]
    sessions = []
    for shard in (OLD, NEW):
        for _ in range(5):
            body = encode_body(Op.SESSION_OPEN, shard)
            opened = cluster.submit(node, Op.SESSION_OPEN, body, shard)
            cluster.run_until(lambda opened=opened: bool(opened.all))  # type: ignore[misc]
            sessions.append(opened.one[1][0])  # type: ignore[index]
    assert len(set(sessions)) == 10
    key = key_in(node, NEW)
    body = encode_body(Op.PUT, sessions[0], 1, 0, key, b"v")
    replies = cluster.submit(node, Op.PUT, body, OLD, key=key)
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.SESSION_EXPIRED


def test_the_new_shard_is_led_as_soon_as_a_majority_has_it(grow: Grow) -> None:
    """The first to have it finds nobody to vote for it. It asks again before a timeout."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    leader = leader_of(cluster, OLD)
    others = [node for node in cluster.nodes if node is not leader]
    for node in others:
        node.data.held = True
    ask(cluster)
    cluster.run_until(lambda: NEW in leader.host.replicas)
    cluster.run(400)
    assert not leader.replica(NEW).leads
    others[0].data.held = False
    cluster.run(100)
    assert leader.replica(NEW).leads
    others[1].data.held = False
    cluster.run_until(lambda: is_told(cluster) and cluster.converged())


def test_a_newborn_that_nobody_hears_does_not_ask_for_ever(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 20)
    leader = leader_of(cluster, OLD)
    for node in cluster.nodes:
        node.data.held = node is not leader
    ask(cluster)
    cluster.run_until(lambda: NEW in leader.host.replicas)
    term = leader.replica(NEW).raft.term
    cluster.run(10_000)
    assert leader.replica(NEW).raft.term == term, "it costs terms"
    assert repr(leader.host.residence.births) == "<Births of [], 0 to lead>"
    for node in cluster.nodes:
        node.data.held = False
    cluster.run_until(lambda: is_told(cluster))


# --- who lags, joins, or has lost what was cut off --------------------------------------


def test_a_follower_that_was_away_lives_the_split_itself(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 50)
    away = follower_of(cluster)
    cluster.crash(away)
    split(cluster)
    write_some(cluster, 50, b"later")
    away.restart()
    seen: list[int] = []  # where the new shard's log began, whenever it was there
    for _ in range(200):
        cluster.tick()
        if NEW in away.host.replicas:
            seen.append(away.replica(NEW).raft.log.snapshot.index)
    cluster.run_until(cluster.converged)
    assert seen
    assert min(seen) > 50, "it was made empty although its rows were here"
    assert cluster.snapshots_sent == 0
    assert away.replica(NEW).state.extent.keys > 10


def test_a_follower_that_a_snapshot_took_over_the_split_is_given_the_new_shard_too(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, shards=1, settings=SMALL)
    for _ in range(2):
        cluster.join()
    cluster.run_until(cluster.grown)
    write_some(cluster, 50)
    away = follower_of(cluster)
    flush(cluster, away)
    last = away.replica(OLD).raft.last_index
    cluster.crash(away)
    split(cluster)
    for n in range(50):
        cluster.put(cluster.alive[0], b"f%d" % n, b"x" * 10_000)
    cluster.run(70_000)  # logs are flushed, checkpointed and cut
    cut = [node.replica(OLD).raft.log.snapshot.index for node in cluster.alive]
    assert min(cut) > last + 1, "the split is in the log still"
    away.restart()
    cluster.run_until(lambda: NEW in away.host.replicas and cluster.converged())
    assert cluster.snapshots_sent >= 2
    check_written(cluster, away, 50)
    cluster.close()


def test_who_is_about_to_move_away_from_a_new_shard_votes_in_it_until_then(
    tmp_path: Path,
) -> None:
    """The simulator's seed 20945: one of three had missed the split and was not wanted any
    more when it heard of the new shard; when another was damaged, there was no majority."""
    cluster = Cluster(tmp_path, shards=1, settings=SMALL)
    for _ in range(3):
        cluster.join()
    cluster.run_until(lambda: cluster.grown_shard(OLD, 3))
    away = next(
        node for node in cluster.nodes if OLD in node.host.replicas and not node.replica(OLD).leads
    )
    admin(cluster, Op.SHARD_HOLD, META_SHARD, True)  # the move gets no further than the wish
    cluster.crash(away)
    split(cluster)
    for n in range(50):
        cluster.put(cluster.alive[0], b"f%d" % n, b"x" * 10_000)
    cluster.run(70_000)  # logs are flushed, checkpointed and cut
    record = cluster.alive[0].host.view.shards[NEW]
    elsewhere = [node.number for node in cluster.alive]
    admin(cluster, Op.META_PLACE, NEW, record.placement_version, elsewhere)
    away.restart()
    cluster.run_until(lambda: NEW in away.host.replicas and away.replica(NEW).state.index > 0)
    other = next(n for n in cluster.alive if n.number in record.nodes and n is not away)
    cluster.crash(other)
    cluster.run_until(lambda: cluster.leader(NEW) is not None)
    other.restart()
    admin(cluster, Op.SHARD_HOLD, META_SHARD, False)
    cluster.run_until(lambda: NEW not in away.host.replicas and cluster.grown_shard(NEW, 3))
    cluster.close()


def admin(cluster: Cluster, op: Op, *fields: object) -> None:
    replies = cluster.submit(cluster.alive[0], op, encode_body(op, *fields), META_SHARD)
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK, replies.one


def test_who_joins_behind_a_split_lives_through_the_old_log_or_is_sent_a_snapshot(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow(shards=1)
    monkeypatch.setattr(steward, "placements", lambda *_: [])  # or one is moved back, for balance
    write_some(cluster, 50)
    split(cluster)
    assert leader_of(cluster, OLD).replica(OLD).raft.log.snapshot.index == 0
    newcomer = cluster.join()
    leaver = follower_of(cluster)
    for shard in (OLD, NEW):
        nodes = [n.number for n in cluster.nodes if n is not leaver]

        def placed(shard: int = shard, nodes: list[int] = nodes) -> bool:
            record = cluster.nodes[0].host.view.shards[shard]
            body = encode_body(Op.META_PLACE, shard, record.placement_version, nodes)
            replies = cluster.submit(cluster.nodes[0], Op.META_PLACE, body, META_SHARD)
            cluster.run_until(lambda: bool(replies.all))
            return replies.one[0] == Status.OK

        cluster.run_until(placed)
        cluster.run_until(lambda shard=shard: cluster.grown_shard(shard, 3))  # type: ignore[misc]
    cluster.run_until(lambda: {OLD, NEW} <= set(newcomer.host.replicas) and cluster.converged())
    for shard in (OLD, NEW):
        record = newcomer.host.view.shards[shard]
        assert newcomer.replica(shard).state.extent.arc == (record.hash_lo, record.hash_hi)
    check_written(cluster, newcomer, 50)


@pytest.mark.parametrize("on_its_way", [False, True])
def test_what_was_cut_off_from_a_damaged_replica_is_fetched_unless_it_is_on_its_way_to_the_disk(
    grow: Grow, on_its_way: bool
) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 50)
    unlucky = follower_of(cluster)
    unlucky.data.held = True
    if not on_its_way:
        unlucky.host.flusher.when_flushed(lambda: None)  # it is busy for a while
    ask(cluster)
    cluster.run_until(lambda: is_cut(unlucky))
    unlucky.host.on_damage(unlucky.replica(OLD), Corrupt(OLD, "a row is damaged"))
    unlucky.data.held = False
    cluster.run_until(lambda: is_told(cluster))
    cluster.run_until(lambda: NEW in unlucky.host.replicas)
    cluster.run_until(lambda: len(cluster.hashes(NEW)) == 1)
    assert cluster.snapshots_sent == (0 if on_its_way else 1)
    flush(cluster, unlucky)
    applied = unlucky.data_db.applied()
    assert (applied[OLD].rows == applied[NEW].rows) == on_its_way
    assert unlucky.replica(NEW).state.extent.keys > 10


def test_a_half_that_was_removed_from_a_node_before_is_not_brought_back_to_life(
    grow: Grow,
) -> None:
    """It may have voted. What the log of the old shard makes of it once more is dropped."""
    cluster = grow(shards=1)
    write_some(cluster, 20)
    node = follower_of(cluster)
    ask(cluster)
    planned = leader_of(cluster, META_SHARD).host.view.shards[OLD].split
    assert planned is not None
    dead = next(half.replica_new for half in planned.replicas if half.node == node.number)
    node.raft_db.remove_replica(NEW, dead)
    cluster.run_until(lambda: is_cut(node) and not node.host.residence.births.expects(NEW))
    assert NEW not in node.host.replicas
    assert NEW not in node.data_db.applied()
    cluster.run_until(lambda: NEW in node.host.replicas and len(cluster.hashes(NEW)) == 1, 60_000)
    assert node.replica(NEW).id > dead
    assert node.host.residence.unsound() == []


def test_a_replica_that_was_here_before_the_split_is_left_alone(grow: Grow) -> None:
    cluster = grow(shards=1)
    write_some(cluster, 50)
    slow = follower_of(cluster)
    before = {node: node.replica(OLD) for node in cluster.nodes}
    cluster.cut(slow, *[node for node in cluster.nodes if node is not slow])
    ask(cluster)
    cluster.run_until(lambda: cluster.leader(NEW) is not None)
    record = leader_of(cluster, OLD).host.view.shards[OLD]
    report = leader_of(cluster, NEW).replica(NEW).raft.configuration
    (own,) = [r for r, node in report.nodes.items() if node == slow.number]
    slow.raft_db.create_replica(NEW, own, None)
    slow.host.residence._try_open(NEW, own)
    made = slow.replica(NEW)
    cluster.heal()
    cluster.run_until(lambda: is_cut(slow) and is_told(cluster) and cluster.converged())
    assert slow.replica(NEW) is made
    assert slow.replica(OLD) is before[slow]
    assert cluster.snapshots_sent == 1, record
    flush(cluster, slow)
    applied = slow.data_db.applied()
    assert applied[NEW].rows != applied[OLD].rows
