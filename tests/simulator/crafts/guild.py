"""All who work with the newer operations, and the judgement of what they were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulator.client import SimClient
from tests.simulator.crafts.craftsman import Craftsman, Hand, perform
from tests.simulator.crafts.deed import Deed
from tests.simulator.crafts.scripts import SCRIPTS, get
from tests.simulator.invariants import Violation
from tests.simulator.loop import MS_US
from tests.simulator.oracles.answers import check_answers
from tests.simulator.oracles.inquiries import check_inquiries
from tests.simulator.oracles.promises import check_promises
from tests.simulator.oracles.scans import check_scans
from tests.simulator.oracles.watches import check_watches

if TYPE_CHECKING:
    from tests.simulator.world import World

_LATE_MS = 2_000  # so long after its deadline a key may still be there
_PATIENCE_MS = 30_000


class Guild:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self.deeds: list[Deed] = []
        self._world = world
        self._members: list[Craftsman] = []

    def start(self) -> None:
        """Let them begin, two of each craft."""
        world = self._world
        for craft in world.plan.crafts:
            clients = [
                SimClient(world, world.next_client(), sessions=world.plan.sessions)
                for _ in range(2)
            ]
            for at in range(2):
                number = world.next_client()
                hand = Hand(world, number, world.chance.stream("craft", number))
                own = [clients[at], clients[1 - at]]
                self._members.append(Craftsman(world, hand, SCRIPTS[craft](hand), own))
        for member in self._members:
            member.begin()

    @property
    def idle(self) -> bool:
        """Nobody waits for an answer."""
        return all(member.idle for member in self._members)

    def nothing_is_overdue(self) -> bool:
        """Whether all has ended that should have, by the clocks of those who lead."""
        world = self._world
        for shard, book in world.chronicle.books.items():
            due_ms, leader = book.ideal.due_ms, world.leader(shard)
            if due_ms is None:
                continue
            if leader is None or due_ms <= leader.clock.wall_ms() - _LATE_MS:
                return False
        return True

    def judge(self) -> None:
        """Read everything once more; then all answers have to be true. Raises Violation."""
        if not self._members:
            return
        self._read_all()
        chronicle, deeds = self._world.chronicle, self.deeds
        for rule, complaints in (
            ("answers", check_answers(chronicle, deeds)),
            ("watch", check_watches(chronicle, deeds)),
            ("scan", check_scans(chronicle, deeds)),
            ("inquiries", check_inquiries(chronicle, deeds)),
            ("promises", check_promises(deeds)),
        ):
            if complaints:
                raise Violation(rule, "; ".join(complaints[:3]))

    def _read_all(self) -> None:
        world = self._world
        reader = SimClient(world, world.next_client(), sessions=False)
        keys = {key for book in world.chronicle.books.values() for key in book.ideal.history}
        waiting: set[Deed] = set()
        for key in sorted(keys):
            deed = Deed(get(key), reader.number, world.chronicle.next_number())
            self.deeds.append(deed)
            waiting.add(deed)
            perform(reader, deed, waiting.discard, timeout_ms=_PATIENCE_MS)
        world.wait("every key can be read", lambda: not waiting, step_us=100 * MS_US)
