"""Whether an export is whole: what is cut, changed, put together or written by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kritash.transfer import jsonl
from kritash.transfer.record import Record, TransferError
from kritash.transfer.seal import Unsealed, sealed

RECORDS = [
    Record(b"a", b"1", "text/plain"), Record(b"\xff", b"\x00"), Record(b"b", b"", ttl_ms=5),
]  # fmt: skip
WHOLE = list(sealed(jsonl.write, RECORDS))


def read(lines: list[str]) -> tuple[list[Record], bool]:
    unsealed = Unsealed(jsonl.read)
    return list(unsealed.records(lines)), unsealed.whole


def test_what_was_written_is_read_back_and_is_whole() -> None:
    assert read(WHOLE) == (RECORDS, True)
    assert read(list(sealed(jsonl.write, []))) == ([], True)


@given(at=st.integers(1, len(WHOLE) - 1))
def test_wherever_it_is_cut_between_lines_it_is_refused(at: int) -> None:
    with pytest.raises(TransferError, match=rf"behind {at - 1} records?: the file was cut"):
        read(WHOLE[:at])


@given(at=st.integers(1, len(RECORDS)))
def test_a_record_that_is_missing_is_counted(at: int) -> None:
    with pytest.raises(TransferError, match="had 3 records, and 2 are here"):
        read(WHOLE[:at] + WHOLE[at + 1 :])


@pytest.mark.parametrize(
    "changed",
    [
        '{"key": "a", "value": "2", "content_type": "text/plain"}\n',
        '{"key": "a1", "value": "", "content_type": "text/plain"}\n',
        '{"key": "a", "value": "1"}\n',
        '{"key": "a", "value": "1", "content_type": "text/plain", "ttl_ms": 5}\n',
    ],
)
def test_a_record_that_was_changed_is_another_digest(changed: str) -> None:
    with pytest.raises(TransferError, match=r"line 5: the digest .* is another"):
        read([WHOLE[0], changed, *WHOLE[2:]])


def test_an_order_that_was_changed_is_another_digest() -> None:
    """The last put of a key counts."""
    with pytest.raises(TransferError, match="the digest"):
        read([WHOLE[0], WHOLE[2], WHOLE[1], *WHOLE[3:]])


def test_whoever_formats_the_lines_anew_keeps_the_digest() -> None:
    anew = [json.dumps(json.loads(line), separators=(",", ":")) + "\r\n" for line in WHOLE]
    assert read(["\n", *anew, "\n"]) == (RECORDS, True)


def test_several_exports_in_one_file_are_checked_one_by_one() -> None:
    assert read(WHOLE + WHOLE) == (RECORDS * 2, True)
    with pytest.raises(TransferError, match="line 5: the last line of the export before"):
        read(WHOLE[:-1] + WHOLE)
    with pytest.raises(TransferError, match="behind 1 record: "):
        read(WHOLE + WHOLE[:2])


def test_what_people_have_written_is_read_and_is_not_known_to_be_whole() -> None:
    assert read(WHOLE[1:-1]) == (RECORDS, False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"krita_export": {"format": 2}}', "an export of a newer kritash"),
        ('{"krita_export": {"rec', "a damaged line of an export"),
        ('{"krita_export": 3}', "must be an object"),
        ('{"krita_export": {}}', "had None records, and 0 are here"),
    ],
)
def test_a_line_of_ours_that_is_not_right_is_named(line: str, said: str) -> None:
    with pytest.raises(TransferError, match=f"line 2: .*{said}"):
        read(["\n", line])


def test_an_error_in_a_record_names_the_line_of_the_file() -> None:
    with pytest.raises(TransferError, match="line 3: not JSON"):
        read([WHOLE[0], WHOLE[1], "?\n"])
