"""The faults of a plan, done to the world. Each undoes itself after its duration.

To add one: name it in plan.FAMILIES and write ``_do_<name>`` here. ``heal`` must be
able to end it early: whatever it changes is put right there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from krita.ring import META_SHARD
from kritad.raft.errors import ProposalRefused
from kritad.raft.quorum import quorum_reached
from kritad.storage.errors import StoreFailed
from kritad.storage.places import stored_token
from tests.simulator.loop import MS_US, SECOND_US
from tests.simulator.network import Link
from tests.simulator.plan import Fault

if TYPE_CHECKING:
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

_NODES_MAX = 6
_FOR_EVER_US = 10_000 * SECOND_US
# So much of the rot is of the meta shard's rows.
_META_ROTS = 0.2


class Faults:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.over = False  # healed: what is still due does nothing
        self.done: Counter[str] = Counter()
        self._cuts: list[Link] = []
        self._meta_dice = world.chance.stream("rot of the meta shard")

    def start(self) -> None:
        """Have every fault of the plan happen in its time, from now on."""
        for fault in self._world.plan.faults:
            self._world.loop.after(fault.at_ms * MS_US, self._befall, fault)

    def _befall(self, fault: Fault) -> None:
        node = self._target(fault)
        if self.over or node is None:
            return
        act: Callable[[Fault, SimNode, random.Random], None]
        act = getattr(self, "_do_" + fault.kind.replace("-", "_"))
        self.done[fault.kind] += 1
        self._world.loop.note(f"FAULT {fault}, that is {node}")
        act(fault, node, random.Random(fault.chance))

    def _target(self, fault: Fault) -> SimNode | None:
        world = self._world
        if fault.target >= 1000:
            leader = world.leader(fault.target - 1000)
            if leader is not None:
                return leader
        members = world.members
        return members[fault.target % len(members)] if members else None

    def _undo(self, fault: Fault, undo: Callable[[], None]) -> None:
        def act() -> None:
            if not self.over:
                undo()

        self._world.loop.after(fault.duration_ms * MS_US, act)

    def heal(self) -> None:
        """End everything: what is dead starts, what is cut is mended."""
        self.over = True
        world = self._world
        world.network.loss = world.network.duplicate = 0.0
        for link in self._cuts:
            world.network.mend_link(link)
        self._cuts.clear()
        for link in world.network.links():
            link.clogged_until_us = 0
        for node in world.members:
            node.disk.heal()
            node.space_low = False
            node.raft_db.fail_with = node.data_db.fail_with = None
            if node.paused:
                node.resume()
            if not node.alive:
                node.start()
            node.do(node.host.note_space, 1 << 40, False)

    def begin_lasting(self, kind: str, dice: random.Random) -> None:
        """What stays when everything else is healed, until ``heal`` is called again. It
        befalls the leader of some shard, where it hurts most."""
        world = self._world
        shard = dice.randrange(world.plan.shards + 1)
        node = world.leader(shard) or dice.choice(world.members)
        if kind != "pair" and not self._can_spare(node):
            world.loop.note(f"LASTING nothing: there is a shard that cannot spare {node}")
            return
        world.loop.note(f"LASTING {kind}: {node}")
        others = [each for each in world.members if each is not node]
        if kind == "dead":
            node.crash(power=False)
        elif kind == "stalled-disk":
            node.disk.stalled_until_us = world.loop.now_us + _FOR_EVER_US
        elif kind == "pair":
            self._cut_between(node, [dice.choice(others)], inwards=True, outwards=True)
        else:
            self._cut_between(node, others, inwards=kind == "deaf", outwards=kind == "mute")

    def _can_spare(self, node: SimNode) -> bool:
        """Whether every shard has a majority without it. People may have taken copies away, or
        cancelled that there be more than one."""
        world = self._world
        for shard in world.shards():
            held = (each.host.replicas.get(shard) for each in world.members)
            known = [replica.raft.configuration for replica in held if replica is not None]
            if not known:  # all have just been started, and have read no more than shard 0
                return False
            newest = max(known, key=lambda configuration: configuration.version)
            left = {member for member in newest.members if newest.nodes[member] != node.number}
            if not quorum_reached(newest, left):
                return False
        return True

    def _cut_between(
        self, node: SimNode, others: list[SimNode], *, inwards: bool, outwards: bool
    ) -> None:
        link = self._world.network.link
        for other in others:
            if inwards:
                self._cut_links([link(other.number, node.number)])
            if outwards:
                self._cut_links([link(node.number, other.number)])

    def _cut_links(self, links: list[Link]) -> None:
        """Until they are mended, or all is healed."""
        for link in links:
            self._world.network.cut_link(link)
        self._cuts += links

    # --- processes ----------------------------------------------------------------------

    def _do_kill(self, fault: Fault, node: SimNode, _dice: random.Random) -> None:
        node.crash(power=False)
        self._undo(fault, lambda: self._start(node))

    def _do_power_cut(self, fault: Fault, node: SimNode, _dice: random.Random) -> None:
        node.crash(power=True)
        self._undo(fault, lambda: self._start(node))

    def _do_kill_all(self, fault: Fault, _node: SimNode, dice: random.Random) -> None:
        nodes = list(self._world.members)
        for each in nodes:
            each.crash(power=True)
        dice.shuffle(nodes)
        for place, each in enumerate(nodes):
            delay_us = place * fault.duration_ms * MS_US // len(nodes)
            self._world.loop.after(delay_us, self._start, each)

    def _do_dies(self, _fault: Fault, node: SimNode, dice: random.Random) -> None:
        """For as long as there are faults, unless that left too few."""
        up = sum(other.alive for other in self._world.members)
        if node.alive and up > 3:
            node.crash(power=dice.random() < 0.5)

    def _start(self, node: SimNode) -> None:
        if not node.alive and not self.over:
            node.start()

    def _do_pause(self, fault: Fault, node: SimNode, _dice: random.Random) -> None:
        if node.alive and not node.paused:
            node.paused = True
            self._undo(fault, lambda: node.resume() if node.paused else None)

    # --- the network --------------------------------------------------------------------

    def _do_partition(self, fault: Fault, node: SimNode, dice: random.Random) -> None:
        self._cut(fault, node, dice, both=True)

    def _do_one_way(self, fault: Fault, node: SimNode, dice: random.Random) -> None:
        self._cut(fault, node, dice, both=False)

    def _cut(self, fault: Fault, node: SimNode, dice: random.Random, *, both: bool) -> None:
        numbers = [each.number for each in self._world.members]
        side = {node.number}
        if dice.random() < 0.5:
            side |= set(dice.sample(numbers, dice.randint(0, len(numbers) // 2)))
        inwards = dice.random() < 0.5
        cut = []
        for one in numbers:
            for other in numbers:
                leaves, enters = (
                    one in side and other not in side,
                    other in side and one not in side,
                )
                if (leaves or enters) and (both or leaves != inwards):
                    cut.append(self._world.network.link(one, other))
        self._cut_links(cut)

        def mend() -> None:
            for link in cut:
                self._world.network.mend_link(link)
                self._cuts.remove(link)

        self._undo(fault, mend)

    def _do_clog(self, fault: Fault, node: SimNode, dice: random.Random) -> None:
        until_us = self._world.loop.now_us + fault.duration_ms * MS_US
        for link in self._world.network.links():
            if node.number in (link.sender, link.recipient) and dice.random() < 0.7:
                link.clogged_until_us = max(link.clogged_until_us, until_us)

    def _do_reset(self, _fault: Fault, node: SimNode, dice: random.Random) -> None:
        for link in self._world.network.links():
            if node.number in (link.sender, link.recipient) and dice.random() < 0.5:
                self._world.network.break_link(link)
        for connection in list(node.connections):
            if dice.random() < 0.5:
                connection.lose()

    # --- disks and clocks ---------------------------------------------------------------

    def _do_slow_disk(self, fault: Fault, node: SimNode, dice: random.Random) -> None:
        node.disk.factor = dice.choice([5.0, 50.0, 300.0])

        def undo() -> None:
            node.disk.factor = 1.0

        self._undo(fault, undo)

    def _do_stalled_disk(self, fault: Fault, node: SimNode, _dice: random.Random) -> None:
        node.disk.stalled_until_us = self._world.loop.now_us + fault.duration_ms * MS_US

    def _do_disk_error(self, fault: Fault, node: SimNode, dice: random.Random) -> None:
        if node.alive:
            store = node.raft_db if dice.random() < 0.7 else node.data_db
            store.fail_with = StoreFailed("the simulated disk refused")
            node.disk_failing = True
            self._undo(fault, lambda: self._start(node))

    def _do_disk_low(self, fault: Fault, node: SimNode, _dice: random.Random) -> None:
        node.space_low = True
        if node.alive:
            node.do(node.host.note_space, 0, True)

        def undo() -> None:
            node.space_low = False
            if node.alive:
                node.do(node.host.note_space, 1 << 40, False)

        self._undo(fault, undo)

    def _do_bit_rot(self, _fault: Fault, _node: SimNode, dice: random.Random) -> None:
        """One row of the second node's disk. (Of one node only, and with three copies from
        the start: a majority of every shard keeps its data.)"""
        world = self._world
        if world.plan.nodes < 3:
            return
        victim = world.members[1]
        store = victim.data_db
        of_meta = self._meta_dice.random() < _META_ROTS
        held = [
            (applied, key)
            for shard, applied in sorted(store.applied().items())
            if (shard == META_SHARD) is of_meta
            for key in store.generation(applied.rows).rows
            if (applied.rows, key) not in store.corrupt_keys
            and applied.hash_lo <= stored_token(key) < applied.hash_hi
        ]
        if held:
            applied, key = dice.choice(held)
            world.rotten[applied.shard] = victim
            store.corrupt_keys.add((applied.rows, key))

    def _do_clock_jump(self, _fault: Fault, node: SimNode, dice: random.Random) -> None:
        node.clock.wall_offset_ms += dice.choice([-3_600_000, -500, 500, 7_200_000])

    # --- what replicas may do at any time -----------------------------------------------

    def _do_campaign(self, _fault: Fault, node: SimNode, dice: random.Random) -> None:
        for replica in list(node.host.replicas.values()) if node.alive else ():
            if dice.random() < 0.5:
                node.do(replica.raft.campaign)
                node.host.drive.mark(replica)

    def _do_step_down(self, _fault: Fault, node: SimNode, _dice: random.Random) -> None:
        for replica in list(node.host.replicas.values()) if node.alive else ():
            node.do(replica.raft.step_down)
            node.host.drive.mark(replica)

    def _do_transfer(self, _fault: Fault, node: SimNode, dice: random.Random) -> None:
        for replica in list(node.host.replicas.values()) if node.alive else ():
            voters = sorted(replica.raft.configuration.voters)
            if replica.leads and voters:
                try:
                    replica.raft.transfer(dice.choice(voters))
                except ProposalRefused:
                    continue  # to itself, say
                node.host.drive.mark(replica)

    # --- people and machines that come and go -------------------------------------------

    def _do_client_dies(self, _fault: Fault, _node: SimNode, dice: random.Random) -> None:
        self._world.replace_client(dice)

    def _do_join(self, _fault: Fault, node: SimNode, _dice: random.Random) -> None:
        if len(self._world.nodes) < _NODES_MAX:
            self._world.add_node(node)
