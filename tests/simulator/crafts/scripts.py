"""What people do with each of the newer operations: small, contended, for ever.

To add a craft: its name in plan.CRAFTS and a generator here, under that name in SCRIPTS.
What its answers have to fulfil is in oracles/.
"""

from __future__ import annotations

from collections.abc import Callable

from krita.operations import KEEP_TTL, Change, Compare, Consistency, Op, Relation, What
from tests.simulator.crafts.craftsman import Hand, Script
from tests.simulator.crafts.deed import Ask
from tests.simulator.loop import SECOND_US

_TTLS_MS = (200, 1_000, 3_000)
READ_ALL = "read-all"
GUARDED = "guarded"
FROZEN_SUM = 0  # what all transfers leave as it is
RETAINED = b"h"  # the prefix of which versions are kept
LATELY = b"q"  # and another


def get(key: bytes) -> Ask:
    """A linearizable read."""
    return Ask(Op.GET, (key,))


def counters(hand: Hand) -> Script:
    """Numbers are added to, and texts appended to."""
    dice = hand.dice
    while True:
        chance = dice.random()
        number = b"c%d" % dice.randrange(2)
        # A new one now and then, so that none grows large.
        text = b"a%d" % (hand.world.loop.now_us // (5 * SECOND_US))
        if chance < 0.2:
            yield get(dice.choice([number, text]))
        elif chance < 0.6:
            yield Ask(Op.ADD, (number, hand.mark()))
        else:
            yield Ask(Op.APPEND, (text, hand.text()))


def ttl(hand: Hand) -> Script:
    """Values that end, are kept, and are kept from ending."""
    dice = hand.dice
    while True:
        chance = dice.random()
        key = b"x%d" % dice.randrange(4)
        ttl_ms = dice.choice([*_TTLS_MS, None, KEEP_TTL])
        if chance < 0.3:
            yield get(key)
        elif chance < 0.6:
            previous = (None, None, None, True) if dice.random() < 0.3 else ()
            yield Ask(Op.PUT, (key, hand.text(), None, None, ttl_ms, *previous))
        elif chance < 0.8:
            yield Ask(Op.TOUCH, (key, None, ttl_ms))
        elif chance < 0.95:
            yield Ask(Op.APPEND, (key, hand.text(), None, KEEP_TTL))
        else:
            yield Ask(Op.DELETE, (key,))


def watches(hand: Hand) -> Script:
    """All shards, or a range of their keys, are watched, and splits followed."""
    dice = hand.dice
    start, stop = dice.choice([(None, None), (b"k", b"l"), (b"k1", b"k1\0"), (b"x", None)])
    limit = dice.choice([None, 1, 3])
    places: dict[int, int | None] = {}
    while True:
        if not places:
            places = dict.fromkeys((s for s in hand.world.shards() if s), None)
        shard = dice.choice(sorted(places))
        after = places[shard]
        wait_ms = dice.choice([0, 300, 1_000])
        fields = (shard, after, start, stop, limit, wait_ms, dice.choice([None, 60]))
        deed = yield Ask(Op.CHANGES, fields, spread=dice.random() < 0.7, timeout_ms=4_000)
        if deed.ok:
            events, places[shard], _ = deed.body
            places |= {event[2]: event[3] for event in events if event[0] == Change.SPLIT}
        elif deed.status is not None:  # COMPACTED: begin anew
            places[shard] = None
        if dice.random() < 0.02:
            places = {}


def transactions(hand: Hand) -> Script:
    """Sums are moved between keys of a group, whole or not at all."""
    dice = hand.dice
    seen: dict[bytes, int] = {}
    while True:
        group = b"{g%d}" % dice.randrange(2)
        first, second = dice.sample([group + name for name in (b"a", b"b", b"c")], 2)
        amount, text, chance = hand.mark(), group + b"text", dice.random()
        transfer = [[Op.ADD, first, -amount], [Op.ADD, second, amount]]
        all_keys = [[Op.GET, group + name] for name in (b"a", b"b", b"c")]
        if chance < 0.3:
            yield Ask(Op.TXN, (first, None, all_keys, None), about=READ_ALL)
        elif chance < 0.55:
            yield Ask(Op.TXN, (first, None, transfer, None))
        elif chance < 0.7:  # refused at its end: no part of it may happen
            yield Ask(Op.PUT, (text, b"no number: " + hand.text()))
            yield Ask(Op.TXN, (first, None, [*transfer, [Op.ADD, text, 1]], None))
        elif chance < 0.9:
            compare = [[first, Compare.REVISION, Relation.EQUAL, seen.get(first, 0)]]
            deed = yield Ask(Op.TXN, (first, compare, transfer, [[Op.GET, first]]))
            if deed.ok:
                index, succeeded, results = deed.body
                seen[first] = index if succeeded else results[0][1]
        else:
            less = [[text, Compare.VALUE, Relation.LESS, hand.text()]]
            then = [[Op.PUT, text, hand.text(), None, 300], [Op.TOUCH, text, 1_000]]
            yield Ask(Op.TXN, (text, less, then, [[Op.DELETE, text], [Op.APPEND, text, b"."]]))


def locks(hand: Hand) -> Script:
    """A lock is taken, what it guards is written, and it is renewed, left or forgotten."""
    dice = hand.dice
    owner = b"owner %d" % hand.number
    tokens: dict[bytes, int] = {}  # the newest of each lock, held or not
    while True:
        group = b"{l%d}" % dice.randrange(2)
        lock, chance = group + b"lock", dice.random()
        token = tokens.get(lock)
        if token is None or chance < 0.3:
            deed = yield Ask(Op.LOCK, (lock, owner, dice.choice(_TTLS_MS)))
            if deed.ok:
                tokens[lock] = deed.body[0]
        elif chance < 0.8:  # also with a token that is not so any more
            guard = (None, None, None, None, [lock, token])
            yield Ask(Op.PUT, (group + b"data", hand.text(), *guard), about=GUARDED)
        elif chance < 0.9:
            yield Ask(Op.DELETE, (lock, token))
        else:
            yield get(lock)


def repeated(hand: Hand) -> Script:
    """Requests with an idempotency key, which somebody else sends again."""
    dice = hand.dice
    while True:
        key, name = b"i%d" % dice.randrange(3), b"n%d" % hand.mark()
        ask = dice.choice(
            [
                Ask(Op.PUT, (key, hand.text(), None, None, None, None, None, name)),
                Ask(Op.ADD, (b"i", hand.mark(), None, None, None, None, name)),
                Ask(Op.APPEND, (key, hand.text(), None, None, None, None, name)),
                Ask(Op.DELETE, (key, None, None, name)),
                Ask(Op.PUT, (key, hand.text(), None, 0, None, None, None, name)),
                Ask(Op.TXN, (b"i", None, [[Op.ADD, b"i", hand.mark()]], None, name)),
            ]
        )
        yield ask
        if dice.random() < 0.5:
            yield get(key)
        yield Ask(ask.op, ask.fields, client=1)
        if dice.random() < 0.2:
            yield Ask(Op.APPEND, (ask.fields[0], b"?", None, None, None, None, name))


def leases(hand: Hand) -> Script:
    """Keys that end with a lease, which is kept alive for a while, or given back, or not."""
    dice = hand.dice
    while True:
        lease, ttl_ms = hand.mark(), dice.choice(_TTLS_MS)
        yield Ask(Op.LEASE_GRANT, (ttl_ms, lease))
        for _ in range(dice.randrange(8)):
            key, chance = b"e%d" % dice.randrange(4), dice.random()
            if chance < 0.4:
                life = (dice.choice([None, 1_000, KEEP_TTL]), lease)
                yield Ask(Op.PUT, (key, hand.text(), None, None, *life))
            elif chance < 0.5:
                yield Ask(Op.TOUCH, (key, None, KEEP_TTL, lease))
            elif chance < 0.8:
                yield Ask(Op.LEASE_KEEPALIVE, (lease,))
            else:
                yield get(key)
        if dice.random() < 0.5:
            yield Ask(Op.LEASE_REVOKE, (lease,))


def scans(hand: Hand) -> Script:
    """All keys or a range of them are read in order, page by page, or counted."""
    dice = hand.dice
    while True:
        start, stop = dice.choice([(None, None), (b"k", b"l"), (b"a", b"k5"), (b"k1", None)])
        about = f"scan {hand.mark()}"
        if dice.random() < 0.2:
            yield Ask(Op.SCAN, (start, stop, None, False, What.COUNT), about=about)
            continue
        reverse = dice.random() < 0.5
        limit, what = dice.choice([1, 3, 10]), dice.choice([What.ROWS, What.KEYS])
        first = True
        while first or (start if not reverse else stop) is not None:
            first = False
            deed = yield Ask(Op.SCAN, (start, stop, limit, reverse, what), about=about)
            if not deed.ok:
                break
            goes_on = deed.body[1]
            if goes_on is None:
                break
            start, stop = (start, goes_on) if reverse else (goes_on, stop)


def stale_reads(hand: Hand) -> Script:
    """Any replica is asked, at times for what was just written or anything behind it."""
    dice = hand.dice
    while True:
        key, revision = b"k%d" % dice.randrange(hand.world.plan.keys), None
        if dice.random() < 0.4:
            key = b"s%d" % dice.randrange(2)
            deed = yield Ask(Op.PUT, (key, hand.text()))
            revision = deed.body[0] if deed.ok else None
        yield Ask(Op.GET, (key, int(Consistency.STALE), None, revision), spread=True)


def versions(hand: Hand) -> Script:
    """What keys were, at some entry or of late."""
    dice = hand.dice
    seen: dict[bytes, list[int]] = {}
    while True:
        key, chance = RETAINED + b"%d" % dice.randrange(3), dice.random()
        if chance < 0.05:
            yield Ask(Op.RETENTION_SET, (RETAINED, dice.choice([500, 3_000, 60_000])))
        elif chance < 0.5:
            op = Op.DELETE if chance < 0.1 else Op.PUT
            fields = (key,) if op == Op.DELETE else (key, hand.text(), None, None, None)
            deed = yield Ask(op, fields)
            if deed.ok:
                seen.setdefault(key, []).append(deed.body[0])
        elif chance < 0.6:
            yield Ask(Op.KEY_HISTORY, (key, dice.choice([None, 3]), None))
        elif key in seen:
            revision = dice.choice(seen[key][-5:]) - dice.randrange(2)
            yield Ask(Op.GET, (key, 0, None, None, max(1, revision)))
        else:
            yield get(key)


def inquiries(hand: Hand) -> Script:
    """What a lease will end, of what versions are kept, and what was at a time."""
    dice = hand.dice
    times: dict[bytes, list[int]] = {}  # at which a version ended
    while True:
        lease = hand.mark()
        yield Ask(Op.LEASE_GRANT, (dice.choice(_TTLS_MS), lease))
        for _ in range(dice.randrange(12)):
            key, chance = LATELY + b"%d" % dice.randrange(3), dice.random()
            if chance < 0.03:
                yield Ask(Op.RETENTION_SET, (LATELY, dice.choice([500, 3_000, 60_000])))
            elif chance < 0.1:
                yield Ask(Op.RETENTION_LIST, ())
            elif chance < 0.25:
                yield Ask(Op.LEASE_SHOW, (lease,))
            elif chance < 0.4:
                own = b"e%d" % dice.randrange(4)
                yield Ask(Op.PUT, (own, hand.text(), None, None, None, lease))
            elif chance < 0.6:
                yield (
                    Ask(Op.PUT, (key, hand.text()))
                    if dice.random() < 0.8
                    else Ask(Op.DELETE, (key,))
                )
            elif chance < 0.75 or key not in times:
                deed = yield Ask(Op.KEY_HISTORY, (key, 5, None))
                ended = [row[4] for row in deed.body[0] if row[4]] if deed.ok else []
                times |= {key: ended} if ended else {}
            else:  # at its very end, and just before
                at_ms = dice.choice(times[key]) - dice.randrange(2)
                yield Ask(Op.GET, (key, 0, None, None, None, at_ms))
        if dice.random() < 0.3:
            yield Ask(Op.LEASE_REVOKE, (lease,))


SCRIPTS: dict[str, Callable[[Hand], Script]] = {
    "ttl": ttl,
    "counters": counters,
    "watches": watches,
    "transactions": transactions,
    "locks": locks,
    "repeated": repeated,
    "leases": leases,
    "scans": scans,
    "stale-reads": stale_reads,
    "versions": versions,
    "inquiries": inquiries,
}
