"""People who move money between accounts in all shards, and who look at all of it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from krita import requests, values
from krita.call import Call
from krita.errors import Outcome
from krita.operations import Compare, Op, Relation
from tests.simulator.client import SimClient
from tests.simulator.history import Fate
from tests.simulator.loop import MS_US
from tests.simulator.transfers.ledger import Deal

if TYPE_CHECKING:
    from tests.simulator.transfers.world import TransferWorld


def balance_key(account: int) -> bytes:
    """Where its balance is."""
    return b"balance%d" % account


def stamp_key(account: int) -> bytes:
    """Where the name of the transfer is that has written it last."""
    return b"stamp%d" % account


def reading(accounts: list[int]) -> list[list[object]]:
    """The operations that read accounts: stamp and balance of each."""
    return [
        [int(Op.GET), key]
        for account in accounts
        for key in (stamp_key(account), balance_key(account))
    ]


class Mover:
    """One thread of deals, one after the other, until told to stop."""

    def __init__(self, world: TransferWorld, client: SimClient, number: int) -> None:
        self.client = client
        self.number = number
        self.idle = True
        self._world = world
        self._dice = world.chance.stream("mover", number)
        self._count = 0
        self._known: dict[int, bytes] = {}  # the stamps that it has seen last

    def begin(self) -> None:
        """Do the next deal, and so on."""
        if self._world.resting or self.client.gone:
            self.idle = True
            return
        self.idle = False
        self._count += 1
        chance = self._dice.random()
        if chance < 0.2:
            self._read(list(range(self._world.accounts)))
        elif chance < 0.35:
            self._read([self._dice.randrange(self._world.accounts)])
        else:
            self._move(guarded=chance > 0.8)

    def _move(self, *, guarded: bool) -> None:
        dice = self._dice
        count = min(dice.choice([2, 2, 2, 3]), self._world.accounts)
        accounts = dice.sample(range(self._world.accounts), count)
        amounts = [dice.randint(1, 9) for _ in accounts[1:]]
        moves = dict(zip(accounts, [-sum(amounts), *amounts], strict=True))
        stamp = b"%d.%d" % (self.number, self._count)
        then = [[int(Op.GET), stamp_key(account)] for account in accounts]
        then += [[int(Op.ADD), balance_key(account), moves[account]] for account in accounts]
        then += [[int(Op.PUT), stamp_key(account), stamp] for account in accounts]
        compare = [
            [stamp_key(account), int(Compare.VALUE), int(Relation.EQUAL), self._known[account]]
            for account in accounts
            if guarded and account in self._known
        ]
        self._ask(self._world.ledger.begin(stamp, moves), accounts, compare, then)

    def _read(self, accounts: list[int]) -> None:
        stamp = b"%d.%d" % (self.number, self._count)
        self._ask(self._world.ledger.begin(stamp, {}), accounts, [], reading(accounts))

    def _ask(
        self,
        deal: Deal,
        accounts: list[int],
        compare: list[list[object]],
        then: list[list[object]],
    ) -> None:
        def done(call: Call) -> None:
            if not self.client.gone:
                self._note(deal, accounts, call)
                self._world.loop.fold(int(deal.fate), *deal.balances.values())
                if self._world.loop.trace is not None:
                    self._world.loop.note(f"m{self.number} {deal}")
                pause_us = int(self._dice.expovariate(1.0) * self._world.think_ms * MS_US)
                self._world.loop.after(pause_us, self.begin)

        home = stamp_key(self._dice.choice(accounts))
        otherwise = reading(accounts)
        fields = (home, compare, then, otherwise)
        request = requests.any_operation(Op.TXN, fields, None)
        request.read = values.read_list
        ask(self.client, request, self._world.plan.timeout_ms / 1000.0, done)

    def _note(self, deal: Deal, accounts: list[int], call: Call) -> None:
        if call.error is not None:
            harmless = not deal.moves or call.error.outcome is Outcome.NOT_APPLIED
            self._world.ledger.end(deal, Fate.FAILED if harmless else Fate.UNKNOWN)
            return
        body = call.result
        assert isinstance(body, list)
        _, succeeded, results = body
        count = len(accounts)
        if succeeded and deal.moves:
            deal.moved = True
            deal.seen = {a: results[n][0] for n, a in enumerate(accounts)}
            for n, account in enumerate(accounts):
                # What it was before, since that belongs to the stamp.
                deal.balances[account] = results[count + n][2] - deal.moves[account]
        else:
            deal.seen = {a: results[2 * n][0] for n, a in enumerate(accounts)}
            deal.balances = {a: int(results[2 * n + 1][0]) for n, a in enumerate(accounts)}
        self._known |= deal.seen
        if deal.moved:
            self._known |= dict.fromkeys(accounts, deal.stamp)
        self._world.ledger.end(deal, Fate.OK)


def ask(client: SimClient, request: requests.Request[Any], timeout_s: float, done: object) -> None:
    """Have the client's own dispatcher do it."""
    client._dispatcher.start(request, timeout_s, client._now_s(), done)  # type: ignore[arg-type]
    client._turn()
