"""The table of commands. To add one, add its row and its action: the parser,
completion, help, dispatch and their tests follow.

Names are ``noun verb``, as in the other tools of this kind; what a session
uses all the time has a short form of one word.
"""

from __future__ import annotations

from kritash import actions
from kritash.grammar import Argument, Command, Kind, Option

_KEY = Argument("KEY", Kind.KEY, "the key; quotes and \\xHH make any bytes")

_IF_REVISION = Option("if-revision", "only if the key has this revision; 0: if it is absent",
                      "N", Kind.SIZE)  # fmt: skip

_BENCH_DETAILS = """\
Each connection keeps --in-flight requests outstanding and sends each straight
to the leader of its key. Latency is from the moment a request is handed to the
socket until its reply is decoded, redirections and reconnections included.
Before get and mixed every key is written once (--no-fill: not). Puts are
without a session: a lost answer is counted as "unknown" and not retried;
--sessions has each retried until its outcome is known."""

_BENCH_OPTIONS = (
    Option("connections", "logical connections", "N", Kind.COUNT, 8),
    Option("in-flight", "outstanding requests of each connection", "N", Kind.COUNT, 64),
    Option("keys", "number of different keys", "N", Kind.COUNT, 10_000),
    Option("value-size", "bytes of each value", "BYTES", Kind.SIZE, 256),
    Option("seconds", "how long to measure", "S", Kind.SECONDS, 10.0),
    Option("seed", "of the choice of keys", "N", Kind.SIZE, 1),
    Option("prefix", "what the keys begin with", "TEXT", Kind.TEXT, "bench:"),
)
_NO_FILL = Option("no-fill", "read whatever is there; do not write every key first")
_SESSIONS = Option("sessions", "put through sessions, so that a retried put happens once")
_READ_RATIO = Option("read-ratio", "share of reads, 0 to 1", "R", Kind.RATIO, 0.9)

COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "get"), "read a key", actions.key_get, aliases=("get",), arguments=(_KEY,),
        options=(Option("stale", "take what the asked node has; it may be behind"),),
        details="An absent key is exit code 1 and a line on stderr. Into a pipe the value goes as\n"
        "it is, byte for byte; a newline follows only where several commands are run in one go.",
        example="key get user:1",
    ),
    Command(
        ("key", "put"), "set a key", actions.key_put, aliases=("put",),
        arguments=(_KEY, Argument("VALUE", Kind.VALUE,
                                  "the value; - reads it from stdin, @file from a file")),
        options=(Option("literal", "store - or @… itself"),
                 Option("content-type", "kept with the value", "TYPE"), _IF_REVISION),
        details="Quoting the value on a line ('-', \"@home\") says literal as well. Exit code 1\n"
        "when --if-revision does not hold.",
        example='key put user:1 "Ada Lovelace"',
    ),
    Command(
        ("key", "delete"), "remove a key", actions.key_delete, aliases=("del", "delete"),
        arguments=(_KEY,), options=(_IF_REVISION,),
        details="Exit code 1 when there was no such key.",
        example="key delete user:1",
    ),
    Command(("cluster", "status"), "health, nodes, shards, leaders and lag",
            actions.cluster_status, example="cluster status --json"),
    Command(("node", "list"), "the nodes: state, leaders, replicas", actions.node_list),
    Command(("shard", "list"), "the shards: leader, term, replicas and their lag",
            actions.shard_list),
    Command(("shard", "map"), "which shard and leader a key belongs to", actions.shard_map,
            arguments=(_KEY,), example="shard map user:1"),
    Command(
        ("shard", "transfer"), "hand a shard's leadership to another node",
        actions.shard_transfer,
        arguments=(Argument("SHARD", Kind.SHARD, "the shard's number"),
                   Argument("NODE", Kind.NODE, "the node that shall lead it")),
        confirm="Hand the leadership of shard {SHARD} to node {NODE}?",
        details="Administration: needs KRITA_ADMIN_TOKEN or --token-file. Asks first; where\n"
        "nobody can be asked it needs --yes.",
        example="shard transfer 3 2 --yes",
    ),
    Command(("ping",), "ask a node whether it is there, and who it is", actions.ping,
            arguments=(Argument("NODE", Kind.NODE, "its number; otherwise any node answers",
                                optional=True),)),
    Command(("bench", "put"), "measure writes", actions.bench,
            options=(*_BENCH_OPTIONS, _SESSIONS), details=_BENCH_DETAILS,
            example="bench put --connections 8 --in-flight 64 --seconds 10"),
    Command(("bench", "get"), "measure linearizable reads", actions.bench,
            options=(*_BENCH_OPTIONS, _NO_FILL), details=_BENCH_DETAILS),
    Command(("bench", "mixed"), "measure reads and writes together", actions.bench,
            options=(*_BENCH_OPTIONS, _READ_RATIO, _SESSIONS, _NO_FILL), details=_BENCH_DETAILS,
            example="bench mixed --read-ratio 0.5"),
    Command(("help",), "this list, or all about one command", actions.show_help, aliases=("?",),
            arguments=(Argument("COMMAND", Kind.COMMAND, "a command's name", optional=True,
                                rest=True),),
            example="help key put"),
    Command(("exit",), "leave (so does Ctrl-D)", actions.leave, aliases=("quit",)),
)  # fmt: skip

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
