"""Who is declared dead, when, and why not."""

from __future__ import annotations

import pytest

from kritad.cluster.liveness import Liveness
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from tests.cluster.views import plain, view_of, with_node

DEAD_AFTER = 300_000.0


class Watch:
    """A liveness whose node leads from time 0 and is number 1."""

    def __init__(self, view: MetaView) -> None:
        self.view = view
        self.liveness = Liveness(DEAD_AFTER)
        self.liveness.leading(0.0)

    def hear_all_but(self, silent: set[int], now_ms: float) -> None:
        for node in self.view.nodes:
            if node not in silent:
                self.liveness.heard(node, now_ms)

    def verdicts_with(self, silent: set[int], now_ms: float) -> list[tuple[int, bool]]:
        self.hear_all_but(silent, now_ms)
        return self.liveness.verdicts(self.view, now_ms)


def test_a_node_is_dead_after_so_much_silence_and_not_before() -> None:
    watch = Watch(plain(16, 5))
    assert watch.verdicts_with(set(), 10_000.0) == []
    assert watch.verdicts_with({3}, 10_000.0 + DEAD_AFTER - 1) == []
    assert watch.verdicts_with({3}, 10_000.0 + DEAD_AFTER) == [(3, True)]


def test_a_node_that_is_dead_is_not_declared_again() -> None:
    watch = Watch(with_node(plain(16, 5), 3, dead=True))
    assert watch.verdicts_with({3}, 2 * DEAD_AFTER) == []


def test_a_node_that_is_heard_again_is_alive() -> None:
    watch = Watch(with_node(plain(16, 5), 3, dead=True))
    assert watch.verdicts_with({3}, 10.0) == []
    assert watch.verdicts_with(set(), 20.0) == [(3, False)]


def test_a_dead_node_that_was_heard_for_a_moment_is_not_alive_for_ever() -> None:
    watch = Watch(with_node(plain(16, 5), 3, dead=True))
    watch.hear_all_but(set(), 10.0)
    assert watch.verdicts_with({3}, 10.0 + DEAD_AFTER) == []


def test_a_new_leader_declares_nobody_dead_before_its_own_time_is_up() -> None:
    watch = Watch(plain(16, 5))
    watch.hear_all_but({3}, DEAD_AFTER - 1)
    watch.liveness.leading(DEAD_AFTER)
    assert watch.verdicts_with({3}, 2 * DEAD_AFTER - 1) == []
    reason = watch.liveness.reason_to_wait(watch.view, 2 * DEAD_AFTER - 1)
    assert "node 3 not heard of" in reason
    assert watch.verdicts_with({3}, 2 * DEAD_AFTER) == [(3, True)]


def test_what_a_leader_heard_when_it_led_before_is_forgotten() -> None:
    watch = Watch(plain(16, 5))
    watch.hear_all_but(set(), 10.0)
    watch.liveness.following()
    watch.liveness.leading(5 * DEAD_AFTER)
    assert watch.verdicts_with({3}, 5 * DEAD_AFTER) == []
    assert watch.verdicts_with({3}, 6 * DEAD_AFTER) == [(3, True)]


def test_a_node_that_does_not_lead_judges_nobody() -> None:
    watch = Watch(with_node(plain(16, 5), 2, dead=True))
    watch.liveness.following()
    assert watch.verdicts_with({3}, 9 * DEAD_AFTER) == []
    assert watch.liveness.reason_to_wait(watch.view, 9 * DEAD_AFTER) == ""
    assert watch.liveness.silent_ms(3, 9 * DEAD_AFTER) == 0.0


@pytest.mark.parametrize(
    ("nodes", "silent", "declared"),
    [(3, 1, 1), (4, 1, 1), (4, 2, 0), (6, 2, 2), (6, 3, 0), (2, 1, 0), (9, 3, 3), (9, 4, 0)],
)
def test_nobody_is_declared_dead_while_more_than_a_third_is_silent(
    nodes: int, silent: int, declared: int
) -> None:
    watch = Watch(plain(32, nodes))
    gone = set(range(2, 2 + silent))
    assert len(watch.verdicts_with(gone, DEAD_AFTER)) == declared
    reason = watch.liveness.reason_to_wait(watch.view, DEAD_AFTER)
    assert ("more than a third" in reason) == (declared == 0)


