"""Three hosts on real databases: growing, serving, losing leaders and whole nodes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.errors import Foreign, Status
from krita.operations import Op
from kritad.host.bootstrap import META_SHARD
from kritad.host.peer_codec import encode_messages
from kritad.raft.messages import Heartbeat
from kritad.raft.types import Role
from tests.host.cluster import Cluster, Grow, check_written, write_some
from tests.host.lone import Replies


def test_a_bootstrapped_node_leads_every_shard_and_knows_the_ring(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=4)
    host = cluster.nodes[0].host
    assert {shard for shard, replica in host.replicas.items() if replica.leads} == {0, 1, 2, 3, 4}
    shard_map = host.build_shard_map()
    assert shard_map is not None
    assert [info.shard for info in shard_map.shards] == [1, 2, 3, 4]
    cluster.close()


def test_a_restart_goes_on_as_the_same_node_with_the_same_data(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, factor=1)
    node = cluster.nodes[0]
    write_some(cluster, 5)
    boot_counter = node.identity.boot_counter
    cluster.crash(node)
    node.restart()
    cluster.run_until(lambda: cluster.leader(1) is node)
    assert node.identity.boot_counter == boot_counter + 1
    check_written(cluster, node, 5)
    cluster.close()


def test_growing_to_three_nodes_puts_a_voter_of_every_shard_on_each(grow: Grow) -> None:
    cluster = grow()
    cluster.run(500)
    for shard in (META_SHARD, 1, 2):
        configurations = {
            frozenset(
                node.replica(shard).raft.configuration.nodes[r]
                for r in node.replica(shard).raft.configuration.voters
            )
            for node in cluster.nodes
        }
        assert configurations == {frozenset({1, 2, 3})}


def test_every_node_takes_writes_and_reads_and_sends_them_to_the_leader(grow: Grow) -> None:
    cluster = grow()
    before = cluster.network.forwarded
    write_some(cluster, 12)
    assert cluster.network.forwarded > before
    for node in cluster.nodes:
        check_written(cluster, node, 12)


def test_replicas_end_with_the_same_state_hash_at_the_same_index(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    cluster.run_until(cluster.converged)
    assert all(len(cluster.hashes(shard)) == 1 for shard in (META_SHARD, 1, 2))


def test_what_was_acknowledged_survives_the_crash_of_the_leader(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    leader = cluster.leader(1)
    assert leader is not None
    cluster.crash(leader)
    cluster.run_until(lambda: cluster.leader(1) is not None)
    other = cluster.alive[0]
    check_written(cluster, other, 20)
    write_some(cluster, 5, b"later")
    leader.restart()
    cluster.run_until(cluster.converged)
    check_written(cluster, leader, 5, b"later")


def test_a_dead_leader_is_replaced_within_two_election_timeouts_and_a_bit(grow: Grow) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    cluster.crash(leader)
    before = cluster.clock.monotonic_ms()
    cluster.run_until(lambda: cluster.leader(1) is not None)
    assert cluster.clock.monotonic_ms() - before <= 2.5 * cluster.settings.election_ms


def test_the_crash_of_all_nodes_at_once_loses_nothing_acknowledged(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    for node in cluster.nodes:
        cluster.crash(node)
    for node in cluster.nodes:
        node.restart()
    cluster.run_until(lambda: cluster.leader(1) is not None)
    check_written(cluster, cluster.nodes[0], 20)
    cluster.run_until(cluster.converged)


def test_a_write_without_a_majority_ends_unknown_and_not_acknowledged(grow: Grow) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    cluster.cut(leader, *(node for node in cluster.nodes if node is not leader))
    replies = cluster.put(leader, b"k", b"v")
    cluster.run(12_000)
    assert replies.one[0] == Status.UNKNOWN
    assert replies.outcome == 2


def test_a_cut_off_leader_stops_leading_and_its_reads_are_never_stale(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 1)
    old = cluster.leader(1)
    assert old is not None
    others = [node for node in cluster.nodes if node is not old]
    cluster.cut(old, *others)
    replies = cluster.get(old, b"k0")
    cluster.run_until(lambda: cluster.leader(1) in others)
    assert cluster.put(others[0], b"k0", b"newer").all == []
    cluster.run(3000)
    assert old.replica(1).raft.role is not Role.LEADER
    assert all(status != Status.OK for status, _ in replies.all)
    cluster.heal()
    cluster.run_until(lambda: bool(replies.all))
    if replies.one[0] == Status.OK:
        body = replies.one[1]
        assert isinstance(body, list)
        assert body[0] == b"newer"


def test_a_read_that_waits_for_a_leader_is_answered_by_the_next_one(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 1)
    leader = cluster.leader(1)
    assert leader is not None
    cluster.crash(leader)
    assert cluster.read(cluster.alive[0], b"k0") == b"value 0"


def test_a_write_that_was_proposed_on_a_cut_off_leader_is_settled_by_proof(grow: Grow) -> None:
    cluster = grow()
    old = cluster.leader(1)
    assert old is not None
    others = [node for node in cluster.nodes if node is not old]
    cluster.cut(old, *others)
    lost = cluster.put(old, b"lost", b"v")
    cluster.run_until(lambda: cluster.leader(1) in others)
    cluster.put(others[0], b"other", b"v")
    cluster.run(1000)
    assert lost.all == [], "answered before anything was known"
    cluster.heal()
    cluster.run_until(lambda: bool(lost.all))
    assert lost.one[0] == Status.UNAVAILABLE
    assert lost.outcome == 0, "another term's entry stands in its place: surely not applied"
    assert cluster.read(old, b"lost") is None


def test_leadership_moves_when_it_is_asked_to(grow: Grow) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    heir = next(node for node in cluster.nodes if node is not leader)
    body = encode_body(Op.LEADER_TRANSFER, 1, heir.number)
    key = str(heir.number).encode()
    replies = cluster.submit(leader, Op.LEADER_TRANSFER, body, 1, key=key, write=False)
    cluster.settle()
    assert replies.one == (Status.OK, [heir.number])
    assert cluster.leader(1) is heir


def test_leaders_spread_over_the_nodes(grow: Grow) -> None:
    cluster = grow(shards=4)
    cluster.run(5000)
    counts = [sum(cluster.leader(shard) is node for shard in range(1, 5)) for node in cluster.nodes]
    assert max(counts) - min(counts) <= 1, counts


def test_a_quiet_cluster_proposes_nothing_more(grow: Grow) -> None:
    cluster = grow()
    cluster.run(5000)
    before = [cluster.nodes[0].replica(shard).raft.last_index for shard in (META_SHARD, 1, 2)]
    cluster.run(10_000)
    after = [cluster.nodes[0].replica(shard).raft.last_index for shard in (META_SHARD, 1, 2)]
    assert after == before, "somebody proposes for ever"


def test_stopping_hands_leadership_over_and_leaves_nothing_led(grow: Grow) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    assert leader.host.leadership.hand_over() > 0
    cluster.settle()
    assert leader.host.leadership.hand_over() == 0
    assert cluster.leader(1) is not leader


def test_a_node_whose_disk_is_full_leads_nothing_until_it_has_room_again(grow: Grow) -> None:
    cluster = grow(shards=4)
    shards = range(1, 5)
    full = cluster.nodes[0]
    cluster.run_until(lambda: any(cluster.leader(shard) is full for shard in shards))
    full.host.note_space(0, low=True)
    cluster.run_until(lambda: all(cluster.leader(shard) not in (None, full) for shard in shards))
    for _ in range(20):  # and nobody hands it anything back for the sake of balance
        cluster.run(500)
        full.host.note_space(0, low=True)
        assert all(cluster.leader(shard) is not full for shard in shards)
    full.host.note_space(1 << 40, low=False)
    cluster.run_until(lambda: any(cluster.leader(shard) is full for shard in shards))


def test_with_every_disk_full_leadership_stays_where_it_is(grow: Grow) -> None:
    cluster = grow()
    for node in cluster.nodes:
        node.host.note_space(0, low=True)
    cluster.run(3000)
    before = [
        replica.raft.term for node in cluster.nodes for replica in node.host.replicas.values()
    ]
    for _ in range(10):
        cluster.run(1000)
        for node in cluster.nodes:
            node.host.note_space(0, low=True)
    after = [replica.raft.term for node in cluster.nodes for replica in node.host.replicas.values()]
    assert after == before


def test_an_unknown_message_or_one_for_a_replica_not_here_is_dropped(grow: Grow) -> None:
    cluster = grow()
    host = cluster.nodes[0].host
    host.deliver(2, Op.PING, b"\x80")
    replica = host.replicas[1]
    term = replica.raft.term
    heartbeat = encode_heartbeat(shard=1, recipient=999, term=term + 50)
    host.deliver(2, Op.RAFT, heartbeat)
    assert replica.raft.term == term


def encode_heartbeat(shard: int, recipient: int, term: int) -> bytes:
    return encode_messages([Heartbeat(shard, 1, recipient, term, 0, 0)])


def test_two_nodes_with_one_down_still_answer_stale_reads_with_their_age(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 1)
    cluster.run(1000)
    node = next(n for n in cluster.nodes if n is not cluster.leader(1))
    assert (node.replica(1).staleness_ms(cluster.clock) or 0) <= cluster.settings.heartbeat_ms + 50
    cluster.cut(node, *(n for n in cluster.nodes if n is not node))
    cluster.run(5000)
    assert (node.replica(1).staleness_ms(cluster.clock) or 0) >= 5000


def test_a_replica_that_is_still_being_filled_serves_no_stale_reads(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1)
    joiner = cluster.join()
    cluster.run_until(lambda: 1 in joiner.host.replicas)
    assert joiner.replica(1).staleness_ms(cluster.clock) is None
    cluster.run_until(lambda: cluster.grown(2))
    assert joiner.replica(1).staleness_ms(cluster.clock) is not None
    cluster.close()


def test_another_disk_under_a_known_name_is_turned_away(grow: Grow) -> None:
    cluster = grow()
    host, other = cluster.nodes[0].host, cluster.nodes[1].identity
    host.admit_peer(other)
    with pytest.raises(Foreign, match="is known with store"):
        host.admit_peer(attrs.evolve(other, store_uuid=b"?" * 16))


def test_the_requests_of_a_crashed_node_s_peer_end_unknown_for_writes(grow: Grow) -> None:
    cluster = grow()
    cluster.run(2000)  # everybody has heard who leads
    leader = cluster.leader(1)
    assert leader is not None
    other = next(n for n in cluster.nodes if n is not leader)
    replies = cluster.put(other, b"k", b"v")  # on its way to the leader
    assert cluster.network.frames
    cluster.crash(leader)
    cluster.settle()
    assert replies.one[0] == Status.UNKNOWN


def test_a_read_on_its_way_to_a_crashed_leader_is_asked_of_the_next(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 1)
    cluster.run(2000)
    leader = cluster.leader(1)
    assert leader is not None
    other = next(n for n in cluster.nodes if n is not leader)
    replies: Replies = cluster.get(other, b"k0")
    cluster.crash(leader)
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK
