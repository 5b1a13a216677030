"""Rows of arguments and options that several nouns share."""

from __future__ import annotations

from kritash.grammar import Argument, Kind, Option

KEY = Argument("KEY", Kind.KEY, "the key; quotes and \\xHH make any bytes")
VALUE = Argument("VALUE", Kind.VALUE, "the value; - reads it from stdin, @file from a file")
SHARD = Argument("SHARD", Kind.SHARD, "the shard's number")
NODE = Argument("NODE", Kind.NODE, "the node's number")
LOCK = Argument("NAME", Kind.LOCK, "the lock's name, which is a key")
TOKEN = Argument("TOKEN", Kind.TOKEN, "the fencing token that taking it has printed")
LEASE = Argument("LEASE", Kind.LEASE, "the lease's number")

PLAN = Option("plan", "show what would move and what may fail before and after; do nothing. Exit "
              "code 1 if it would be refused")  # fmt: skip
WAIT = Option("wait", "follow it until it is done (Ctrl-C ends the waiting, not the work)")
WAIT_S = Option("wait-s", "wait at most so long; exit code 1 if it is not done by then", "S",
                Kind.SECONDS)  # fmt: skip

LITERAL = Option("literal", "store - or @… itself")
TTL = Option("ttl", "how long the key lasts: 30s, 5m, 1h30m; keep: as long as it would have",
             "TIME", Kind.TTL)  # fmt: skip
WITH_LEASE = Option("lease", "the key ends with this lease", "LEASE", Kind.LEASE)
IF_REVISION = Option("if-revision", "only if the key has this revision; 0: if it is absent",
                     "N", Kind.SIZE)  # fmt: skip
IF_LOCK = Option("if-lock", "only while this lock is held by that token", "NAME@TOKEN",
                 Kind.HELD)  # fmt: skip
IDEMPOTENCY = Option("idempotency", "a name for this request: the same again within the hour "
                     "does nothing and gets the first answer", "NAME", Kind.NAME)  # fmt: skip
PREVIOUS = Option("previous", "tell what the key had before")
GUARD = (IF_REVISION, IF_LOCK, IDEMPOTENCY)
PREFIX = Option("prefix", "keys that begin with this", "P", Kind.KEY)
START = Option("start", "from this key on", "KEY", Kind.KEY)
STOP = Option("stop", "below this key", "KEY", Kind.KEY)

ADMINISTRATION = (
    "Administration: needs KRITA_ADMIN_TOKEN or --token-file. Asks first; where\n"
    "nobody can be asked it needs --yes."
)
