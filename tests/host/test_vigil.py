"""Who is dead, as the meta shard's leader finds out; cluster/liveness.py has the rules."""

from __future__ import annotations

import attrs
import pytest

from kritad.cluster.model import NodeRecord, ReplicaRecord, Report, ReportedReplica, ShardRecord
from kritad.cluster.view import MetaView
from kritad.host.vigil import Verdict, Vigil
from tests.host.clock import VirtualClock

DEAD_AFTER_MS = 10_000


@attrs.define
class Watch:
    """A vigil over five nodes that each hold the one shard, or another."""

    clock: VirtualClock
    present: set[int]
    vigil: Vigil
    view: MetaView

    def go(self, ms: int, *, leading: bool = True) -> list[Verdict]:
        """Let time pass, with a look five times a second; the last look's verdicts."""
        verdicts: list[Verdict] = []
        for _ in range(ms // 200):
            self.clock.advance(200)
            verdicts = self.vigil.step(self.view, leading)
        return verdicts


def view_of(nodes: int = 5) -> MetaView:
    records = {
        n: NodeRecord(n, bytes([n]) * 16, f"n{n}:8080", "", boot_counter=n)
        for n in range(1, nodes + 1)
    }
    replicas = tuple(ReplicaRecord(n, n) for n in records)
    report = Report(1, 1, tuple(ReportedReplica(n, n, True) for n in records))
    shards = {s: ShardRecord(s, 0, 1 << 32, 1, 1, replicas, report) for s in (0, 1)}
    return MetaView(b"c" * 16, nodes, 9, records, shards)


@pytest.fixture
def watch() -> Watch:
    clock, present = VirtualClock(), {1, 2, 3, 4, 5}
    return Watch(clock, present, Vigil(DEAD_AFTER_MS, clock, lambda: present), view_of())


def test_nobody_is_dead_while_all_are_there(watch: Watch) -> None:
    assert watch.go(60_000) == []
    assert watch.vigil.document(watch.view) == {"healing": "", "silent": []}


def test_a_node_that_is_silent_for_long_is_dead_with_the_boot_that_was_known(watch: Watch) -> None:
    watch.go(2000)
    watch.present.remove(4)
    assert watch.go(DEAD_AFTER_MS - 400) == []
    assert watch.go(400) == [Verdict(4, True, boot_counter=4)]


def test_people_see_when_a_silent_node_will_be_dead(watch: Watch) -> None:
    watch.go(2000)
    watch.present.remove(4)
    watch.go(4000)
    assert watch.vigil.document(watch.view) == {
        "healing": "",
        "silent": [{"node": 4, "dead_in_s": 6.0}],
    }


def test_a_new_leader_waits_before_it_judges_those_that_it_never_heard(watch: Watch) -> None:
    watch.present.remove(4)
    assert watch.go(60_000, leading=False) == []
    assert watch.go(DEAD_AFTER_MS - 400) == []
    document = watch.vigil.document(watch.view)
    assert document is not None
    assert "node 4 not heard of" in str(document["healing"])
    assert watch.go(600) == [Verdict(4, True, boot_counter=4)]


def test_who_leads_again_has_heard_nothing_meanwhile(watch: Watch) -> None:
    watch.go(2000)
    watch.present.remove(4)
    watch.go(DEAD_AFTER_MS - 1000)
    watch.go(2000, leading=False)
    assert watch.go(2000) == []


def test_a_dead_node_that_is_heard_is_alive(watch: Watch) -> None:
    dead = attrs.evolve(watch.view.nodes[4], dead=True)
    watch.view = attrs.evolve(watch.view, nodes={**watch.view.nodes, 4: dead})
    watch.present.remove(4)
    assert watch.go(2000) == []
    watch.present.add(4)
    assert watch.go(200) == [Verdict(4, False, boot_counter=4)]


def test_when_too_many_are_silent_nobody_is_dead_and_that_is_said(watch: Watch) -> None:
    watch.go(2000)
    watch.present -= {4, 5}
    assert watch.go(60_000) == []
    assert "more than a third" in watch.vigil.outage(watch.view)


def test_who_does_not_lead_the_meta_shard_says_nothing(watch: Watch) -> None:
    watch.present.clear()
    assert watch.go(60_000, leading=False) == []
    assert watch.vigil.document(watch.view) is None
    assert watch.vigil.outage(watch.view) == ""


def test_a_node_that_has_just_joined_or_started_has_its_time_to_be_heard(watch: Watch) -> None:
    watch.go(60_000)
    newcomer = NodeRecord(6, b"6" * 16, "n6:8080", "", boot_counter=0)
    watch.view = attrs.evolve(watch.view, nodes={**watch.view.nodes, 6: newcomer})
    assert watch.go(DEAD_AFTER_MS - 200) == []
    assert watch.go(400) == [Verdict(6, True, boot_counter=0)]
    started = attrs.evolve(newcomer, boot_counter=1)
    watch.view = attrs.evolve(watch.view, nodes={**watch.view.nodes, 6: started})
    assert watch.go(DEAD_AFTER_MS - 200) == []
    assert watch.go(400) == [Verdict(6, True, boot_counter=1)]
