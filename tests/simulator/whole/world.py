"""A cluster of whole nodes, its people and its mishaps, from one seed: ``run_whole``.

A run: node 1 begins a cluster and the others join; people read and write, while
things break (faults.py); then everything is mended, and within ``_HEALED_MAX_S`` of
virtual time every client has to get its answers again and every key has to be read.
What was answered, before and after, is judged by tests/simulator/witness.py.

``python -m tests.simulator.whole.world SEED`` runs one with its log.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import attrs
import trio

from krita import requests
from krita.ring import ShardMap
from kritad import daemon
from tests.simulator.history import Fate, History, Kind
from tests.simulator.whole.client import Caller, Client
from tests.simulator.whole.digest import Digest
from tests.simulator.whole.faults import Faults
from tests.simulator.whole.network import Network
from tests.simulator.whole.node import TOKEN, Node, at_work
from tests.simulator.whole.scheduling import run_virtually
from tests.simulator.witness import check_final, check_witness

_BEGIN_MAX_S = 30.0  # until the first answers
_HEALED_MAX_S = 30.0  # after everything was mended
_NODES = 3
_LAST_WRITES = 8  # after healing, to shards at random


@attrs.frozen
class Outcome:
    """What came of a run."""

    events: int  # messages that arrived, and operations that were answered
    simulated_s: float
    hash: str  # of everything that was seen; the same for the same seed
    problems: list[str]
    operations: int = 0  # of clients that were answered
    messages: int = 0


@attrs.frozen
class Plan:
    """What a seed decides about a run as a whole."""

    settings: dict[str, Any]  # of every node
    clients: int
    keys: int
    chaos_s: float
    delay_s: float
    jitter_s: float
    value_bytes: int  # what values are padded to, at most
    pause_s: float  # between two operations of a client, in the mean
    timeout_s: float

    @classmethod
    def draw(cls, chance: random.Random) -> Plan:
        """A plan of a seed's."""
        # Little room is flushed and checkpointed often: logs are cut, and whoever lags
        # needs a snapshot.
        cramped = chance.random() < 0.5
        settings = {
            "shards": chance.choice((1, 2, 4)),
            "replication_factor": 3,
            "memtable_bytes": 4 << 10 if cramped else chance.choice((32 << 10, 64 << 20)),
            "log_tail_bytes": 1 << 10 if cramped else chance.choice((32 << 10, 4 << 20)),
            "cache_bytes": chance.choice((0, 32 << 10, 64 << 20)),
        }
        delay_s = chance.choice((0.0001, 0.0005, 0.005, 0.03))
        return cls(
            settings=settings,
            clients=chance.randint(2, 6),
            keys=chance.randint(2, 16),
            chaos_s=chance.uniform(15.0, 45.0),
            delay_s=delay_s,
            jitter_s=delay_s * chance.choice((0.1, 0.5, 2.0)),
            value_bytes=3000 if cramped else chance.choice((0, 100, 3000)),
            pause_s=chance.choice((0.05, 0.2, 0.6)),
            timeout_s=chance.choice((1.0, 3.0, 10.0)),
        )


