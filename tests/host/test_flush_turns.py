"""Which shard is flushed when: each in its turn, and the largest first when there is too much."""

from __future__ import annotations

from pathlib import Path

import attrs

from kritad.host.bootstrap import META_SHARD
from tests.host.cluster import SETTINGS, Cluster, grown_cluster, key_in

KIB = 1 << 10


def flushes_of(cluster: Cluster, ms: int) -> dict[tuple[int, int], list[int]]:
    """When each node has flushed each data shard, while all of them are written to."""
    leader = cluster.nodes[0]
    shards = [shard for shard in leader.host.replicas if shard != META_SHARD]
    times: dict[tuple[int, int], list[int]] = {}
    before = {node.number: node.data_db.applied() for node in cluster.nodes}
    for now_ms in range(0, ms, 100):
        for number in range(40):
            cluster.put(leader, b"key %d" % number, b"%d" % now_ms)
        cluster.run(100)
        for node in cluster.nodes:
            after = node.data_db.applied()
            for shard in shards:
                if after[shard].index != before[node.number][shard].index:
                    times.setdefault((node.number, shard), []).append(now_ms)
            before[node.number] = after
    return times


def test_shards_take_turns_and_so_do_the_replicas_of_each(tmp_path: Path) -> None:
    cluster = grown_cluster(tmp_path, shards=4)
    interval_ms = int(cluster.settings.flush_interval_ms)
    cluster.run(2 * interval_ms)
    times = flushes_of(cluster, 3 * interval_ms)
    assert len(times) == 4 * 3
    assert all(len(found) == 3 for found in times.values()), times
    firsts = [found[0] for found in times.values()]
    assert len(set(firsts)) == len(firsts), f"two were flushed at once: {times}"


def test_of_much_the_largest_are_flushed_until_half_is_left(tmp_path: Path) -> None:
    settings = attrs.evolve(SETTINGS, memtable_bytes=100 * KIB, flush_interval_ms=1e9)
    cluster = Cluster(tmp_path, shards=4, factor=1, settings=settings)
    cluster.run(1000)
    node = cluster.nodes[0]
    shards = [shard for shard in node.host.replicas if shard != META_SHARD]
    sizes = dict(zip(shards, (20 * KIB, 60 * KIB, 25 * KIB, 1), strict=True))
    for shard, size in sizes.items():
        cluster.put(node, key_in(node, shard), b"x" * size)
    cluster.run(100)
    assert [sizes.get(shard) for shard in node.data_db.applied()] == [60 * KIB]
    assert node.host.flusher.bytes_in_memory() <= 50 * KIB
