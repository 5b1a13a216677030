"""Which shards have nearly all their requests come in at one node."""

from __future__ import annotations

from kritad.cluster.homes import homes

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