class World:
    """Everything there is in a run. ``live`` is the run."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._seed = seed
        self._directory = directory
        self.plan = Plan.draw(self.chance("plan"))
        self.digest = Digest()
        self.network = Network(
            self.chance("network"),
            self.digest,
            delay_s=self.plan.delay_s,
            jitter_s=self.plan.jitter_s,
        )
        self.nodes: list[Node] = []
        self.client_hosts = [f"10.0.1.{number}" for number in range(self.plan.clients)]
        self.history = History()
        self.problems: list[str] = []
        self._nursery: trio.Nursery | None = None
        self._callers: list[Caller] = []
        self._working = True

    def chance(self, *names: object) -> random.Random:
        """A generator for one purpose: what one of them gives does not change another."""
        return random.Random("/".join(map(str, (self._seed, *names))))

    def note(self, what: str) -> None:
        """Something worth a line in the log."""
        logging.getLogger(__name__).info("%s", what)
        self.digest.note(what)

    def problem(self, text: str) -> None:
        """Something that must not happen."""
        self.problems.append(f"at {trio.current_time():.3f} s: {text}")
        self.note(text)

    # --- nodes -------------------------------------------------------------------------

    def add_node(self) -> None:
        """One more, which joins the cluster; the first begins it."""
        number = len(self.nodes) + 1
        chance = self.chance("node", number)
        settings = self.plan.settings
        node = Node(number, self._directory, self.network, chance, settings, self.problem)
        self.nodes.append(node)
        self.start(node)

    def start(self, node: Node) -> None:
        """A node that does not run shall."""
        assert self._nursery is not None
        node.start(self._nursery)

    # --- the run -----------------------------------------------------------------------

    async def live(self) -> Outcome:
        """From the founding to the last check."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.network.run)
            for _ in range(_NODES):
                self.add_node()
            self._add_callers(nursery)
            await self._begin()
            faults = Faults(self, self.chance("faults"))
            async with trio.open_nursery() as people:
                for caller in self._callers:
                    people.start_soon(self._work, caller)
                await self._chaos(faults)
                await faults.heal()
                self._working = False
                people.cancel_scope.deadline = trio.current_time() + _HEALED_MAX_S
                self.note("healed")
            if people.cancel_scope.cancelled_caught:
                self.problem(f"a client's call did not end within {_HEALED_MAX_S} s")
            await self._read_all()
            hash_of_run = self.digest.hex()  # a status tells of real memory and disks
            await self._become_equal()
            simulated_s = trio.current_time()
            for node in self.nodes:
                await node.kill(machine=True)
            nursery.cancel_scope.cancel()
        digest = self.digest
        events = digest.messages + digest.events
        answered = sum(one.fate == Fate.OK for one in self.history.operations)
        return Outcome(events, simulated_s, hash_of_run, self.problems, answered, digest.messages)

    def _add_callers(self, nursery: trio.Nursery) -> None:
        seeds = [node.address for node in self.nodes]
        for number, host in enumerate(self.client_hosts):
            client = Client(self.network, host, seeds, self.chance("client", number), TOKEN)
            nursery.start_soon(client.run)
            self._callers.append(Caller(number, client, self.history, self.digest))

    async def _begin(self) -> None:
        await trio.sleep(self.chance("begin").uniform(0.5, 8.0))
        first = await self._callers[0].get(b"first", _BEGIN_MAX_S)
        if first.fate is not Fate.OK:
            self.problem(f"no answer within {_BEGIN_MAX_S} s of the beginning")

    async def _chaos(self, faults: Faults) -> None:
        self.note(repr(faults))
        with trio.move_on_after(self.plan.chaos_s):
            await faults.run()

    async def _work(self, caller: Caller) -> None:
        """One client's day."""
        chance = self.chance("work", caller.number)
        plan, revisions, number = self.plan, dict[bytes, int](), 0
        while self._working:
            await trio.sleep(chance.expovariate(1.0) * plan.pause_s)
            key = b"key %d" % chance.randrange(plan.keys)
            number += 1
            value = b"%d.%d " % (caller.number, number)
            value += b"." * chance.randint(0, plan.value_bytes)
            condition = revisions.get(key, 0) if chance.random() < 0.2 else None
            kind = chance.choices((Kind.GET, Kind.PUT, Kind.DELETE), (4, 5, 1))[0]
            if kind is Kind.GET:
                operation = await caller.get(key, plan.timeout_s)
            elif kind is Kind.PUT:
                operation = await caller.put(key, value, condition, plan.timeout_s)
            else:
                operation = await caller.delete(key, condition, plan.timeout_s)
            if operation.refused is not None:
                revisions[key] = operation.refused
            elif operation.fate is Fate.OK:
                revisions[key] = 0 if kind is Kind.DELETE else operation.revision

    async def _read_all(self) -> None:
        """Write once more and read every key at last, and judge everything."""
        caller = self._callers[0]
        final: dict[bytes, tuple[bytes | None, int]] = {}
        keys = list(dict.fromkeys(one.key for one in self.history.operations))
        with trio.move_on_after(_HEALED_MAX_S) as scope:
            for number in range(_LAST_WRITES):
                keys.append(b"last %d" % number)
                await caller.put(keys[-1], b"healed %d" % number, None, _HEALED_MAX_S)
                if self.history.operations[-1].fate is not Fate.OK:
                    self.problem(f"not written after healing: {self.history.operations[-1]}")
            for key in keys:
                operation = await caller.get(key, _HEALED_MAX_S)
                if operation.fate is Fate.OK:
                    final[key] = operation.value, operation.revision
        if scope.cancelled_caught or len(final) < len(keys):
            self.problem(f"not everything could be read within {_HEALED_MAX_S} s of healing")
        shards = caller.client.dispatcher.router.map
        assert isinstance(shards, ShardMap)
        for one in self.history.operations:
            one.shard = caller.client.dispatcher.router.shard_of(one.key)
        self.problems += check_witness(self.history.operations)
        if len(final) == len(keys):
            self.problems += check_final(self.history.operations, final)

    async def _become_equal(self) -> None:
        """The cluster has to say that it is healthy, and all replicas of a shard have to
        come to the same place with the same state."""
        client, lacking = self._callers[0].client, "no status"
        with trio.move_on_after(_HEALED_MAX_S):
            while lacking:
                await trio.sleep(0.2)
                call = await client.call(requests.any_operation("cluster_status", ()), 5.0)
                if call.error is None:
                    assert isinstance(call.result, list)
                    lacking = self._lacking(call.result[0])
        if lacking:
            self.problem(f"not as good as new {_HEALED_MAX_S} s after healing: {lacking}")

    def _lacking(self, status: dict[str, Any]) -> str:
        """What a status document says is not yet as it has to be."""
        for shard in status["shards"]:
            places = {(r["applied"], r["state_hash"]) for r in shard["replicas"]}
            if len(places) > len({applied for applied, _ in places}):
                self.problem(f"replicas at one place with different states: {shard}")
            if len(places) > 1 or len(shard["replicas"]) < _NODES:
                return f"shard {shard['shard']} has the replicas {shard['replicas']}"
        return "" if status["health"] == "healthy" else f"{status['problems']}, {status['nodes']}"


