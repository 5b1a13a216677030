"""Where a watch has come to: tokens, answers, transactions, splits."""

from __future__ import annotations

import base64

import pytest

from krita.codec import encode
from krita.errors import BadRequest, ProtocolError
from krita.operations import Change
from kritad.server.watch_positions import WHOLE_RING, Positions

CLUSTER = bytes(range(16))


def positions(**after: int) -> Positions:
    return Positions(CLUSTER, WHOLE_RING, {int(shard[1:]): at for shard, at in after.items()})


def put(key: bytes, index: int, value: bytes | None = b"x") -> list[object]:
    return [int(Change.PUT), key, value, index, None, index]


def test_a_token_means_the_places_that_it_was_made_of() -> None:
    was = positions(s0=0, s1=7, s300=1 << 40, s301=(1 << 63) - 1)
    assert Positions.from_token(was.token, CLUSTER, WHOLE_RING) == was
    assert was.token.isascii()
    assert "=" not in was.token


@pytest.mark.parametrize(
    "token",
    ["", "x", "é", "AAAA", "a" * 100_000, positions().token, positions(s1=7).token[:-2]],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadRequest, match="no resume token"):
        Positions.from_token(token, CLUSTER, WHOLE_RING)


def test_a_token_is_of_one_cluster_and_one_watch() -> None:
    token = positions(s1=7).token
    with pytest.raises(BadRequest, match="another cluster"):
        Positions.from_token(token, b"y" * 16, WHOLE_RING)
    with pytest.raises(BadRequest, match="other keys"):
        Positions.from_token(token, CLUSTER, 17)


def test_an_answer_moves_its_shard_alone() -> None:
    now = positions(s1=5, s2=5)
    told, new = now.take(1, [[put(b"a", 6), put(b"b", 8)], 9, 0])
    assert [(event.key, event.revision) for event in told] == [(b"a", 6), (b"b", 8)]
    assert (now.after, new) == ({1: 9, 2: 5}, [])
    first = Positions.from_token(told[0].token or "", CLUSTER, WHOLE_RING)
    assert first.after == {1: 6, 2: 5}


def test_an_answer_without_events_moves_it_too_and_never_back() -> None:
    now = positions(s1=5)
    now.take(1, [[], 8, 0])
    now.take(1, [[], 7, 0])
    assert now.after == {1: 8}


def test_only_the_last_event_of_an_entry_is_a_place_to_go_on_from() -> None:
    told, _ = positions(s1=5).take(1, [[put(b"a", 6), put(b"b", 6), put(b"c", 7)], 7, 0])
    assert [event.token is not None for event in told] == [False, True, True]


def test_a_shard_that_was_split_off_is_followed_from_the_split_on() -> None:
    now = positions(s1=5)
    split = [int(Change.SPLIT), None, 9, 7, 1 << 31, 7]
    told, new = now.take(1, [[put(b"a", 6), split, put(b"b", 8)], 8, 0])
    assert ([event.key for event in told], new) == ([b"a", b"b"], [9])
    assert now.after == {1: 8, 9: 7}
    # A token from before the split sees it again.
    before = Positions.from_token(told[0].token or "", CLUSTER, WHOLE_RING)
    assert before.after == {1: 6}
    assert before.take(1, [[split], 8, 0])[1] == [9]


def test_what_is_kept_bounds_where_one_can_go_on() -> None:
    assert positions(s1=5, s2=50).no_older_than({1: 20, 2: 20}).after == {1: 20, 2: 50}


@pytest.mark.parametrize("answer", [None, [], [[], "x"], [[[0]], 1, 0], [[[7, b"a"]], 1, 0]])
def test_a_malformed_answer_is_a_protocol_error(answer: object) -> None:
    with pytest.raises(ProtocolError):
        positions(s1=5).take(1, answer)


def test_a_token_of_nonsense_in_cbor_is_refused() -> None:
    items: list[object] = [7, [1], [2, CLUSTER[:4], -1, 1, 1]]
    for places in ([1], [1, 1, 2], ["a", 1], [1, -1], [-1, 1], [1, 1 << 63], [1, True], [1, None]):
        items.append([1, CLUSTER[:4], -1, *places])
    for item in items:
        token = base64.urlsafe_b64encode(encode(item)).rstrip(b"=").decode()
        with pytest.raises(BadRequest, match="no resume token"):
            Positions.from_token(token, CLUSTER, WHOLE_RING)
