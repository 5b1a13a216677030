"""People who look after the cluster while it suffers: they drain, move, split, remove.

Each wish of a plan is asked of some node, as an administrator would, and the answer is
not waited for: it may be refused, lost, or come true much later. Whatever comes of it,
the rules of the product hold, and once people stop the cluster comes to the shape that
it was asked for (``settled``).

To add a wish: a name in plan.RESHAPES and a method ``_wish_<name>`` here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.access import ADMIN, Principal
from kritad.cluster.model import NodeRecord, NodeState, ShardRecord
from kritad.cluster.moves import moves
from kritad.cluster.planner import placements
from kritad.cluster.view import MetaView
from tests.simulator.invariants import Violation
from tests.simulator.loop import MS_US
from tests.simulator.plan import Reshape

if TYPE_CHECKING:
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

_Wish = Callable[[MetaView, random.Random], tuple[Op, bytes] | None]

_TIMEOUT_MS = 3_000.0
_UP, _DRAIN, _REMOVE = int(NodeState.UP), int(NodeState.DRAINING), int(NodeState.REMOVING)
# A cluster of fewer is not reshaped further: nothing would be left to move to.
_NODES_MIN = 3
_SHARDS_MAX = 12


class Reshaper:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.over = False
        self.done: Counter[str] = Counter()  # wishes that were asked for
        self.granted: Counter[str] = Counter()  # and those that were heard to be granted

    def start(self) -> None:
        """Have every wish of the plan asked in its time, from now on."""
        for wish in self._world.plan.reshapes:
            self._world.loop.after(wish.at_ms * MS_US, self._ask, wish)

    def _ask(self, wish: Reshape) -> None:
        view = self._world.view()
        dice = random.Random(wish.chance)
        alive = [node for node in self._world.members if node.alive]
        if self.over or not alive or not view.cluster_id:
            return
        act: _Wish = getattr(self, "_wish_" + wish.kind)
        asked = act(view, dice)
        if asked is None:
            return
        self._world.loop.note(f"WISH {wish.kind}: {asked[0].name} {asked[1].hex()}")
        self.done[wish.kind] += 1
        self._send(dice.choice(alive), wish.kind, *asked)

    def _send(self, node: SimNode, kind: str, op: Op, body: bytes) -> None:
        def answered(status: int, reply: object) -> None:
            if status == Status.INTERNAL:
                raise Violation("internal-error", f"{op.name} on {node}: {reply}")
            if status == Status.OK:
                self.granted[kind] += 1

        principal = Principal(ADMIN, loopback=True)
        node.do(node.service.submit, op, body, principal, _TIMEOUT_MS, 0, answered)

    # --- wishes: an operation and its body, or None when there is nothing to ask for ------

    def _wish_drain(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        return _set(dice, [n for n in _up(view) if len(_up(view)) > _NODES_MIN], _DRAIN)

    def _wish_recommission(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        leaving = (NodeState.DRAINING, NodeState.REMOVING)
        return _set(dice, [n for n in view.members if n.state in leaving], _UP)

    def _wish_remove(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        return _set(dice, [n for n in _up(view) if len(_up(view)) > _NODES_MIN], _REMOVE)

    def _wish_replace(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        up = _up(view)
        if len(up) <= _NODES_MIN:
            return None
        old, new = dice.sample(up, 2)
        return Op.NODE_SET, encode_body(Op.NODE_SET, old.node, _REMOVE, new.node)

    def _wish_label(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        node = dice.choice(view.members)
        zone, weight = dice.choice(["", "a", "b"]), dice.choice([None, 1, 2])
        return Op.NODE_LABEL, encode_body(Op.NODE_LABEL, node.node, zone, weight)

    def _wish_move(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        record = dice.choice(view.data_shards)
        targets = [node.node for node in _up(view) if node.node not in record.nodes]
        if not targets:
            return None
        source, target = dice.choice(record.nodes), dice.choice(targets)
        return Op.SHARD_MOVE, encode_body(Op.SHARD_MOVE, record.shard, source, target)

    def _wish_split(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        if len(view.data_shards) >= _SHARDS_MAX:
            return None
        return Op.SHARD_SPLIT, encode_body(Op.SHARD_SPLIT, _shard(view, dice).shard)

    def _wish_hold(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        shard = META_SHARD if dice.random() < 0.3 else _shard(view, dice).shard
        return Op.SHARD_HOLD, encode_body(Op.SHARD_HOLD, shard, True)

    def _wish_release(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        held = [record.shard for record in view.data_shards if record.held]
        shard = dice.choice([META_SHARD, *held])
        return Op.SHARD_HOLD, encode_body(Op.SHARD_HOLD, shard, False)

    def _wish_cancel(self, view: MetaView, dice: random.Random) -> tuple[Op, bytes] | None:
        moving = [move.shard for move in moves(view)]
        shard = dice.choice(moving) if moving else _shard(view, dice).shard
        return Op.MOVE_CANCEL, encode_body(Op.MOVE_CANCEL, shard)

    # --- the end --------------------------------------------------------------------------

    def release(self) -> bool:
        """Ask that whatever is held goes on; True once nothing is held any more."""
        self.over = True
        view = self._world.view()
        held = [META_SHARD] if view.paused else []
        held += [record.shard for record in view.data_shards if record.held]
        for node in [node for node in self._world.members if node.alive][:1]:
            for shard in held:
                self._send(node, "release", Op.SHARD_HOLD, encode_body(Op.SHARD_HOLD, shard, False))
        return not held

    def settled(self) -> bool:
        """Whether the cluster has the shape that the meta shard wants, and wants no other."""
        view = self._world.view()
        if moves(view) or placements(view) or any(record.split for record in view.data_shards):
            return False
        alive = [node for node in self._world.members if node.alive]
        if any(node.host.damaged for node in alive):
            return False  # it has to be made anew
        here = {node.number for node in alive}
        return not any(
            (node.dead and node.node in here)
            or (node.state is NodeState.REMOVING and not view.holds_data(node.node))
            for node in view.nodes.values()
        )


def _up(view: MetaView) -> list[NodeRecord]:
    return [node for node in view.members if node.state is NodeState.UP]


def _shard(view: MetaView, dice: random.Random) -> ShardRecord:
    return dice.choice(view.data_shards)


def _set(dice: random.Random, nodes: list[NodeRecord], state: int) -> tuple[Op, bytes] | None:
    if not nodes:
        return None
    return Op.NODE_SET, encode_body(Op.NODE_SET, dice.choice(nodes).node, state, None)
