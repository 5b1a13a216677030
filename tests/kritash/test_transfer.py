"""Keys and values in files: what is written is read back, whatever the bytes, and what
cannot be read is named."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krita.limits import KEY_BYTES_MAX
from kritash.transfer import comma, consul, etcd, jsonl
from kritash.transfer.formats import FORMATS, format_of
from kritash.transfer.record import Record, TransferError

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)

# Bytes as they come, and text with all that CSV and JSON treat in a way of their own.
awkward = st.text(st.sampled_from('a,"\r\n\t\0\\{}[]:é\u2028\x85 ')).map(str.encode)
some_bytes = st.one_of(st.binary(max_size=40), awkward, st.text().map(str.encode))
keys = some_bytes.filter(lambda key: 0 < len(key) <= KEY_BYTES_MAX)
types = st.one_of(st.none(), st.text(min_size=1))
ttls = st.one_of(st.none(), st.integers(1, 1 << 60))
records_with_ttl = st.lists(st.builds(Record, keys, some_bytes, types, ttls), max_size=8)


def lines_of(text: str) -> Iterator[str]:
    """As a file gives them that is opened with ``newline=""``."""
    return iter(io.StringIO(text, newline=""))


def pieces_of(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- What is written is read back ----------------------------------------------


@SETTINGS
@given(records_with_ttl)
def test_json_lines_give_back_what_was_written(given: list[Record]) -> None:
    text = "".join(jsonl.write(given))
    assert list(jsonl.read(lines_of(text))) == given
    assert text.count("\n") == len(given)


@SETTINGS
@given(records_with_ttl)
def test_csv_gives_back_what_was_written(given: list[Record]) -> None:
    text = "".join(comma.write(given))
    assert list(comma.read(lines_of(text))) == given


@SETTINGS
@given(
    st.lists(st.tuples(st.text(min_size=1), some_bytes), max_size=8),
    st.integers(1, 40),
    st.sampled_from([None, "\t"]),
)
def test_an_export_of_consul_is_read_in_pieces_of_any_size(
    given: list[tuple[str, bytes]], size: int, indent: str | None
) -> None:
    rows = [{"key": key, "flags": 0, "value": encoded(value)} for key, value in given]
    for ascii_only in (True, False):
        text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
        found = list(consul.read(pieces_of(text, size)))
        assert found == [Record(key.encode(), value) for key, value in given]


@SETTINGS
@given(st.lists(st.tuples(keys, some_bytes), max_size=8), st.integers(1, 40))
def test_an_answer_of_etcd_is_read_in_pieces_of_any_size(
    given: list[tuple[bytes, bytes]], size: int
) -> None:
    kvs = [
        {"key": encoded(key), "create_revision": 2, "mod_revision": 7, "version": 1}
        | ({"value": encoded(value)} if value else {})
        for key, value in given
    ]
    document = {"header": {"revision": 123456}, "kvs": kvs, "count": len(kvs)}
    text = json.dumps(document)
    assert list(etcd.read(pieces_of(text, size))) == [Record(*pair) for pair in given]


@SETTINGS
@given(st.sampled_from(sorted(FORMATS)), st.one_of(st.text(), st.text('{}[]",:1etkvsy\\=\n ')))
def test_text_of_another_kind_is_refused_and_nothing_else_happens(name: str, text: str) -> None:
    try:
        found = list(FORMATS[name].read(lines_of(text)))
    except TransferError:
        return
    assert all(isinstance(record, Record) for record in found)


# -- What other programs print -------------------------------------------------


def test_the_output_of_consul_kv_export_is_read() -> None:
    text = """[
\t{
\t\t"key": "app/",
\t\t"flags": 0,
\t\t"value": ""
\t},
\t{
\t\t"key": "app/name",
\t\t"flags": 42,
\t\t"value": "aGVsbG8=",
\t\t"namespace": "default"
\t}
]
"""
    found = list(consul.read(lines_of(text)))
    assert found == [Record(b"app/", b""), Record(b"app/name", b"hello")]
    assert [record.lost for record in found] == [(), ("flags",)]


def test_the_output_of_etcdctl_is_read() -> None:
    text = (
        '{"header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,'
        '"revision":5,"raft_term":2},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":2,'
        '"version":1,"value":"MQ=="},{"key":"Yg==","create_revision":5,"mod_revision":5,'
        '"version":1,"lease":7587870280484425741}],"count":2}\n'
    )
    found = list(etcd.read([text]))
    assert found == [Record(b"a", b"1"), Record(b"b", b"")]
    assert [record.lost for record in found] == [(), ("lease",)]
    assert list(etcd.read(['{"header":{"revision":5}}'])) == []


def test_a_table_that_a_spreadsheet_has_saved_is_read() -> None:
    text = '"value","key"\r\n"a ""quoted"" one, with\r\nanother line","k"\r\n\r\nplain,k2\r\n'
    found = list(comma.read(lines_of(text)))
    assert found == [
        Record(b"k", b'a "quoted" one, with\r\nanother line'),
        Record(b"k2", b"plain"),
    ]


def test_what_http_answers_is_a_json_line() -> None:
    lines = ['{"key":"k","value":{"base64":"gA=="},"revision":7,"content_type":null}\n', "\n"]
    assert list(jsonl.read(lines)) == [Record(b"k", b"\x80")]


def test_a_long_array_is_read_one_element_at_a_time() -> None:
    taken = 0

    def pieces() -> Iterator[str]:
        nonlocal taken
        yield "["
        for number in range(1000):
            taken += 1
            yield f'{{"key": "k{number}", "flags": 0, "value": "{"YWFh" * 50}"}},'
        yield '{"key": "last", "flags": 0, "value": ""}]'

    reading = consul.read(pieces())
    for number in range(1, 500):
        next(reading)
        assert taken <= number + 2
    assert len(list(reading)) == 502


# -- What cannot be read is named ----------------------------------------------

JSONL_ERRORS = [
    ('{"key": "a", "value": "b"}\n{"key": "a"\n', "line 2: not JSON at column 12"),
    ("[1]\n", "line 1: expected an object"),
    ('{"value": "b"}\n', "line 1: key is missing"),
    ('{"key": "a"}\n', "line 1: value is missing"),
    ('{"key": "a", "value": null}\n', "line 1: value must be text or"),
    ('{"key": "a", "value": {"x": 1}}\n', "line 1: value must be text or"),
    ('{"key": "a", "value": {"base64": "?"}}\n', "line 1: value is not base64"),
    ('{"key": "", "value": "b"}\n', "line 1: the key is empty"),
    ('{"key": "a", "key": "b", "value": "c"}\n', "line 1: not a record: an object has the same"),
    ('{"key": "a", "value": "b", "colour": 1}\n', "line 1: unknown field 'colour'"),
    ('{"key": "a", "value": "b", "content_type": 1}\n', "line 1: content_type must be text"),
    ('{"key": "a", "value": "b", "ttl_ms": 0}\n', "line 1: ttl_ms must be a whole number"),
    ('{"key": "a", "value": "b", "ttl_ms": true}\n', "line 1: ttl_ms must be a whole number"),
    ('{"key": "\\ud800", "value": "b"}\n', "line 1: key has half a surrogate pair"),
    (f'{{"key": "a", "ttl_ms": {"1" * 5000}}}\n', "line 1: not a record"),
    ("[" * 100_000 + "\n", "line 1: not a record"),
]
CSV_ERRORS = [
    ("", "line 1: expected a header: key,value"),
    ("key,worth\n", "line 1: unknown column 'worth'"),
    ("key,key,value\n", "line 1: a column is named twice"),
    ("key,content_type\n", "line 1: there is no column value"),
    ("key,value\na,b\nc\n", "line 3: expected 2 cells as in the header, found 1"),
    ("key,value\n,b\n", "line 2: the key is empty"),
    ("key,value,value_base64\na,b,gA==\n", "line 2: value and value_base64 both say something"),
    ("key,value_base64\na,gA\n", "line 2: value_base64 is not base64"),
    ('key,value\na,"b\n', "line 2: not CSV"),
    ('key,value\na,"b"c\n', "line 2: not CSV"),
]
CONSUL_ERRORS = [
    ("", "line 1: expected '[', found the end"),
    ("{}", "line 1: expected '[', found '{'"),
    ("[\n{}\n]", "record 1: expected key and value"),
    ("[1]", "record 1: expected an object"),
    ('[{"key": "a", "flags": 0, "value": "YQ=="}, {"key": "b"}]', "record 2: expected key"),
    ('[{"Key": "a", "Value": "YQ=="}]', "record 1: unknown field 'Key'; is this the output of"),
    ('[{"key": "a", "flags": 0, "value": "?"}]', "record 1: value is not base64"),
    ('[{"key": "a", "value": "", "namespace": "b"}]', "record 1: the namespace is 'b', expected"),
    ('[\n{"key": "a", "flags": 0,\n', "line 2: not JSON"),
    ('[{"key": "a", "key": "b", "value": ""}]', "line 1: not JSON: an object has the same field"),
    ("[] []", "line 1: expected the end of the document"),
    ("[\n\n" + "[" * 100_000, "line 3: not JSON"),
]
ETCD_ERRORS = [
    ("[]", "line 1: expected '{', found '['"),
    ('{"count": 3}', 'line 1: expected {"header"'),
    ('{"kvs": [{"key": 1}]}', "record 1: expected key and value"),
    ('{"kvs": [{"key": ""}]}', "record 1: the key is empty"),
    ('{"kvs": [{"key": "YQ==", "val": ""}]}', "record 1: unknown field 'val'"),
    ('{"kvs": [{"key": "YQ=="}],\n"more": true}', "line 2: etcd has more keys"),
    ('{"kvs": [], "kvs": []}', "line 1: expected a name in quotes, each once"),
    ('{"kvs": [{"key": "YQ=="}', "line 1: expected ']', found the end"),
]
ERRORS = {"jsonl": JSONL_ERRORS, "csv": CSV_ERRORS, "consul": CONSUL_ERRORS, "etcd": ETCD_ERRORS}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param(name, text, said, id=f"{name}: {said}")
        for name, cases in ERRORS.items()
        for text, said in cases
    ],
)
def test_an_error_names_the_place_and_what_was_expected(name: str, text: str, said: str) -> None:
    with pytest.raises(TransferError) as caught:
        list(FORMATS[name].read(lines_of(text)))
    assert str(caught.value).startswith(said)


def test_what_stands_before_an_error_is_read() -> None:
    reading = jsonl.read(['{"key": "a", "value": "b"}\n', "?\n"])
    assert next(reading) == Record(b"a", b"b")
    with pytest.raises(TransferError):
        next(reading)


def test_a_value_is_as_long_as_a_cluster_can_take() -> None:
    long = Record(b"k", b"\xff" * 1_000_000)
    for name in ("jsonl", "csv"):
        write = FORMATS[name].write
        assert write is not None
        assert list(FORMATS[name].read(lines_of("".join(write([long]))))) == [long]


def test_a_key_that_is_too_long_is_refused() -> None:
    line: dict[str, Any] = {"key": "k" * (KEY_BYTES_MAX + 1), "value": ""}
    with pytest.raises(TransferError, match=r"line 1: the key has 4097 bytes, the limit is 4096"):
        list(jsonl.read([json.dumps(line)]))


def test_csv_keeps_a_ttl() -> None:
    text = "".join(comma.write([Record(b"k", b"v", ttl_ms=5), Record(b"k", b"w")]))
    assert [record.ttl_ms for record in comma.read(text.splitlines(keepends=True))] == [5, None]
    for wrong in ("0", "-1", "1.5", "soon"):
        with pytest.raises(TransferError, match="line 2: ttl_ms must be a whole number"):
            list(comma.read(["key,value,ttl_ms\n", f"k,v,{wrong}\n"]))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.jsonl", "jsonl"),
        ("B.NDJSON", "jsonl"),
        ("x.csv", "csv"),
        ("x.json", None),
        ("-", None),
    ],
)
def test_a_file_s_name_says_its_format(path: str, name: str | None) -> None:
    found = format_of(path)
    assert (found and found.name) == name
