"""What each entry does to a shard's state, and what it answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from krita.codec import encode
from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    KritaError,
    Outcome,
    SessionExpired,
    Unsupported,
    WrongShard,
    from_wire,
)
from krita.operations import Op
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.results import Result
from kritad.state.sessions import SESSION_TTL_MS
from tests.state.shard import SHARD, Shard, open_shard


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    with open_shard(tmp_path / "data.db") as opened:
        yield opened


def error(result: Result) -> KritaError:
    assert not result.ok, f"expected an error, got {result}"
    return from_wire(result.status, result.body)


def test_a_put_answers_with_the_index_and_whether_the_key_was_there(shard: Shard) -> None:
    assert shard.put(b"k", b"a").body == [1, False]
    assert shard.put(b"k", b"b").body == [2, True]
    row = shard.state.read(b"k")
    assert row is not None
    assert (row.revision, row.value) == (2, b"b")


def test_a_content_type_is_kept_with_the_value(shard: Shard) -> None:
    shard.call(Op.PUT, 0, 0, 0, b"k", b"{}", "application/json")
    row = shard.state.read(b"k")
    assert row is not None
    assert row.content_type == "application/json"


def test_a_delete_removes_the_key(shard: Shard) -> None:
    shard.put(b"k", b"a")
    assert shard.delete(b"k").body == [2, True]
    assert shard.state.read(b"k") is None


def test_a_delete_of_an_absent_key_answers_with_its_index_and_changes_nothing(shard: Shard) -> None:
    before = shard.state.state_hash
    assert shard.delete(b"k").body == [1, False]
    assert shard.state.state_hash == before


@pytest.mark.parametrize("if_revision", [0, 2, 99])
def test_a_put_at_another_revision_is_refused_with_the_revision_that_is(
    shard: Shard, if_revision: int
) -> None:
    shard.put(b"k", b"a")
    refused = error(shard.put(b"k", b"b", if_revision))
    assert isinstance(refused, ConditionFailed)
    assert refused.detail == {"revision": 1}
    assert refused.outcome is Outcome.NOT_APPLIED
    row = shard.state.read(b"k")
    assert row is not None
    assert row.value == b"a"


def test_a_put_at_the_key_s_revision_is_done(shard: Shard) -> None:
    shard.put(b"k", b"a")
    assert shard.put(b"k", b"b", 1).body == [2, True]


def test_revision_0_asks_that_the_key_be_absent(shard: Shard) -> None:
    assert shard.put(b"k", b"a", 0).ok
    assert not shard.put(b"k", b"b", 0).ok
    shard.delete(b"k")
    assert shard.put(b"k", b"c", 0).ok


def test_a_condition_on_an_absent_key_says_revision_0(shard: Shard) -> None:
    assert error(shard.put(b"k", b"a", 5)).detail == {"revision": 0}
    assert error(shard.delete(b"k", 5)).detail == {"revision": 0}


def test_a_delete_at_another_revision_is_refused(shard: Shard) -> None:
    shard.put(b"k", b"a")
    assert error(shard.delete(b"k", 9)).detail == {"revision": 1}
    assert shard.delete(b"k", 1).ok


def test_a_repeated_write_of_a_session_is_done_once(shard: Shard) -> None:
    session = shard.open_session()
    first = shard.call(Op.PUT, session, 1, 0, b"k", b"a")
    shard.put(b"k", b"other")
    assert shard.call(Op.PUT, session, 1, 0, b"k", b"a") == first
    row = shard.state.read(b"k")
    assert row is not None
    assert row.value == b"other"


def test_a_repeated_delete_of_a_session_still_says_that_the_key_was_there(shard: Shard) -> None:
    session = shard.open_session()
    shard.put(b"k", b"a")
    first = shard.call(Op.DELETE, session, 1, 0, b"k")
    assert first.body == [3, True]
    assert shard.call(Op.DELETE, session, 1, 0, b"k") == first


def test_a_refused_condition_is_refused_again_although_it_would_hold_now(shard: Shard) -> None:
    session = shard.open_session()
    shard.put(b"k", b"a")
    first = shard.call(Op.PUT, session, 1, 0, b"k", b"b", None, 0)
    shard.delete(b"k")
    assert shard.call(Op.PUT, session, 1, 0, b"k", b"b", None, 0) == first


def test_a_write_without_a_session_is_done_every_time(shard: Shard) -> None:
    shard.put(b"k", b"a")
    assert shard.put(b"k", b"a").body == [2, True]


def test_a_null_session_is_no_session(shard: Shard) -> None:
    assert shard.call(Op.PUT, None, None, None, b"k", b"a").body == [1, False]
    assert shard.call(Op.DELETE, None, None, None, b"k").body == [2, True]


def test_a_write_of_an_unknown_session_is_not_done(shard: Shard) -> None:
    refused = error(shard.call(Op.PUT, 99, 1, 0, b"k", b"a"))
    assert isinstance(refused, SessionExpired)
    assert refused.outcome is Outcome.NOT_APPLIED
    assert shard.state.read(b"k") is None


def test_a_session_ends_by_the_clock_in_the_entries(shard: Shard) -> None:
    session = shard.open_session()
    shard.clock_ms = SESSION_TTL_MS
    assert shard.call(Op.SESSION_KEEPALIVE, SHARD, session).ok
    shard.clock_ms = 2 * SESSION_TTL_MS
    assert shard.call(Op.PUT, session, 1, 0, b"k", b"a").ok
    shard.clock_ms = 3 * SESSION_TTL_MS + 1
    assert isinstance(error(shard.call(Op.PUT, session, 2, 0, b"k", b"a")), SessionExpired)


def test_a_leader_with_an_older_clock_does_not_turn_the_shard_s_clock_back(shard: Shard) -> None:
    for clock_ms, expected in ((50, 50), (20, 50), (51, 51)):
        shard.clock_ms = clock_ms
        shard.put(b"k", b"a")
        assert shard.state.clock_ms == expected


def test_a_session_of_another_shard_is_not_opened_here(shard: Shard) -> None:
    assert isinstance(error(shard.call(Op.SESSION_OPEN, SHARD + 1)), WrongShard)


def test_a_session_has_the_id_that_was_drawn_for_it_unless_another_has(shard: Shard) -> None:
    drawn = (1 << 62) + 5
    assert shard.call(Op.SESSION_OPEN, SHARD, drawn).body == [drawn]
    assert isinstance(error(shard.call(Op.SESSION_OPEN, SHARD, drawn)), Busy)
    assert shard.call(Op.PUT, drawn, 1, 0, b"k", b"a").ok, "the first one lives on"


def test_a_log_of_a_release_that_drew_no_ids_gives_those_that_it_gave_then(shard: Shard) -> None:
    shard.put(b"k", b"a")
    assert shard.call(Op.SESSION_OPEN, SHARD).body == [2]


@pytest.mark.parametrize("session", [0, -1, 1 << 63, 1.0, True, b"1"])
def test_what_cannot_be_a_session_s_id_is_refused(shard: Shard, session: object) -> None:
    assert isinstance(error(shard.call(Op.SESSION_OPEN, SHARD, session)), BadRequest)


def test_an_operation_of_the_future_is_unsupported(shard: Shard) -> None:
    refused = error(shard.command(pack_command(0, 250, encode([]))))
    assert isinstance(refused, Unsupported)


def test_missing_fields_at_the_end_are_null_and_unknown_ones_unread(shard: Shard) -> None:
    assert shard.call(Op.PUT, 0, 0, 0, b"k", b"a").ok
    known = [0, 0, 0, b"k", b"b", None, 1, None, None, None, None, None]
    longer = encode([*known, "from the future"])
    assert shard.command(pack_command(0, Op.PUT, longer)).ok


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [0],
        [0, 0, 0, "text", b"v"],
        [0, 0, 0, b"k", "text"],
        [0, 0, 0, b"k", None],
        [0, 0, 0, b"", b"v"],
        [0, 0, 0, b"k", b"v", 7],
        [0, 0, 0, b"k", b"v", None, -1],
        [0, 0, 0, b"k", b"v", None, "1"],
        [0, 0, 0, b"k", b"v", None, True],
        ["0", 0, 0, b"k", b"v"],
        [1, "1", 0, b"k", b"v"],
        [1, 1, None, b"k", b"v"],
        [1, 0, 0, b"k", b"v"],
        [-1, 1, 0, b"k", b"v"],
        [[], 1, 0, b"k", b"v"],
    ],
)
def test_a_put_with_fields_of_the_wrong_kind_is_refused(shard: Shard, fields: list[Any]) -> None:
    shard.open_session()
    before = shard.state.state_hash
    result = shard.command(pack_command(0, Op.PUT, encode(fields)))
    assert isinstance(error(result), BadRequest)
    assert shard.state.state_hash == before


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 40, pack_command(1, Op.PUT, b"")])
def test_a_command_that_is_none_is_refused_and_counted(shard: Shard, data: bytes) -> None:
    assert isinstance(error(shard.command(data)), BadRequest)
    assert shard.state.index == 1


@settings(
    derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    data=st.binary(max_size=60)
    | st.builds(
        lambda op, fields: pack_command(5, op, encode(fields)),
        st.sampled_from([1, 2, 3, 4, 5, 200]),
        st.lists(
            st.none() | st.integers(-2, 3) | st.integers(-(1 << 63), (1 << 64) - 1)
            | st.booleans() | st.binary(max_size=4) | st.text(max_size=4)
            | st.lists(st.integers(0, 9), max_size=2),
            max_size=9,
        ),
    )
)  # fmt: skip
def test_any_bytes_have_a_result_and_leave_a_state_that_can_be_stored(
    shard: Shard, data: bytes
) -> None:
    shard.open_session()
    result = shard.command(data)
    assert result.ok or type(error(result)) is not KritaError
    encode([result.status, result.body])
    shard.flush()
    assert shard.scanned_hash() == shard.state.state_hash


def test_noop_and_conf_entries_advance_and_answer_nothing(shard: Shard) -> None:
    assert shard.apply(Entry(1, 3, EntryKind.NOOP, b"")).body == []
    shard.apply(Entry(2, 4, EntryKind.CONF, b"second"))
    assert (shard.state.index, shard.state.term) == (2, 4)
    applied = shard.state.freeze().applied
    assert (applied.index, applied.term, applied.configuration) == (2, 4, b"second")


def test_an_entry_out_of_turn_is_our_own_mistake(shard: Shard) -> None:
    with pytest.raises(AssertionError):
        shard.state.apply(Entry(2, 1, EntryKind.NOOP, b""))


def commands(seed: int, count: int) -> list[Entry]:
    """Entries of all sorts about few keys, some of which make no sense."""
    chance = random.Random(seed)
    entries = []
    for index in range(1, count + 1):
        key = b"k%d" % chance.randrange(9)
        condition = chance.choice([None, None, None, 0, chance.randrange(index)])
        body = chance.choice(
            [
                encode([None, None, None, key, b"v%d" % index, None, condition]),
                encode([0, 0, 0, key, b"w%d" % index]),
                encode([None, None, None, key, condition]),
                encode([0, 0, 0, 7, b"", None, None]),
                encode({"no": "array"}),
                b"\xff",
            ]
        )
        op = chance.choice([Op.PUT, Op.PUT, Op.DELETE, 250])
        kind = EntryKind.NOOP if chance.random() < 0.05 else EntryKind.COMMAND
        data = b"" if kind is EntryKind.NOOP else pack_command(index, op, body)
        entries.append(Entry(index, 1, kind, data))
    return entries


@pytest.mark.parametrize("seed", range(5))
def test_entries_that_are_prepared_together_give_what_they_give_one_by_one(
    tmp_path: Path, seed: int
) -> None:
    entries = commands(seed, 300)
    chance = random.Random(seed + 1000)
    with open_shard(tmp_path / "a.db") as single, open_shard(tmp_path / "b.db") as batched:
        expected = [single.apply(entry) for entry in entries]
        given: list[Result] = []
        while len(given) < len(entries):
            some = entries[len(given) : len(given) + chance.randrange(1, 12)]
            batched.state.prepare(some)
            for entry in some:
                given.append(batched.apply(entry))
                if chance.random() < 0.1:
                    batched.flush()  # also between what was prepared together
        assert given == expected
        assert batched.state.state_hash == single.state.state_hash


def test_what_was_prepared_of_another_entry_at_the_index_is_not_applied(shard: Shard) -> None:
    def put(value: bytes) -> Entry:
        body = encode([None, None, None, b"k", value, None, None])
        return Entry(1, 1, EntryKind.COMMAND, pack_command(0, Op.PUT, body))

    shard.state.prepare([put(b"replaced")])
    shard.apply(put(b"committed"))
    row = shard.state.read(b"k")
    assert row is not None
    assert row.value == b"committed"
