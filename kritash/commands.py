"""The table of commands. To add one, add its row and its action to its noun's file in
``nouns``: the parser, completion, help, dispatch and their tests follow.

Names are ``noun verb``, as in the other tools of this kind; what a session
uses all the time has a short form of one word, and what looks at the whole is one.
"""

from __future__ import annotations

from kritash.grammar import Command, Kind, Option
from kritash.nouns import (
    bench,
    change,
    cluster,
    election,
    key,
    lease,
    lock,
    move,
    node,
    past,
    place,
    range,
    shard,
    shell,
    transfer,
    txn,
)

COMMANDS: tuple[Command, ...] = (
    *key.COMMANDS,
    *change.COMMANDS,
    *range.COMMANDS,
    *past.COMMANDS,
    *place.COMMANDS,
    *transfer.COMMANDS,
    *txn.COMMANDS,
    *lock.COMMANDS,
    *lease.COMMANDS,
    *election.COMMANDS,
    *cluster.COMMANDS,
    *node.COMMANDS,
    *shard.COMMANDS,
    *move.COMMANDS,
    *bench.COMMANDS,
    *shell.COMMANDS,
)

# Understood before and behind every command, in every mode.
COMMON_OPTIONS: tuple[Option, ...] = (
    Option("json", "print one JSON document for each command"),
    Option("yes", "do not ask before acting", short="y"),
    Option("help", "all about this command", short="h"),
)

# Understood on kritash's own command line only, before and behind the command.
GLOBAL_OPTIONS: tuple[Option, ...] = (
    Option("nodes", "where the cluster is; any node that lives is enough "
           "(KRITA_NODES; default 127.0.0.1:8080)", "HOST:PORT,…"),
    Option("timeout-ms", "how long a command may take (default 5000)", "N", Kind.COUNT),
    Option("token-file", "file with the admin token (or the variable KRITA_ADMIN_TOKEN)", "F"),
    Option("execute", "run this line; may be repeated", "CMD", short="e", repeated=True),
    Option("keep-going", "run all lines even if one fails; the first failure is the exit code"),
    Option("version", "print the version"),
    *COMMON_OPTIONS,
)  # fmt: skip
