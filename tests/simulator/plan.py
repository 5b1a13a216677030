"""What a seed means: the cluster, its knobs, its world, and the faults that befall it.

Swarm testing (Groce and others, 2012): a seed turns whole families of faults off and
draws its knobs far from the defaults, because a run in which everything happens at
once hides what a run in which one thing happens all the time shows.

A plan is a value: the same seed gives the same one, and a smaller one (fewer faults,
fewer clients) is still a plan, which is what shrinking rests on.

To add a fault: a name in ``FAMILIES``, how it is drawn in ``_draw_fault`` if it needs
more than a node and a time, and what it does in faults.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kritad.host.opening import HostSettings
from tests.simulator.loop import Chance

# name: how likely it is among the families that a seed has switched on
FAMILIES: dict[str, int] = {
    "kill": 4,  # kill -9: what was not saved is lost, what was written is not
    "power-cut": 3,  # and what was not synced goes too
    "kill-all": 1,  # power is cut everywhere at once
    "pause": 3,  # SIGSTOP, then SIGCONT
    "partition": 4,  # two sides that do not hear each other
    "one-way": 3,  # some are heard and do not hear
    "clog": 3,  # a link holds everything back for a while, then lets it go
    "reset": 2,  # connections break, and what was on them is lost
    "slow-disk": 2,
    "stalled-disk": 1,
    "disk-error": 1,  # the node has to stop, and is started again
    "disk-low": 1,
    "clock-jump": 1,
    "campaign": 2,  # a replica seeks leadership for no reason
    "step-down": 1,
    "transfer": 2,
    "client-dies": 1,
    "bit-rot": 1,  # a row of one node, always the same, is damaged on its disk
    "join": 1,  # one more node, and so replicas that move
    "dies": 1,  # a node is gone until all is healed; the others may have rebuilt its replicas
}

# What people who look after the cluster ask for meanwhile (reshape.py), and how often.
RESHAPES: dict[str, int] = {
    "drain": 3,
    "recommission": 3,
    "remove": 1,
    "replace": 1,
    "label": 1,
    "move": 4,
    "split": 3,
    "hold": 1,
    "release": 2,
    "cancel": 1,
}

# What people do beside reading, putting and deleting (crafts/scripts.py).
CRAFTS = (
    "ttl",
    "counters",
    "watches",
    "transactions",
    "locks",
    "repeated",
    "leases",
    "scans",
    "stale-reads",
    "versions",
    "inquiries",
)
# Behind all else, so that lives without them are what they were before there were any.
_DRAWN_LAST = ("inquiries",)

FEED_BYTES = 16 << 20
_WIDE = 1 << 60  # of a limit that was not drawn: it lets everything through

# What may stay with one node for good, and every shard has to be served nevertheless.
LASTING = (
    "dead",
    "stalled-disk",
    "deaf",  # hears nobody, and is heard
    "mute",  # is not heard, and hears
    "pair",  # it and one other do not hear each other
)


@attrs.frozen
class Fault:
    """One thing that goes wrong. ``target`` picks the node: below 1000 an index into
    the nodes there are, from 1000 on the leader of the shard ``target - 1000``."""

    at_ms: int  # after chaos begins
    kind: str
    target: int
    duration_ms: int
    chance: int  # seeds what the fault itself leaves to chance

    def __str__(self) -> str:
        whom = f"leader of {self.target - 1000}" if self.target >= 1000 else f"node {self.target}"
        return f"{self.at_ms / 1000:7.2f} s {self.kind} ({whom}) for {self.duration_ms} ms"


@attrs.frozen
class Reshape:
    """One wish of the people who look after the cluster."""

    at_ms: int  # after chaos begins
    kind: str
    chance: int  # seeds what it is about


@attrs.frozen
class Plan:
    """A whole life. Durations are in milliseconds of the world's time."""

    seed: int
    nodes: int
    shards: int
    factor: int
    settings: HostSettings
    # the network between nodes, and between them and clients
    delay_us: int
    jitter_us: int
    loss: float
    duplicate: float
    encode: bool  # messages go through the real codec
    # disks and clocks
    disk_us: int
    clock_spread: float
    wall_spread_ms: int
    # the people
    clients: int
    pipeline: int  # operations that one client has under way at a time
    keys: int
    think_ms: int
    value_bytes: int
    timeout_ms: int
    reads: float
    conditional: float
    sessions: bool
    session_ttl_ms: int
    chaos_ms: int
    buggify: bool
    lasting: str  # of LASTING: what stays when all else is healed; it must do no harm
    faults: tuple[Fault, ...]
    reshapes: tuple[Reshape, ...] = ()
    regions: int = 1  # nodes and clients are in one after the other
    far_us: int = 0  # what it takes longer from one region to another
    crafts: tuple[str, ...] = ()  # of CRAFTS
    feed_bytes: int = FEED_BYTES  # what a shard remembers of its changes, for watches

    def zone_of(self, number: int) -> str:
        """The region of the node or client of that number, from 1 on; "" if there is one."""
        return f"region {(number - 1) % self.regions}" if self.regions > 1 else ""

    @property
    def calm_ms(self) -> int:
        """What people think, on average, when they take their time: so long that a leader which
        brings its followers one entry a round trip keeps up with all of them."""
        limits, one_bytes = self.settings.raft_limits, max(1, self.value_bytes)
        one_each = limits.get("append_bytes_max", _WIDE) <= one_bytes
        one_messages = limits.get("inflight_messages_max", _WIDE) == 1
        one_under_way = one_messages or limits.get("inflight_bytes_max", _WIDE) <= one_bytes
        if not (one_each and one_under_way):
            return 500
        people = self.clients * self.pipeline + 2 * len(self.crafts)
        round_ms = 2 * (self.delay_us + self.jitter_us + self.far_us) // 1000
        return max(500, 2 * people * round_ms)

    @property
    def families(self) -> list[str]:
        """The kinds of faults in it."""
        return sorted({fault.kind for fault in self.faults})


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    plan = _with_crafts(Chance(seed).stream("crafts"), plain_plan(seed))
    follow = Chance(seed).stream("follow").choice([0, 2, 10, 50])
    scrub_pass_ms = Chance(seed).stream("scrub").choice([0.0, 0.0, 0.0, 10_000.0])
    settings = attrs.evolve(
        plan.settings, leaders_follow_requests_per_s=follow, scrub_pass_ms=scrub_pass_ms
    )
    return attrs.evolve(plan, settings=settings)


