"""What was moved between accounts, and whether one order explains all that was told.

Every account has a balance and a *stamp*, a key of its own: the name of the transfer that
has written it last. A transfer reads the stamps that it replaces, so the answers themselves
say which transfer came behind which in every account. From them and from real time follows a
graph of what came before what; it has to be without a cycle (strict serializability).

Rules:
* Of a transfer that was not answered (UNKNOWN) it is known that it has happened when
  somebody has seen its stamp. One that has FAILED was surely not done: its stamp is seen by
  nobody, ever.
* Balances follow from stamps: of the two, whoever reads both sees what belongs together.

Sources: Adya's thesis (2000), whose graphs of what depends on what these are; Elle (Kingsbury
and Alvaro, 2020), which finds the order in the answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

import attrs

from tests.simulator.history import Fate

BEGIN = b"begin"  # the stamp of every account before anybody has moved anything
BALANCE = 100
_GUESSED_MAX = 10  # transfers of which nobody knows: subsets of no more are tried


@attrs.define(eq=False)
class Deal:
    """One operation: what it asked for, and what it was told."""

    stamp: bytes
    moves: dict[int, int]  # by account what is added; empty: it only reads
    invoked: int  # a number that grows with time, one for each event
    returned: int | None = None
    fate: Fate = Fate.UNKNOWN
    seen: dict[int, bytes] = attrs.field(factory=dict)  # by account the stamp it has found
    balances: dict[int, int] = attrs.field(factory=dict)  # with that stamp
    moved: bool = False  # it has happened, as an answer says

    def __str__(self) -> str:
        return (
            f"[{self.invoked}..{self.returned or ''}] {self.stamp.decode()} {self.moves or 'reads'}"
            f" -> {self.fate.name.lower()}{' moved' if self.moved else ''}"
            f" saw { {a: (s.decode(), self.balances.get(a)) for a, s in self.seen.items()} }"
        )


class Ledger:
    """The deals of a life, in the order in which they were begun."""

    def __init__(self, accounts: int) -> None:
        self.accounts = accounts
        self.deals: list[Deal] = []
        self._events = 0

    def begin(self, stamp: bytes, moves: dict[int, int]) -> Deal:
        """Somebody asks for it."""
        self._events += 1
        deal = Deal(stamp, moves, self._events)
        self.deals.append(deal)
        return deal

    def end(self, deal: Deal, fate: Fate) -> None:
        """It was answered, or its client has given up."""
        self._events += 1
        deal.returned, deal.fate = self._events, fate

    def problems(self) -> list[str]:
        """What no order of the deals explains; empty: nothing."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        by_stamp = {deal.stamp: deal for deal in self.deals if deal.moves}
        behind: dict[tuple[int, bytes], Deal] = {}
        for deal in self.deals:
            for account, stamp in deal.seen.items():
                writer = by_stamp.get(stamp)
                if stamp != BEGIN and writer is None:
                    yield f"{deal} saw a stamp of nobody"
                    return
                if writer is deal:
                    yield f"was done twice: {deal}"
                if writer is not None and writer.fate is Fate.FAILED:
                    yield f"was surely not done: {writer}; and seen by {deal}"
                if writer is not None and not writer.moved and writer.fate is Fate.OK:
                    yield f"was told that it has done nothing: {writer}; and seen by {deal}"
                if deal.moved:
                    other = behind.setdefault((account, stamp), deal)
                    if other is not deal:
                        yield f"both came right behind {stamp!r}: {other} and {deal}"
        yield from self._sums()
        yield from self._balances(by_stamp)
        yield from self._cycle(by_stamp, behind)

    def _sums(self) -> Iterator[str]:
        """Whoever has read all accounts has seen all the money."""
        for deal in self.deals:
            if len(deal.balances) == self.accounts:
                total = sum(deal.balances.values())
                if total != BALANCE * self.accounts:
                    yield f"the sum is {total}: {deal}"

    def _balances(self, by_stamp: dict[bytes, Deal]) -> Iterator[str]:
        """A stamp and a balance that were read together belong together."""
        known: dict[tuple[int, bytes], int] = {}
        for deal in self.deals:
            for account, balance in deal.balances.items():
                stamp = deal.seen[account]
                if known.setdefault((account, stamp), balance) != balance:
                    yield f"{known[account, stamp]} and {balance} with one stamp: {deal}"
                if stamp == BEGIN and balance != BALANCE:
                    yield f"{balance} at the beginning: {deal}"
        for (account, stamp), balance in known.items():
            writer = by_stamp.get(stamp)
            if writer is None or not writer.moved:
                continue
            before = known.get((account, writer.seen[account]))
            if before is not None and before + writer.moves[account] != balance:
                yield f"{before} became {balance} in account {account} by {writer}"

    def _cycle(
        self, by_stamp: dict[bytes, Deal], behind: dict[tuple[int, bytes], Deal]
    ) -> Iterator[str]:
        """What came before what, by the accounts and by real time."""
        after: dict[object, set[object]] = defaultdict(set)
        for deal in self.deals:
            for account, stamp in deal.seen.items():
                writer = by_stamp.get(stamp)
                if writer is not None:
                    after[writer].add(deal)
                following = behind.get((account, stamp))
                if following is not None and following is not deal:
                    after[deal].add(following)
        for node, others in self._real_time():
            after[node] |= others
        stuck = _never_free(after)
        if stuck:
            yield "no order explains: " + "; ".join(str(d) for d in self.deals if d in stuck)[:900]

    def _real_time(self) -> Iterator[tuple[object, set[object]]]:
        """A deal that has returned is before all that begin later: over a chain of moments."""
        ends = sorted((d.returned, d) for d in self.deals if d.returned and d.fate is Fate.OK)
        moments = [f"moment {number}" for number in range(len(ends))]
        for place, (_, deal) in enumerate(ends):
            yield deal, {moments[place]}
            if place + 1 < len(moments):
                yield moments[place], {moments[place + 1]}
        for deal in self.deals:
            place = sum(1 for returned, _ in ends if returned < deal.invoked) - 1
            if place >= 0:
                yield moments[place], {deal}

    def unexplained(self, final: dict[int, int], seen: Iterable[bytes]) -> str:
        """Whether the balances in the end are those of all that has happened; "" if so."""
        stamps = {stamp for deal in self.deals for stamp in deal.seen.values()} | set(seen)
        rest = {account: balance - BALANCE for account, balance in final.items()}
        open_: list[Deal] = []
        for deal in self.deals:
            if (
                not deal.moves
                or deal.fate is Fate.FAILED
                or (deal.fate is Fate.OK and not deal.moved)
            ):
                continue
            if deal.moved or deal.stamp in stamps:
                for account, amount in deal.moves.items():
                    rest[account] -= amount
            else:
                open_.append(deal)
        if len(open_) > _GUESSED_MAX:
            return ""
        for count in range(len(open_) + 1):
            for some in combinations(open_, count):
                left = dict(rest)
                for deal in some:
                    for account, amount in deal.moves.items():
                        left[account] -= amount
                if not any(left.values()):
                    return ""
        return f"the balances in the end are by {rest} not those of what has happened"


def _never_free(after: dict[object, set[object]]) -> set[object]:
    """The nodes of a graph that are in a cycle, or behind one."""
    before: dict[object, int] = defaultdict(int)
    for others in after.values():
        for other in others:
            before[other] += 1
    nodes = set(after) | set(before)
    free = [node for node in nodes if not before[node]]
    while free:
        node = free.pop()
        nodes.discard(node)
        for other in after.get(node, ()):
            before[other] -= 1
            if not before[other]:
                free.append(other)
    return nodes
