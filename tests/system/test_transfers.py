"""Money moves between accounts in all shards while the node that coordinates is killed."""

from __future__ import annotations

import random
import threading
from types import TracebackType

import pytest

from krita import Client, KritaError, Outcome
from krita.operations import Op
from tests.system.cluster import Cluster
from tests.system.node import wait_until

pytestmark = pytest.mark.slow

ACCOUNTS = [b"account%d" % number for number in range(12)]
BALANCE = 100


class Bank:
    """Threads that move money and threads that read all of it, for a ``with`` block."""

    def __init__(self, addresses: list[str]) -> None:
        self.moved = self.read = 0
        self.in_doubt = 0
        self.wrong: list[int] = []
        self._addresses = addresses
        self._stop = threading.Event()
        self._bugs: list[BaseException] = []
        jobs = [self._move, self._move, self._read]
        self._threads = [
            threading.Thread(target=self._run, args=(job, seed), daemon=True)
            for seed, job in enumerate(jobs)
        ]

    def __enter__(self) -> Bank:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._bugs:
            raise self._bugs[0]

    def wait_more(self, count: int) -> None:
        """Until so many more transfers are done, and all was read once more."""
        moved, read = self.moved + count, self.read + 1
        wait_until(
            f"{count} more transfers", lambda: self.moved >= moved and self.read >= read, 60.0
        )

    def _run(self, job: object, seed: int) -> None:
        dice = random.Random(seed)
        try:
            # Each begins at another node, so that every node coordinates.
            addresses = ",".join(self._addresses[seed:] + self._addresses[:seed])
            with Client(addresses, timeout_ms=20_000) as client:
                while not self._stop.is_set():
                    try:
                        job(client, dice)  # type: ignore[operator]
                    except KritaError as error:
                        self.in_doubt += error.outcome is not Outcome.NOT_APPLIED
        except BaseException as bug:
            self._bugs.append(bug)

    def _move(self, client: Client, dice: random.Random) -> None:
        one, two = dice.sample(ACCOUNTS, 2)
        amount = dice.randint(1, 9)
        then = [[int(Op.ADD), one, -amount], [int(Op.ADD), two, amount]]
        client.call(Op.TXN, one, [], then, [])
        self.moved += 1

    def _read(self, client: Client, _dice: random.Random) -> None:
        total = sum(balances(client))
        if total != BALANCE * len(ACCOUNTS):
            self.wrong.append(total)
        self.read += 1


def balances(client: Client) -> list[int]:
    """All of them, at one moment."""
    gets = [[int(Op.GET), key] for key in ACCOUNTS]
    return [int(row[0]) for row in client.call(Op.TXN, ACCOUNTS[0], [], gets, [])[2]]


def test_money_is_neither_made_nor_lost_while_the_coordinators_are_killed(
    cluster: Cluster,
) -> None:
    with cluster.client(timeout_ms=20_000) as db:
        puts = [[int(Op.PUT), key, b"%d" % BALANCE] for key in ACCOUNTS]
        db.call(Op.TXN, ACCOUNTS[0], [], puts, [])
        with Bank([node.address for node in cluster.nodes]) as bank:
            bank.wait_more(30)
            for node in cluster.nodes:
                node.kill()
                bank.wait_more(30)
                node.restart()
                bank.wait_more(30)
        assert not bank.wrong
        assert sum(balances(db)) == BALANCE * len(ACCOUNTS)
    cluster.settle()
