"""Raft messages of all shards, as the body of one ``raft`` frame.

The body is ``[heartbeats, messages]``. Heartbeats and their answers, which an
idle cluster sends for every shard several times a second, and acknowledgements,
which a busy one sends most of, are one flat array of
integers, ``_STRIDE`` apiece: a flat array encodes three times faster than an
array of arrays. All others are ``[type, shard, sender, recipient, term, …]``.

Rule: the core does not know about this. What arrives is stepped message by
message, so the simulator may deliver them one at a time.

A peer has proved who it is before its frames get here, but may be a newer
version or have a bug: whatever does not decode raises ProtocolError and costs
that connection, nothing else. So numbers that no disk could keep are refused
here: a term of 2^63 would end the store that is told to save it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from krita.codec import decode, encode
from krita.errors import ProtocolError
from kritad.raft.configuration import decode_configuration
from kritad.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kritad.raft.records import CorruptRecord, pack_run, unpack_run
from kritad.raft.types import EntryKind

# In the flat array: kind (0 heartbeat, 1 its answer, 2 accepted append, 3 heartbeat to one that
# is behind), shard, sender, recipient, term, index (what is committed, 0, what is acknowledged,
# what is committed), read sequence. A kind that only a newer version knows is passed over.
_STRIDE = 7

_NUMBER_MAX = (1 << 63) - 1  # what SQLite keeps
_SHARD_MAX = (1 << 32) - 1  # what a record's checksum covers

# Type codes on the wire: never renumbered.
_PRE_VOTE, _PRE_VOTE_REPLY, _VOTE, _VOTE_REPLY = 1, 2, 3, 4
_APPEND, _APPEND_REPLY, _TIMEOUT_NOW = 5, 6, 7


def _row(message: Message, code: int, *rest: object) -> list[object]:
    return [code, message.shard, message.sender, message.recipient, message.term, *rest]


def _pack_pre_vote(m: PreVote) -> list[object]:
    return _row(m, _PRE_VOTE, m.last_index, m.last_term)


def _pack_pre_vote_reply(m: PreVoteReply) -> list[object]:
    return _row(m, _PRE_VOTE_REPLY, m.granted)


def _pack_vote(m: Vote) -> list[object]:
    return _row(m, _VOTE, m.last_index, m.last_term, m.transfer)


def _pack_vote_reply(m: VoteReply) -> list[object]:
    return _row(m, _VOTE_REPLY, m.granted)


def _pack_append(m: Append) -> list[object]:
    run = pack_run(m.shard, m.entries)
    return _row(m, _APPEND, m.prev_index, m.prev_term, m.commit, m.read_sequence, run)


def _pack_append_reply(m: AppendReply) -> list[object]:
    return _row(m, _APPEND_REPLY, m.accepted, m.index, m.hint_index, m.hint_term, m.read_sequence)


def _pack_timeout_now(m: TimeoutNow) -> list[object]:
    return _row(m, _TIMEOUT_NOW)


_PACK: dict[type[Message], Callable[..., list[object]]] = {
    PreVote: _pack_pre_vote,
    PreVoteReply: _pack_pre_vote_reply,
    Vote: _pack_vote,
    VoteReply: _pack_vote_reply,
    Append: _pack_append,
    AppendReply: _pack_append_reply,
    TimeoutNow: _pack_timeout_now,
}


def encode_messages(messages: Iterable[Message]) -> bytes:
    """The body of a ``raft`` frame. Cost: about 2 µs a message, the entries of
    an Append at memory speed (their records were packed when they were made)."""
    flat: list[int] = []
    rows: list[list[object]] = []
    for m in messages:
        if type(m) is Heartbeat:
            kind = 3 if m.behind else 0
            flat += (kind, m.shard, m.sender, m.recipient, m.term, m.commit, m.read_sequence)
        elif type(m) is HeartbeatReply:
            flat += (1, m.shard, m.sender, m.recipient, m.term, 0, m.read_sequence)
        elif type(m) is AppendReply and m.accepted and not (m.hint_index or m.hint_term):
            flat += (2, m.shard, m.sender, m.recipient, m.term, m.index, m.read_sequence)
        else:
            rows.append(_PACK[type(m)](m))
    return encode([flat, rows])


def _all_numbers(values: Sequence[Any]) -> bool:
    """Whether these are whole numbers (not booleans) within what is ever stored."""
    if not values:
        return True
    return set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= _NUMBER_MAX


def _flat_messages(flat: list[Any]) -> list[Message]:
    if len(flat) % _STRIDE or not _all_numbers(flat):
        raise ProtocolError("a raft frame's heartbeats are not whole rows of numbers")
    messages: list[Message] = []
    for at in range(0, len(flat), _STRIDE):
        kind, shard, sender, recipient, term, index, read = flat[at : at + _STRIDE]
        if kind == 2:
            messages.append(AppendReply(shard, sender, recipient, term, True, index, 0, 0, read))
        elif kind == 1:
            messages.append(HeartbeatReply(shard, sender, recipient, term, read))
        elif kind in (0, 3):
            messages.append(Heartbeat(shard, sender, recipient, term, index, read, kind == 3))
    return messages


def _unpack_append(head: list[int], rest: list[object]) -> Message:
    *numbers, run = rest or [None]
    if len(numbers) != 4 or not _all_numbers(numbers) or not isinstance(run, bytes):
        raise ProtocolError("a malformed append")
    try:
        entries = unpack_run(head[0], run)
        for entry in entries:
            if entry.kind is EntryKind.CONF:
                decode_configuration(entry.data)  # in force on append: too late to refuse it
    except CorruptRecord as problem:
        raise ProtocolError(f"an append's entries were damaged on the way: {problem}") from problem
    except (ValueError, RecursionError) as problem:
        raise ProtocolError(f"an append brings no configuration: {problem}") from problem
    return Append(*head, *numbers, entries)  # type: ignore[arg-type, call-arg]


_FIXED: dict[int, tuple[type[Message], tuple[type, ...]]] = {
    _PRE_VOTE: (PreVote, (int, int)),
    _PRE_VOTE_REPLY: (PreVoteReply, (bool,)),
    _VOTE: (Vote, (int, int, bool)),
    _VOTE_REPLY: (VoteReply, (bool,)),
    _APPEND_REPLY: (AppendReply, (bool, int, int, int, int)),
    _TIMEOUT_NOW: (TimeoutNow, ()),
}


def _unpack_row(row: object) -> Message | None:
    """One message; None for a type that only a newer version knows."""
    if not isinstance(row, list) or len(row) < 5 or not _all_numbers(row[:5]):
        raise ProtocolError("a raft frame holds something that is no message")
    code, head, rest = row[0], row[1:5], row[5:]
    if head[0] > _SHARD_MAX:
        raise ProtocolError(f"shard {head[0]} is none")
    if code == _APPEND:
        return _unpack_append(head, rest[:5])
    if code not in _FIXED:
        return None
    cls, shape = _FIXED[code]
    fields = rest[: len(shape)]
    if tuple(map(type, fields)) != shape or not _all_numbers([int(field) for field in fields]):
        raise ProtocolError(f"a malformed {cls.__name__}")
    return cls(*head, *fields)


def decode_messages(body: bytes) -> list[Message]:
    """The messages of a ``raft`` frame, heartbeats first.

    Raises ProtocolError for anything but a well-formed body.
    """
    item = decode(body)
    if not isinstance(item, list) or len(item) < 2:
        raise ProtocolError("a raft frame's body is not [heartbeats, messages]")
    flat, rows = item[:2]
    if not isinstance(flat, list) or not isinstance(rows, list):
        raise ProtocolError("a raft frame's body is not [heartbeats, messages]")
    messages = _flat_messages(flat)
    for row in rows:
        message = _unpack_row(row)
        if message is not None:
            messages.append(message)
    return messages
