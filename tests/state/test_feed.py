"""The feed: what watches are answered from. Nothing is skipped, and what is gone is said."""

from __future__ import annotations

import random

import pytest

from krita.errors import BadRequest, Compacted
from krita.operations import Change, Op
from krita.ring import token
from kritad.state import feed as module
from kritad.state.feed import NEWEST, Event, Feed, keep_within
from kritad.state.reading import changes
from kritad.storage.rows import Row
from tests.state.shard import Shard


def row(at: int, size: int = 1) -> Row:
    return Row(at, b"v" * size, None, 0)


def told(feed: Feed, after: int, start: bytes = b"", stop: bytes | None = None) -> list[Event]:
    """All that a watcher hears who asks again and again."""
    events: list[Event] = []
    while True:
        found = feed.behind(after, start, stop, 3, 50)
        assert found is not None
        events += found[0]
        if found[1] == NEWEST:
            return events
        assert found[1] > after, "a watcher that is given nothing has to get on"
        after = found[1]


def test_changes_are_told_in_order_and_from_any_place() -> None:
    feed = Feed(10)
    feed.put(11, b"a", row(11))
    feed.gone(12, b"a", Change.DELETE)
    feed.put(14, b"b", row(14))
    assert [event[:3] for event in told(feed, 10)] == [
        (11, Change.PUT, b"a"), (12, Change.DELETE, b"a"), (14, Change.PUT, b"b"),
    ]  # fmt: skip
    assert [event[0] for event in told(feed, 12)] == [14]
    assert told(feed, 14) == told(feed, 99) == []


def test_who_asks_for_less_than_the_feed_has_is_told_so() -> None:
    feed = Feed(10)
    assert feed.behind(9, b"", None, 3) is None
    assert feed.behind(10, b"", None, 3) == ([], NEWEST)


def test_a_range_is_told_its_own_changes_and_every_split() -> None:
    feed = Feed(0)
    for at, key in enumerate([b"a", b"b", b"c", b"d"], start=1):
        feed.put(at, key, row(at))
    feed.split(5, 7, 1 << 31)
    assert [event[2] for event in told(feed, 0, b"b", b"d")] == [b"b", b"c", b""]
    assert told(feed, 0)[-1] == (5, Change.SPLIT, b"", (7, 1 << 31))


def test_changes_of_one_entry_are_never_separated() -> None:
    feed = Feed(0)
    for at in range(1, 20):
        for number in range(at % 5):
            feed.put(at, b"k%d" % number, row(at, 20))
    for after in range(20):
        for limit in (1, 2, 5):
            for bytes_max in (1, 45, 1 << 20):
                events, upto = feed.behind(after, b"", None, limit, bytes_max)  # type: ignore[misc]
                last = 19 if upto == NEWEST else upto
                whole = [event for event in feed._events if after < event[0] <= last]
                assert events == whole


def test_an_entry_that_has_changed_other_keys_first_does_not_ride_along() -> None:
    """Its value would be left out for want of room, and the next answer has room for it."""
    feed = Feed(0)
    feed.gone(1, b"k", Change.DELETE)
    feed.gone(5, b"a", Change.EXPIRE)  # what is over ends with the entry that finds it over
    feed.put(5, b"k", row(5, size=100))
    assert feed.behind(0, b"k", b"l", 3, 60) == ([(1, Change.DELETE, b"k", None)], 4)
    assert feed.behind(4, b"k", b"l", 3, 60) == ([(5, Change.PUT, b"k", row(5, size=100))], NEWEST)


def test_a_long_way_is_gone_in_several_looks_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCAN_MAX", 7)
    feed = Feed(0)
    for at in range(1, 100):
        for number in range(1 + at % 4):
            feed.put(at, b"k%d" % number, row(at))
    assert told(feed, 0) == feed._events
    assert told(feed, 0, b"k3", b"k4") == [e for e in feed._events if e[2] == b"k3"]
    assert told(feed, 0, b"none", b"nonf") == []


