"""A cluster over three regions, 40 ms apart: who waits for how many trips around the world.

Time is virtual, so latencies are exact: a trip there and back takes 80 ms, and what the
nodes do besides takes the rest of the few milliseconds that are allowed here.
"""

from __future__ import annotations

from statistics import median

import attrs
import pytest

from krita import requests
from krita.operations import Consistency
from kritad.host.opening import HostSettings
from tests.simulator.client import SimClient
from tests.simulator.history import Fate, Kind
from tests.simulator.loop import MS_US, SECOND_US
from tests.simulator.plan import draw_plan
from tests.simulator.world import World

FAR_US = 40_000
TRIP_MS = 2 * FAR_US / MS_US
SLACK_MS = 12.0
# As docs/operations.md advises: heartbeats no rarer than a trip, elections of ten.
SETTINGS = HostSettings(heartbeat_ms=100, election_ms=800, leader_zones=("region 0",))
TIMES = 15
KEYS = 6


class Regions:
    """Three nodes and a client in each of three regions."""

    def __init__(self) -> None:
        plan = attrs.evolve(
            draw_plan(1), nodes=3, shards=2, factor=3, settings=SETTINGS, regions=3, far_us=FAR_US,
            delay_us=100, jitter_us=0, loss=0.0, duplicate=0.0, disk_us=200, clock_spread=0.0,
            buggify=False, faults=(), reshapes=(), lasting="",
        )  # fmt: skip
        self.world = World(plan)
        self.world.grow()
        self.clients = [SimClient(self.world, number, sessions=False) for number in (1, 2, 3)]

    def settle(self) -> None:
        """Until the leaders are where they are wanted, and everybody has heard."""
        world = self.world
        world.wait("the leaders are in the first region", lambda: self.leaders() == {"region 0"})
        world.loop.run_until(world.loop.now_us + 3 * SECOND_US)

    def leaders(self) -> set[str]:
        found = [self.world.leader(shard) for shard in self.world.shards() if shard]
        return {"none" if node is None else node.zone for node in found}

    def latency_ms(
        self, region: int, kind: Kind, consistency: Consistency = Consistency.LINEARIZABLE
    ) -> float:
        """The median of so many operations, one after the other; the first is not counted:
        it dials."""
        return median([self._once(region, kind, consistency) for _ in range(TIMES + 1)][1:])

    def _once(self, region: int, kind: Kind, consistency: Consistency) -> float:
        world, client = self.world, self.clients[region]
        key = b"k%d" % (len(world.history.operations) % KEYS)
        put = kind is Kind.PUT
        operation = world.history.begin(
            world.loop.now_us, client.number, kind, 0, key, b"value" if put else None
        )
        request = requests.put(key, b"value") if put else requests.get(key, consistency)
        answered: list[bool] = []
        client.call(operation, request, 10.0, lambda: answered.append(True))
        while not answered:
            world.loop.run_until(world.loop.now_us + MS_US)
        assert operation.fate is Fate.OK
        assert operation.returned_us is not None
        return (operation.returned_us - operation.invoked_us) / MS_US


@pytest.fixture(scope="module")
def regions() -> Regions:
    found = Regions()
    found.settle()
    return found


@pytest.mark.parametrize("kind", [Kind.PUT, Kind.GET])
@pytest.mark.parametrize(("region", "trips"), [(0, 1), (1, 2), (2, 2)])
def test_beside_the_leaders_one_trip_is_waited_for_and_elsewhere_two(
    regions: Regions, kind: Kind, region: int, trips: int
) -> None:
    took_ms = regions.latency_ms(region, kind)
    assert trips * TRIP_MS <= took_ms <= trips * TRIP_MS + SLACK_MS


@pytest.mark.parametrize("region", [0, 1, 2])
def test_a_stale_read_stays_in_its_region(regions: Regions, region: int) -> None:
    regions.latency_ms(region, Kind.PUT)
    assert regions.latency_ms(region, Kind.GET, Consistency.STALE) <= SLACK_MS


def test_when_the_leaders_region_is_lost_the_others_go_on_and_give_them_back() -> None:
    regions = Regions()
    regions.settle()
    lost = next(node for node in regions.world.members if node.zone == "region 0")
    lost.crash(power=True)
    for region in (1, 2):
        assert regions.latency_ms(region, Kind.PUT) <= 2 * TRIP_MS + SLACK_MS
        assert regions.latency_ms(region, Kind.GET, Consistency.STALE) <= SLACK_MS
    lost.start()
    regions.settle()
    assert regions.latency_ms(1, Kind.PUT) <= 2 * TRIP_MS + SLACK_MS
