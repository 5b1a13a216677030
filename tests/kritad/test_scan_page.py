"""Pages and counts over many shards, put together from answers that a test gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from krita.errors import KritaError, Status, Unavailable
from krita.operations import Op, What
from krita.ring import RING_SIZE, token
from kritad.scan_page import Question, ScanPage, ShardCounts, cover_the_ring
from tests.host.lone import Replies

ROUNDS_AT_ONCE, PAUSES_MAX = 20, 25


class FakeShards:
    """Shards with keys of their arcs, whose pages end wherever chance wants them to."""

    def __init__(self, keys: Sequence[bytes], edges: Sequence[int], chance: random.Random) -> None:
        self.keys = sorted(keys)
        self.chance = chance
        self.arcs = dict(enumerate(zip([0, *edges], [*edges, RING_SIZE], strict=True), start=1))
        self.known = sorted(self.arcs)  # by the node that asks
        self.asked = 0
        self.before_answer: Callable[[], None] = lambda: None
        self.failing: dict[int, KritaError] = {}

    def shards(self) -> list[int]:
        return list(self.known)

    def again(self, question: Question, pauses: int) -> bool:
        if pauses < PAUSES_MAX:
            question.ask()
        return pauses < PAUSES_MAX

    def ask(
        self,
        op: Op,
        asks: Mapping[int, Sequence[object]],
        _deadline_ms: float,
        then: Callable[[dict[int, Any]], None],
        fail: Callable[[KritaError], None],
    ) -> None:
        assert op == Op.SHARD_SCAN
        self.asked += 1
        answers = {}
        for shard in self.chance.sample(list(asks), len(asks)):  # they come in any order
            self.before_answer()
            if shard in self.failing:
                fail(self.failing[shard])
                return
            answers[shard] = self.answer(shard, *asks[shard])
        then(answers)

    def answer(
        self, shard: int, start: Any, stop: Any, limit: Any, reverse: Any, what: Any, _: Any
    ) -> list[Any]:
        lo, hi = self.arcs[shard]
        keys = [key for key in self.keys if lo <= token(key) < hi]
        keys = [k for k in keys if k >= (start or b"") and (stop is None or k < stop)]
        if reverse:
            keys.reverse()
        some = self.chance.randint(0 if keys[1:] else 1, limit or len(keys) or 1)
        if some == 0:  # over, all that it has looked at
            del keys[0]
        told, edge = keys[:some], keys[some] if len(keys) > some else None
        if what == What.COUNT:
            return [len(told), edge, 7, lo, hi]
        return [[[key, b"v" * (len(key) % 5), 1, None] for key in told], edge, 7, lo, hi]

    def split(self, shard: int) -> int:
        lo, hi = self.arcs[shard]
        new = max(self.arcs) + 1
        self.arcs[shard], self.arcs[new] = (lo, (lo + hi) // 2), ((lo + hi) // 2, hi)
        return new


def fake(seed: int) -> FakeShards:
    chance = random.Random(seed)
    keys = {b"k%03d" % chance.randrange(500) for _ in range(chance.choice([0, 1, 20, 200]))}
    edges = sorted(chance.sample(range(1, RING_SIZE), chance.choice([0, 1, 3, 15])))
    return FakeShards(sorted(keys), edges, chance)


def page(
    shards: FakeShards, start: Any, stop: Any, rows_max: int, *, reverse: bool, bytes_max: int = 99
) -> Any:
    replies = Replies()
    ScanPage(shards, start, stop, 1.0, replies, rows_max, reverse, What.ROWS, bytes_max).ask()
    return replies.one


def all_pages(shards: FakeShards, rows_max: int, *, reverse: bool, bytes_max: int) -> list[bytes]:
    found: list[bytes] = []
    start: Any = None
    stop: Any = None
    while True:
        status, (rows, edge) = page(
            shards, start, stop, rows_max, reverse=reverse, bytes_max=bytes_max
        )
        assert status == Status.OK
        assert len(rows) <= rows_max
        sizes = [len(row[0]) + len(row[1]) for row in rows]
        assert len(rows) <= 1 or sum(sizes) <= bytes_max
        found += [row[0] for row in rows]
        if edge is None:
            return found
        if reverse:
            assert stop is None or edge < stop, "a scan has to get on"
            stop = edge
        else:
            assert edge > (start or b""), "a scan has to get on"
            start = edge


def without_over(shards: FakeShards) -> FakeShards:
    """Shards that leave no key out as being over."""
    answer = shards.answer

    def whole(shard: int, *fields: Any) -> list[Any]:
        while True:
            state = shards.chance.getstate()
            found = answer(shard, *fields)
            if found[0] or found[1] is None:
                return found
            shards.chance.setstate(state)
            shards.chance.random()

    shards.answer = whole  # type: ignore[assignment,method-assign]
    return shards


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_pages_have_every_key_once_and_in_order_wherever_the_shards_pages_end(
    seed: int, reverse: bool
) -> None:
    shards = without_over(fake(seed))
    for rows_max, bytes_max in [(1, 1 << 20), (3, 20), (7, 1), (1000, 1 << 20)]:
        found = all_pages(shards, rows_max, reverse=reverse, bytes_max=bytes_max)
        assert found == sorted(shards.keys, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_page_without_a_row_still_leads_on(reverse: bool) -> None:
    for seed in range(15):
        shards = fake(seed)
        found = all_pages(shards, 5, reverse=reverse, bytes_max=1 << 20)
        assert found == sorted(set(found), reverse=reverse)
        assert set(found) <= set(shards.keys)


def test_a_page_asks_the_shards_for_their_part_of_it_and_not_for_all() -> None:
    shards = FakeShards([], range(1, 128), random.Random(1))
    limits: list[Any] = []
    answer = shards.answer

    def noted(shard: int, *fields: Any) -> list[Any]:
        limits.append((fields[2], fields[5]))
        return answer(shard, *fields)

    shards.answer = noted  # type: ignore[assignment,method-assign]
    page(shards, None, None, 1000, reverse=False, bytes_max=1 << 20)
    assert set(limits) == {(16, 2 * (1 << 20) // 128)}


@pytest.mark.parametrize("seed", range(10))
def test_a_shard_that_is_split_while_it_is_asked_takes_no_key_from_the_page(seed: int) -> None:
    shards = without_over(fake(seed))
    times = [shards.chance.randrange(1, 10) for _ in range(3)]

    def maybe_split() -> None:
        times[0] -= 1
        if times[0] == 0 and len(times) > 1:
            del times[0]
            shards.split(shards.chance.choice(sorted(shards.arcs)))
        elif shards.chance.random() < 0.2:
            shards.known = sorted(shards.arcs)  # the node hears of it

    shards.before_answer = maybe_split
    assert all_pages(shards, 5, reverse=False, bytes_max=1 << 20) == shards.keys


def test_a_split_that_the_node_does_not_hear_of_is_said_and_no_half_page_is_given() -> None:
    shards = fake(3)
    shards.split(1)
    status, body = page(shards, None, None, 10, reverse=False)
    assert (status, shards.asked) == (Status.UNAVAILABLE, ROUNDS_AT_ONCE + PAUSES_MAX)
    assert "split" in body[0]
    replies = Replies()
    ShardCounts(shards, None, None, 1.0, replies).ask()
    assert replies.one[0] == Status.UNAVAILABLE


def test_a_shard_that_fails_is_the_page_s_failure() -> None:
    shards = fake(3)
    shards.failing[2] = Unavailable("no leader")
    assert page(shards, None, None, 10, reverse=False)[0] == Status.UNAVAILABLE
    replies = Replies()
    ShardCounts(shards, None, None, 1.0, replies).ask()
    assert replies.one[0] == Status.UNAVAILABLE


@pytest.mark.parametrize("seed", range(10))
def test_a_count_is_of_every_key_once_in_however_many_slices(seed: int) -> None:
    shards = without_over(fake(seed))
    for start, stop in [(None, None), (b"k1", b"k3"), (b"k2", None), (b"l", None)]:
        replies = Replies()
        ShardCounts(shards, start, stop, 1.0, replies).ask()
        wanted = [k for k in shards.keys if k >= (start or b"") and (stop is None or k < stop)]
        assert replies.one == (Status.OK, [len(wanted), None])


@pytest.mark.parametrize("seed", range(10))
def test_a_split_between_two_slices_of_a_count_counts_nothing_twice(seed: int) -> None:
    shards = without_over(fake(seed))
    left = [shards.chance.randrange(1, 6)]

    def split_once() -> None:
        left[0] -= 1
        if left[0] == 0:
            shards.split(shards.chance.choice(sorted(shards.arcs)))
            shards.known = sorted(shards.arcs)

    shards.before_answer = split_once
    replies = Replies()
    ShardCounts(shards, None, None, 1.0, replies).ask()
    assert replies.one == (Status.OK, [len(shards.keys), None])


def test_arcs_cover_the_ring_only_without_gap_and_overlap() -> None:
    half = RING_SIZE // 2
    assert cover_the_ring([(half, RING_SIZE), (0, half)])
    assert not cover_the_ring([])
    assert not cover_the_ring([(0, half)])
    assert not cover_the_ring([(0, half), (half + 1, RING_SIZE)])
    assert not cover_the_ring([(0, half), (half - 1, RING_SIZE)])
    assert not cover_the_ring([(0, RING_SIZE), (0, RING_SIZE)])
    assert not cover_the_ring([(0, half), (half, RING_SIZE), (half, RING_SIZE)])
