"""The dispatcher while a shard is split: where a write goes, and under which number."""

from __future__ import annotations

import pytest

from krita import requests
from krita.connection import FLAG_FORWARDED
from krita.errors import Outcome, OutcomeUnknown, SessionExpired, Unavailable, WrongShard
from krita.link import ATTEMPT_TIMEOUT_S
from krita.operations import Op
from krita.ring import ShardInfo, ShardMap
from tests.protocol.world import PLACES, World, error_of, map_of


@pytest.fixture
def world() -> World:
    return World()


def split_map(version: int = 2, leader_new: int = 2) -> ShardMap:
    """Shard 1 was cut in the middle, and node 2 leads what was cut off."""
    half = 1 << 31
    shards = (
        ShardInfo(1, 0, half, 1, 1, (1, 2)),
        ShardInfo(2, half, 2 * half, leader_new, 7, (1, 2)),
    )
    return ShardMap(version, shards, PLACES)


MOVED = "k0"  # in the upper half of the ring
STAYED = "k2"
assert split_map().shard_of(MOVED.encode()).shard == 2
assert split_map().shard_of(STAYED.encode()).shard == 1


def puts(world: World) -> list[tuple[str, list[object]]]:
    """Where puts were sent, with their session, sequence and acked_to."""
    return [(address, fields[:3]) for address, op, fields, _ in world.seen if op is Op.PUT]


def sessions_opened(world: World) -> list[list[object]]:
    return [fields for _, op, fields, _ in world.seen if op is Op.SESSION_OPEN]


def test_a_write_whose_key_moved_goes_to_the_new_shard_under_its_number(world: World) -> None:
    world.start(requests.put(MOVED, "v"))
    world.map = split_map()
    world.errors[Op.PUT] = [WrongShard("it was split")]
    call = world.start(requests.put(MOVED, "w"))
    assert call.value()
    assert sessions_opened(world) == [[1]], "the copy of the old session was not used"
    (_, first), (at, refused), (to, again) = puts(world)
    assert (at, to) == ("a:1", "b:1")
    assert refused == again == [first[0], 2, 1]


def test_a_write_in_doubt_whose_key_moved_is_settled_by_the_copy_of_its_session(
    world: World,
) -> None:
    world.start(requests.put(MOVED, "v"))
    world.map = split_map()
    world.errors[Op.PUT] = [OutcomeUnknown("leadership lost"), WrongShard("it was split")]
    call = world.start(requests.put(MOVED, "w"))
    world.advance(1.0)
    assert call.value()
    assert len({str(numbers) for _, numbers in puts(world)[1:]}) == 1
    assert len(puts(world)) == 4


def test_a_write_in_doubt_goes_to_the_new_shard_when_a_map_says_so(world: World) -> None:
    """Nobody need say WrongShard: the map may have come before."""
    world.start(requests.put(MOVED, "v"))
    world.map = split_map()
    world.mute.add("a:1")
    call = world.start(requests.put(MOVED, "w"))
    world.advance(ATTEMPT_TIMEOUT_S * 1.2)
    assert call.value()
    assert [numbers[1] for _, numbers in puts(world)] == [1, 2]
    assert puts(world)[-1][0] == "b:1"
    assert sessions_opened(world) == [[1]]


def test_what_failed_on_the_way_to_the_old_shard_is_no_reason_to_avoid_a_node(
    world: World,
) -> None:
    world.start(requests.put(MOVED, "v"))
    world.map = split_map(leader_new=1)
    world.errors[Op.PUT] = [Unavailable("busy with something"), WrongShard("it was split")]
    call = world.start(requests.put(MOVED, "w"))
    assert call.value()
    assert [address for address, _ in puts(world)] == ["a:1", "a:1", "b:1", "a:1"]
    assert world.seen[-1][3] == FLAG_FORWARDED, "its leader was not asked directly"


def test_the_next_write_to_a_new_shard_opens_a_session_there(world: World) -> None:
    world.start(requests.put(MOVED, "v"))
    world.map = split_map()
    world.errors[Op.PUT] = [WrongShard("it was split")]
    world.start(requests.put(MOVED, "w"))
    world.start(requests.put(MOVED, "x"))
    world.start(requests.put(STAYED, "x"))
    assert sessions_opened(world) == [[1], [2]]
    old, new = puts(world)[0][1][0], puts(world)[-2][1][0]
    assert old != new
    assert puts(world)[-2][1] == [new, 1, 0]
    # The write that moved was answered: what the old session counts as settled goes on.
    assert puts(world)[-1][1] == [old, 3, 2]


