"""A node is its data directory. Nobody takes its place with another one."""

from __future__ import annotations

import secrets
import shutil

import attrs
import pytest

from krita import Client, Foreign
from krita.hello import Identity
from kritad.storage.raft_db import RaftDatabase
from tests.system.cluster import Cluster
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.load import Writers, check_kept
from tests.system.node import Node, wait_until
from tests.system.peer import shake_hands

pytestmark = pytest.mark.slow

EXIT_FAILURE = 1
EXIT_CONFIG = 78
WRONG = "with the wrong data directory"
ANNOUNCED = "ready: serving"  # is logged after the cluster was told of this start


def test_a_node_whose_directory_was_wiped_joins_as_a_new_node(cluster: Cluster) -> None:
    with Writers(cluster.addresses) as writers:
        writers.wait_more(100)
        node = cluster.nodes[2]
        old_id = cluster.node_status(node)["node"]
        node.kill()
        shutil.rmtree(node.data_dir)
        node.restart()
        writers.wait_more(100)
    assert not writers.errors
    new_id = cluster.node_status(node)["node"]
    assert new_id not in {old_id, *(cluster.node_status(n)["node"] for n in cluster.nodes[:2])}
    check_kept(writers.keys, [node.address])
    # The old id is still a member, whose disk is gone: nothing may pass for it.
    assert {entry["node"] for entry in cluster.wait_status()["nodes"]} == {1, 2, 3, new_id}
    advice = f"if its directory is lost for good: kritash node remove {old_id} --yes"
    assert advice in node.log_text()
    assert advice in cluster.nodes[0].log_text()


def test_a_wiped_directory_that_begins_a_cluster_of_its_own_is_found_out_on_both_sides(
    cluster: Cluster,
) -> None:
    asked, node = cluster.nodes[1:]
    with cluster.client() as db:
        db.put("whose", b"ours")
        ours_id = db.ping().cluster_id
    old_id = cluster.id_of(node)
    node.kill()
    shutil.rmtree(node.data_dir)
    node.flags = [flag for flag in node.flags if not flag.startswith("--join_ip")]
    node.restart()
    what = "with an empty one and without join_ip, and so began a cluster of its own"
    node.wait_logged(f"takes it for one of its own (one of the two was started {WRONG}; or {what}")
    assert f"of cluster {ours_id}" in node.log_text()
    sentence = f"node {old_id} at {node.address} (urgent): this node belongs to cluster"
    wait_until("the others say who is there", lambda: sentence in asked.log_text())
    assert what in asked.log_text()
    assert cluster.nodes[0].http("GET", "/v1/kv/whose") == (200, b"ours")


