"""The router: where a request goes by what is known."""

from __future__ import annotations

import random
from collections.abc import Collection

import attrs
import pytest

from krita.errors import BadRequest, KritaError, NotLeader, SessionExpired, WrongShard
from krita.nearness import MEASURED_S
from krita.retry import Retry, Trial
from krita.ring import ShardInfo, ShardMap
from krita.routing import AVOIDED_S, DOWN_S, Router

HALF = 1 << 31
PLACES = {1: "a:1", 2: "b:1", 3: "c:1"}


def shard_map(
    leader: int = 1,
    term: int = 5,
    version: int = 1,
    places: dict[int, str] | None = None,
    holders: tuple[int, ...] = (1, 2, 3),
) -> ShardMap:
    shards = (
        ShardInfo(1, 0, HALF, leader, term, holders),
        ShardInfo(2, HALF, 2 * HALF, leader, term, holders),
    )
    return ShardMap(version, shards, places or PLACES)


def router(seeds: tuple[str, ...] = ("seed:1",), known: ShardMap | None = None) -> Router:
    made = Router(seeds, random.Random(1))
    made.learn_map(known or shard_map(), 0.0)
    return made


def hint(node: object, term: object, address: object = None) -> NotLeader:
    return NotLeader("not me", detail={"node": node, "term": term, "address": address})


def test_before_there_is_a_map_the_seeds_are_asked_in_order() -> None:
    bare = Router(("x:1", "y:1"), random.Random(1))
    assert bare.choose(None, (), 0.0) == ("x:1", False)
    assert bare.choose(None, {"x:1"}, 0.0) == ("y:1", False)
    assert bare.map_doubtful


def test_the_leader_of_the_map_is_asked_directly() -> None:
    assert router().choose(1, (), 0.0) == ("a:1", True)


def test_a_leader_already_tried_is_not_asked_again_at_once() -> None:
    assert router().choose(1, {"a:1"}, 0.0) == ("b:1", False)


def test_when_everything_was_tried_the_first_replica_is_tried_again() -> None:
    tried = {"a:1", "b:1", "c:1", "seed:1"}
    assert router().all_tried(1, tried)
    assert not router().all_tried(1, tried - {"seed:1"})
    assert router().choose(1, tried, 0.0) == ("a:1", False)


def test_a_hint_of_a_newer_term_is_followed() -> None:
    routes = router()
    assert routes.learn_hint(1, hint(2, 6)) == "b:1"
    assert routes.choose(1, (), 0.0) == ("b:1", True)
    assert routes.choose(2, (), 0.0) == ("a:1", True)  # it was about shard 1


@pytest.mark.parametrize("term", [4, 5, None, "6"])
def test_a_hint_without_a_newer_term_is_not_followed(term: object) -> None:
    routes = router()
    assert routes.learn_hint(1, hint(2, term)) is None
    assert routes.choose(1, (), 0.0) == ("a:1", True)


def test_a_hint_of_the_known_term_is_followed_when_its_leader_is_not_known() -> None:
    routes = router(known=shard_map(leader=0, term=6))
    assert routes.learn_hint(1, hint(2, 6)) == "b:1"


def test_what_a_node_says_of_another_shard_than_it_was_asked_about_changes_nothing() -> None:
    """Its map is older or newer than ours, on one side of a split."""
    routes = router()
    trial = Trial(write=False, repeatable=True, started=0.0, deadline=9.0)
    error = NotLeader("not me", detail={"shard": 9, "node": 2, "term": 99})
    verdict = trial.judge(error, 0.0)
    assert isinstance(verdict, Retry)
    assert not routes.learn_failure(1, "a:1", error, verdict.rule, trial)
    assert routes.choose(1, (), 0.0) == ("a:1", True)


