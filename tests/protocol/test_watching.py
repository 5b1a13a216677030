"""Where a watch is, what it asks next, and what an answer means: without any network."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.errors import BadRequest, Compacted, Forbidden, ProtocolError, Unavailable
from krita.ring import token as place_of
from krita.watching import (
    FAILURES_MAX,
    Event,
    Position,
    Range,
    Watching,
    decode_token,
    encode_token,
)

ALL = Range(None, None)


def put(index: int, key: bytes = b"k", value: bytes | None = b"v") -> list[object]:
    return [0, key, value, index, None, index]


def split(index: int, shard_new: int, at: int) -> list[object]:
    return [3, None, shard_new, index, at, index]


def watching(keys: Range = ALL, *, progress: bool = False, **shards: int) -> Watching:
    places = {int(name[1:]): Position(after) for name, after in shards.items()}
    return Watching(keys, places, progress=progress)


def drain(watch: Watching) -> list[Event]:
    found = []
    while (event := watch.next()) is not None:
        found.append(event)
    return found


def asked(watch: Watching) -> list[tuple[object, ...]]:
    """(shard, after) of what it asks now."""
    return [request.fields[:2] for request in watch.polls()]


def test_each_shard_is_asked_from_where_it_is_and_once_at_a_time() -> None:
    watch = watching(s1=10, s2=20)
    assert asked(watch) == [(1, 10), (2, 20)]
    assert asked(watch) == []
    watch.answered(1, [[], 12, 0])
    drain(watch)
    assert asked(watch) == [(1, 12)]


def test_a_shard_is_not_asked_again_before_its_events_were_handed_out() -> None:
    watch = watching(s1=10)
    watch.polls()
    watch.answered(1, [[put(11), put(13)], 15, 0])
    assert asked(watch) == []
    assert watch.next() == Event("put", b"k", b"v", 11, None, 1)
    assert asked(watch) == []
    drain(watch)
    assert asked(watch) == [(1, 15)]


def test_a_token_is_behind_what_was_handed_out_and_not_behind_what_has_come() -> None:
    watch = watching(s1=10)
    watch.polls()
    watch.answered(1, [[put(11), put(13)], 15, 0])
    assert decode_token(watch.token, ALL) == {1: Position(10)}
    watch.next()
    assert decode_token(watch.token, ALL) == {1: Position(11)}
    watch.next()
    assert decode_token(watch.token, ALL) == {1: Position(13)}
    watch.next()
    assert decode_token(watch.token, ALL) == {1: Position(15)}


@given(st.lists(st.integers(11, 16), max_size=12), st.integers(0, 14))
def test_a_watch_that_goes_on_from_any_token_gets_the_rest_and_nothing_twice(
    indexes: list[int], stop: int
) -> None:
    """Also between the events of one transaction, which have one revision."""
    events = [put(index, b"%d" % n) for n, index in enumerate(sorted(indexes))]

    def answer(watch: Watching) -> None:
        (request,) = watch.polls()
        after = request.fields[1]
        assert isinstance(after, int)
        watch.answered(1, [[e for e in events if e[5] > after], 20, 0])  # type: ignore[operator]

    first = watching(s1=10)
    answer(first)
    got: list[Event] = []
    for _ in range(stop):
        event = first.next()
        if event is not None:
            got.append(event)
    second = Watching(ALL, decode_token(first.token, ALL), progress=False)
    answer(second)
    got += drain(second)
    assert [event.key for event in got] == [event[1] for event in events]


def test_a_split_makes_the_new_shard_be_asked_from_that_very_revision_on() -> None:
    watch = watching(s1=10)
    watch.polls()
    watch.answered(1, [[put(11), split(12, 5, 1 << 31), put(13)], 13, 0])
    assert [event.revision for event in drain(watch)] == [11, 13]
    assert asked(watch) == [(1, 13), (5, 12)]
    assert decode_token(watch.token, ALL) == {1: Position(13), 5: Position(12)}


def test_a_key_that_moved_is_watched_where_it_is_now_and_nowhere_else() -> None:
    key = b"k"
    keys = Range(key, key + b"\0")
    for at, expected in ((place_of(key), [(5, 12)]), (place_of(key) + 1, [(1, 14)])):
        watch = watching(keys, s1=10)
        watch.polls()
        watch.answered(1, [[put(11), split(12, 5, at)], 14, 0])
        assert len(drain(watch)) == 1
        assert asked(watch) == expected


def test_progress_is_told_when_it_is_asked_for() -> None:
    watch = watching(progress=True, s1=10)
    watch.polls()
    watch.answered(1, [[put(11)], 15, 0])
    assert [event.kind for event in drain(watch)] == ["put", "progress"]
    watch.polls()
    watch.answered(1, [[], 15, 0])
    assert drain(watch) == [Event("progress", b"", None, 15, None, 1)]


def test_deletes_and_ends_are_told_apart() -> None:
    watch = watching(s1=1)
    watch.polls()
    gone = [[kind, b"k", None, 2 + kind, None, 2 + kind] for kind in (1, 2)]
    watch.answered(1, [gone, 9, 0])
    assert [(event.kind, event.data) for event in drain(watch)] == [
        ("delete", None),
        ("expire", None),
    ]


def test_an_event_of_a_newer_server_is_passed_over() -> None:
    watch = watching(s1=1)
    watch.polls()
    watch.answered(1, [[[9, b"k", None, 2, None, 2], put(3)], 3, 0])
    assert [event.revision for event in drain(watch)] == [3]


def test_a_feed_that_is_too_short_is_looked_for_on_the_other_replicas_first() -> None:
    watch = watching(s1=10)
    (first,) = watch.polls()
    assert first.node is None
    watch.failed(1, Compacted("gone", detail={"oldest": 50}), [2, 3])
    (second,) = watch.polls()
    assert (second.node, watch.node_asked(1)) == (2, True)
    watch.answered(1, [[put(11)], 60, 5])
    drain(watch)
    (third,) = watch.polls()
    assert (third.node, third.fields[1]) == (None, 60)


def test_when_no_replica_reaches_back_that_is_told_with_where_to_go_on() -> None:
    watch = watching(s1=10, s2=7)
    watch.polls()
    watch.failed(1, Compacted("gone", detail={"oldest": 50}), [2, 3])
    watch.polls()
    watch.failed(1, Unavailable("node 2 is down"), [2, 3])
    watch.polls()
    with pytest.raises(Compacted) as caught:
        watch.failed(1, Compacted("gone", detail={"oldest": 70}), [2, 3])
    token = caught.value.detail["token"]
    assert isinstance(token, str)
    assert decode_token(token, ALL) == {1: Position(50), 2: Position(7)}
    assert asked(watch) == [(1, 50)], "the watch itself goes on behind the gap, too"


def test_a_shard_that_is_out_of_reach_is_asked_again_before_anybody_is_told() -> None:
    watch = watching(s1=10)
    for _ in range(FAILURES_MAX - 1):
        watch.polls()
        watch.failed(1, Unavailable("an election"), [])
    watch.polls()
    with pytest.raises(Unavailable):
        watch.failed(1, Unavailable("an election"), [])
    assert asked(watch) == [(1, 10)]


def test_what_will_not_change_is_told_at_once() -> None:
    watch = watching(s1=10)
    watch.polls()
    with pytest.raises(Forbidden):
        watch.failed(1, Forbidden("no"), [])


@pytest.mark.parametrize(
    "body", [None, [], [[["what"]], 3, 0], [[[0, "text", b"", 1, None, 1]], 3, 0], [[], None, 0]]
)
def test_a_malformed_answer_is_the_node_s_fault(body: object) -> None:
    watch = watching(s1=10)
    watch.polls()
    with pytest.raises(ProtocolError):
        watch.answered(1, body)


# Tokens


@pytest.mark.parametrize("token", ["", "x", "!!!", "gA", "AAAA", "é"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(BadRequest):
        decode_token(token, ALL)


def ranges() -> st.SearchStrategy[Range]:
    edges = st.none() | st.binary(min_size=1, max_size=3)
    return st.builds(Range, edges, edges)


@given(ranges(), st.dictionaries(st.integers(1, 9), st.integers(0, 1 << 40), min_size=1))
def test_a_token_survives_its_text(keys: Range, revisions: dict[int, int]) -> None:
    places = {shard: Position(at, at % 3) for shard, at in revisions.items()}
    text = encode_token(keys, places)
    assert decode_token(text, keys) == places
    assert text.isascii()
    assert not set(text) & set(" =+/")


def test_a_token_serves_a_watch_of_less_and_none_of_more() -> None:
    token = encode_token(Range(b"a", b"c"), {1: Position(5)})
    assert decode_token(token, Range(b"b", b"c"))
    wider: Iterable[Range] = (ALL, Range(b"a", None), Range(b"a", b"d"), Range(None, b"b"))
    for keys in wider:
        with pytest.raises(BadRequest, match="other keys"):
            decode_token(token, keys)
    halfway = encode_token(Range(b"a", b"c"), {1: Position(5, 1)})
    with pytest.raises(BadRequest, match="other keys"):
        decode_token(halfway, Range(b"b", b"c"))