def test_a_directory_that_was_rolled_back_is_refused_at_its_first_start(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    with cluster.client() as db:
        db.put("before", b"1")
        assert node.terminate() == 0
        copy = node.data_dir.with_name("copy")
        shutil.copytree(node.data_dir, copy)
        node.restart()  # once: from here on the copy counts as many boots as its original
        node.wait_logged(ANNOUNCED)
        db.put("after", b"2")
        assert node.terminate() == 0
        shutil.rmtree(node.data_dir)
        copy.rename(node.data_dir)
        for _ in range(3):  # and at every further one, when it counts more
            node.start()
            assert node.wait_exit() == EXIT_CONFIG
            said = node.log_tail(6)
            assert "rolled back" in said
            assert "join it as a new node" in said
        assert db.put("still", b"3").existed is False


def test_a_copy_of_a_directory_is_refused_while_the_original_runs(cluster: Cluster) -> None:
    original = cluster.nodes[2]
    number = cluster.id_of(original)
    original.wait_logged(ANNOUNCED)
    copy = cluster.add_node()
    original.pause()  # its files stand still, as in a snapshot of the machine
    shutil.copytree(original.data_dir, copy.data_dir)
    original.resume()
    wait_until("the original is back", lambda: original.http("GET", "/readyz")[0] == 200)
    with cluster.client() as db:
        db.put("before", b"1")
        copy.start()
        assert copy.wait_exit() == EXIT_CONFIG
        said = copy.log_tail(4)
        assert f"node {number} is already running at {original.address} (boot 1)" in said
        assert "never start a copy" in said
        db.put("after", b"2")
    cluster.nodes.remove(copy)
    assert original.up
    assert cluster.id_of(original) == number
    cluster.settle()


def test_a_directory_in_use_is_not_started_twice(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    twice = Node(4, cluster.add_node().port, cluster.folder, node.flags, node.environment)
    cluster.nodes.pop()
    twice.data_dir = node.data_dir
    twice.start()
    assert twice.wait_exit() == EXIT_CONFIG
    assert f"is already used by pid {node.pid}" in twice.log_text()
    assert "a --data_dir of its own" in twice.log_text()
    twice.port = node.port  # as by the very same command
    twice.start()
    assert twice.wait_exit() == EXIT_FAILURE
    assert f"{node.port}" in twice.log_tail(2)
    cluster.settle()


def test_a_directory_of_another_cluster_is_no_member_and_the_others_say_so(
    make_cluster: MakeCluster,
) -> None:
    ours, theirs = make_cluster(), make_cluster(count=1)
    ours.start()
    theirs.start()
    with theirs.client() as db:
        db.put("whose", b"theirs")
    stranger = theirs.nodes[0]
    assert stranger.terminate() == 0
    gone = ours.nodes[2]
    lost = ours.node_status(gone)["node"]
    assert gone.terminate() == 0
    shutil.rmtree(gone.data_dir)
    stranger.data_dir.rename(gone.data_dir)
    gone.start()
    with Client(gone.address) as db:  # it goes on as what it is
        wait_until("the stranger answers", lambda: gone.http("GET", "/whose")[0] == 200)
        theirs_id = db.ping().cluster_id
    ours_id = ours.node_status(ours.nodes[0])["cluster_id"]
    assert theirs_id != ours_id
    sentence = f"node {lost} at {gone.address} (urgent): this node belongs to cluster {theirs_id}"
    for node in ours.nodes[:2]:
        wait_until(
            f"node {node.number} says who is where node {lost} should be",
            lambda node=node: sentence in node.log_text(),  # type: ignore[misc]
        )
        assert "wrong data directory" in node.log_text()
    with Client([node.address for node in ours.nodes[:2]]) as db:
        assert db.get("whose") is None
        db.put("whose", b"ours")
    assert gone.http("GET", "/v1/kv/whose") == (200, b"theirs")


# --- those who only say that they are a node ----------------------------------------


def identity_of(node: Node) -> Identity:
    """Who the node at this place is, from its disk: it has to be down."""
    database = RaftDatabase.open(node.data_dir / "raft.db")
    try:
        known = database.identity()
    finally:
        database.close()
    assert known is not None
    return Identity(
        known.cluster_id, known.node_id, known.store_uuid, known.boot_counter, node.address
    )


def test_a_peer_that_is_not_the_node_it_says_to_be_is_refused_with_the_reason(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(count=2, extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.start()
    asked, other = cluster.nodes
    other.terminate()
    other.restart()  # so that a lower boot counter exists
    other.wait_logged(ANNOUNCED)
    cluster.settle()  # the one that is asked has applied it too
    other.terminate()
    true = identity_of(other)
    token = TOKEN.encode()
    assert shake_hands(asked, true, token) is None

    foreign = shake_hands(asked, attrs.evolve(true, cluster_id=secrets.token_bytes(16)), token)
    assert isinstance(foreign, Foreign)
    assert true.cluster_id.hex() in str(foreign)

    exchanged = shake_hands(asked, attrs.evolve(true, store_uuid=secrets.token_bytes(16)), token)
    assert isinstance(exchanged, Foreign)
    assert "joins as a new node" in str(exchanged)

    older = shake_hands(asked, attrs.evolve(true, boot_counter=1), token)
    assert isinstance(older, Foreign)
    assert "your disk was rolled back" in str(older)

    for wrong in (b"", b"another-token-of-a-test"):
        # Each side asks the other for its proof, and the dialler is asked last.
        with pytest.raises(Foreign, match="KRITA_ADMIN_TOKEN"):
            shake_hands(asked, true, wrong)
    assert shake_hands(asked, true, token) is None
