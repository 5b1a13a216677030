"""Stale reads that a node cannot answer itself: asked of its zone, then of the leader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from krita.connection import FLAG_FORWARDED
from krita.errors import Status
from krita.operations import Consistency, Op
from kritad.access import PEER, Principal
from kritad.host.request import Request
from kritad.host.router import OnReply
from tests.host.cluster import grown_cluster
from tests.kritad.service_bench import Bench, bench_of

KEY = b"k"


@attrs.define
class Zoned:
    """Three nodes: the leader of the key's shard in eu, its followers in us. What nodes
    pass on to each other goes through their services, as it does over a connection."""

    bench: Bench
    shard: int
    leader: int
    followers: list[int]
    asked: list[int] = attrs.field(factory=list)  # nodes that something was passed on to

    def pass_on(self, sender: int, recipient: int, request: Request, on_reply: OnReply) -> None:
        self.asked.append(recipient)
        self.bench.services[recipient].submit(
            request.op,
            request.body,
            Principal(PEER, sender),
            None,
            FLAG_FORWARDED,
            lambda status, body: on_reply(status, body, True),
        )

    def poison(self, number: int) -> None:
        """The node's replica of the shard can answer nothing any more."""
        node = next(node for node in self.bench.cluster.nodes if node.number == number)
        node.replica(self.shard).raft.poison("damaged")

    def read(self, number: int) -> list[object]:
        """A stale read at this node: the reply."""
        self.asked.clear()
        status, body = self.bench.do(Op.GET, KEY, Consistency.STALE, node=number)
        assert status == Status.OK, body
        assert isinstance(body, list)
        return body


@pytest.fixture
def zoned(tmp_path: Path) -> Iterator[Zoned]:
    cluster = grown_cluster(tmp_path)
    cluster.run(2000)
    bench = bench_of(cluster)
    bench.put(KEY, b"v")
    cluster.run(1000)  # the followers have heard that it is committed
    shard_map = cluster.nodes[0].host.build_shard_map()
    assert shard_map is not None
    info = shard_map.shard_of(KEY)
    followers = [node.number for node in cluster.nodes if node.number != info.leader]
    for node in cluster.nodes:
        members = {
            number: attrs.evolve(record, zone="eu" if number == info.leader else "us")
            for number, record in node.host.view.nodes.items()
        }
        node.host.view = attrs.evolve(node.host.view, nodes=members)
    made = Zoned(bench, info.shard, info.leader, followers)
    cluster.network.request = made.pass_on  # type: ignore[method-assign]
    yield made
    cluster.close()


def test_a_node_that_can_answer_asks_nobody(zoned: Zoned) -> None:
    for number in (*zoned.followers, zoned.leader):
        assert zoned.read(number)[0] == b"v"
        assert zoned.asked == []


def test_a_node_that_cannot_asks_one_in_its_zone_and_passes_its_age_on(zoned: Zoned) -> None:
    here, there = zoned.followers
    zoned.poison(here)
    value, *_, staleness_ms = zoned.read(here)
    assert zoned.asked == [there]
    assert value == b"v"
    assert isinstance(staleness_ms, int)


def test_when_that_one_cannot_either_the_leader_is_asked(zoned: Zoned) -> None:
    here, there = zoned.followers
    zoned.poison(here)
    zoned.poison(there)
    assert zoned.read(here)[0] == b"v"
    assert zoned.asked == [there, zoned.leader]


def test_a_linearizable_read_goes_to_the_leader_as_ever(zoned: Zoned) -> None:
    here, _ = zoned.followers
    assert zoned.bench.do(Op.GET, KEY, node=here)[0] == Status.OK
    assert zoned.asked == [zoned.leader]
