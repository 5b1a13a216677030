"""Which shards have nearly all their requests come in at one node."""

from __future__ import annotations

from kritad.cluster.homes import Homing, homes

MIN = 50


def test_a_shard_whose_requests_come_in_at_one_node_has_its_home_there() -> None:
    demand = {1: [(7, 0, 900)], 2: [(7, 900, 0)]}
    assert homes({7: 1}, demand, MIN) == {7: 2}


def test_requests_that_come_in_evenly_make_no_home() -> None:
    demand = {node: [(7, 300, 900 if node == 1 else 0)] for node in (1, 2, 3)}
    assert homes({7: 1}, demand, MIN) == {}


def test_requests_of_clients_that_go_to_the_leader_by_themselves_make_no_home() -> None:
    assert homes({7: 1}, {1: [(7, 0, 9000)], 2: [(7, 100, 0)]}, MIN) == {}
    assert homes({7: 2}, {2: [(7, 100, 9000)]}, MIN) == {}, "not where they are served, either"


def test_two_thirds_make_a_home_and_half_keep_it() -> None:
    for share, home in ((66, False), (67, True)):
        demand = {1: [(7, 100 - share, 100)], 2: [(7, share, 0)]}
        assert (homes({7: 1}, demand, MIN) == {7: 2}) is home
    for share, home in ((50, True), (49, False)):
        demand = {2: [(7, share, 100)], 1: [(7, 100 - share, 0)]}
        assert (homes({7: 2}, demand, MIN) == {7: 2}) is home


def test_few_requests_make_no_home() -> None:
    assert homes({7: 1}, {2: [(7, MIN - 1, 0)]}, MIN) == {}
    assert homes({7: 1}, {2: [(7, MIN, 0)]}, MIN) == {7: 2}
    assert homes({7: 2}, {2: [(7, MIN // 2, MIN // 2)]}, MIN) == {7: 2}, "half is enough to stay"
    assert homes({7: 2}, {2: [(7, MIN // 2 - 1, MIN // 2)]}, MIN) == {}


def test_with_nothing_as_the_least_no_shard_has_a_home() -> None:
    assert homes({7: 1}, {2: [(7, 9000, 0)]}, 0) == {}


def test_a_leader_that_has_just_changed_is_not_sent_back() -> None:
    """The new one has served nothing yet, and the old one's count is of no use."""
    assert homes({7: 2}, {1: [(7, 0, 900)], 2: [(7, 900, 0)]}, MIN) == {7: 2}


def test_where_two_nodes_are_asked_for_as_much_the_leader_stays() -> None:
    demand = {2: [(7, 300, 600)], 1: [(7, 300, 0)]}
    assert homes({7: 2}, demand, MIN) == {7: 2}
    assert homes({7: 1}, demand, MIN) == {7: 1}
    assert homes({7: 3}, demand, MIN) == {}


def test_a_shard_without_a_known_leader_may_have_a_home() -> None:
    assert homes({}, {2: [(7, 300, 0)]}, MIN) == {7: 2}


def test_a_home_of_a_moment_is_none() -> None:
    """Seed 520596: a leader was moved for evenness; its clients lost it, asked at the node that
    they knew, and that had it led there again, every dozen seconds."""
    homing = Homing()
    assert [homing.look({7: 2}, {7: 1}, now_ms) for now_ms in (0, 1000, 2900)] == [{}] * 3
    assert homing.look({}, {7: 1}, 3000) == {}
    assert homing.look({7: 2}, {7: 1}, 4000) == {}, "it begins anew"
    assert homing.look({7: 3}, {7: 1}, 6900) == {}, "and for another node as well"
    assert homing.look({7: 3}, {7: 1}, 9900) == {7: 3}


def test_a_leader_at_home_is_left_there_until_little_was_asked_for_long() -> None:
    """Seed 511055: a load about as high as it has to be moved a leader away and back for ever."""
    homing, led = Homing(), {7: 1}
    assert homing.look({7: 1}, led, 0) == {7: 1}
    assert homing.look({}, led, 9_900) == {7: 1}
    assert homing.look({7: 1}, led, 9_950) == {7: 1}
    assert homing.look({}, led, 19_900) == {7: 1}
    assert homing.look({}, led, 20_000) == {}


def test_who_has_come_stays_for_a_while() -> None:
    homing = Homing()
    homing.follow(7, 2, 0)
    assert homing.look({7: 3}, {7: 2}, 5_000) == {7: 2}
    assert homing.look({7: 3}, {7: 2}, 9_900) == {7: 2}
    assert homing.look({7: 3}, {7: 2}, 10_000) == {7: 3}
