"""What is durable, and which saves are asked for."""

from __future__ import annotations

from kritad.raft.ledger import Ledger
from kritad.raft.log import Log
from kritad.raft.types import HardState, Save
from tests.raft.lone import boot_of, log_of


def _take(ledger: Ledger, log: Log, term: int = 1, vote: int = 0) -> Save:
    save = ledger.take(log, term, vote, False)
    assert save is not None
    return save


def test_a_commit_index_alone_is_not_saved_but_rides_along() -> None:
    log, ledger = Log(boot_of([1]), 100), Ledger(HardState(1, 0, 0), 1)
    log.commit_to(1)
    assert ledger.take(log, 1, 0, False) is None
    log.append(log_of([1], 2))
    save = _take(ledger, log)
    assert save.hard_state == HardState(1, 0, 1)
    assert not save.sync_hard_state
    assert save.must_sync


def test_an_empty_save_is_a_place_in_the_order_and_needs_no_sync() -> None:
    log, ledger = Log(boot_of([1]), 100), Ledger(HardState(1, 0, 0), 1)
    save = ledger.take(log, 1, 0, True)
    assert save is not None
    assert not save.must_sync
    assert save.hard_state is None


def test_confirmations_are_cumulative_and_repeated_ones_are_nothing() -> None:
    log, ledger = Log(boot_of([1]), 100), Ledger(HardState(1, 0, 0), 1)
    for index in (2, 3, 4):
        log.append(log_of([1], index))
        _take(ledger, log)
    assert ledger.saved(2)
    assert (ledger.durable_index, ledger.idle) == (3, False)
    assert not ledger.saved(2)
    assert ledger.saved(3)
    assert (ledger.durable_index, ledger.idle) == (4, True)


def test_term_and_vote_are_durable_with_their_save_and_not_before() -> None:
    log, ledger = Log(boot_of(), 100), Ledger(HardState(1, 0, 0), 0)
    save = _take(ledger, log, term=2, vote=3)
    assert save.sync_hard_state
    assert ledger.durable_term == 1
    ledger.saved(save.sequence)
    assert (ledger.durable_term, ledger.durable_vote) == (2, 3)


def test_entries_truncated_while_being_saved_are_attested_by_nobody() -> None:
    log, ledger = Log(boot_of([1]), 100), Ledger(HardState(1, 0, 0), 1)
    log.append(log_of([1, 1], 2))
    first = _take(ledger, log)
    log.truncate(2)
    ledger.forget_from(2)
    log.append(log_of([2, 2], 2))
    second = _take(ledger, log, term=2)
    assert second.truncate_from == 2
    ledger.saved(first.sequence)
    assert ledger.durable_index == 1
    ledger.saved(second.sequence)
    assert ledger.durable_index == 3


def test_a_truncation_makes_nothing_durable_that_was_not() -> None:
    log, ledger = Log(boot_of([1]), 100), Ledger(HardState(1, 0, 0), 1)
    saves = []
    for index in (2, 3, 4):
        log.append(log_of([1], index))
        saves.append(_take(ledger, log))
    log.truncate(4)
    ledger.forget_from(4)
    durable = [ledger.durable_index]
    for save in saves:
        ledger.saved(save.sequence)
        durable.append(ledger.durable_index)
    assert durable == [1, 2, 3, 3]
