"""A simulated cluster with its people, from founding to the last check.

The phases of a life: the cluster is founded and grows to its size; chaos, while
people work; healing, after which everything must work again within a bound (the
liveness that VOPR of TigerBeetle asks for); rest, in which all replicas must become
equal; and the reading of every key, which the whole history has to explain.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from krita import requests
from krita.ring import META_SHARD, ShardMap
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from kritad.host.replica import Replica
from tests.simulator.census import take_census
from tests.simulator.chronicle.chronicle import Apply, Chronicle
from tests.simulator.client import SimClient
from tests.simulator.crafts.guild import Guild
from tests.simulator.faults import Faults
from tests.simulator.history import Fate, History, Kind, Operation
from tests.simulator.invariants import Invariants, Violation
from tests.simulator.linearizability import check_linearizability
from tests.simulator.loop import MS_US, SECOND_US, Chance, Loop
from tests.simulator.network import Network
from tests.simulator.node import SimNode
from tests.simulator.plan import Plan
from tests.simulator.reshape import Reshaper
from tests.simulator.witness import check_final
from tests.simulator.workload import Person

if TYPE_CHECKING:
    from tests.simulator.run import Sites

_SEARCHED_EVERY = 4  # seeds whose history is searched for an order as well
_STEP_US = 100 * MS_US  # how often a condition is looked at
_REST_LIMIT_S = 60
# How many voters the meta shard gets with so many nodes: an odd number, once there are three.
_META_VOTERS = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5}
# Leaders may be moved for balance, and by an election that was under way.
_QUIET_ELECTIONS, _TERMS_MAX = 20, 4
# Requests after which people take their time in any case. Some lives had four times as many, and
# took as long as all the others together: what those find, a dozen other lives find sooner.
_HURRIED_MAX = 30_000
_LIVELY_S = 3  # people go on for so long after the healing


class World:
    """See the module's docstring. ``live()`` raises Violation."""

    def __init__(self, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.loop = Loop()
        self.loop.trace = trace
        self.chance = Chance(plan.seed)
        self.network = Network(self.loop, plan, self.chance)
        self.invariants = Invariants()
        self.network.on_send = self.invariants.on_send
        self.faults = Faults(self)
        self.reshaper = Reshaper(self)
        self.nodes: list[SimNode] = []
        self.people: list[Person] = []
        self.history = History()
        self.chronicle = Chronicle(plan.session_ttl_ms)
        self.guild = Guild(self)
        self.resting = False  # people do nothing new
        self._awaited: dict[int, int] | None = None  # writes before, while more are waited for
        self.calm = False  # people take their time: there is nothing to find in more of it
        # Shards with a damaged row, all on one node: its replica may be silent for good.
        self.rotten: dict[int, SimNode] = {}
        self.written: Counter[int] = Counter()  # acknowledged writes, by shard
        self.sites: Sites | None = None  # who decides of the product's misbehaviour
        self._clients = 0
        self._ring: ShardMap | None = None  # of the newest view that anybody had
        self._view = MetaView()

    # --- a life -------------------------------------------------------------------------

    def live(self) -> None:
        """The whole of it."""
        self.grow()
        for _ in range(self.plan.clients):
            self._add_client()
        self.guild.start()
        self.faults.start()
        self.reshaper.start()
        self.happen()
        self.heal()
        self.rest()
        self.judge()

    def happen(self) -> None:
        """The faults of the plan, and the wishes."""
        self._run(self.plan.chaos_ms * MS_US)

    def grow(self) -> None:
        """From one node to the plan's number, every shard with its replicas."""
        first = self._new_node()
        first.found()
        self.wait("the first node serves", lambda: self.leader(self.plan.shards) is not None)
        for _ in range(self.plan.nodes - 1):
            self.add_node(first)
        copies = min(self.plan.nodes, self.plan.factor)
        self.wait("the cluster has grown", lambda: self._grown(copies) and self._knows_ring())

    def heal(self) -> None:
        """All faults end but, perhaps, one that lasts: it must not keep any shard from
        being served. Then that one ends too."""
        self.faults.heal()
        self.reshaper.over = True
        if self.sites is not None:
            self.sites.over = True
        self.loop.note("HEALED")
        if self.plan.lasting and not self.rotten:  # two of three would be a majority
            self.faults.begin_lasting(self.plan.lasting, self.chance.stream("lasting"))
            self._serve(f"({self.plan.lasting} lasts) ")
            self._keep_leaders()
            self.faults.heal()
        self._serve("")

    def _serve(self, while_: str) -> None:
        """Within a bound every shard has a leader and takes writes."""
        self.wait(
            f"{while_}every shard has a leader",
            lambda: None not in map(self.leader, self.shards()),
        )
        written = dict(self.written)
        self._run(_LIVELY_S * SECOND_US)
        self._awaited = written
        self.calm = True  # more load than the drawn windows can carry has to end some time
        self.wait(f"{while_}every shard takes writes", lambda: self.awaited_key() is None)
        self.calm, self._awaited = False, None

    @property
    def think_ms(self) -> int:
        """What people think now, on average, between two requests."""
        done = len(self.history.operations) + len(self.guild.deeds)
        hurried = not self.calm and done < _HURRIED_MAX
        return self.plan.think_ms if hurried else self.plan.calm_ms

    def awaited_key(self) -> bytes | None:
        """One whose shard, as of now, has yet to show that it takes writes; a split may have
        left a shard without any. What few people happen to do with many shards may leave one
        out for minutes."""
        if self._awaited is None:
            return None
        keys = (b"k%d" % number for number in range(self.plan.keys))
        shards = ((key, self.shard_of(key)) for key in keys)
        return next((k for k, s in shards if self.written[s] <= self._awaited.get(s, 0)), None)

    def _keep_leaders(self) -> None:
        """Shards that are served keep their leaders, whatever one node goes through."""
        election_us = self.plan.settings.election_ms * MS_US
        self.calm = True
        self._run(10 * election_us)
        before = self._terms()
        self._run(_QUIET_ELECTIONS * election_us)
        self.calm = False
        for shard, term in self._terms().items():
            if term - before.get(shard, term) > _TERMS_MAX:
                raise Violation(
                    "leaders-stay",
                    f"shard {shard} went from term {before[shard]} to {term} within"
                    f" {_QUIET_ELECTIONS} election timeouts while only this was wrong:"
                    f" {self.plan.lasting}",
                )

    def _terms(self) -> dict[int, int]:
        return {
            shard: max((replica.raft.term for replica in self._replicas(shard)), default=0)
            for shard in self.shards()
        }

    def rest(self) -> None:
        """People stop, the cluster comes to the shape that was asked for, and every replica
        of a shard to the same state."""
        self.wait("nothing is held any more", self.reshaper.release, step_us=SECOND_US)
        # First, because a learner may have to have all of the log before it votes.
        self.resting = True
        self.wait("people get their last answers", lambda: all(p.idle for p in self.people))
        self.wait("all polls and others are answered", lambda: self.guild.idle)
        self.wait("the cluster has the wanted shape", self.reshaper.settled)
        self.wait("what is due has ended", self.guild.nothing_is_overdue)
        self.wait("the replicas are equal", self._converged)

    def observing(self, apply: Apply) -> Apply:
        """What stands in the place of ShardState.apply: who writes down what the log does."""
        return self.chronicle.observing(apply)

    def judge(self) -> None:
        """Read every key; then the history has to hold water, and the rows to add up."""
        final = self._read_all()
        for shard in self.shards() if not self.rotten else ():
            take_census(self._replicas(shard))
        operations = self.history.operations
        for operation in operations:
            # Keys that are in one shard in the end were together all the time, whatever
            # was split off meanwhile: they share the order of one log.
            operation.shard = self.shard_of(operation.key)
        problems = check_final(operations, final)  # and all that check_witness would find
        if problems or self.plan.seed % _SEARCHED_EVERY == 0:
            # Slower, and believes no revision: on samples, and on every failure.
            verdicts = check_linearizability(operations)
            if verdicts and not problems:
                raise Violation("linearizability", "; ".join(verdicts[:3]))
            problems += verdicts
        if problems:
            raise Violation("history", "; ".join(problems[:3]))
        self.guild.judge()

    def _read_all(self) -> dict[bytes, tuple[bytes | None, int]]:
        self.resting = False
        reader = SimClient(self, self.next_client(), sessions=False)
        found: dict[bytes, tuple[bytes | None, int]] = {}
        for number in range(self.plan.keys):
            key = b"k%d" % number
            operation = self.history.begin(
                self.loop.now_us, reader.number, Kind.GET, self.shard_of(key), key
            )
            reader.call(operation, requests.get(key), 30.0, lambda: None)
            self.wait("a key can be read", lambda op=operation: op.returned_us is not None)  # type: ignore[misc]
            if operation.fate is not Fate.OK:
                raise Violation("liveness", f"{key!r} cannot be read after all faults are over")
            found[key] = (operation.value, operation.revision)
        return found

    def _run(self, duration_us: int) -> None:
        self.loop.run_until(self.loop.now_us + duration_us)

    def wait(self, what: str, condition: Callable[[], bool], *, step_us: int = _STEP_US) -> None:
        """Let time pass until it is so. Raises Violation("liveness")."""
        settings = self.plan.settings
        limit_us = _REST_LIMIT_S * SECOND_US + 60 * settings.election_ms * MS_US
        end_us = self.loop.now_us + limit_us
        while not condition():
            if self.loop.now_us >= end_us:
                raise Violation("liveness", f"after {limit_us // SECOND_US} s not yet: {what}")
            self._run(step_us)

    # --- who is there -------------------------------------------------------------------

    def _new_node(self) -> SimNode:
        node = SimNode(self, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    def add_node(self, seed: SimNode) -> None:
        """One more node, which joins through ``seed``."""
        self._new_node().join(seed)

    @property
    def members(self) -> list[SimNode]:
        """The nodes that the cluster has taken in, up or down, and has not removed."""
        return [node for node in self.nodes if node.number and not node.removed]

    def node_at(self, address: str) -> SimNode | None:
        """Who listens there."""
        return next((node for node in self.nodes if node.address == address), None)

    def next_client(self) -> int:
        """A number for a client or a person."""
        self._clients += 1
        return self._clients

    def _add_client(self) -> None:
        client = SimClient(self, self.next_client(), sessions=self.plan.sessions)
        for _ in range(self.plan.pipeline):
            person = Person(self, client, self.next_client())
            self.people.append(person)
            person.begin()

    def replace_client(self, dice: random.Random) -> None:
        """A client dies in the middle of whatever it does, and another one comes."""
        if self.people:
            client = dice.choice(self.people).client
            client.die()
            self.people = [person for person in self.people if person.client is not client]
            self._add_client()

    # --- what is the case ---------------------------------------------------------------

    def view(self) -> MetaView:
        """The newest state of the meta shard that any node had."""
        for node in self.nodes:
            if node.number and node.host.view.version > self._view.version:
                self._view = node.host.view
                self._ring = node.host.build_shard_map()
        return self._view

    def shards(self) -> list[int]:
        """All there are, the meta shard among them."""
        return sorted(self.view().shards) or list(range(self.plan.shards + 1))

    def shard_of(self, key: bytes) -> int:
        """By the newest ring."""
        self.view()
        assert self._ring is not None, "the cluster has not been founded yet"
        return self._ring.shard_of(key).shard

    def _knows_ring(self) -> bool:
        self.view()
        return self._ring is not None

    def _replicas(self, shard: int) -> list[Replica]:
        found = [node.replica(shard) for node in self.members]
        return [replica for replica in found if replica is not None]

    def leader(self, shard: int) -> SimNode | None:
        """The node that leads a shard: in the highest term, should two believe it."""
        best: SimNode | None = None
        term = -1
        for node in self.members:
            replica = node.replica(shard)
            if replica is not None and replica.leads and replica.raft.term > term:
                best, term = node, replica.raft.term
        return best

    def _grown(self, copies: int) -> bool:
        """Whether every shard has its voters, by its leader's own configuration."""
        if len(self.members) < self.plan.nodes:
            return False
        for shard in self.shards():
            leader = self.leader(shard)
            if leader is None:
                return False
            replica = leader.replica(shard)
            assert replica is not None
            conf = replica.raft.configuration
            wanted = _META_VOTERS[self.plan.nodes] if shard == META_SHARD else copies
            if conf.joint or len(conf.voters) < wanted:
                return False
        return True

    def _converged(self) -> bool:
        """Whether all members of each shard are at the same place in the same state."""
        for shard in self.shards():
            leader = self.leader(shard)
            if leader is None:
                return False
            lead = leader.replica(shard)
            assert lead is not None
            members = lead.raft.configuration.members
            here = [replica for replica in self._replicas(shard) if replica.id in members]
            well = [replica for replica in here if not replica.raft.poisoned]
            places = {(replica.state.index, replica.state.state_hash) for replica in well}
            if len(well) < len(members) or len(places) != 1:
                return False
        return True

    def is_rotten(self, shard: int, node: SimNode) -> bool:
        """Whether a row of it was damaged on that node's disk, on purpose; what is split
        off such a shard may have got that row."""
        if shard > self.plan.shards:
            return node in self.rotten.values()
        return self.rotten.get(shard) is node

    # --- what happens to it -------------------------------------------------------------

    def returned(self, operation: Operation) -> None:
        """A client has its answer."""
        if operation.wrote:
            self.written[operation.shard] += 1
        if self.loop.trace is not None:
            self.loop.note(f"c{operation.client} {operation}")

    def ended(self, node: SimNode) -> None:
        """A node has stopped by itself. That may only be for a disk that refused, or
        because the cluster has removed it."""
        failure, disk_failing = node.host.failure, node.disk_failing
        node.keep_disk(power=False)
        record = self.view().nodes.get(node.number)
        if record is not None and record.state is NodeState.LEFT:
            node.removed = True
            self.invariants.on_leave(node)
            return
        if not disk_failing:
            raise Violation("stays-up", f"{node} has stopped: {failure!r}") from failure
        if self.faults.over:  # the disk refused just before it was healed
            self.loop.after(SECOND_US, node.start)
