"""A majority is lost for good: what is left goes on, and those who come back do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.system.cluster import META_SHARD, Cluster
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.load import Writers, check_kept
from tests.system.node import Node, run_kritad, wait_until
from tests.system.shell import kritash

pytestmark = pytest.mark.slow

EXIT_CONFIG = 78


def recover(*arguments: str, expected: int = 0) -> str:
    """Run ``kritad recover``; what it said."""
    done = run_kritad("recover", *arguments)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def lose(node: Node, folder: Path) -> Path:
    """Kill it and take its directory away; where a copy of that is."""
    node.kill()
    copy = folder / f"copy{node.number}"
    node.data_dir.rename(copy)
    return copy


def wait_serving(cluster: Cluster, node: Node) -> None:
    """Until ``node`` is ready and every shard has a leader."""
    node.wait_ready()
    wait_until(
        "every shard is led",
        lambda: all(leader for leader in cluster.leaders().values()),
    )


def wait_healed(cluster: Cluster, gone: set[int]) -> None:
    """Until every data shard has three voters, none of them on a node that is gone."""

    def healed() -> bool:
        status = cluster.status()
        if status is None:
            return False
        return all(
            sum(r["role"] in ("leader", "voter") for r in shard["replicas"]) == 3
            and not gone & {r["node"] for r in shard["replicas"]}
            for shard in status["shards"]
            if shard["shard"] != META_SHARD
        )

    wait_until("every shard has three replicas on nodes that are there", healed, 90.0)


def test_one_of_three_nodes_goes_on_with_everything_and_the_lost_ones_stay_out(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.start()
    left, *others = reversed(cluster.nodes)
    with Writers(cluster.addresses) as writers:
        writers.wait_more(300)
    cluster.settle()  # what was acknowledged is on all three
    number = cluster.id_of(left)
    gone = {cluster.id_of(node) for node in others}
    data = f"--data_dir={left.data_dir}"
    refused = recover("--plan", data, expected=EXIT_CONFIG)
    assert f"is already used by pid {left.pid}" in refused
    copies = {node: lose(node, cluster.folder) for node in others}
    left.kill()

    plan = recover("--plan", data, f"--keep={number}")
    for shard in range(5):
        assert f"shard {shard}: replica" in plan
    assert f"give up for ever: {', '.join(map(str, sorted(gone)))}" in plan
    assert "decision" in recover("--apply", data, f"--keep={number}", "--yes")
    assert "done already" in recover("--apply", data, f"--keep={number}", "--yes")

    left.start()
    wait_serving(cluster, left)
    assert "went on with one replica" in left.log_text()
    check_kept(writers.keys, [left.address])
    with Writers(left.address) as later:
        later.wait_more(50)

    # The lost come back from a copy, both at once: a majority of what there was.
    for node, copy in copies.items():
        shutil.copytree(copy, node.data_dir)
        node.start()
    for node in others:
        assert node.wait_exit() == EXIT_CONFIG, node.log_tail(5)
        assert "was given up when this cluster was recovered without it" in node.log_tail(3)
        shutil.rmtree(node.data_dir)
    check_kept(later.keys, [left.address])

    # As new nodes they are welcome.
    for node in others:
        node.flags = [flag for flag in node.flags if not flag.startswith("--join_ip")]
        node.flags.append(f"--join_ip={left.address}")
        node.restart()
    for lost in sorted(gone):
        kritash(cluster, "node", "remove", str(lost), "--yes")
    wait_healed(cluster, gone)
    with Writers(cluster.addresses) as again:
        again.wait_more(50)
    left.kill()
    check_kept(writers.keys | later.keys | again.keys, [node.address for node in others])


def test_two_of_five_nodes_agree_on_the_newest_of_their_logs(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(count=5, flags=["--replication_factor=5"])
    cluster.start()
    with Writers(cluster.addresses) as writers:
        writers.wait_more(200)
    cluster.settle()
    left, lost = cluster.nodes[3:], cluster.nodes[:3]
    keep = f"--keep={','.join(str(cluster.id_of(node)) for node in left)}"
    for node in cluster.nodes:
        node.kill()
    for node in lost:
        shutil.rmtree(node.data_dir)

    plans = []
    for node in left:
        plan = cluster.folder / f"plan{node.number}.json"
        plan.write_text(recover("--plan", f"--data_dir={node.data_dir}", "--json"))
        plans.append(plan)
    assert {json.loads(plan.read_text())["format"] for plan in plans} == {2}
    one, other = left
    alone = recover("--apply", f"--data_dir={one.data_dir}", keep, "--yes", expected=EXIT_CONFIG)
    assert "no plan of node" in alone
    said = [
        recover("--apply", f"--data_dir={node.data_dir}", keep, "--yes", f"--with={plan}")
        for node, plan in ((one, plans[1]), (other, plans[0]))
    ]
    decisions = {line for text in said for line in text.splitlines() if line.startswith("decision")}
    assert len(decisions) == 1, said
    for node in left:
        node.start()
    for node in left:
        wait_serving(cluster, node)
    cluster.settle(2)
    check_kept(writers.keys, [node.address for node in left])

    def followed() -> bool:
        """Both have all of each shard again, as voters."""
        status = cluster.status(one)
        return status is not None and all(
            sum(r["role"] in ("leader", "voter") for r in shard["replicas"]) == 2
            for shard in status["shards"]
            if shard["shard"] != META_SHARD
        )

    wait_until("both survivors vote in every shard", followed)
    cluster.settle(2)
