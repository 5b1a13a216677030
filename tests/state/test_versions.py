"""What keys were: told as it was, or refused because it is not kept; never guessed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from krita.errors import BadRequest, Compacted
from krita.operations import Change, LeaseChange, Op
from kritad.state import user_keys
from kritad.state.reading import history, read_then
from kritad.state.versions import Version, version_of, version_row
from kritad.storage.places import stored_token
from tests.state.shard import Shard, open_shard

KEYS = [b"a/x", b"a/b/y", b"c"]
PREFIXES = [b"", b"a/", b"a/b/"]


def as_of(shard: Shard, key: bytes, index: int) -> Any:
    return read_then(shard.state, key, [index, None])[0]


def at(shard: Shard, key: bytes, time_ms: int) -> Any:
    return read_then(shard.state, key, [None, time_ms])[0]


def versions(shard: Shard, key: bytes, *fields: Any) -> list[Any]:
    found = history(shard.state, key, [*fields, None, None][:2])[0]
    assert isinstance(found, list)
    return found


def test_a_version_s_row_says_whose_it_is_and_lies_beside_its_key() -> None:
    for key in (b"k", b"{tag}k", b"\0", b"x" * 70_000):
        row_key, _ = version_row(key, Version(3, b"v", None, 1 << 40, 5))
        assert version_of(row_key) == (key, 1 << 40)
        assert stored_token(row_key) == stored_token(key)


def test_a_key_is_told_as_it_was_at_each_revision_since_the_rule(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    shard.put(b"k", b"a")
    shard.put(b"k", b"b")
    shard.delete(b"k")
    shard.put(b"other", b"x")
    shard.put(b"k", b"c")
    expected = [None, b"a", b"b", None, None, b"c"]
    assert [as_of(shard, b"k", index) for index in range(1, 7)] == expected
    assert [version[:2] for version in versions(shard, b"k")] == [
        [6, b"c"], [4, None], [3, b"b"], [2, b"a"], [1, None],
    ]  # fmt: skip


def test_what_was_before_the_rule_is_not_kept(shard: Shard) -> None:
    shard.put(b"k", b"a")
    shard.put(b"k", b"b")
    shard.retain(b"", 1_000)
    with pytest.raises(Compacted):
        as_of(shard, b"k", 1)
    assert as_of(shard, b"k", 2) == b"b", "it has not changed since"
    with pytest.raises(Compacted):
        as_of(shard, b"absent", 2)
    assert as_of(shard, b"absent", 3) is None


def test_without_a_rule_nothing_older_is_told(shard: Shard) -> None:
    shard.put(b"k", b"a")
    assert as_of(shard, b"k", 1) == b"a"
    shard.put(b"k", b"b")
    with pytest.raises(Compacted):
        as_of(shard, b"k", 1)
    with pytest.raises(Compacted):
        at(shard, b"k", 0)


def test_a_revision_that_is_still_to_come_is_refused(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    with pytest.raises(BadRequest):
        as_of(shard, b"k", 2)


def test_at_a_time_behind_the_clock_of_an_idle_shard_a_key_is_what_it_is_now(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    shard.put(b"k", b"now")
    assert at(shard, b"k", shard.state.clock_ms + 500) == b"now"


def test_a_key_made_and_deleted_in_one_step_was_never_there(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    put, delete = [int(Op.PUT), b"k", b"v"], [int(Op.DELETE), b"k"]
    shard.do(Op.TXN, b"k", then=[put, delete])
    shard.put(b"k", b"w")
    assert [as_of(shard, b"k", index) for index in (1, 2, 3)] == [None, None, b"w"]


def test_of_several_changes_in_one_step_only_the_last_is_a_version(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    shard.put(b"k", b"a")
    step = [[int(Op.DELETE), b"k"], [int(Op.PUT), b"k", b"b"], [int(Op.PUT), b"k", b"c"]]
    shard.do(Op.TXN, b"k", then=step)
    assert [version[:2] for version in versions(shard, b"k")] == [[3, b"c"], [2, b"a"], [1, None]]


def test_an_absence_is_not_told_of_a_time_when_no_rule_watched(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    shard.put(b"k", b"a")
    shard.delete(b"k")  # 3
    shard.retain(b"", 0)
    shard.put(b"k", b"unseen")  # 5
    shard.delete(b"k")
    shard.retain(b"", 1_000)  # 7
    shard.put(b"k", b"b")
    with pytest.raises(Compacted):
        as_of(shard, b"k", 5)
    assert as_of(shard, b"k", 7) is None


def test_a_longer_time_does_not_promise_what_is_about_to_go_by_the_shorter(shard: Shard) -> None:
    shard.retain(b"", 10)
    shard.put(b"k", b"a")
    shard.clock_ms = 5
    shard.put(b"k", b"b")
    shard.clock_ms = 7
    shard.retain(b"", 1_000)
    shard.clock_ms = 16  # the version that ended at 5 is gone
    shard.put(b"other", b"x")
    with pytest.raises(Compacted):
        at(shard, b"k", 4)
    assert at(shard, b"k", 7) == b"b"


def test_a_rule_around_does_not_promise_what_an_inner_one_has_thrown_away(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    shard.retain(b"a/", 10)
    shard.put(b"a/k", b"a")
    shard.clock_ms = 5
    shard.put(b"a/k", b"b")
    shard.clock_ms = 20
    shard.retain(b"a/", 0)
    with pytest.raises(Compacted):
        at(shard, b"a/k", 4)
    shard.put(b"a/k", b"c")
    assert at(shard, b"a/k", 20) == b"c"


def test_a_key_that_is_over_and_waits_for_its_end_is_still_what_it_was(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_keys, "ENDED_MAX", 1)
    shard.retain(b"", 1_000)
    for key in (b"a", b"b"):
        shard.do(Op.PUT, key, value=b"v", ttl_ms=10)
    shard.pass_time(50)
    assert shard.state.extent.keys == 1
    for _ in range(2):
        assert as_of(shard, b"b", 3) == as_of(shard, b"b", 4) == b"v"
        assert at(shard, b"b", 9) == b"v"
        assert shard.value(b"b") is None
        shard.pass_time(0)
    assert shard.state.extent.keys == 0


def test_history_goes_on_where_it_ended(shard: Shard) -> None:
    shard.retain(b"", 1_000)
    for number in range(200):
        shard.put(b"k", b"%d" % number)
        if number % 50 == 0:
            shard.flush()
    found: list[Any] = versions(shard, b"k", 7)
    while True:
        more = versions(shard, b"k", 7, found[-1][0])
        if not more:
            break
        found += more
    assert [version[1] for version in found] == [b"%d" % n for n in reversed(range(200))] + [None]
    assert all(old[3] == new[0] for new, old in itertools.pairwise(found))


def test_a_time_is_found_among_thousands_of_versions(shard: Shard) -> None:
    shard.retain(b"", 1 << 30)
    for number in range(3_000):
        shard.clock_ms = number // 3  # several entries share a moment
        shard.put(b"k", b"%d" % number)
        if number % 1_000 == 500:
            shard.flush()
    for time_ms in range(0, 1_000, 7):
        assert at(shard, b"k", time_ms) == b"%d" % (3 * time_ms + 2)


# --- against what the feed has told ----------------------------------------------------------


class History:
    """What each key was, by entry and by time, made of the feed's events."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.clocks = [0]  # by index
        self.values: dict[bytes, list[tuple[int, int, bytes | None]]] = {k: [] for k in KEYS}

    def note(self) -> None:
        """An entry was applied."""
        index, clock_ms = self.shard.state.index, self.shard.state.clock_ms
        self.clocks.append(clock_ms)
        found = self.shard.state.feed.behind(index - 1, b"", None, 1_000)
        assert found is not None
        for at_index, kind, key, row in found[0]:
            assert at_index == index
            value = row.value if kind is Change.PUT else None  # type: ignore[union-attr]
            self.values[key].append((index, clock_ms, value))

    def as_of(self, key: bytes, index: int) -> bytes | None:
        before = [value for at_index, _, value in self.values[key] if at_index <= index]
        return before[-1] if before else None

    def at(self, key: bytes, time_ms: int) -> bytes | None:
        before = [value for _, clock_ms, value in self.values[key] if clock_ms <= time_ms]
        return before[-1] if before else None


