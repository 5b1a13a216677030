"""One flipped bit, anywhere: found, or without effect. What escapes is listed here.

Measured with 6 seeds each (flips; exactly right, refused, escaped):
raft.db closed: 9000; 7452, 1548, 0. raft.db-wal: 1190; 514, 676, 0.
data.db closed: 1800; 883, 916, 0. data.db-wal: 360; 182, 2, 176, see below.

Escapes, all of data.db:
* A bit in the index kv_key: the row is not found under its key any more. Sending
  a snapshot notices (3 of 3), because the rows do not add up; a read does not. The scrub does
  (1 of the 1800). In the index of the sessions it is noticed when a replica is opened (3).
* data.db-wal is not judged as raft.db-wal is: what lies behind the damage is lost, and
  the state is an older one, which the log makes new again. While a checkpoint left its
  frames in the WAL, 106 of 225 of these were older pages in a newer file, with every
  row's own digest right: hence database.forget_wal. After a checkpoint that a reader
  has kept from ending that can still be.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from kritad.host.bootstrap import all_sessions, check_sum
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import NO_SEAL, seal
from kritad.storage.errors import Corrupt, FormatUnknown, StoreFailed
from tests.simulator.platter.data_life import DataLife
from tests.simulator.platter.power import MAKERS, Life, Origin, running
from tests.simulator.platter.vfs import Disk

REFUSALS = (Corrupt, FormatUnknown, StoreFailed)  # anything else is a traceback


def verdict(life: Life) -> str:
    """What a start makes of a damaged file."""
    try:
        life.boot()
    except REFUSALS:
        return "refused"
    except AssertionError:
        return escape(life)
    return "right"


def escape(life: Life) -> str:
    """What becomes of damage that no reader has met."""
    if isinstance(life, DataLife):
        db = life.db
        if db.scrub(0, 1 << 20).unsound:
            return "scrubbed"
        try:
            for at in db.applied().values():
                check_sum(at, all_sessions(db, at.generation))
        except Corrupt:
            return "refused"  # by a node, when it opens the replica
    return "escaped"


def flip_bits(
    store: str, suffix: str, directory: Path, count: int, *, closed: bool
) -> Counter[str]:
    """Flip ``count`` bits, one at a time, in the files that end so."""
    verdicts: Counter[str] = Counter()
    for seed in range(3):
        origin = Origin.make(MAKERS[store], directory / str(seed), seed, 60, closed=closed)
        chance = random.Random(seed)
        names = [
            name for name, file in origin.files.items() if name.endswith(suffix) and file.content
        ]
        for _ in range(count // 3 if names else 0):  # a checkpoint has just emptied it
            name = chance.choice(names)
            bit = chance.randrange(len(origin.files[name].content) * 8)
            with running(Disk(random.Random(1), origin.files)) as disk:
                disk.files[name].flip(bit)
                verdicts[verdict(origin.life())] += 1
    return verdicts


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "closed", "refused"),
    [("raft.db", True, 0.08), ("raft.db", False, 0.005), ("raft.db-wal", False, 0.3)],
)
def test_a_flipped_bit_in_raft_db_or_its_wal_is_found_or_without_effect(
    suffix: str, closed: bool, refused: float, tmp_path: Path
) -> None:
    count = 750
    verdicts = flip_bits("raft.db", suffix, tmp_path, count, closed=closed)
    assert verdicts["escaped"] == 0
    assert verdicts["refused"] > refused * count, verdicts


def test_a_flipped_bit_in_data_db_is_found_by_a_reader_or_by_the_scrub(tmp_path: Path) -> None:
    verdicts = flip_bits("data.db", "data.db", tmp_path, 300, closed=True)
    assert verdicts["refused"] > 100, verdicts
    assert verdicts["escaped"] == 0, verdicts


def test_a_flipped_bit_in_the_wal_of_data_db_gives_no_traceback(tmp_path: Path) -> None:
    """Not more than that: see the module's docstring."""
    verdicts = flip_bits("data.db", "data.db-wal", tmp_path, 150, closed=False)
    assert verdicts.total() >= 50


def test_a_complete_checkpoint_leaves_nothing_in_the_wal_that_damage_could_bring_back(
    tmp_path: Path,
) -> None:
    with closing(DataDatabase.open(tmp_path / "data.db")) as db:
        db.create_generation()
        wal = tmp_path / "data.db-wal"
        assert wal.stat().st_size > 0
        assert db.checkpoint()
        assert wal.stat().st_size == 0


@pytest.mark.parametrize(
    "damaged", [(1, None), (1, 2.5), (1, "2"), (None, 2)], ids=["null", "float", "text", "first"]
)
def test_a_field_that_changed_its_type_has_no_seal(damaged: tuple[object, ...]) -> None:
    """A flipped bit in a row's header: SQLite checks a STRICT table's types when writing."""
    assert seal(*damaged) == NO_SEAL  # type: ignore[arg-type]
    assert seal(1, 2) != NO_SEAL


@pytest.mark.parametrize(
    ("column", "damage"),
    [
        ("value", "NULL"),
        ("value", "'text'"),
        ("value", "7"),
        ("revision", "NULL"),
        ("revision", "1.5"),
        ("content_type", "x'ff'"),
        ("content_type", "CAST(x'ff41' AS TEXT)"),
        ("digest", "NULL"),
    ],
)
def test_a_value_of_another_type_or_text_that_is_no_utf8_is_corrupt(
    column: str, damage: str, tmp_path: Path
) -> None:
    """Not a TypeError, and not a failed disk, which would stop the node."""
    origin = Origin.make(MAKERS["data.db"], tmp_path, 3, 60)
    with running(Disk(random.Random(1), origin.files)) as disk:
        life = origin.life()
        assert isinstance(life, DataLife)
        connection = disk.connect(life.path)
        # A table that is not STRICT takes what STRICT ones may hold after a flip.
        connection.execute("PRAGMA writable_schema=1")
        connection.execute(
            "UPDATE sqlite_schema SET sql=replace(replace(sql, ' STRICT', ''), ' NOT NULL', '')"
            " WHERE name='kv'"
        )
        connection.close()
        connection = disk.connect(life.path)
        connection.execute(f"UPDATE kv SET {column}={damage}")
        connection.close()
        with pytest.raises(Corrupt) as caught:
            life.boot()
        assert caught.value.shard is not None


_LEAF_OF_AN_INDEX = 10  # the first byte of such a page


def test_a_flipped_bit_in_an_index_is_found_by_a_reader_or_by_the_scrub(tmp_path: Path) -> None:
    """A row that its key does not find is absent, and no digest tells."""
    verdicts: Counter[str] = Counter()
    origin = Origin.make(MAKERS["data.db"], tmp_path, 1, 60)
    [name] = [name for name in origin.files if name.endswith("data.db")]
    content, chance = bytes(origin.files[name].content), random.Random(1)
    page_bytes = int.from_bytes(content[16:18], "big")
    pages = [
        start
        for start in range(page_bytes, len(content), page_bytes)
        if content[start] == _LEAF_OF_AN_INDEX
    ]
    for _ in range(100):
        bit = 8 * chance.choice(pages) + chance.randrange(8 * page_bytes)
        with running(Disk(random.Random(1), origin.files)) as disk:
            disk.files[name].flip(bit)
            verdicts[verdict(origin.life())] += 1
    assert verdicts["scrubbed"] > 0, verdicts
    assert verdicts["escaped"] == 0, verdicts
