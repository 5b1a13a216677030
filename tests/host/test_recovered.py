"""One of three nodes goes on by ``kritad recover``: what its replicas know of each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
    for each in cluster.nodes:
        cluster.crash(each)
    node.path.chmod(0o700)
    said: list[str] = []
    arguments = ["--apply", "--data_dir", str(node.path), "--keep", str(node.number), "--yes"]
    status = recover.run(arguments, said.append, said.append, lambda _: "")
    assert status == recover.EXIT_OK, said
    node.restart()
    cluster.run_until(lambda: all(replica.leads for replica in node.host.replicas.values()))
    return "\n".join(said)


def test_no_number_is_given_again_that_is_in_use_where_the_meta_shard_does_not_know_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: one number became two shards, one of which took the other's clients."""
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