class _Watch(logging.Handler):
    """Errors that a node logs with a traceback are bugs, whoever survived them."""

    def __init__(self, world: World, *, loud: bool) -> None:
        super().__init__(logging.DEBUG if loud else logging.ERROR)
        self._world = world
        self._loud = loud

    def emit(self, record: logging.LogRecord) -> None:
        if self._loud:
            text = f"{trio.current_time():10.4f} {at_work.get()}: {record.getMessage()}\n"
            sys.stderr.write(text)
        if record.exc_info and record.exc_info[1] is not None:
            self._world.problem(f"{at_work.get()} logged a bug: {record.getMessage()}")


def run_whole(seed: int, directory: Path, *, loud: bool = False) -> Outcome:
    """One run, on files below ``directory``. Costs about a second of this machine's time
    for some twenty of virtual time. ``loud``: the log goes to standard error."""
    world = World(seed, directory)
    watch = _Watch(world, loud=loud)
    loggers = [logging.getLogger(name) for name in ("kritad", __name__)]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(watch)
        logger.setLevel(watch.level)
        logger.propagate = False
    try:
        return run_virtually(world.live, seed)
    except Exception as error:  # a node's or a client's, for which nobody was prepared
        traceback.print_exception(error, file=sys.stderr)
        problems = [*world.problems, f"it ended with {daemon._leaves(error)!r}"]
        return Outcome(0, 0.0, world.digest.hex(), problems)
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(watch)
            logger.setLevel(level)
            logger.propagate = propagate


def main(arguments: list[str]) -> int:
    """Run one seed with its log; the exit status says whether it was good."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as path:
        outcome = run_whole(int(arguments[0]), Path(path), loud="-q" not in arguments)
    sys.stderr.write(f"{outcome}\n")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
