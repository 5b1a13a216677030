"""What reads answer from a state: bounded, in order, without what is over or the store's own."""

from __future__ import annotations

import random
from typing import Any

import pytest

from krita.errors import BadRequest
from krita.operations import LeaseChange, Op, What
from kritad.state import reading, user_keys
from kritad.state.reading import history, lease_state, read_key, scan
from tests.state.shard import Shard

ROWS, KEYS, COUNT = What.ROWS, What.KEYS, What.COUNT


def page(shard: Shard, start: Any = None, stop: Any = None, limit: Any = None, **more: Any) -> Any:
    fields = [start, stop, limit, more.get("reverse"), int(more.get("what", ROWS))]
    return scan(shard.state, [*fields, more.get("bytes_max")])


def pages(
    shard: Shard, start: Any = None, stop: Any = None, limit: Any = None, **more: Any
) -> list[Any]:
    """The keys of all pages together."""
    found: list[bytes] = []
    while True:
        rows, edge, *_ = page(shard, start, stop, limit, **more)
        found += [row[0] for row in rows]
        if edge is None:
            return found
        if more.get("reverse"):
            assert stop is None or edge < stop, "a scan has to get on"
            stop = edge + b"\0"
        else:
            assert edge > (start or b"")
            start = edge


def count(shard: Shard, start: Any = None, stop: Any = None) -> int:
    total = 0
    while True:
        some: int
        some, edge, *_ = page(shard, start, stop, what=COUNT)
        total += some
        if edge is None:
            return total
        start = edge


def test_a_read_says_when_the_key_ends_and_with_which_lease(shard: Shard) -> None:
    shard.lease(5, LeaseChange.GRANT, 100)
    shard.do(Op.PUT, b"k", value=b"v", content_type="text/plain", ttl_ms=40, lease=5)
    shard.do(Op.PUT, b"l", value=b"v", lease=5)
    shard.pass_time(10)
    assert read_key(shard.state, b"k", None) == [b"v", 2, "text/plain", 4, None, 30, 5]
    assert read_key(shard.state, b"l", 7) == [b"v", 3, None, 4, 7, None, 5]
    assert page(shard)[0][1] == [b"l", b"v", 3, None, None, 5]


