"""What people do with a cluster while it is in trouble, each kind with its own judgement.

An errand is a thread with a client of its own that does one thing again and again, and
knows what may never happen: money that is gone, two holders of one lock, an event that
was not told. What it sees at once it notes in ``problems``; ``judge`` looks at the rest
when all is healed. The judgements share nothing with the code that they judge.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from krita import Client, KritaError, Outcome
from krita.errors import Busy, Compacted, ConditionFailed, Locked
from krita.operations import KEEP_TTL, Change, Compare, Op, Relation
from krita.ring import ShardMap
from tests.system.node import wait_until

Connect = Callable[[], AbstractContextManager[Client]]

_PAUSE_S = 0.02


class Errand:
    """One thread. ``done`` counts what was answered, ``failed`` what was not."""

    def __init__(self, connect: Connect, seed: int) -> None:
        self.done = 0
        self.failed = 0
        self.in_doubt = 0
        self.slowest_s = 0.0
        self.problems: list[str] = []
        self.chance = random.Random(seed)
        self._connect = connect
        self._stop = threading.Event()
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def __enter__(self) -> Errand:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._bug is not None:
            raise self._bug

    def prepare(self, client: Client) -> None:
        """Once, before there is trouble."""

    def step(self, client: Client) -> None:
        """Do it once. Raises KritaError."""
        raise NotImplementedError

    def judge(self, client: Client) -> None:
        """When all is healed and all have stopped."""

    def doubt(self) -> None:
        """The step that has just failed may have had an effect."""
        self.in_doubt += 1

    def _run(self) -> None:
        try:
            with self._connect() as client:
                while not self._stop.wait(_PAUSE_S):
                    began = time.monotonic()
                    try:
                        self.step(client)
                        self.done += 1
                    except KritaError as error:
                        self.failed += 1
                        if error.outcome is not Outcome.NOT_APPLIED:
                            self.doubt()
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        except BaseException as bug:  # kept for ``__exit__``, which raises it
            self._bug = bug


class Transfers(Errand):
    """Money goes from one account to another, in transactions over several groups."""

    ACCOUNTS = tuple(b"account:%d" % number for number in range(12))
    EACH = 1_000

    def prepare(self, client: Client) -> None:
        for account in self.ACCOUNTS:
            client.put(account, str(self.EACH))

    def step(self, client: Client) -> None:
        giver, taker = self.chance.sample(self.ACCOUNTS, 2)
        amount = self.chance.randint(1, 9)
        compare = [[giver, Compare.VALUE, Relation.UNEQUAL, b"0"]]
        then = [[Op.ADD, giver, -amount], [Op.ADD, taker, amount]]
        client.call("txn", giver, compare, then, [])


class Audit(Errand):
    """Somebody reads all accounts at once: the sum is always the same."""

    def step(self, client: Client) -> None:
        accounts = Transfers.ACCOUNTS
        gets = [[Op.GET, account] for account in accounts]
        _, _, results = client.call("txn", accounts[0], [], gets, [])
        self._check(sum(int(value) for value, *_ in results), "an audit")

    def judge(self, client: Client) -> None:
        self.step(client)
        found = [client.get(account) for account in Transfers.ACCOUNTS]
        self._check(sum(int(value.data) for value in found if value), "the end")

    def _check(self, total: int, when: str) -> None:
        wanted = Transfers.EACH * len(Transfers.ACCOUNTS)
        if total != wanted:
            self.problems.append(f"at {when} there was {total} in all accounts, not {wanted}")


class Counting(Errand):
    """Several people count on the same numbers, and know how far each has to be."""

    COUNTERS = tuple(b"counter:%d" % number for number in range(8))

    def __init__(self, connect: Connect, seed: int) -> None:
        super().__init__(connect, seed)
        self.surely = dict.fromkeys(self.COUNTERS, 0)
        self.perhaps = dict.fromkeys(self.COUNTERS, 0)
        self._newest = dict.fromkeys(self.COUNTERS, 0)
        self._counter = self.COUNTERS[0]

    def step(self, client: Client) -> None:
        self._counter = self.chance.choice(self.COUNTERS)
        number = client.call("add", self._counter, 1)[2]
        self.surely[self._counter] += 1
        if number <= self._newest[self._counter]:
            self.problems.append(f"{self._counter!r} went back to {number}")
        self._newest[self._counter] = number

    def doubt(self) -> None:
        super().doubt()
        self.perhaps[self._counter] += 1


def judge_counters(client: Client, counting: Sequence[Counting]) -> list[str]:
    """Whether the numbers are what all of them together have counted."""
    problems = []
    for counter in Counting.COUNTERS:
        found = client.get(counter)
        number = 0 if found is None else int(found.data)
        least = sum(one.surely[counter] for one in counting)
        most = least + sum(one.perhaps[counter] for one in counting)
        if not least <= number <= most:
            problems.append(f"{counter!r} is {number}, and should be {least} to {most}")
    return problems


class Locking(Errand):
    """Several people want one lock, and write under it what only its holder may write."""

    LOCK, BOOK = b"{desk}lock", b"{desk}book"
    TTL_MS = 2_000

    def __init__(self, connect: Connect, seed: int) -> None:
        super().__init__(connect, seed)
        self._owner = b"person %d" % seed

    def step(self, client: Client) -> None:
        try:
            token, _ = client.call("lock", self.LOCK, self._owner, self.TTL_MS)
        except Locked:
            return
        for _ in range(self.chance.randint(1, 4)):
            line = b"%d\n" % token
            if_lock = [self.LOCK, token]
            try:
                client.call("append", self.BOOK, line, None, KEEP_TTL, None, if_lock)
            except ConditionFailed:
                return  # it has ended meanwhile, and the store knows
        if self.chance.random() < 0.7:  # else it ends by itself
            client.delete(self.LOCK, if_revision=token)

    def judge(self, client: Client) -> None:
        book = client.get(self.BOOK)
        tokens = [] if book is None else [int(line) for line in book.data.split()]
        if tokens != sorted(tokens):
            self.problems.append("a holder whose lock had ended wrote behind the next holder")


class Ending(Errand):
    """Keys that end by themselves: not before their time, and not long behind it."""

    TTL_MS = 1_500
    LATE_S = 15.0  # an election, and a shard's turn

    def step(self, client: Client) -> None:
        key = b"ending:%d:%d" % (id(self) % 1000, self.done)
        asked = time.monotonic()
        client.call("put", key, b"x", None, None, self.TTL_MS)
        if client.get(key) is None and time.monotonic() - asked < self.TTL_MS / 1000 - 0.5:
            self.problems.append(f"{key!r} has ended before its time")
        if self._stop.wait(self.TTL_MS / 1000):
            return
        behind = time.monotonic() + self.LATE_S
        while client.get(key) is not None:
            if time.monotonic() > behind:
                self.problems.append(f"{key!r} is still there {self.LATE_S:.0f} s behind its end")
                return
            if self._stop.wait(0.1):
                return


class Present(Errand):
    """Somebody is here for as long as a lease is kept alive, and gone when it is revoked."""

    TTL_MS = 30_000

    def step(self, client: Client) -> None:
        lease = self.chance.randrange(1, 1 << 60)
        client.call("lease_grant", self.TTL_MS, lease)
        keys = [b"present:%d:%d" % (lease, number) for number in range(4)]
        for key in keys:
            client.call("put", key, b"here", None, None, None, lease)
        began = time.monotonic()
        client.call("lease_keepalive", lease)
        missing = [key for key in keys if client.get(key) is None]
        if missing and time.monotonic() - began < self.TTL_MS / 1000 - 1:
            self.problems.append(f"lease {lease} is alive, and {missing} have ended")
        client.call("lease_revoke", lease)
        left = [key for key in keys if client.get(key) is not None]
        if left:
            self.problems.append(f"lease {lease} was revoked, and {left} are still there")


class Listing(Errand):
    """Keys that nobody touches are in every scan, once and in order."""

    KEYS = tuple(b"still:%03d" % number for number in range(100))

    def prepare(self, client: Client) -> None:
        with client.pipeline() as pipeline:
            for key in self.KEYS:
                pipeline.put(key, key)

    def step(self, client: Client) -> None:
        found: list[bytes] = []
        start: bytes | None = b"still:"
        limit = self.chance.choice((7, 30, 1000))
        while start is not None:
            rows, start = client.call("scan", start, b"still;", limit)
            found += [row[0] for row in rows]
        if found != list(self.KEYS):
            self.problems.append(f"a scan of {len(self.KEYS)} keys gave {len(found)}: {found[:3]}…")


class Publishing(Errand):
    """Puts numbers, one after the other, under a key that others watch."""

    def __init__(self, connect: Connect, seed: int) -> None:
        super().__init__(connect, seed)
        self.key = b"news:%d" % seed
        self.acknowledged: list[tuple[int, bytes]] = []  # revision, value

    def step(self, client: Client) -> None:
        value = b"%d" % (self.done + self.failed)
        revision = client.put(self.key, value).revision
        self.acknowledged.append((revision, value))


class Watching(Errand):
    """Watches what is published: in order, everything that was acknowledged, nothing twice.

    When all nodes are started again, what a watch had not seen yet may be gone from memory.
    Then it is told so, and between which revisions; of these alone something may be missing.
    """

    def __init__(self, connect: Connect, seed: int, published: Sequence[Publishing]) -> None:
        super().__init__(connect, seed)
        self.seen: dict[bytes, list[tuple[int, bytes]]] = {}
        self._published = published
        self._positions: dict[int, int] = {}
        self._shards: dict[bytes, int] = {}  # of what is published
        self._gaps: list[tuple[int, range]] = []  # shard and revisions, that we were told of

    def prepare(self, client: Client) -> None:
        ring: ShardMap = client.shard_map()
        for one in self._published:
            shard = self._shards[one.key] = ring.shard_of(one.key).shard
            self._positions[shard] = client.call("changes", shard, None)[1]

    def step(self, client: Client) -> None:
        for shard in list(self._positions):
            self._poll(client, shard, wait_ms=50)

    def judge(self, client: Client) -> None:
        for shard in list(self._positions):
            while self._poll(client, shard, wait_ms=0):
                pass
        for one in self._published:
            self._judge(one)

    def _poll(self, client: Client, shard: int, wait_ms: int) -> int:
        after = self._positions[shard]
        fields = shard, after, b"news:", b"news;", None, wait_ms
        try:
            events, self._positions[shard], _ = client.call("changes", *fields)
        except Compacted as told:
            oldest = told.detail["oldest"]
            assert isinstance(oldest, int)
            self._gaps.append((shard, range(after + 1, oldest + 1)))
            self._positions[shard] = max(after, oldest)
            return 1  # there may be something behind it
        for kind, key, value, revision, *_ in events:
            if kind == Change.PUT:
                self.seen.setdefault(key, []).append((revision, value))
        return len(events)

    def _is_excused(self, key: bytes, revision: int) -> bool:
        """Whether we were told that this is forgotten."""
        return any(self._shards[key] == shard and revision in gap for shard, gap in self._gaps)

    def _judge(self, one: Publishing) -> None:
        seen = self.seen.get(one.key, [])
        revisions = [revision for revision, _ in seen]
        if revisions != sorted(set(revisions)):
            self.problems.append(f"{one.key!r}: events came twice or out of order")
        told = set(seen)
        missing = [
            (revision, value)
            for revision, value in one.acknowledged
            if (revision, value) not in told and not self._is_excused(one.key, revision)
        ]
        if missing:
            self.problems.append(f"{one.key!r}: {len(missing)} puts were never told: {missing[:3]}")


def retrying(act: Callable[[], None]) -> None:
    """For judgements: what another transaction holds is free in a moment."""

    def tried() -> bool:
        try:
            act()
        except Busy:
            return False
        return True

    wait_until("no transaction is in the way", tried)
