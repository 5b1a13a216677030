"""Leaders that follow the requests stay where they have come, for a while."""

from __future__ import annotations

import attrs
import pytest

from krita.operations import Op
from tests.host.steering import DATA, Bench, view


def test_who_has_followed_the_requests_stays_for_a_while_whatever_becomes_of_them(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.lead_meta()
    bench.leaders.learn(DATA, 1, 1)

    def step(ms: int) -> list[bytes]:
        bench.node.clock.advance(ms)
        bench.steward.step(view())
        asked = [request.key for request in bench.routed if request.op == Op.LEADER_TRANSFER]
        bench.answer_all()
        return asked

    bench.homes[DATA] = 2
    assert [step(1000) for _ in range(3)] == [[]] * 3, "it may be over in a moment"
    with caplog.at_level("INFO"):
        assert step(1000) == [b"2"]
    assert "shard 1: node 2 is to lead it, where its requests come in" in caplog.text
    bench.leaders.learn(DATA, 2, 2)
    bench.homes[DATA] = 3
    assert [step(1000) for _ in range(8)] == [[]] * 8, "it has just come"
    assert step(3000) == [b"3"]
    bench.leaders.learn(DATA, 3, 3)
    bench.homes.clear()
    assert step(1000) == [], "one leader of one shard is even anywhere"


def test_a_leader_at_home_is_not_moved_for_evenness_because_little_was_asked_for_a_moment(
    bench: Bench,
) -> None:
    """Seed 511055: a load about as high as it has to be moved a leader away and back for ever."""
    bench.lead_meta()
    one = view()
    other = attrs.evolve(one.shards[DATA], shard=DATA + 1)
    two = attrs.evolve(one, shards={**one.shards, other.shard: other})
    for shard in (DATA, DATA + 1):
        bench.leaders.learn(shard, 1, 1)
        bench.homes[shard] = 1

    def step(ms: int) -> int:
        bench.node.clock.advance(ms)
        bench.steward.step(two)
        asked = bench.ops()[Op.LEADER_TRANSFER]
        bench.answer_all()
        return asked

    assert step(1000) == 0
    bench.homes.clear()
    assert [step(1000) for _ in range(9)] == [0] * 9
    bench.homes[DATA] = bench.homes[DATA + 1] = 1
    assert step(1000) == 0
    bench.homes.clear()
    assert [step(1000) for _ in range(9)] == [0] * 9
    assert step(2000) > 0, "there has been nothing to follow for long"
