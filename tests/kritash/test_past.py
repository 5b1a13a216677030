"""``key history``, ``diff``, ``undo`` and ``retention``, and the comparison of two values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.errors import ConditionFailed
from krita.operations import Op
from kritash.differences import (
    ABSENT,
    LINES_MAX,
    Side,
    difference_document,
    first_difference,
)
from tests.kritash.conftest import Shell
from tests.kritash.terminal import Terminal
from tests.protocol.server import answer

DAY_MS = 86_400_000


def lines_of(before: Side, after: Side) -> list[str]:
    found = difference_document(b"k", before, after)["lines"]
    assert isinstance(found, list)
    return found


@pytest.fixture
def kept(shell: Shell) -> Shell:
    """Old versions are kept of all keys."""
    shell("retention", "set", "", "1d")
    return shell


# -- Comparing -----------------------------------------------------------------


def test_text_is_compared_line_by_line() -> None:
    before, after = Side(3, b"a\nb\nc"), Side(5, b"a\nB\nc")
    assert lines_of(before, after) == [
        "--- k at revision 3", "+++ k at revision 5", "@@ -1,3 +1,3 @@", " a", "-b", "+B", " c",
    ]  # fmt: skip


def test_of_bytes_the_sizes_and_the_first_difference_are_told() -> None:
    assert lines_of(Side(3, b"ab\xff\x00"), Side(5, b"ab\xffzz"))[2:] == [
        "-4 B", "+5 B", "@@ the first difference is at byte 3 @@", "-00", "+7a 7a",
    ]  # fmt: skip
    assert lines_of(Side(3, b"\xff\x00"), Side(5, b"\xff"))[-1] == "+the end"


def test_an_absence_is_a_side_too() -> None:
    assert lines_of(ABSENT, Side(5, b"a"))[0] == "--- k, absent"
    assert lines_of(Side(5, b"\xff"), ABSENT)[2:] == ["-1 B", "+absent"]


def test_a_content_type_that_changed_is_a_change() -> None:
    document = difference_document(b"k", Side(3, b"a", "x/y"), Side(5, b"a", "x/z"))
    assert document["changed"]
    assert document["lines"] == ["--- k at revision 3, x/y", "+++ k at revision 5, x/z"]


def test_a_text_of_very_many_lines_is_compared_as_bytes() -> None:
    long = b"\n" * LINES_MAX
    assert any("first difference" in line for line in lines_of(Side(1, long), Side(2, long + b"x")))


def test_control_characters_make_bytes_of_a_text() -> None:
    assert any(line.startswith("-1b") for line in lines_of(Side(1, b"\x1b[2J"), Side(2, b"x")))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_first_difference_is_where_the_values_part(before: bytes, after: bytes) -> None:
    at = first_difference(before, after)
    if at is None:
        assert before == after
    else:
        assert before[:at] == after[:at]
        assert before[at : at + 1] != after[at : at + 1]


# -- The commands --------------------------------------------------------------


def test_a_history_has_the_newest_first_and_tells_when_each_ended(kept: Shell) -> None:
    kept.db.put("k", "one", content_type="text/plain")
    kept.cluster.advance(1000)
    kept.db.put("k", "")
    kept.db.delete("k")
    rows = [line.split("\t") for line in kept("key", "history", "k").out.decode().splitlines()]
    assert rows[0] == ["revision", "until_revision", "until", "bytes", "content_type", "value"]
    # That it was absent in the beginning is known: the retention was there before.
    expected = [["0", "-", '""'], ["3", "text/plain", "one"], ["-", "-", "-"]]
    assert [row[3:] for row in rows[1:]] == expected
    assert rows[2][2] == "2023-11-14T22:13:21.000Z"
    versions = kept.json("key", "history", "k", "--limit", "1")["versions"]
    assert [version["value"] for version in versions] == [""]


def test_of_a_key_that_never_was_the_history_is_code_1(kept: Shell) -> None:
    assert kept.json("key", "history", "nothing", code=1)["versions"] == []


def test_a_diff_is_of_the_newest_change_unless_it_says_otherwise(kept: Shell) -> None:
    first = kept.db.put("k", "a\nb").revision
    kept.db.put("k", "a\nc")
    kept.db.put("k", "a\nd")
    assert kept.said("key", "diff", "k")[-2:] == ["-c", "+d"]
    assert kept.said("key", "diff", "k", "--from", str(first))[-2:] == ["-b", "+d"]
    document = kept.json("key", "diff", "k", "--from", str(first), "--to", str(first))
    assert (document["changed"], document["lines"]) == (False, [])
    assert kept("key", "diff", "k", "--from", str(first), "--to", str(first)).out == b""


def test_without_a_retention_there_is_nothing_to_compare_with(shell: Shell) -> None:
    shell.db.put("k", "v")
    assert "retention set" in shell.error("key", "diff", "k", code=6)
    assert "retention set" in shell.error("key", "undo", "k", "--yes", code=6)


def test_an_undo_shows_what_it_puts_back_and_needs_a_yes(kept: Shell) -> None:
    kept.db.put("k", "good", content_type="x/y")
    kept.db.put("k", "bad")
    asked = kept("key", "undo", "k", code=2)
    assert "-bad\n+good\n" in asked.err
    assert "add --yes" in asked.err
    assert kept("get", "k").out == b"bad"
    kept("key", "undo", "k", "--yes")
    assert kept.json("get", "k")["content_type"] == "x/y"
    kept("key", "undo", "k", "--yes")
    assert kept("get", "k").out == b"bad"


def test_an_undo_of_a_delete_and_of_a_first_put(kept: Shell) -> None:
    kept.db.put("k", "v", ttl_ms=DAY_MS)
    assert kept.json("key", "undo", "k", "--yes")["restored_revision"] is None
    kept("get", "k", code=1)
    document = kept.json("key", "undo", "k", "--yes")
    assert (kept("get", "k").out, document["undone_revision"]) == (b"v", 0)


def test_an_undo_leaves_alone_what_somebody_else_has_changed_meanwhile(kept: Shell) -> None:
    kept.db.put("k", "one")
    kept.db.put("k", "two")
    kept.cluster.on(Op.PUT, answer(ConditionFailed("the key is at revision 99")))
    assert "revision 99" in kept("key", "undo", "k", "--yes", code=1).err
    assert kept("get", "k").out == b"two"


def test_an_undo_at_a_terminal_asks_with_the_difference_in_view(kept: Shell) -> None:
    kept.db.put("k", "good")
    kept.db.put("k", "bad")
    with Terminal("key", "undo", "k", KRITA_NODES=kept.cluster.seeds) as terminal:
        terminal.wait_for("-bad")
        terminal.wait_for("+good")
        terminal.wait_for("Put this back? [y/N]")
        terminal.type("y\n")
        terminal.wait_for("what it was at revision")
        assert terminal.wait_for_exit() == 0


def test_large_versions_are_all_in_the_history_and_can_be_undone(kept: Shell) -> None:
    for letter in ("a", "b", "c"):
        kept.db.put("k", letter * 700_000)
    assert len(kept.json("key", "history", "k")["versions"]) == 4
    kept("key", "undo", "k", "--yes")
    assert kept("get", "k").out == b"b" * 700_000


def test_a_retention_that_keeps_less_asks_before_what_is_kept_is_lost(kept: Shell) -> None:
    assert kept.said("retention", "list")[1].startswith("all keys 1d ")
    assert "give up the older ones" not in kept("retention", "set", "", "2d").err
    assert "add --yes" in kept.error("retention", "set", "", "1h", code=2)
    assert "add --yes" in kept.error("retention", "remove", "", code=2)
    kept("retention", "set", "", "1h", "--yes")
    kept("retention", "set", "a/", "7d")
    rules = {rule["prefix"]: rule["retention_ms"] for rule in kept.json("retention", "list")}
    assert rules == {"": 3_600_000, "a/": 7 * DAY_MS}
    kept("retention", "remove", "a/", "--yes")
    kept("retention", "remove", "a/", "--yes", code=1)
