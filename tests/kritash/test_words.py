"""Cutting lines into words, and quoting bytes as words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kritash.words import ParseError, quote, scan, split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  \t ", []),
        ("get a", [b"get", b"a"]),
        ("  get   a  ", [b"get", b"a"]),
        ("put a 'x y'", [b"put", b"a", b"x y"]),
        ('put a "x y"', [b"put", b"a", b"x y"]),
        ("put a ''", [b"put", b"a", b""]),
        (r"put a 'x\n'", [b"put", b"a", rb"x\n"]),
        (r'put a "x\n\t\r\0"', [b"put", b"a", b"x\n\t\r\x00"]),
        (r"get \x00\xff\x61", [b"get", b"\x00\xffa"]),
        (r"get a\ b", [b"get", b"a b"]),
        (r'get "\"" ', [b"get", b'"']),
        (r"get a'b c'd", [b"get", b"ab cd"]),
        ("get ключ", [b"get", "ключ".encode()]),
        ("get a # a comment", [b"get", b"a"]),
        ("# all of it", []),
        ("get a#b", [b"get", b"a#b"]),
        (r"get \#b", [b"get", b"#b"]),
        ("get '#b'", [b"get", b"#b"]),
    ],
)
def test_a_line_is_cut_into_the_bytes_that_were_typed(line: str, words: list[bytes]) -> None:
    assert [word.data for word in split(line)] == words


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        (r"get a\q", 5, r"unknown escape \q"),
        (r"get a\x1", 5, r"\x needs two hexadecimal digits"),
        (r'put "\xgg"', 5, r"\x needs two hexadecimal digits"),
        ("get a\\", 5, "a backslash ends the line"),
        ("get 'a b", 4, "the ' that was opened here is never closed"),
        ('put a "b', 6, 'the " that was opened here is never closed'),
    ],
)
def test_an_error_points_at_the_column_where_it_is(line: str, column: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        split(line)
    assert (caught.value.column, caught.value.message) == (column, message)


@given(st.binary())
def test_quoted_bytes_are_read_back_as_the_same_single_word(data: bytes) -> None:
    (word,) = split(quote(data))
    assert word.data == data


@given(st.text())
def test_scanning_never_raises_whatever_is_typed(line: str) -> None:
    scan(line)


@pytest.mark.parametrize(
    ("data", "typed"),
    [
        (b"user:1", "user:1"),
        (b"a b", '"a b"'),
        (b"", '""'),
        (b"-x", '"-x"'),
        (b"@home", '"@home"'),
        (b"\x00\xff", r'"\x00\xff"'),
        ("ключ".encode(), '"ключ"'),
    ],
)
def test_bytes_are_quoted_only_as_far_as_they_need_it(data: bytes, typed: str) -> None:
    assert quote(data) == typed


def test_columns_are_those_of_the_words_first_characters() -> None:
    assert [word.column for word in split("get  'a'  b")] == [0, 5, 10]


def test_a_quoted_word_is_marked_so_that_it_is_no_option_and_no_file() -> None:
    assert [word.quoted for word in split(r"- '-' \- \@f @f")] == [False, True, True, True, False]