def test_a_session_that_was_opened_behind_the_split_is_given_up_for_one_of_the_new_shard(
    world: World,
) -> None:
    world.start(requests.put(STAYED, "v"))
    world.map = split_map()
    world.errors[Op.PUT] = [WrongShard("it was split"), SessionExpired("not known here")]
    call = world.start(requests.put(MOVED, "w"))
    world.advance(1.0)
    assert call.value()
    assert sessions_opened(world) == [[1], [2]]
    world.start(requests.put(STAYED, "x"))
    assert sessions_opened(world) == [[1], [2]], "the old shard's session is as good as ever"
    assert puts(world)[-1][1] == [puts(world)[0][1][0], 3, 2]


def test_a_session_that_the_owner_of_a_key_does_not_know_makes_the_map_doubtful(
    world: World,
) -> None:
    """A node may lead both halves: it takes the write to the new one by itself, and there a
    session is unknown that was opened behind the split."""
    world.start(requests.get(MOVED))
    world.map = split_map()
    world.errors[Op.PUT] = [SessionExpired("not known here")] * 2
    call = world.start(requests.put(MOVED, "w"))
    world.advance(1.0)
    assert call.value()
    assert sessions_opened(world)[-1] == [2]
    assert puts(world)[-1][0] == "b:1"


def test_a_map_that_the_caller_has_asked_for_is_the_client_s_too(world: World) -> None:
    world.start(requests.get(MOVED))
    world.map = split_map()
    world.start(requests.shard_map())
    world.start(requests.get(MOVED))
    assert world.seen[-1][0] == "b:1"


def test_a_write_in_doubt_that_the_new_shard_knows_no_session_for_is_unknown(
    world: World,
) -> None:
    world.start(requests.put(MOVED, "v"))
    world.map = split_map()
    world.errors[Op.PUT] = [
        OutcomeUnknown("leadership lost"),
        WrongShard("it was split"),
        SessionExpired("not known here"),
    ]
    call = world.start(requests.put(MOVED, "w"))
    world.advance(1.0)
    assert type(error_of(call)) is OutcomeUnknown


def test_a_map_that_is_not_newer_yet_is_asked_for_with_growing_pauses(world: World) -> None:
    world.start(requests.put(MOVED, "v"))
    world.errors[Op.PUT] = [WrongShard("it was split")] * 1000
    call = world.start(requests.put(MOVED, "w"), timeout_s=10.0)
    assert world.count(Op.PUT) == 2, "it was sent again before anything had changed"
    world.advance(4.0)
    refused = world.count(Op.PUT) - 1
    assert 8 < refused < 25
    assert world.count(Op.SHARD_MAP) == 1 + refused, "each refusal asks for a map, once"
    world.map = split_map()
    world.errors.clear()
    world.advance(1.0)
    assert call.value()
    assert len({str(numbers) for _, numbers in puts(world)[1:]}) == 1


def test_a_node_that_is_behind_our_map_is_given_time(world: World) -> None:
    """It takes the key for another shard's and has it refused there."""
    world.map = split_map()
    world.start(requests.get(MOVED))
    assert world.seen[-1][0] == "b:1"
    world.map = map_of(1)
    world.errors[Op.GET] = [WrongShard("that shard was split")]
    call = world.start(requests.get(MOVED))
    assert not call.finished
    world.advance(1.0)
    assert call.value()
    assert world.seen[-1][0] == "b:1", "an older map has replaced the newer one"


def test_a_write_that_never_finds_its_shard_was_not_applied(world: World) -> None:
    world.start(requests.put(MOVED, "v"))
    world.errors[Op.PUT] = [WrongShard("it was split")] * 1000
    call = world.start(requests.put(MOVED, "w"), timeout_s=1.0)
    world.advance(1.0)
    assert isinstance(error_of(call), WrongShard)
    assert error_of(call).outcome is Outcome.NOT_APPLIED