def test_those_declared_dead_before_count_in_the_third() -> None:
    watch = Watch(with_node(plain(16, 5), 2, dead=True))
    assert watch.verdicts_with({2, 3}, DEAD_AFTER) == []
    assert "2 of 5 nodes look dead" in watch.liveness.outage(watch.view, DEAD_AFTER)


def test_a_new_leader_takes_those_for_dead_who_were_declared_so() -> None:
    watch = Watch(with_node(with_node(plain(16, 5), 2, dead=True), 3, dead=True))
    watch.hear_all_but({2, 3}, 1.0)
    assert "2 of 5 nodes look dead" in watch.liveness.outage(watch.view, 1.0)
    watch.hear_all_but({2}, 2.0)
    assert watch.liveness.outage(watch.view, 2.0) == ""


def test_those_that_hold_nothing_any_more_do_not_count() -> None:
    holders = {shard: [1, 3, 4] for shard in range(1, 5)}
    healed = with_node(view_of(holders, dict.fromkeys(range(1, 6), "")), 2, dead=True)
    watch = Watch(healed)  # 2 has been healed, 5 has nothing yet: 1 of 4
    assert watch.verdicts_with({2, 3}, DEAD_AFTER) == [(3, True)]
    six = {shard: [1, 3, 4] for shard in range(1, 5)} | {5: [5, 6]}
    watch = Watch(with_node(view_of(six, dict.fromkeys(range(1, 7), "")), 2, dead=True))
    assert watch.verdicts_with({2, 3, 4}, DEAD_AFTER) == []
    assert "2 of 5 nodes look dead" in watch.liveness.outage(watch.view, DEAD_AFTER)


def test_those_that_people_remove_do_not_count() -> None:
    view = plain(16, 5)
    for node in (2, 3):
        view = with_node(view, node, dead=True)
    watch = Watch(view)
    watch.hear_all_but({2, 3}, DEAD_AFTER)
    assert watch.liveness.outage(watch.view, DEAD_AFTER)
    for node in (2, 3):
        watch.view = with_node(watch.view, node, state=NodeState.REMOVING)
    assert watch.liveness.outage(watch.view, DEAD_AFTER) == ""


def test_those_that_have_left_are_never_judged() -> None:
    watch = Watch(with_node(plain(16, 5), 3, state=NodeState.LEFT))
    assert watch.verdicts_with({3}, 2 * DEAD_AFTER) == []


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.REMOVING])
def test_a_node_that_shall_go_may_die_too(state: NodeState) -> None:
    watch = Watch(with_node(plain(16, 5), 3, state=state))
    assert watch.verdicts_with({3}, DEAD_AFTER) == [(3, True)]


def zoned(zones: dict[int, str]) -> Watch:
    return Watch(view_of({number: [number] for number in zones}, zones))


def test_nobody_is_declared_dead_while_two_zones_look_dead() -> None:
    zones = {node: f"zone-{node}" for node in range(1, 8)}
    assert zoned(zones).verdicts_with({2}, DEAD_AFTER) == [(2, True)]
    watch = zoned(zones)
    assert watch.verdicts_with({2, 3}, DEAD_AFTER) == []
    assert "zone-2, zone-3 look dead" in watch.liveness.outage(watch.view, DEAD_AFTER)


def test_a_zone_looks_dead_only_when_all_of_it_does() -> None:
    watch = zoned({node: "ab"[node % 2] for node in range(1, 8)})
    assert watch.verdicts_with({2, 3}, DEAD_AFTER) == [(2, True), (3, True)]


@pytest.mark.parametrize("names", [("", ""), ("a", "")])
def test_zones_count_only_when_two_are_named(names: tuple[str, str]) -> None:
    watch = zoned({1: "", 2: names[0], 3: names[1], 4: "", 5: "", 6: "", 7: ""})
    assert watch.verdicts_with({2, 3}, DEAD_AFTER) == [(2, True), (3, True)]


def test_one_dead_zone_of_three_is_rebuilt() -> None:
    watch = zoned({node: f"zone-{node % 3}" for node in range(1, 10)})
    assert watch.verdicts_with({3, 6, 9}, DEAD_AFTER) == [(3, True), (6, True), (9, True)]


def test_without_silence_there_is_nothing_to_wait_for() -> None:
    watch = Watch(plain(16, 5))
    watch.hear_all_but(set(), 10.0)
    assert watch.liveness.reason_to_wait(watch.view, 10.0) == ""
    assert watch.liveness.silent_ms(3, 25.0) == 15.0
