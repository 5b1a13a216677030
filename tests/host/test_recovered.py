"""One of three nodes goes on by ``kritad recover``: what its replicas know of each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from krita.errors import Status
from kritad import recover
from kritad.cluster.model import CLUSTER_KEY, ClusterRecord
from kritad.host.bootstrap import META_SHARD
from kritad.raft.messages import Append, Message
from tests.host.cluster import Cluster, Node, grown_cluster, write_some
from tests.host.splits import ask

OLD, OTHER, NEW = 1, 2, 3


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = grown_cluster(tmp_path, 3, shards=2)
    write_some(made, 30)
    made.run(1000)
    return made


def survivor(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *lagging: int) -> Node:
    """A node that leads nothing that matters; of these shards it gets no entries any more."""
    led = (cluster.leader(OLD), cluster.leader(META_SHARD))
    node = next(node for node in cluster.nodes if node not in led)
    step: Callable[[int, Message], None] = node.host.step

    def hear(sender: int, message: Message) -> None:
        if message.shard not in lagging or not isinstance(message, Append):
            step(sender, message)

    monkeypatch.setattr(node.host, "step", hear)
    return node


def go_on_with(cluster: Cluster, node: Node) -> str:
    """All stop, and only that one is left; what the recovery has said."""
    for each in cluster.alive:
        cluster.crash(each)
    node.path.chmod(0o700)
    said: list[str] = []
    arguments = ["--apply", "--data_dir", str(node.path), "--keep", str(node.number), "--yes"]
    status = recover.run(arguments, said.append, said.append, lambda _: "")
    assert status == recover.EXIT_OK, said
    node.restart()
    cluster.run_until(lambda: node.replica(META_SHARD).leads)
    cluster.run(5000)
    return "\n".join(said)


def check_all(cluster: Cluster, node: Node) -> None:
    replies = [cluster.get(node, b"k%d" % number) for number in range(30)]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    for number, reply in enumerate(replies):
        assert (reply.one[0], reply.one[1][0]) == (Status.OK, b"value %d" % number)  # type: ignore[index]


def test_a_shard_that_the_meta_shard_has_not_heard_of_is_served_and_its_number_is_its_own(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: its keys were out of reach, and its number became a second group of replicas."""
    node = survivor(cluster, monkeypatch, META_SHARD)
    ask(cluster, OLD)
    cluster.run_until(lambda: NEW in node.host.replicas and cluster.leader(NEW) is not None)
    assert NEW not in node.host.view.shards
    newest = max(replica.id for replica in node.host.replicas.values())
    go_on_with(cluster, node)
    data = node.replica(META_SHARD).state.records.get(CLUSTER_KEY)
    assert data is not None
    known = ClusterRecord.decode(data)
    assert known.shard_next > NEW
    assert known.replica_next > newest
    assert known.node_next > max(each.number for each in cluster.nodes)
    assert node.host.view.shards[NEW].report.voters == (node.number,)
    check_all(cluster, node)


@pytest.mark.parametrize("in_the_log", [False, True])
def test_a_shard_that_was_not_split_off_on_the_survivors_disk_is_taken_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, in_the_log: bool
) -> None:
    """Seen: the meta shard had heard of the split, which the survivor's log lacked. Half of
    its rows were nobody's. If the log has it, and the state has not, it is done."""
    node = survivor(cluster, monkeypatch, *(() if in_the_log else (OLD, NEW)))
    node.host.flusher.when_flushed(lambda: None)
    cluster.settle()
    node.data.held = in_the_log
    ask(cluster, OLD)
    cluster.run_until(lambda: NEW in node.host.view.shards and cluster.leader(NEW) is not None)
    assert NEW not in node.host.replicas
    node.data.held = False
    said = go_on_with(cluster, node)
    assert (NEW in node.host.view.shards) is in_the_log
    assert (f"once more for shard {NEW}" in said) is in_the_log
    if in_the_log:  # it is born with the three voters that it was split off with
        assert not node.replica(NEW).leads
        go_on_with(cluster, node)
    check_all(cluster, node)
