"""A COMMAND entry's data: the leader's clock, the operation, the client's bytes.

``>QB`` is the clock in milliseconds (u64) and the operation (u8); behind it
stands the request's body as the client encoded it. Nobody between the client
and ``ShardState.apply`` reads the body, so a write is decoded once per replica.

The stamp is the proposing leader's wall clock. Clocks of successive leaders may
disagree; the shard's own clock is therefore the largest stamp so far, and only
that decides when something expires (raft.md 6: never by local wall clock).
"""

from __future__ import annotations

import struct

_HEAD = struct.Struct(">QB")
HEAD_BYTES = _HEAD.size

# No leader means a later time than this (about the year 287,000), and a clock
# beyond it would not fit the databases that keep it.
CLOCK_MS_MAX = 1 << 53


class BadCommand(ValueError):
    """These bytes are no command; the text says why."""


def pack_command(clock_ms: int, op: int, body: bytes) -> bytes:
    """The data of a COMMAND entry."""
    assert 0 <= clock_ms <= CLOCK_MS_MAX, "clock_ms is not a time in milliseconds"
    return _HEAD.pack(clock_ms, op) + body


def unpack_command(data: bytes) -> tuple[int, int, bytes]:
    """``(clock_ms, op, body)``. Raises BadCommand for anything pack_command
    could not have made. ~0.5 µs."""
    if len(data) < HEAD_BYTES:
        raise BadCommand(f"a command has at least {HEAD_BYTES} bytes, this has {len(data)}")
    clock_ms, op = _HEAD.unpack_from(data)
    if clock_ms > CLOCK_MS_MAX:
        raise BadCommand("the command's clock is not a time")
    return clock_ms, op, data[HEAD_BYTES:]
