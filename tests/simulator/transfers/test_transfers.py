"""Lives in which money is moved between shards; and what the ledger makes of wrong ones."""

from __future__ import annotations

import os

import pytest

from tests.simulator.history import Fate
from tests.simulator.run import live
from tests.simulator.transfers.ledger import BEGIN, Deal, Ledger
from tests.simulator.transfers.world import TransferWorld, transfer_plan

SEEDS = int(os.environ.get("KRITA_TEST_SEEDS", "200")) // 10


@pytest.mark.parametrize("seed", [1, 2])
def test_a_life_with_transfers_breaks_no_promise(seed: int) -> None:
    outcome = live(transfer_plan(seed), kind=TransferWorld)
    assert outcome.ok, outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, SEEDS))
def test_many_lives_with_transfers_break_no_promise(seed: int) -> None:
    outcome = live(transfer_plan(seed), kind=TransferWorld)
    assert outcome.ok, f"{outcome.text}\n    python -m tests.simulator.transfers {seed} --trace"


def test_a_seed_with_transfers_is_one_life() -> None:
    hashes = {live(transfer_plan(6), kind=TransferWorld).hash for _ in range(2)}
    assert len(hashes) == 1


# --- the ledger -----------------------------------------------------------------------------


def deal(
    ledger: Ledger,
    stamp: bytes,
    moves: dict[int, int],
    seen: dict[int, tuple[bytes, int]],
    fate: Fate = Fate.OK,
) -> Deal:
    """One that was done, after all before it."""
    made = ledger.begin(stamp, moves)
    made.moved = bool(moves) and fate is Fate.OK
    made.seen = {account: found for account, (found, _) in seen.items()}
    made.balances = {account: balance for account, (_, balance) in seen.items()}
    ledger.end(made, fate)
    return made


def of_two() -> Ledger:
    """Accounts 0 and 1, of which the first has given the second 5."""
    ledger = Ledger(2)
    deal(ledger, b"one", {0: -5, 1: 5}, {0: (BEGIN, 100), 1: (BEGIN, 100)})
    return ledger


def test_what_is_right_is_no_problem() -> None:
    ledger = of_two()
    deal(ledger, b"r", {}, {0: (b"one", 95), 1: (b"one", 105)})
    deal(ledger, b"two", {0: -1, 1: 1}, {0: (b"one", 95), 1: (b"one", 105)})
    deal(ledger, b"three", {0: -7, 1: 7}, {}, Fate.FAILED)
    assert ledger.problems() == []
    assert ledger.unexplained({0: 94, 1: 106}, [b"two"]) == ""
    assert ledger.unexplained({0: 93, 1: 107}, [b"two"])


def test_what_nobody_knows_may_have_happened_or_not() -> None:
    ledger = of_two()
    deal(ledger, b"lost", {0: -1, 1: 1}, {}, Fate.UNKNOWN)
    assert ledger.unexplained({0: 94, 1: 106}, [b"lost"]) == ""
    assert ledger.unexplained({0: 94, 1: 106}, [b"one"]) == ""
    assert ledger.unexplained({0: 95, 1: 105}, [b"one"]) == ""
    assert ledger.unexplained({0: 95, 1: 105}, [b"lost"])


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ({0: (b"one", 95), 1: (BEGIN, 100)}, "the sum is 195"),
        ({0: (b"one", 96), 1: (b"one", 104)}, "100 became 96"),
        ({0: (BEGIN, 100), 1: (BEGIN, 100)}, "no order explains"),
        ({0: (b"none", 95), 1: (b"one", 105)}, "a stamp of nobody"),
        ({0: (b"failed", 95), 1: (b"one", 105)}, "was surely not done"),
        ({0: (BEGIN, 101), 1: (BEGIN, 99)}, "101 at the beginning"),
    ],
)
def test_a_read_of_what_never_was_is_a_problem(
    seen: dict[int, tuple[bytes, int]], problem: str
) -> None:
    ledger = of_two()
    deal(ledger, b"failed", {0: -1, 1: 1}, {}, Fate.FAILED)
    deal(ledger, b"r", {}, seen)
    assert any(problem in found for found in ledger.problems()), ledger.problems()


def test_a_transfer_that_overwrites_another_unseen_is_a_problem() -> None:
    ledger = of_two()
    deal(ledger, b"two", {0: -1, 1: 1}, {0: (BEGIN, 100), 1: (b"one", 105)})
    assert any("both came right behind" in found for found in ledger.problems())


def test_a_transfer_that_was_done_twice_is_a_problem() -> None:
    ledger = of_two()
    deal(ledger, b"two", {0: -1, 1: 1}, {0: (b"two", 94), 1: (b"two", 106)})
    assert any("was done twice" in found for found in ledger.problems())


def test_two_readers_that_see_two_orders_are_a_problem() -> None:
    ledger = Ledger(3)
    first = ledger.begin(b"r1", {})
    second = ledger.begin(b"r2", {})
    deal(ledger, b"a", {0: 1}, {0: (BEGIN, 100)})
    deal(ledger, b"b", {1: 1}, {1: (BEGIN, 100)})
    first.seen, second.seen = {0: b"a", 1: BEGIN}, {0: BEGIN, 1: b"b"}
    for reader in (first, second):
        ledger.end(reader, Fate.OK)
    assert any("no order explains" in found for found in ledger.problems())