def test_a_scan_never_shows_what_the_store_keeps_for_itself(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    for number in range(3):
        shard.do(Op.PUT, b"\xfe", value=b"%d" % number, idempotency=b"%d" % number)
    assert pages(shard) == pages(shard, b"\xfe", b"\xff\xff") == [b"\xfe"]
    assert pages(shard, b"\xff") == pages(shard, b"\xff", None, reverse=True) == []
    assert pages(shard, None, b"\xff\xff", reverse=True) == [b"\xfe"]
    assert count(shard, b"", b"\xff\xff\xff") == 1


def test_a_scan_tells_the_arc_that_it_is_whole_for(shard: Shard) -> None:
    shard.put(b"k", b"v")
    assert page(shard)[2:] == [1, 0, 1 << 32]
    shard.split(5, 1 << 31)
    assert page(shard)[2:] == [2, 0, 1 << 31]


@pytest.mark.parametrize("seed", range(6))
def test_a_scan_in_pages_finds_each_key_of_its_range_once(shard: Shard, seed: int) -> None:
    chance = random.Random(seed)
    keys: set[bytes] = set()
    for number in range(300):
        key = b"k%03d" % chance.randrange(400)
        if chance.random() < 0.2:
            shard.delete(key)
            keys.discard(key)
        else:
            shard.put(key, b"v" * chance.choice([1, 200]))
            keys.add(key)
        if number % 60 == 30:
            shard.flush()
    frozen = shard.state.freeze()  # a flush is under way
    shard.put(b"k", b"newer")
    keys.add(b"k")
    for _ in range(30):
        bounds = sorted(chance.choice([b"k", b"k1", b"k2", b"k25", b"l"]) for _ in range(2))
        start, stop = (bound if chance.random() < 0.8 else None for bound in bounds)
        wanted = sorted(k for k in keys if (start or b"") <= k and (stop is None or k < stop))
        limit, bytes_max = chance.choice([None, 1, 7, 100]), chance.choice([None, 1, 500])
        what = chance.choice([ROWS, KEYS])
        found = pages(shard, start, stop, limit, bytes_max=bytes_max, what=what)
        assert found == wanted
        back = pages(shard, start, stop, limit, bytes_max=bytes_max, what=what, reverse=True)
        assert back == wanted[::-1]
        assert count(shard, start, stop) == len(wanted)
    shard.db.flush([frozen])
    shard.table.flushed()


def test_keys_that_are_over_are_neither_told_nor_counted(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_keys, "ENDED_MAX", 1)
    shard.lease(1, LeaseChange.GRANT, 10)
    for number in range(5):
        shard.do(Op.PUT, b"d%d" % number, value=b"v", ttl_ms=10)
        shard.do(Op.PUT, b"l%d" % number, value=b"v", lease=1)
    shard.put(b"k", b"v")
    shard.pass_time(10)
    assert shard.state.extent.keys > 5
    assert pages(shard) == pages(shard, reverse=True) == [b"k"]
    assert count(shard) == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_behind_many_keys_that_are_deleted_looks_at_only_so_many_at_a_time(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """They are in memory until they are flushed, and in data.db."""
    keys = [b"k%02d" % number for number in range(30)]
    for key in keys:
        shard.put(key, b"v")
    shard.flush()
    for key in keys[1:29]:
        shard.delete(key)
    monkeypatch.setattr(reading, "_LOOK_ROWS_MAX", 10)
    first, last, begun = (b"k29", b"k00", b"k19") if reverse else (b"k00", b"k29", b"k10")
    told = page(shard, reverse=reverse)
    assert [key for key, *_ in told[0]] == [first]
    assert told[1] == begun
    shard.flush()
    assert [key for key, *_ in page(shard, reverse=reverse)[0]] == [first, last]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_passes_over_only_so_many_keys_of_the_other_half_at_a_time(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """The keys of a group lie together in data.db, and the rows of both halves are there."""
    for number in range(30):
        shard.put(b"{half}%02d" % number, b"v")
    for ours in (b"b", b"~"):
        shard.put(ours, b"v")
    shard.flush()
    assert shard.split(2, 1 << 31).ok
    offspring = shard.state.take_offspring()
    assert offspring is not None
    shard.db.flush([shard.state.freeze(), offspring.state.freeze()])
    monkeypatch.setattr(reading, "_LOOK_ROWS_MAX", 10)
    first, begun = (b"~", b"{half}20") if reverse else (b"b", b"{half}09")
    told = page(shard, reverse=reverse)
    assert [key for key, *_ in told[0]] == [first]
    assert told[1] == begun
    assert pages(shard, reverse=reverse) == sorted([b"b", b"~"], reverse=reverse)
    assert count(shard) == 2


def test_a_scan_of_many_keys_that_are_over_looks_at_only_so_many_at_a_time(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_keys, "ENDED_MAX", 1)
    monkeypatch.setattr(reading, "_LOOK_ROWS_MAX", 10)
    for number in range(40):
        shard.do(Op.PUT, b"k%02d" % number, value=b"v", ttl_ms=10)
    shard.put(b"k99", b"v")
    shard.pass_time(10)
    assert page(shard)[:2] == [[], b"k10"], "ten were looked at; k00 has ended and is not flushed"
    assert pages(shard) == pages(shard, reverse=True) == [b"k99"]
    for over_max in (1_000, 5):
        monkeypatch.setattr(reading, "_OVER_MAX", over_max)
        assert count(shard) == 1


def test_a_scan_of_large_values_reads_only_so_many_bytes_at_a_time(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_LOOK_BYTES_MAX", 1_000)
    for number in range(10):
        shard.put(b"k%d" % number, b"x" * 400)
    assert page(shard, what=KEYS)[1] == b"k3"
    assert len(pages(shard, what=KEYS)) == 10


def test_a_count_reads_no_value(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand of 10 KiB were ten seconds of a leader's loop."""
    for number in range(20):
        shard.do(Op.PUT, b"k%02d" % number, value=b"x", ttl_ms=10 if number == 3 else None)
    shard.flush()
    shard.delete(b"k05")
    shard.put(b"k20", b"x")
    shard.put(b"k07", b"y")
    monkeypatch.setattr(user_keys, "ENDED_MAX", 0)
    shard.pass_time(10)
    monkeypatch.setattr(shard.db, "between", None)
    monkeypatch.setattr(reading, "_LOOK_ROWS_MAX", 6)
    assert count(shard) == 19
    assert count(shard, b"k03", b"k08") == 3
    assert page(shard, b"k03", b"k08", what=COUNT, reverse=True)[0] == 3


def test_a_history_fits_into_an_answer_and_goes_on(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    for number in range(10):
        shard.put(b"k", b"%d" % number * 400)
    first = history(shard.state, b"k", [None, None, 1_000])[0]
    assert isinstance(first, list)
    assert [version[0] for version in first] == [11, 10]
    more = history(shard.state, b"k", [None, first[-1][0], 1_000])[0]
    assert isinstance(more, list)
    assert [version[0] for version in more] == [9, 8]
    assert len(history(shard.state, b"k", [None, 5, 1])[0]) == 1  # type: ignore[arg-type]


def test_a_lease_tells_as_many_of_its_keys_as_an_answer_holds(shard: Shard) -> None:
    shard.lease(1, LeaseChange.GRANT, 100)
    for number in range(9):
        shard.do(Op.PUT, b"k%d" % number, value=b"v", lease=1)
    shard.pass_time(10)
    keys = [b"k%d" % number for number in range(9)]
    arc = shard.state.extent.arc
    assert lease_state(shard.state, [1, None]) == [100, 90, keys, *arc]
    assert lease_state(shard.state, [1, 4]) == [100, 90, keys[:4], *arc]
    assert lease_state(shard.state, [1, None, 7]) == [100, 90, keys[:3], *arc]
    assert lease_state(shard.state, [2, None]) == [None, None, [], *arc]
    shard.pass_time(90)
    assert lease_state(shard.state, [1, None]) == [None, None, [], *arc]


@pytest.mark.parametrize(
    "fields",
    [("a",), (None, 5), (None, None, 0), (None, None, "1"), (None, None, True), (b"a", b"b", 1.0)],
)
def test_a_scan_that_is_none_is_refused(shard: Shard, fields: tuple[Any, ...]) -> None:
    with pytest.raises(BadRequest):
        page(shard, *fields)
