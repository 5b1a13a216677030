"""A life in which people also move money between accounts: all else is as in any other.

The accounts are in as many groups, and so in all shards. After the healing nothing may stay
held and every decision has to be forgotten; then all accounts are read at once.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from krita import requests, values
from krita.call import Call
from krita.operations import Op
from kritad import txn_steps
from kritad.host import resolver
from kritad.storage.places import INNER_PREFIX
from tests.simulator.chronicle.chronicle import Apply
from tests.simulator.client import SimClient
from tests.simulator.invariants import Violation
from tests.simulator.loop import Chance
from tests.simulator.plan import Plan, draw_plan
from tests.simulator.transfers.ledger import BALANCE, BEGIN, Ledger
from tests.simulator.transfers.mover import Mover, ask, balance_key, reading, stamp_key
from tests.simulator.world import World

_FIRST_CLIENT = 1_000_000  # so that their numbers are nobody else's


class TransferWorld(World):
    """See the module's docstring."""

    def __init__(self, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        super().__init__(plan, trace)
        dice = self.chance.stream("accounts")
        self.accounts = dice.choice([2, 4, 8])
        self._movers_each = dice.choice([1, 2, 3])  # beside each client
        self._movers = _FIRST_CLIENT
        self.ledger = Ledger(self.accounts)

    def live(self) -> None:
        """The whole of it, with shards that are patient for another while than usual."""
        dice = self.chance.stream("patience")
        usual = txn_steps.HOLD_MS, resolver._RECORD_AGE_MS
        txn_steps.HOLD_MS = dice.choice([100, 1_000, 1_000, 10_000])
        resolver._RECORD_AGE_MS = dice.choice([100.0, 2_000.0, 15_000.0])
        try:
            super().live()
        finally:
            txn_steps.HOLD_MS, resolver._RECORD_AGE_MS = usual

    def observing(self, apply: Apply) -> Apply:
        """The chronicle's model knows no entries of two phases: the ledger judges here."""
        return apply

    def grow(self) -> None:
        """As ever; and every account gets its money."""
        super().grow()
        accounts = range(self.accounts)
        puts = [[int(Op.PUT), stamp_key(account), BEGIN] for account in accounts]
        puts += [[int(Op.PUT), balance_key(account), b"%d" % BALANCE] for account in accounts]
        self._do("the accounts are opened", puts)

    def _add_client(self) -> None:
        super()._add_client()
        for _ in range(self._movers_each):
            self._movers += 1
            client = SimClient(self, self._movers, sessions=self.plan.sessions)
            mover = Mover(self, client, self._movers)
            self.people.append(mover)  # type: ignore[arg-type]
            mover.begin()

    def rest(self) -> None:
        """As ever; and nothing is left half done."""
        super().rest()
        self.wait("nothing is held and nothing has to be done", self._is_settled)
        self.wait("the replicas are equal again", self._converged)

    def _is_settled(self) -> bool:
        for shard in self.shards():
            for replica in self._replicas(shard):
                keys = replica.state.keys
                if keys.intents.by_key or keys.two_phase.decisions.open:
                    return False
        return True

    def judge(self) -> None:
        """As ever; and one order explains all deals."""
        super().judge()
        results = self._do("all accounts are read", reading(list(range(self.accounts))))
        stamps = [row[0] for row in results[0::2]]
        final = {account: int(row[0]) for account, row in enumerate(results[1::2])}
        problems = self.ledger.problems()
        last = self.ledger.unexplained(final, stamps)
        problems += [last] if last else []
        if sum(final.values()) != self.accounts * BALANCE:
            problems.append(f"in the end there is {final}")
        if problems:
            raise Violation("ledger", "; ".join(problems[:3]))

    def _do(self, what: str, then: list[list[object]]) -> list[list[bytes]]:
        """One transaction, again until it is done."""
        self._movers += 1
        client = SimClient(self, self._movers, sessions=False)
        done: list[Call] = []
        request = requests.any_operation(Op.TXN, (stamp_key(0), None, then, None), None)
        request.read = values.read_list

        def answered(call: Call) -> None:
            if call.error is None:
                done.append(call)
            elif not client.gone:
                self.loop.after(100_000, again)

        def again() -> None:
            ask(client, request, 5.0, answered)

        again()
        self.wait(what, lambda: bool(done))
        client.die()
        result = done[0].result
        assert isinstance(result, list)
        return result[2]  # type: ignore[no-any-return]


def transfer_plan(seed: int) -> Plan:
    """The life of a seed, with more shards than others: one has nothing to do here."""
    plan = draw_plan(seed)
    dice = Chance(seed).stream("transfers")
    return attrs.evolve(
        plan,
        crafts=(),  # they are judged by the chronicle
        shards=dice.choice([1, 2, 4]),
        # Those who do other things are here for company, and should not take all the time.
        clients=min(plan.clients, 3),
        pipeline=1,
        think_ms=max(plan.think_ms, 20),
        value_bytes=min(plan.value_bytes, 100),
        timeout_ms=dice.choice([300, 1_000, 5_000, 15_000]),
    )


assert not stamp_key(0).startswith(INNER_PREFIX)