def plain_plan(seed: int) -> Plan:
    """The plan of a seed, without crafts."""
    dice = Chance(seed).stream("plan")
    nodes = dice.choice([1, 2, 3, 3, 3, 3, 4, 5])
    shards = dice.choice([1, 1, 2, 4])
    length_ms = dice.choice([10_000, 20_000, 40_000])
    lossy = dice.random() < 0.4
    plan = Plan(
        seed=seed,
        nodes=nodes,
        shards=shards,
        factor=3,
        settings=_draw_settings(dice),
        delay_us=dice.choice([50, 200, 1_000, 10_000]),
        jitter_us=dice.choice([0, 100, 1_000, 20_000]),
        loss=dice.choice([0.01, 0.05, 0.2]) if lossy else 0.0,
        duplicate=dice.choice([0.0, 0.02]) if lossy else 0.0,
        encode=dice.random() < 0.3,
        disk_us=dice.choice([200, 500, 2_000, 10_000]),
        clock_spread=dice.choice([0.0, 0.001, 0.05]),
        wall_spread_ms=dice.choice([0, 500, 3_600_000]),
        clients=dice.choice([1, 3, 6]),
        pipeline=dice.choice([1, 1, 3]),
        keys=dice.choice([2, 5, 12]),
        think_ms=dice.choice([5, 20, 100]),
        value_bytes=dice.choice([0, 0, 100, 2_000]),
        timeout_ms=dice.choice([300, 1_000, 5_000]),
        reads=dice.choice([0.2, 0.5, 0.8]),
        conditional=dice.choice([0.0, 0.3]),
        sessions=dice.random() < 0.8,
        session_ttl_ms=dice.choice([3_600_000, 3_600_000, 1_000]),
        chaos_ms=length_ms,
        buggify=dice.random() < 0.6,
        lasting=dice.choice(LASTING) if nodes >= 3 and dice.random() < 0.5 else "",
        faults=(),
    )
    return attrs.evolve(
        plan,
        faults=_draw_faults(Chance(seed).stream("faults"), plan),
        reshapes=_draw_reshapes(Chance(seed).stream("reshapes"), plan),
    )


def steered_plan(seed: int, families: Sequence[str], changes: Mapping[str, Any]) -> Plan:
    """The plan of a seed with some of it decided: what is looked for needs that. Of the
    settings only those named in ``changes["settings"]``, and no crafts but those named."""
    plan = plain_plan(seed)
    settings = attrs.evolve(plan.settings, **changes.get("settings", {}))
    plan = attrs.evolve(plan, **{**changes, "settings": settings})
    dice = Chance(seed).stream("faults")
    return attrs.evolve(plan, faults=_draw_faults(dice, plan, families))


