"""Keeping an eye on the others, for the meta shard's leader: who is dead, who is back.

What decides is kritad/cluster/liveness.py; here it is told the time and who is there.
Every node has a vigil, and it judges only while the node leads the meta shard: nobody
else would be believed, and a new leader begins with a grace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs

from kritad.cluster.liveness import Liveness
from kritad.cluster.view import MetaView
from kritad.host.clock import Clock

# Between two looks, every node is silent.
_WORTH_TELLING_MS = 1_000.0


@attrs.frozen
class Verdict:
    """A META_NODE_DEAD to propose."""

    node: int
    dead: bool
    boot_counter: int  # of the life that was judged: the next one begins blameless


class Vigil:
    """See the module's docstring. ``present`` says who can be counted on now."""

    def __init__(
        self, dead_after_ms: float, clock: Clock, present: Callable[[], Collection[int]]
    ) -> None:
        self._dead_after_ms = dead_after_ms
        self._liveness = Liveness(dead_after_ms)
        self._clock = clock
        self._present = present
        self._leading = False
        self._boots: dict[int, int] = {}  # member -> the boot that is known of it

    def __repr__(self) -> str:
        return f"<Vigil {'kept' if self._leading else 'idle'}, {self._dead_after_ms:.0f} ms>"

    def step(self, view: MetaView, leading: bool) -> list[Verdict]:
        """Look around; what the meta shard should be told. ~2 µs a node."""
        now_ms = self._clock.monotonic_ms()
        if leading != self._leading:
            self._leading = leading
            if leading:
                self._liveness.leading(now_ms)
                self._boots = {record.node: record.boot_counter for record in view.members}
            else:
                self._liveness.following()
        if not leading:
            return []
        for node in sorted({*self._present(), *self._announced(view)}):
            self._liveness.heard(node, now_ms)
        return [
            Verdict(node, dead, view.nodes[node].boot_counter)
            for node, dead in self._liveness.verdicts(view, now_ms)
        ]

    def _announced(self, view: MetaView) -> list[int]:
        """Who has joined or started since the last look: a sign of life, though nobody
        may have connected to it yet."""
        boots = {record.node: record.boot_counter for record in view.members}
        before, self._boots = self._boots, boots
        return [node for node, boot in boots.items() if before.get(node) != boot]

    def outage(self, view: MetaView) -> str:
        """Why nothing should be rebuilt or moved now: too many look dead at once. Empty if
        they do not, or if this node does not lead the meta shard."""
        return self._liveness.outage(view, self._clock.monotonic_ms())

    def document(self, view: MetaView) -> dict[str, object] | None:
        """The ``vigil`` of a node's document: see protocol/README.md. None: not kept here."""
        if not self._leading:
            return None
        now_ms = self._clock.monotonic_ms()
        silent = []
        for record in view.members:
            silent_ms = self._liveness.silent_ms(record.node, now_ms)
            if record.dead or silent_ms < _WORTH_TELLING_MS:
                continue
            left_ms = max(0.0, self._dead_after_ms - silent_ms)
            silent.append({"node": record.node, "dead_in_s": round(left_ms / 1000.0, 1)})
        return {"healing": self._liveness.reason_to_wait(view, now_ms), "silent": silent}