def test_nodes_that_point_at_each_other_in_one_term_end_in_a_pause() -> None:
    routes = router()
    trial = Trial(write=False, repeatable=True, started=0.0, deadline=9.0)
    rounds = 0
    while True:
        rounds += 1
        address, _ = routes.choose(1, trial.tried, 0.0)
        error = hint(1 if address == "b:1" else 2, 5)
        verdict = trial.judge(error, 0.0)
        assert isinstance(verdict, Retry)
        if routes.learn_failure(1, address, error, verdict.rule, trial):
            break
    assert rounds == 4  # three nodes and the seed


def test_a_hint_to_a_node_that_the_map_lacks_is_followed_by_its_address() -> None:
    routes = router()
    assert routes.learn_hint(1, hint(9, 6)) is None
    assert routes.learn_hint(1, hint(9, 6, "z:1")) == "z:1"
    assert routes.choose(1, (), 0.0) == ("z:1", True)


def test_a_map_of_an_older_version_gives_leaders_of_newer_terms_and_nothing_else() -> None:
    routes = router(known=shard_map(version=7))
    routes.learn_map(shard_map(leader=2, term=6, version=3, places={2: "old:1"}), 0.0)
    assert routes.map is not None
    assert routes.map.version == 7
    assert routes.choose(1, (), 0.0) == ("b:1", True)


def test_a_map_of_an_older_term_does_not_undo_a_hint() -> None:
    routes = router()
    routes.learn_hint(1, hint(2, 6))
    routes.learn_map(shard_map(leader=1, term=5, version=2), 0.0)
    assert routes.choose(1, (), 0.0) == ("b:1", True)


def test_a_leader_that_denies_it_is_no_longer_asked_directly() -> None:
    routes = router()
    routes.doubt(1, "a:1")
    assert routes.map_doubtful
    assert routes.choose(1, (), 0.0)[1] is False
    routes.learn_map(shard_map(leader=1, term=5), 0.0)  # it was right after all
    assert routes.choose(1, (), 0.0) == ("a:1", True)


def test_a_doubt_about_another_node_leaves_the_leader_alone() -> None:
    routes = router()
    routes.doubt(1, "b:1")
    assert routes.choose(1, (), 0.0) == ("a:1", True)


def test_a_node_that_failed_is_tried_last_for_a_while() -> None:
    routes = router()
    routes.failed("a:1", 10.0)
    assert routes.choose(1, (), 10.0) == ("b:1", False)
    assert routes.choose(1, (), 10.0 + DOWN_S) == ("a:1", True)


def test_a_node_that_failed_and_came_back_is_used_at_once() -> None:
    routes = router()
    routes.failed("a:1", 10.0)
    routes.reached("a:1", 1)
    assert routes.choose(1, (), 10.0) == ("a:1", True)


def test_when_all_nodes_failed_one_is_tried_nevertheless() -> None:
    routes = router()
    for address in ("a:1", "b:1", "c:1", "seed:1"):
        routes.failed(address, 10.0)
    assert routes.choose(1, (), 10.0) == ("a:1", False)


def test_the_map_stays_doubtful_while_it_names_no_leader_that_answers() -> None:
    routes = router()
    assert not routes.map_doubtful
    routes.learn_map(shard_map(leader=0, term=6), 0.0)
    assert routes.map_doubtful
    routes.learn_map(shard_map(leader=2, term=7), 0.0)
    assert not routes.map_doubtful
    routes.failed("b:1", 1.0)
    routes.learn_map(shard_map(leader=2, term=7), 1.0)
    assert routes.map_doubtful


def test_a_node_reached_through_a_seed_is_addressed_as_that_seed() -> None:
    routes = router()
    routes.reached("seed:1", 1)
    assert routes.choose(1, (), 0.0) == ("seed:1", True)
    assert routes.address_of(2) == "b:1"


def test_a_seed_that_leads_to_another_node_each_time_stands_for_the_last() -> None:
    routes = router()
    routes.reached("seed:1", 1)
    routes.reached("seed:1", 2)
    assert (routes.address_of(1), routes.address_of(2)) == ("a:1", "seed:1")
    routes.failed("seed:1", 0.0)
    assert routes.address_of(2) == "b:1"


