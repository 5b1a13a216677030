"""Giving leadership away: to whom, in which order, and what a disk that hangs does."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.operations import Op
from kritad.host.leaders import Word
from kritad.host.leadership import _SILENT_MS
from tests.host.cluster import SETTINGS, Cluster, Grow, Node, grown_cluster

ELECTION_MS = 1000


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    grown = grown_cluster(tmp_path, shards=1)
    grown.run(2000)
    return grown


def leader_of(cluster: Cluster, shard: int = 1) -> Node:
    leader = cluster.leader(shard)
    assert leader is not None
    return leader


def asked(node: Node, times: int) -> list[int]:
    """Whom the node asks to take shard 1 over, when each of them fails to."""
    raft = node.replica(1).raft
    heirs = []
    for _ in range(times):
        node.host.leadership.hand_over()
        heirs.append(raft.transferring)
        raft.transferring = 0
    return heirs


def test_an_heir_that_did_not_take_it_is_asked_again_only_after_all_others(
    cluster: Cluster,
) -> None:
    """Of three disks two may hang: whoever is asked for ever may be the wrong one."""
    leader = leader_of(cluster)
    heirs = asked(leader, 4)
    assert len(set(heirs[:2])) == 2
    assert heirs[2:] == heirs[:2]


def test_the_most_advanced_is_asked_first(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    progress = leader.replica(1).raft.progress
    lagging = max(member for member in progress if member != leader.replica(1).id)
    progress[lagging].match -= 1
    assert asked(leader, 1) != [lagging]


def test_a_stall_of_half_an_election_timeout_hands_over(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    leadership, raft = leader.host.leadership, leader.replica(1).raft
    leadership.note_stall(ELECTION_MS / 2, ELECTION_MS)
    assert not raft.transferring
    leadership.note_stall(ELECTION_MS / 2 + 1, ELECTION_MS)
    assert raft.transferring
    assert leader.replica(1).leads


def test_a_node_whose_disk_stalls_takes_no_leadership(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    other = next(node for node in cluster.nodes if node is not leader)
    leader.host.leadership.note_stall(600, ELECTION_MS)
    cluster.settle()
    assert leader.number not in leader.host.leadership.candidates()
    assert leader.number not in other.host.leadership.candidates()
    leader.host.leadership.note_stall(0, ELECTION_MS)
    cluster.settle()
    assert leader.number in other.host.leadership.candidates()


def test_a_leader_whose_disk_hangs_is_replaced_though_its_first_heirs_hangs_too(
    tmp_path: Path,
) -> None:
    """Five nodes: a leader that went on sending heartbeats would keep all of them waiting,
    and the one that it asked cannot even vote for itself."""
    cluster = Cluster(tmp_path, shards=1, factor=5)
    for _ in range(4):
        cluster.join()
    cluster.run_until(lambda: cluster.grown_shard(1, 5))
    cluster.run(2000)
    leader = leader_of(cluster)
    first = asked(leader, 1)[0]
    leader.host.leadership._asked.clear()
    heir = next(node for node in cluster.nodes if node.replica(1).id == first)
    leader.log.held = heir.log.held = True
    cluster.put(leader, b"k", b"v")  # something that its disk has to save

    def replaced() -> bool:
        now = cluster.leader(1)
        return now is not None and now not in (leader, heir)

    cluster.run_until(replaced, 10_000)
    written = cluster.put(leader_of(cluster), b"l", b"w")
    cluster.run_until(lambda: bool(written.all))
    assert written.one[0] == 0
    cluster.close()


def test_a_leader_that_nobody_could_replace_stays(grow: Grow) -> None:
    cluster = grow(shards=1)
    cluster.run(2000)
    leader = leader_of(cluster)
    for node in cluster.nodes:
        if node is not leader:
            cluster.crash(node)
    for progress in leader.replica(1).raft.progress.values():
        progress.recent_active = False
    leader.host.leadership.note_stall(10 * ELECTION_MS, ELECTION_MS)
    assert leader.replica(1).leads


def test_a_node_that_only_keeps_its_connections_is_not_present(cluster: Cluster) -> None:
    """A process that hangs answers nothing, and its kernel acknowledges everything."""
    watcher, hung = cluster.nodes[0], cluster.nodes[2]
    assert hung.number in watcher.host.leadership.present()
    cluster.network.cut.add((hung.number, watcher.number))  # one way: it is not heard
    cluster.run(int(_SILENT_MS) + 1500)
    assert hung.number in watcher.host.transport.reachable()
    assert hung.number not in watcher.host.leadership.present()


def test_what_a_node_says_to_be_damaged_counts_while_the_node_can_be_counted_on(
    cluster: Cluster,
) -> None:
    one, two = cluster.nodes[0], cluster.nodes[1]
    leadership = one.host.leadership
    leadership.hear(two.number, Word([], damaged=[(1, 77)]).encode())
    assert leadership.damaged() == {(1, 77)}
    cluster.cut(two, *[node for node in cluster.nodes if node is not two])
    assert leadership.damaged() == set()
    cluster.heal()
    cluster.run(2000)
    assert leadership.damaged() == set(), "it was well again when it spoke next"


def ask(cluster: Cluster, node: Node, seconds: int, *, forwarded: bool = False) -> None:
    """A hundred reads of shard 1 in each second, of a client of this node's."""
    body = encode_body(Op.GET, b"k")
    for _ in range(20 * seconds):
        for _ in range(5):
            cluster.submit(node, Op.GET, body, 1, key=b"k", write=False, forwarded=forwarded)
        cluster.run(50)


def follower_of(cluster: Cluster) -> Node:
    leader = leader_of(cluster)
    return next(node for node in cluster.nodes if node is not leader)


def test_a_leader_goes_where_the_requests_come_in(cluster: Cluster) -> None:
    asked = follower_of(cluster)
    ask(cluster, asked, 6)
    assert leader_of(cluster) is asked
    ask(cluster, asked, 6)
    assert leader_of(cluster) is asked, "and stays there"


def test_a_leader_stays_where_clients_come_by_themselves(cluster: Cluster) -> None:
    leader = leader_of(cluster)
    ask(cluster, leader, 6, forwarded=True)
    assert leader.host.leadership.homes() == {}
    assert leader_of(cluster) is leader


def test_what_a_node_that_is_gone_has_said_of_its_clients_makes_no_home(cluster: Cluster) -> None:
    asked, leader = follower_of(cluster), leader_of(cluster)
    leader.host.leadership.hear(asked.number, Word([], demand=[(1, 900, 0)]).encode())
    assert leader.host.leadership.homes() == {1: asked.number}
    cluster.cut(asked, *[node for node in cluster.nodes if node is not asked])
    assert leader.host.leadership.homes() == {}


def test_leaders_do_not_follow_if_people_do_not_want_that(tmp_path: Path) -> None:
    fixed = attrs.evolve(SETTINGS, leaders_follow_requests_per_s=0)
    cluster = grown_cluster(tmp_path, shards=1, settings=fixed)
    cluster.run(2000)
    leader = leader_of(cluster)
    ask(cluster, follower_of(cluster), 6)
    assert leader_of(cluster) is leader
