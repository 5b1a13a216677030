"""The state is a function of the log: whatever is flushed when, and wherever it crashes."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from krita.codec import encode_body
from krita.operations import Op
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.sessions import SESSION_TTL_MS
from tests.state.shard import FIRST, SHARD, Shard, open_shard

_KEYS = st.sampled_from([b"a", b"b", b"{g}c", b""])
_VALUES = st.binary(max_size=3)
_CONDITIONS = st.none() | st.integers(0, 12)
# None, or one of those that every log opens with.
_SESSIONS = st.sampled_from([0, 0, 1, 2, 3])
_SEQUENCES = st.integers(1, 6)
_ACKED_TO = st.integers(0, 4)

_STEPS = st.one_of(
    st.tuples(
        st.just(Op.PUT), _SESSIONS, _SEQUENCES, _ACKED_TO, _KEYS, _VALUES,
        st.none() | st.just("text/plain"), _CONDITIONS,
    ),
    st.tuples(st.just(Op.DELETE), _SESSIONS, _SEQUENCES, _ACKED_TO, _KEYS, _CONDITIONS),
    st.tuples(st.just(Op.SESSION_OPEN), st.just(SHARD)),
    st.tuples(st.just(Op.SESSION_KEEPALIVE), st.just(SHARD), _SESSIONS),
    st.tuples(st.just(None), st.binary(max_size=12)),
)  # fmt: skip

_LOGS = st.lists(
    st.tuples(_STEPS, st.sampled_from([0, 0, 1, SESSION_TTL_MS // 2]), st.integers(0, 9)),
    min_size=1,
    max_size=30,
)
_PLANS = st.lists(st.sampled_from(["", "", "flush", "crash"]), max_size=30)


def entries(log: list[tuple[tuple[Any, ...], int, int]]) -> list[Entry]:
    """The drawn steps as entries: always three sessions first, ids 1 to 3."""
    opened = encode_body(Op.SESSION_OPEN, SHARD)
    made = [
        Entry(index, 1, EntryKind.COMMAND, pack_command(0, Op.SESSION_OPEN, opened))
        for index in (1, 2, 3)
    ]
    clock_ms = 0
    for index, (step, pause_ms, dice) in enumerate(log, start=4):
        clock_ms += pause_ms
        op, *fields = step
        if dice == 0:
            made.append(Entry(index, 2, EntryKind.NOOP, b""))
        elif dice == 1:
            made.append(Entry(index, 2, EntryKind.CONF, b"conf %d" % index))
        elif op is None:
            made.append(Entry(index, 2, EntryKind.COMMAND, fields[0]))
        else:
            data = pack_command(clock_ms, op, encode_body(op, *fields))
            made.append(Entry(index, 2, EntryKind.COMMAND, data))
    return made


def freeze_and_scan(shard: Shard) -> None:
    shard.flush()
    assert shard.scanned_hash() == shard.state.state_hash == shard.db.applied()[SHARD].state_hash


@settings(derandomize=True, deadline=None, max_examples=60)
@given(log=_LOGS, plan=_PLANS)
def test_replicas_that_flush_and_crash_differently_agree_at_every_index(
    log: list[tuple[tuple[Any, ...], int, int]], plan: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        calm_path, stormy_path = Path(directory, "calm.db"), Path(directory, "stormy.db")
        with open_shard(calm_path) as calm, open_shard(stormy_path) as stormy:
            for entry, event in itertools.zip_longest(entries(log), plan, fillvalue=None):
                if not isinstance(entry, Entry):
                    break
                assert stormy.apply(entry) == calm.apply(entry), entry
                if event == "flush":
                    freeze_and_scan(stormy)
                elif event == "crash":
                    stormy.crash()
                assert stormy.state.state_hash == calm.state.state_hash, entry
                assert stormy.state.clock_ms == calm.state.clock_ms, entry
            freeze_and_scan(stormy)
            freeze_and_scan(calm)
            stormy.crash()
            assert stormy.state.state_hash == calm.state.state_hash
            assert repr(stormy.state) == repr(calm.state)


def test_what_was_never_flushed_comes_back_from_the_log(tmp_path: Path) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        session = shard.open_session()
        first = shard.call(Op.PUT, session, 1, 0, b"k", b"a")
        shard.crash()
        assert shard.call(Op.PUT, session, 1, 0, b"k", b"a") == first


def test_a_retry_after_flush_and_crash_gets_the_first_answer(tmp_path: Path) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        session = shard.open_session()
        first = shard.call(Op.PUT, session, 1, 0, b"k", b"a")
        refused = shard.call(Op.PUT, session, 2, 0, b"k", b"b", None, 0)
        shard.flush()
        shard.crash()
        assert shard.state.index == 3
        assert shard.call(Op.PUT, session, 1, 0, b"k", b"a") == first
        assert shard.call(Op.PUT, session, 2, 0, b"k", b"b", None, 0) == refused


def test_a_key_deleted_after_a_flush_stays_deleted(tmp_path: Path) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        shard.put(b"k", b"a")
        shard.flush()
        assert shard.delete(b"k").body == [2, True]
        shard.flush()
        shard.crash()
        assert shard.state.read(b"k") is None
        assert shard.scanned_hash() == shard.state.state_hash == 0


def test_entries_applied_between_freeze_and_flush_belong_to_the_next_flush(tmp_path: Path) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        session = shard.open_session()
        shard.put(b"k", b"a")
        frozen = shard.state.freeze()
        shard.put(b"k", b"b")
        shard.call(Op.PUT, session, 1, 0, b"l", b"c")
        shard.db.flush([frozen])
        shard.table.flushed()
        assert shard.scanned_hash() == frozen.applied.state_hash
        freeze_and_scan(shard)
        shard.crash()
        assert shard.call(Op.PUT, session, 1, 0, b"l", b"c").body == [4, False]


def test_the_configuration_in_force_is_flushed_with_the_state(tmp_path: Path) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        assert shard.state.freeze().applied.configuration == FIRST
        shard.table.flushed()
        shard.apply(Entry(1, 1, EntryKind.CONF, b"second"))
        shard.flush()
        shard.crash()
        assert shard.state.freeze().applied.configuration == b"second"