def test_a_read_from_any_replica_is_spread_over_those_that_hold_the_shard() -> None:
    routes = router(known=shard_map(holders=(2, 3)))
    chosen = {routes.choose(1, (), 0.0, spread=True) for _ in range(50)}
    assert chosen == {("b:1", False), ("c:1", False)}


def test_a_node_is_named_by_id_or_address() -> None:
    assert router().node_address(2) == "b:1"
    assert router().node_address("x:1") == "x:1"
    with pytest.raises(BadRequest, match="no node 7"):
        router().node_address(7)


# --- reads that any replica may answer


def zoned(zone: str, zones: dict[int, str], holders: tuple[int, ...] = (1, 2, 3)) -> Router:
    known = attrs.evolve(shard_map(holders=holders), zones=zones)
    made = Router(("seed:1",), random.Random(1), zone)
    made.learn_map(known, 0.0)
    return made


def stale_places(routes: Router, now: float, tried: Collection[str] = ()) -> set[str]:
    """Where reads go from now on if nothing else happens. (The first asks what is
    known now, the others what the first found.)"""
    return {routes.choose(1, tried, now, spread=True)[0] for _ in range(60)}


ZONES = {1: "eu", 2: "us", 3: "us"}


def test_a_stale_read_goes_to_the_replicas_of_the_clients_own_zone() -> None:
    assert stale_places(zoned("us", ZONES), 0.0) == {"b:1", "c:1"}
    assert stale_places(zoned("eu", ZONES), 0.0) == {"a:1"}


def test_a_zone_without_a_replica_of_the_shard_is_no_reason_to_go_there() -> None:
    assert stale_places(zoned("us", ZONES, holders=(1,)), 0.0) == {"a:1"}
    assert stale_places(zoned("asia", ZONES), 0.0) == {"a:1", "b:1", "c:1"}


def test_nodes_without_a_zone_are_not_the_zone_of_a_client_that_has_none() -> None:
    assert stale_places(zoned("", {1: "eu"}), 0.0) == {"a:1", "b:1", "c:1"}


def test_the_own_zone_is_preferred_even_to_a_node_that_answers_faster() -> None:
    routes = zoned("eu", ZONES)
    routes.nearness.learn("a:1", 0.300, 0.0)
    routes.nearness.learn("b:1", 0.001, 0.0)
    assert stale_places(routes, 0.0) == {"a:1"}


def test_without_a_zone_the_replica_that_answered_fastest_is_asked() -> None:
    routes = zoned("", {})
    for address, seconds in (("a:1", 0.160), ("b:1", 0.080), ("c:1", 0.200)):
        routes.nearness.learn(address, seconds, 0.0)
    assert stale_places(routes, 0.0) == {"a:1", "b:1"}  # 160 ms is within 2 × 80 ms and some
    routes.nearness.learn("b:1", 0.004, MEASURED_S + 1)
    routes.nearness.learn("a:1", 0.160, MEASURED_S + 1)
    routes.nearness.learn("c:1", 0.200, MEASURED_S + 1)
    assert stale_places(routes, MEASURED_S + 1) == {"b:1"}
    assert stale_places(routes, MEASURED_S + 1, {"b:1"}) == {"a:1"}  # then the next nearest


def test_a_replica_that_was_never_measured_is_tried_and_one_that_is_far_again_later() -> None:
    routes = zoned("", {})
    routes.nearness.learn("a:1", 0.002, 0.0)
    routes.nearness.learn("b:1", 0.200, 0.0)
    assert stale_places(routes, 0.0) == {"a:1", "c:1"}
    routes.nearness.learn("c:1", 0.200, 1.0)
    assert stale_places(routes, 1.0) == {"a:1"}
    assert "b:1" in stale_places(routes, MEASURED_S + 0.5)