def _draw_settings(dice: random.Random) -> HostSettings:
    tick_ms = dice.choice([20, 50, 50, 100])
    heartbeat = dice.choice([1, 2, 4])
    limits: dict[str, int] = {}
    if dice.random() < 0.6:
        limits = {
            "append_bytes_max": dice.choice([1, 300, 64 << 10]),
            "inflight_messages_max": dice.choice([1, 3, 64]),
            "inflight_bytes_max": dice.choice([1, 2_000, 4 << 20]),
            "window_bytes": dice.choice([1, 500, 1 << 20]),
            "promotion_lag_max": dice.choice([0, 5, 1000]),
        }
    return HostSettings(
        tick_ms=tick_ms,
        heartbeat_ms=tick_ms * heartbeat,
        election_ms=tick_ms * heartbeat * dice.choice([3, 5, 10]),
        cache_bytes=dice.choice([1, 10_000, 1 << 20]),
        memtable_bytes=dice.choice([500, 20_000, 1 << 20]),
        log_tail_bytes=dice.choice([1, 1_000, 32 << 10, 1 << 20]),
        flush_interval_ms=dice.choice([100.0, 1_000.0, 5_000.0]),
        checkpoint_interval_ms=dice.choice([200.0, 2_000.0, 10_000.0]),
        dead_after_ms=dice.choice([1_500.0, 5_000.0, 300_000.0]),
        shard_bytes_max=dice.choice([0, 0, 0, 2_000]),
        raft_limits=limits,
    )


def _draw_faults(
    dice: random.Random, plan: Plan, families: Sequence[str] = ()
) -> tuple[Fault, ...]:
    on = list(families) or [family for family in FAMILIES if dice.random() < 0.5]
    if not on or dice.random() < 0.05:
        return ()  # a quiet life has bugs of its own
    weights = [FAMILIES[family] for family in on]
    pause_ms = dice.choice([300, 1_000, 3_000])  # on average between two faults
    long_ms = dice.choice([200, 1_000, 4_000])
    faults = []
    at_ms = 0.0
    while (at_ms := at_ms + dice.expovariate(1 / pause_ms)) < plan.chaos_ms:
        kind = dice.choices(on, weights)[0]
        leader = dice.random() < 0.4
        target = 1000 + dice.randint(0, plan.shards) if leader else dice.randrange(16)
        duration_ms = 1 + int(dice.expovariate(1 / long_ms))
        faults.append(Fault(int(at_ms), kind, target, duration_ms, dice.getrandbits(32)))
    return tuple(faults)


def _draw_reshapes(dice: random.Random, plan: Plan) -> tuple[Reshape, ...]:
    if plan.nodes < 3 or dice.random() < 0.4:
        return ()
    on = [kind for kind in RESHAPES if dice.random() < 0.6] or ["move"]
    weights = [RESHAPES[kind] for kind in on]
    pause_ms = dice.choice([500, 2_000, 5_000])  # on average between two wishes
    wishes = []
    at_ms = 0.0
    while (at_ms := at_ms + dice.expovariate(1 / pause_ms)) < plan.chaos_ms:
        wishes.append(Reshape(int(at_ms), dice.choices(on, weights)[0], dice.getrandbits(32)))
    return tuple(wishes)


def _with_crafts(dice: random.Random, plan: Plan) -> Plan:
    """From a stream of its own: lives without crafts are what they were before there were any."""
    drawn_first = [craft for craft in CRAFTS if craft not in _DRAWN_LAST]
    crafts = tuple(craft for craft in drawn_first if dice.random() < 0.25)
    feed_bytes = dice.choice([FEED_BYTES, FEED_BYTES, 5_000])
    value_bytes_max = dice.choice([1 << 20, 1 << 20, 8_000])  # and so long are answers
    if not crafts or dice.random() < 0.4:
        return plan
    crafts += tuple(craft for craft in _DRAWN_LAST if dice.random() < 0.25)
    settings = attrs.evolve(plan.settings, value_bytes_max=value_bytes_max)
    return attrs.evolve(plan, crafts=crafts, feed_bytes=feed_bytes, settings=settings)


def to_json(plan: Plan) -> str:
    """A plan as text, for a file."""
    return json.dumps(attrs.asdict(plan), indent=1)


def from_json(text: str) -> Plan:
    """The inverse of to_json."""
    fields = json.loads(text)
    settings = fields["settings"]
    settings["leader_zones"] = tuple(settings.get("leader_zones", ()))
    fields["settings"] = HostSettings(**settings)
    fields["faults"] = tuple(Fault(**fault) for fault in fields["faults"])
    fields["reshapes"] = tuple(Reshape(**wish) for wish in fields.get("reshapes", ()))
    fields["crafts"] = tuple(fields.get("crafts", ()))
    return Plan(**fields)
