"""A directed life: whole nodes and people, as in any other, to which a story happens instead of
chance.

What needs four things to come together in a certain order, none of which is rare, is met by chance
once in thousands of lives. A story makes these things happen, each when the one before has come
about, and everything is looked at as ever: the invariants at every turn, then healing, rest
and judgement.

To add one: a class with ``changes`` of the plan and ``happen`` in one of this folder's files, and
its name in stories.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad import buggify
from kritad.access import ADMIN, Principal
from kritad.host.opening import HostSettings
from kritad.host.replica import Replica
from tests.simulator.loop import MS_US
from tests.simulator.node import SimNode
from tests.simulator.plan import Plan, plain_plan
from tests.simulator.world import World

_SEED = 1
_TIMEOUT_MS = 3_000.0


def _stewards_only(site: str) -> bool:
    return site == "steward.idle"


class Story(World):
    """See the module's docstring."""

    changes: ClassVar[dict[str, Any]] = {}  # of the plan
    settings: ClassVar[dict[str, Any]] = {}  # of the nodes

    @classmethod
    def drawn(cls) -> Plan:
        """A life in which nothing happens by itself."""
        calm: dict[str, Any] = {
            "nodes": 3, "shards": 1, "delay_us": 200, "jitter_us": 0, "loss": 0.0, "duplicate": 0.0,
            "encode": False, "disk_us": 500, "clock_spread": 0.0, "wall_spread_ms": 0, "clients": 2,
            "pipeline": 1, "keys": 12, "think_ms": 20, "value_bytes": 0, "timeout_ms": 1_000,
            "reads": 0.3, "conditional": 0.0, "sessions": True, "session_ttl_ms": 3_600_000,
            "buggify": False, "lasting": "", "faults": (), "reshapes": (), "chaos_ms": 0,
        }  # fmt: skip
        settings = HostSettings(tick_ms=50, heartbeat_ms=50, election_ms=500, **cls.settings)
        return attrs.evolve(plain_plan(_SEED), **{**calm, "settings": settings, **cls.changes})

    def happen(self) -> None:
        """The story, while people work."""
        raise NotImplementedError

    # --- what stories are made of -------------------------------------------------------

    def at(self, number: int) -> SimNode:
        """The node with that number."""
        return self.network.nodes[number]

    def here(self, shard: int, number: int) -> Replica:
        """The replica of a shard that runs there."""
        replica = self.at(number).replica(shard)
        assert replica is not None, f"shard {shard} is not open on node {number}"
        return replica

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Let time pass until just then."""
        self.wait(what, condition, step_us=MS_US)

    def pass_ms(self, duration_ms: int) -> None:
        """Let time pass."""
        self._run(duration_ms * MS_US)

    def ask(self, number: int, op: Op, *fields: object) -> None:
        """An administrator asks this of that node, until it is granted."""
        granted: list[int] = []

        def answered(status: int, _reply: object) -> None:
            granted.append(status)

        def is_granted() -> bool:
            if granted and granted[-1] == Status.OK:
                return True
            node, principal = self.at(number), Principal(ADMIN, loopback=True)
            if len(granted) == asked[0]:
                asked[0] += 1
                node.do(
                    node.service.submit, op, encode_body(op, *fields), principal, _TIMEOUT_MS, 0,
                    answered,
                )  # fmt: skip
            return False

        asked = [0]
        self.until(f"{op.name} {fields} is granted", is_granted)

    def cut(self, one: int, other: int) -> None:
        """These two hear each other no more, until all is mended."""
        self.faults._cut_between(self.at(one), [self.at(other)], inwards=True, outwards=True)

    def mend(self) -> None:
        """Whoever was cut hears the others again."""
        for link in self.faults._cuts:
            self.network.mend_link(link)
        self.faults._cuts.clear()

    def lead(self, shard: int, number: int) -> None:
        """Have the shard led there."""

        def is_led() -> bool:
            leader = self.leader(shard)
            if leader is None or leader.number == number:
                return leader is not None
            replica = leader.replica(shard)
            assert replica is not None
            if not replica.raft.transferring and replica.raft.configuration_committed:
                replica.raft.transfer(self.here(shard, number).id)
                leader.host.drive.mark(replica)
            return False

        self.until(f"node {number} leads shard {shard}", is_led)

    @contextmanager
    def stewards_rest(self) -> Iterator[None]:
        """Nobody's steward takes a step meanwhile."""
        buggify.set_chooser(_stewards_only)
        yield
        buggify.set_chooser(None)