@pytest.mark.parametrize("seed", range(5))
def test_a_feed_that_is_full_gives_up_whole_entries_and_says_where_it_begins(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(module, "FEED_BYTES_MAX", 5_000)
    chance = random.Random(seed)
    feed, everything = Feed(0), list[Event]()
    for at in range(1, 400):
        for _ in range(chance.choice([0, 1, 1, 1, 3, 30])):
            key = b"k%d" % chance.randrange(5)
            if chance.random() < 0.5:
                one = row(at, chance.choice([1, 10, 300, 6_000]))
                feed.put(at, key, one)
                everything.append((at, Change.PUT, key, one))
            else:
                feed.gone(at, key, Change.EXPIRE)
                everything.append((at, Change.EXPIRE, key, None))
            assert feed._size_bytes <= 5_000 or len(feed._events) == 1
        if feed.oldest < at:
            assert told(feed, feed.oldest) == [e for e in everything if e[0] > feed.oldest]
        for after in range(max(0, feed.oldest - 3), feed.oldest):
            assert feed.behind(after, b"", None, 9) is None
    assert feed.oldest > 300


def test_the_feeds_of_a_node_are_bounded_together_and_the_largest_give_up_first() -> None:
    feeds = [Feed(0) for _ in range(4)]
    for number, feed in enumerate(feeds):
        for at in range(1, 100 * (number + 1)):
            feed.put(at, b"k", row(at, 100))
    small, *_, large = feeds
    before = sum(feed.memory_bytes for feed in feeds)
    keep_within(feeds, before)
    assert all(feed.oldest == 0 for feed in feeds)
    keep_within(feeds, before - 1)
    assert [feed.oldest > 0 for feed in feeds] == [False, False, False, True]
    assert told(large, large.oldest)[0][0] == large.oldest + 1
    assert large.behind(large.oldest - 1, b"", None, 1) is None
    keep_within(feeds, before * 6 // 10)
    assert sum(feed.memory_bytes for feed in feeds) <= before * 6 // 10
    keep_within([small], 0)
    assert len(small._events) > 0, "one look takes half"


def test_a_feed_of_nothing_but_deletes_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEED_BYTES_MAX", 5_000)
    feed = Feed(0)
    for at in range(1, 1_000):
        feed.gone(at, b"k", Change.DELETE)
    assert len(feed._events) < 30
    assert feed.oldest > 970


# --- as `changes` answers it ------------------------------------------------------------------


def ask(shard: Shard, after: int | None, *fields: object) -> list[object] | None:
    start, stop, limit, wait_ms, bytes_max = [*fields, *[None] * 5][:5]
    return changes(shard.state, [after, start, stop, limit, wait_ms, bytes_max])


def test_where_a_watch_begins_is_how_far_the_shard_is(shard: Shard) -> None:
    shard.put(b"k", b"v")
    assert ask(shard, None) == [[], 1, 0]


def test_the_answer_says_from_where_to_go_on(shard: Shard) -> None:
    shard.put(b"k", b"v")
    shard.pass_time(0)
    assert ask(shard, 0) == [[[int(Change.PUT), b"k", b"v", 1, None, 1]], 2, 0]
    assert ask(shard, 2) is None, "there is nothing to tell yet"
    assert ask(shard, 1, b"other") is None


def test_an_event_says_why_a_key_is_gone(shard: Shard) -> None:
    shard.do(Op.PUT, b"a", value=b"v", ttl_ms=5)
    shard.put(b"b", b"v")
    shard.delete(b"b")
    shard.pass_time(5)
    answer = ask(shard, 2)
    assert answer is not None
    assert answer[0] == [
        [int(Change.DELETE), b"b", None, 3, None, 3],
        [int(Change.EXPIRE), b"a", None, 4, None, 4],
    ]


def test_a_split_is_told_to_those_who_watch_keys_that_stay(shard: Shard) -> None:
    shard.put(b"k", b"v")
    shard.split(5, 1 << 31)
    offspring = shard.state.take_offspring()
    assert offspring is not None
    low = min((b"k%d" % n for n in range(9)), key=token)
    assert ask(shard, 1, low, low + b"\0") == [[[3, None, 5, 2, 1 << 31, 2]], 2, 0]
    assert changes(offspring.state, [2, None, None, None, None, None]) is None
    with pytest.raises(Compacted):
        changes(offspring.state, [1, None, None, None, None, None])


def test_a_step_too_large_for_an_answer_is_told_whole_and_its_values_are_left_out(
    shard: Shard,
) -> None:
    puts = [[int(Op.PUT), b"{g}%d" % number, b"x" * 100] for number in range(5)]
    shard.do(Op.TXN, b"{g}", then=puts)
    shard.put(b"k", b"behind")
    answer = ask(shard, 0, None, None, None, None, 250)
    assert answer is not None
    events, upto, _ = answer
    assert isinstance(events, list)
    assert [event[2] for event in events] == [b"x" * 100, b"x" * 100, None, None, None]
    assert upto == 1, "a step is one, and what is behind it comes with the next answer"


def test_changes_older_than_the_feed_are_refused_with_where_it_begins(shard: Shard) -> None:
    shard.put(b"k", b"v")
    shard.flush()
    shard.put(b"k", b"w")
    shard.crash()  # what was flushed is not told again
    with pytest.raises(Compacted) as caught:
        ask(shard, 0)
    assert caught.value.detail == {"oldest": 1}
    answer = ask(shard, 1)
    assert answer is not None
    assert answer[1:] == [2, 1]


@pytest.mark.parametrize(
    "fields", [(-1,), (True,), (0, "text"), (0, None, 5), (0, None, None, 0), (0, *[None] * 4, 0)]
)
def test_a_question_that_is_none_is_refused(shard: Shard, fields: tuple[object, ...]) -> None:
    with pytest.raises(BadRequest):
        ask(shard, *fields)  # type: ignore[arg-type]
