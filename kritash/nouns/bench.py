"""``bench``: the load generator's rows; ``kritash.bench`` is the generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.grammar import Command, Kind, Option

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation
    from kritash.reply import Reply


def bench(context: Context, invocation: Invocation) -> Reply:
    """Generates load and measures it; code of the commonest error if all failed."""
    # Imported here: a plain get should not pay for the load generator.
    from kritash.bench import run_bench

    return run_bench(context, invocation)


_DETAILS = """\
Each connection keeps --in-flight requests outstanding and sends each straight
to the leader of its key. Latency is from the moment a request is handed to the
socket until its reply is decoded, redirections and reconnections included.
Before get and mixed every key is written once (--no-fill: not). Puts are
without a session: a lost answer is counted as "unknown" and not retried;
--sessions has each retried until its outcome is known."""

_OPTIONS = (
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
    Command(("bench", "put"), "measure writes", bench,
            options=(*_OPTIONS, _SESSIONS), details=_DETAILS,
            example="bench put --connections 8 --in-flight 64 --seconds 10"),
    Command(("bench", "get"), "measure linearizable reads", bench,
            options=(*_OPTIONS, _NO_FILL), details=_DETAILS),
    Command(("bench", "mixed"), "measure reads and writes together", bench,
            options=(*_OPTIONS, _READ_RATIO, _SESSIONS, _NO_FILL), details=_DETAILS,
            example="bench mixed --read-ratio 0.5"),
)  # fmt: skip
