"""``lease``: what many keys share, and end with.

In JSON its number is text, here and wherever a key has one: it is larger than what JavaScript
and jq keep of a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.errors import LeaseUnknown
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind
from kritash.nouns.common import LEASE
from kritash.reply import Reply, View, sentence
from kritash.times import duration_word
from kritash.units import count_text

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation


def grant(context: Context, invocation: Invocation) -> Reply:
    """Begins one."""
    ttl_ms = invocation.integer("TIME")
    lease = context.client.lease(ttl_ms).grant()
    return _lasts(context, lease, ttl_ms)


def keepalive(context: Context, invocation: Invocation) -> Reply:
    """Lets it last for its whole time from now on. Raises LeaseUnknown."""
    lease = invocation.integer("LEASE")
    return _lasts(context, lease, context.client.lease(id=lease).keepalive())


def _lasts(context: Context, lease: int, ttl_ms: int) -> Reply:
    lasts = duration_word(ttl_ms)
    context.recent.saw_lease(lease, lasts)
    document = {"lease": str(lease), "ttl_ms": ttl_ms}
    return sentence(document, "ok", f"lease {lease}", f"lasts {lasts}")


def revoke(context: Context, invocation: Invocation) -> Reply:
    """Ends it; code NO when it had ended."""
    lease = invocation.integer("LEASE")
    try:
        # Asked before: revoking one that has ended is no error, and ends no keys.
        context.client.lease(id=lease).show()
    except LeaseUnknown:
        document = {"lease": str(lease), "existed": False, "keys": 0}
        return sentence(document, "it has ended, or never was", code=Exit.NO)
    keys = context.client.lease(id=lease).revoke()
    document = {"lease": str(lease), "existed": True, "keys": keys}
    return sentence(document, "ok", f"{count_text(keys, 'key')} ended with it")


def show(context: Context, invocation: Invocation) -> Reply:
    """How long it will last, and the keys that end with it. Raises LeaseUnknown."""
    lease = invocation.integer("LEASE")
    found = context.client.lease(id=lease).show()
    context.recent.saw_lease(lease, duration_word(found.ttl_ms))
    document = {
        "lease": str(lease), "ttl_ms": found.ttl_ms, "left_ms": found.left_ms,
        "keys": list(found.keys),
    }  # fmt: skip
    return Reply(View.PAIRS, document)


COMMANDS: tuple[Command, ...] = (
    Command(
        ("lease", "grant"), "begin a lease, and print its number", grant,
        arguments=(Argument("TIME", Kind.DURATION, "how long it lasts: 30s, 5m"),),
        details="Keys that are put with --lease end with it: when nobody has kept it alive for\n"
        "that time, or when it is revoked.",
        example="lease grant 30s",
    ),
    Command(
        ("lease", "keepalive"), "let a lease last for its whole time from now on", keepalive,
        arguments=(LEASE,), details="Exit code 1 when it has ended.",
    ),
    Command(
        ("lease", "revoke"), "end a lease and all of its keys", revoke, arguments=(LEASE,),
        confirm="End lease {LEASE} and all of its keys?",
        details="Asks first; where nobody can be asked it needs --yes. Exit code 1 when it had\n"
        "ended already.",
    ),
    Command(
        ("lease", "show"), "how long a lease lasts, and the keys that end with it", show,
        arguments=(LEASE,),
        details="At most a thousand keys of each shard. Exit code 1 when it has ended.",
    ),
)  # fmt: skip