def test_a_near_replica_that_failed_is_left_alone_for_a_while_and_then_asked_again() -> None:
    routes = zoned("eu", ZONES)
    assert stale_places(routes, 10.0) == {"a:1"}
    routes.failed("a:1", 10.0)
    assert stale_places(routes, 10.0) == {"b:1", "c:1"}
    assert stale_places(routes, 10.0 + AVOIDED_S - 0.2) == {"b:1", "c:1"}
    assert stale_places(routes, 10.0 + AVOIDED_S) == {"a:1"}


def test_a_near_replica_that_failed_and_came_back_is_asked_at_once() -> None:
    routes = zoned("eu", ZONES)
    routes.failed("a:1", 10.0)
    assert stale_places(routes, 10.0) == {"b:1", "c:1"}
    routes.reached("a:1", 1)
    assert stale_places(routes, 10.0) == {"a:1"}


def test_when_all_replicas_failed_a_stale_read_goes_to_any_node_that_has_not() -> None:
    routes = zoned("eu", ZONES, holders=(1, 2))
    for address in ("a:1", "b:1", "seed:1"):
        routes.failed(address, 10.0)
    assert stale_places(routes, 10.0) == {"c:1"}
    routes.failed("c:1", 10.0)
    assert stale_places(routes, 10.0) == {"a:1"}


def test_a_new_map_counts_for_the_next_stale_read() -> None:
    routes = zoned("us", {})
    assert stale_places(routes, 0.0) == {"a:1", "b:1", "c:1"}
    routes.learn_map(attrs.evolve(shard_map(version=2), zones={3: "us"}), 0.0)
    assert stale_places(routes, 0.0) == {"c:1"}


def test_zones_do_not_change_where_other_requests_go() -> None:
    routes = zoned("us", ZONES)
    routes.nearness.learn("b:1", 0.001, 0.0)
    assert routes.choose(1, (), 0.0) == ("a:1", True)
    routes.doubt(1, "a:1")
    assert routes.choose(1, {"a:1"}, 0.0) == ("b:1", False)
    assert routes.choose(1, {"a:1", "b:1"}, 0.0) == ("c:1", False)


# --- nodes that are behind --------------------------------------------------------------

SEEDS = ("a:1", "b:1", "c:1")


@pytest.mark.parametrize("error", [WrongShard("not mine"), SessionExpired("unknown here")])
def test_who_tells_the_map_that_misled_us_is_asked_for_it_last(error: KritaError) -> None:
    routes = router(SEEDS)
    routes.doubt_arcs(error)
    routes.learn_map(shard_map(), 0.0, "a:1")
    assert routes.choose(None, (), 0.0) == ("b:1", False)
    assert routes.choose(None, {"b:1", "c:1"}, 0.0) == ("a:1", False)
    assert routes.choose(1, (), 0.0) == ("a:1", True), "it may lead all the same"


def test_a_newer_map_shows_who_is_to_be_asked_first_again() -> None:
    routes = router(SEEDS)
    routes.doubt_arcs(WrongShard("not mine"))
    routes.learn_map(shard_map(), 0.0, "a:1")
    routes.learn_map(shard_map(version=2), 0.0, "b:1")
    assert routes.choose(None, (), 0.0) == ("a:1", False)


def test_when_nobody_has_a_newer_map_all_are_asked_again() -> None:
    routes = router(SEEDS)
    for address in SEEDS:
        routes.doubt_arcs(WrongShard("not mine"))
        assert routes.choose(None, (), 0.0) == (address, False)
        routes.learn_map(shard_map(), 0.0, address)
    assert routes.choose(None, (), 0.0) == ("a:1", False)


def test_a_map_that_was_doubted_for_a_leader_alone_is_no_worse_for_being_the_same() -> None:
    routes = router(SEEDS)
    routes.doubt_arcs(hint(2, 6))
    routes.learn_map(shard_map(), 0.0, "a:1")
    assert routes.choose(None, (), 0.0) == ("a:1", False)
