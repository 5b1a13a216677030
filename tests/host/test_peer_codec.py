"""Raft messages on the wire: all of them come back, and nothing else gets in."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.codec import decode, encode
from krita.errors import ProtocolError
from kritad.host.peer_codec import decode_messages, encode_messages
from kritad.raft.configuration import encode_configuration
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
from kritad.raft.records import pack_run
from kritad.raft.types import Configuration, Entry, EntryKind

numbers = st.integers(0, (1 << 63) - 1)
shards = st.integers(0, (1 << 32) - 1)
head = (shards, numbers, numbers, numbers)

CONFIGURATION = encode_configuration(Configuration(1, frozenset({1}), nodes={1: 1}))

plain_entries = st.builds(
    Entry, numbers, numbers, st.sampled_from([EntryKind.NOOP, EntryKind.COMMAND]), st.binary()
)
conf_entries = st.builds(Entry, numbers, numbers, st.just(EntryKind.CONF), st.just(CONFIGURATION))
entries = st.lists(plain_entries | conf_entries, max_size=4)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(PreVote, *head, numbers, numbers),
    st.builds(PreVoteReply, *head, st.booleans()),
    st.builds(Vote, *head, numbers, numbers, st.booleans()),
    st.builds(VoteReply, *head, st.booleans()),
    st.builds(Append, *head, numbers, numbers, numbers, numbers, entries),
    st.builds(AppendReply, *head, st.booleans(), numbers, numbers, numbers, numbers),
    st.builds(Heartbeat, *head, numbers, numbers, st.booleans()),
    st.builds(HeartbeatReply, *head, numbers),
    st.builds(TimeoutNow, *head),
)

items = st.recursive(
    st.none() | st.booleans() | st.integers(0, (1 << 64) - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=40,
)


def is_flat(message: Message) -> bool:
    """Whether it travels in the array of numbers, in front of the others."""
    if isinstance(message, AppendReply):
        return message.accepted and not (message.hint_index or message.hint_term)
    return isinstance(message, Heartbeat | HeartbeatReply)


def flat_first(sent: list[Message]) -> list[Message]:
    return [m for m in sent if is_flat(m)] + [m for m in sent if not is_flat(m)]


@given(st.lists(messages, max_size=6))
def test_every_message_comes_back_as_it_was(sent: list[Message]) -> None:
    assert decode_messages(encode_messages(sent)) == flat_first(sent)


def check_refused_or_whole(body: bytes) -> None:
    """What is taken for messages is such as could have been sent."""
    try:
        found = decode_messages(body)
    except ProtocolError:
        return
    assert decode_messages(encode_messages(found)) == flat_first(found)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_no_messages(body: bytes) -> None:
    check_refused_or_whole(body)


@given(items)
def test_items_of_any_other_shape_are_no_messages(item: object) -> None:
    check_refused_or_whole(encode(item))


@given(st.lists(st.lists(items, max_size=11), max_size=3))
def test_rows_of_any_other_shape_are_no_messages(rows: list[object]) -> None:
    check_refused_or_whole(encode([[], rows]))


@given(messages, st.data())
def test_a_message_with_one_field_changed_decodes_or_is_a_protocol_error(
    message: Message, data: st.DataObject
) -> None:
    item = decode(encode_messages([message]))
    assert isinstance(item, list)
    row = item[1][0] if item[1] else item[0]
    row[data.draw(st.integers(0, len(row) - 1))] = data.draw(items)
    check_refused_or_whole(encode(item))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([5, 1, 1, 1, 1], id="an append without anything"),
        pytest.param([5, 1, 1, 1, 1, 0, 0, 0, 0], id="an append without its run"),
        pytest.param([5, 1, 1, 1, 1, 0, 0, 0, 0, "text"], id="a run of text"),
        pytest.param([5, 1 << 32, 1, 1, 1, 0, 0, 0, 0, b"\0" * 30], id="no such shard"),
        pytest.param([3, 1, 1, 1, 1 << 63, 0, 0, False], id="a term that no disk keeps"),
        pytest.param([3, 1, 1, 1, 1, 1 << 63, 0, False], id="an index that no disk keeps"),
        pytest.param([3, 1, 1, 1, 1, -1, 0, False], id="a negative index"),
        pytest.param([3, 1, 1, 1, 1, 0, 0, 0], id="a number for a flag"),
        pytest.param([3, 1, 1, True, 1, 0, 0, False], id="a flag for a number"),
        pytest.param([3, 1, 1, 1, 1, 0], id="a vote that is too short"),
        pytest.param(["3", 1, 1, 1, 1], id="a type that is text"),
    ],
)
def test_a_malformed_row_is_refused(row: list[object]) -> None:
    with pytest.raises(ProtocolError):
        decode_messages(encode([[], [row]]))


@pytest.mark.parametrize(
    "flat",
    [[0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, True], [0, 1, 1, 1, 1 << 63, 1, 1], [0] * 6 + [-1]],
)
def test_malformed_heartbeats_are_refused(flat: list[object]) -> None:
    with pytest.raises(ProtocolError):
        decode_messages(encode([flat, []]))


def test_entries_damaged_on_the_way_are_refused() -> None:
    body = encode_messages([Append(1, 1, 2, 1, 0, 0, 0, 0, [Entry(1, 1, EntryKind.COMMAND, b"x")])])
    with pytest.raises(ProtocolError, match="damaged on the way"):
        decode_messages(body.replace(b"x", b"y"))


def test_entries_of_another_shard_are_refused() -> None:
    run = pack_run(2, [Entry(1, 1, EntryKind.COMMAND, b"x")])
    with pytest.raises(ProtocolError, match="damaged on the way"):
        decode_messages(encode([[], [[5, 1, 1, 2, 1, 0, 0, 0, 0, run]]]))


def test_a_configuration_that_is_none_is_refused_before_the_core_sees_it() -> None:
    run = pack_run(1, [Entry(1, 1, EntryKind.CONF, b"{}")])
    with pytest.raises(ProtocolError, match="no configuration"):
        decode_messages(encode([[], [[5, 1, 1, 2, 1, 0, 0, 0, 0, run]]]))


def test_a_message_of_a_newer_version_is_passed_over() -> None:
    vote = VoteReply(1, 2, 3, 4, True)
    item = decode(encode_messages([vote]))
    assert isinstance(item, list)
    item[1].insert(0, [99, 1, 2, 3, 4, "new"])
    assert decode_messages(encode(item)) == [vote]


def test_fields_that_a_newer_version_adds_are_passed_over() -> None:
    vote = VoteReply(1, 2, 3, 4, True)
    item = decode(encode_messages([vote]))
    assert isinstance(item, list)
    item[1][0].append("new")
    assert decode_messages(encode([*item, "new"])) == [vote]


def test_an_idle_clusters_heartbeats_cost_a_few_bytes_each() -> None:
    beats: list[Message] = [Heartbeat(shard, 1, 2, 3, 4, 5) for shard in range(100)]
    assert len(encode_messages(beats)) < 100 * 12
    assert len(cbor2.loads(encode_messages(beats))[0]) == 700