def random_step(shard: Shard, chance: random.Random) -> None:
    key = chance.choice(KEYS)
    value = b"v%d" % shard.state.index
    shard.clock_ms += chance.choice([0, 0, 1, 5, 15])
    match chance.randrange(9):
        case 0:
            shard.delete(key)
        case 1:
            shard.do(Op.PUT, key, value=value, ttl_ms=chance.choice([1, 5, 30]))
        case 2:
            shard.retain(chance.choice(PREFIXES), chance.choice([0, 10, 30, 100]))
        case 3:
            shard.pass_time(0)
        case 4:
            put, delete = [int(Op.PUT), key, value], [int(Op.DELETE), key]
            shard.do(Op.TXN, key, then=chance.choice([[put, delete], [delete, put], [put, put]]))
        case 5:
            shard.lease(1, chance.choice(list(LeaseChange)), 20)
        case 6:
            shard.do(Op.PUT, key, value=value, lease=1)
        case _:
            shard.put(key, value)


@pytest.mark.parametrize("seed", range(12))
def test_older_versions_are_what_the_feed_has_told_or_refused(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_keys, "ENDED_MAX", 2)
    chance = random.Random(seed)
    told = refused = 0
    with open_shard(tmp_path / "data.db") as shard:
        model = History(shard)
        for _ in range(250):
            random_step(shard, chance)
            model.note()
            if chance.random() < 0.05:
                chance.choice([shard.flush, shard.crash])()
            for key in KEYS:
                index = chance.randint(1, shard.state.index)
                time_ms = chance.randint(max(0, shard.state.clock_ms - 60), shard.state.clock_ms)
                try:
                    assert as_of(shard, key, index) == model.as_of(key, index), (key, index)
                    told += 1
                except Compacted:
                    refused += 1
                rule = shard.state.retention.of(key)
                if rule is None or time_ms < rule.whole_from_ms(shard.state.clock_ms):
                    with pytest.raises(Compacted):
                        at(shard, key, time_ms)
                else:
                    assert at(shard, key, time_ms) == model.at(key, time_ms), (key, time_ms)
        assert told > refused / 20, (told, refused)
        shard.flush()
        assert shard.scanned_hash() == shard.state.state_hash
