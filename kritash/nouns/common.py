"""Rows of arguments and options that several nouns share."""

from __future__ import annotations

from kritash.grammar import Argument, Kind, Option

KEY = Argument("KEY", Kind.KEY, "the key; quotes and \\xHH make any bytes")
SHARD = Argument("SHARD", Kind.SHARD, "the shard's number")
NODE = Argument("NODE", Kind.NODE, "the node's number")

PLAN = Option("plan", "show what would move and what may fail before and after; do nothing")
WAIT = Option("wait", "follow it until it is done (Ctrl-C ends the waiting, not the work)")
WAIT_S = Option("wait-s", "wait at most so long; exit code 1 if it is not done by then", "S",
                Kind.SECONDS)  # fmt: skip

ADMINISTRATION = (
    "Administration: needs KRITA_ADMIN_TOKEN or --token-file. Asks first; where\n"
    "nobody can be asked it needs --yes."
)
