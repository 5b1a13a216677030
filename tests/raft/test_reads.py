"""ReadIndex: which echoes confirm which reads."""

from __future__ import annotations

import random

from kritad.raft.reads import ReadQueue
from kritad.raft.types import Configuration
from tests.raft.cluster import Cluster

THREE = Configuration(voters=frozenset({1, 2, 3}))


def confirmed(queue: ReadQueue, echoes: dict[int, int]) -> list[tuple[int, int]]:
    return [(read.token, read.index) for read in queue.confirm(THREE, lambda r: echoes.get(r, 0))]


def test_one_round_serves_all_reads_that_came_before_it() -> None:
    queue = ReadQueue()
    for token in (5, 6, 7):
        queue.add(token)
    queue.begin_round(40)
    assert confirmed(queue, {1: 1}) == []
    assert confirmed(queue, {1: 1, 3: 1}) == [(5, 40), (6, 40), (7, 40)]
    assert confirmed(queue, {1: 1, 3: 1}) == []


def test_a_later_echo_confirms_all_earlier_rounds() -> None:
    queue = ReadQueue()
    for token, commit in ((1, 10), (2, 20), (3, 30)):
        queue.add(token)
        queue.begin_round(commit)
    assert confirmed(queue, {1: 3, 2: 2}) == [(1, 10), (2, 20)]


def test_every_token_comes_back_once_answered_or_lost() -> None:
    dice = random.Random(5)
    queue = ReadQueue()
    echoes = {1: 0, 2: 0, 3: 0}
    back: list[int] = []
    for token in range(300):
        queue.add(token)
        if dice.random() < 0.5:
            queue.begin_round(token)
        echoes[dice.randint(1, 3)] = queue.sequence
        back += [read for read, _ in confirmed(queue, echoes)]
    back += queue.drain()
    assert sorted(back) == list(range(300))
    assert queue.drain() == []


def test_reads_of_a_group_under_load_see_every_acknowledged_write() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    for token in range(1, 20):
        cluster.propose(leader, b"%d" % token)
        cluster.read(leader, token)
        cluster.settle()
        assert cluster.nodes[1].reads[token] >= leader.commit - 1
