"""``txn``: in lines, in JSON, and what it says of what it has done."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.errors import KritaError
from kritash.transaction import transaction_of
from kritash.words import ParseError
from tests.kritash.conftest import Shell

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "get", "put", "="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "compare",
                    "then",
                    "else",
                    "do",
                    "key",
                    "value",
                    "by",
                    "ttl",
                    "is",
                    "absent",
                    "base64",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def test_then_is_done_when_the_comparisons_hold_and_else_when_not(shell: Shell) -> None:
    lines = ("if n absent", "then put n 5 --ttl 1m", "then add n", "else add n 10")
    head, *rows = shell.said("txn", *lines)
    revision = head.removeprefix("then ")
    assert rows == [f"put n {revision} no -", f"add n {revision} yes 6"]
    again = shell.json("txn", *lines, code=1)
    assert (again["succeeded"], again["results"][0]["number"]) == (False, 16)
    assert shell.json("get", "n")["expires_in_ms"] == 60_000


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("if k = v", True),
        ("if k == 'v'", True),
        ("if k != v", False),
        ("if k < w", True),
        ("if k exists", True),
        ("if absent absent", True),
        ("if absent revision = 0", True),
        ("if k revision > 0", True),
        ("if k revision != 0", True),
    ],
)
def test_a_line_compares(shell: Shell, line: str, holds: bool) -> None:
    shell.db.put("k", "v")
    assert shell.json("txn", line, code=0 if holds else 1)["succeeded"] is holds


def test_json_is_what_http_takes(shell: Shell) -> None:
    document: dict[str, list[dict[str, Any]]] = {
        "compare": [
            {"key": "k", "absent": True},
            {"key": "k", "revision": 0, "is": "="},
        ],
        "then": [
            {"do": "put", "key": "k", "value": {"base64": "/w=="}, "ttl": 0.5},
            {"do": "append", "key": "k", "value": "x"},
            {"do": "get", "key": "k"},
            {"do": "touch", "key": "k", "ttl": 60},
            {"do": "delete", "key": "k"},
            {"do": "add", "key": "k", "by": -2},
            {"do": "persist", "key": "k"},
        ],
    }
    told = shell.json("txn", json.dumps(document))
    results = told["results"]
    assert [each["do"] for each in results] == [step["do"] for step in document["then"]]
    assert results[1]["length"] == 2
    assert results[2]["value"] == {"base64": "/3g="}
    assert results[5]["number"] == -2
    assert shell.said("txn", "-", stdin=json.dumps(document).encode(), code=1)[0][:4] == "else"


def test_lines_can_come_from_standard_input(shell: Shell) -> None:
    shell("txn", "-", stdin=b"# both or none\n\nthen put a '1 2'\nthen put a 2\n")
    assert shell("get", "a").out == b"2"


def test_if_a_step_cannot_be_done_none_is(shell: Shell) -> None:
    shell.db.put("{g}text", "abc")
    lines = ("then put {g}a 1", "then add {g}text 1")
    assert "outcome: not applied" in shell.error("txn", *lines, code=6)
    assert shell.db.get("{g}a") is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("whenever a absent",), "line 1 of the transaction: a line begins with if, then or else"),
        (("then get a", "if a ~ b"), "line 2 of the transaction: a comparison is"),
        (("if a revision = x",), "a revision is a whole number, not 'x'"),
        (("then putt a b",), "did you mean 'put'?"),
        (("then put a",), "VALUE is missing"),
        (("then put a b --if-revision 3",), "unknown option --if-revision"),
        (("then touch a",), "touch needs --ttl or --lease"),
        (("then watch a",), "unknown command 'watch'"),
        (("# nothing",), "the transaction is empty"),
        (("{",), "the transaction is no JSON"),
        (('{"then": [{"do": "get"}]}',), "then[0] has no 'key'"),
        (('{"then": [{"do": "get", "key": "a", "tll": 3}]}',), "unknown field 'tll'"),
        (('{"then": [{"do": "put", "key": "a", "value": 3}]}',), "'value' of then[0] must be text"),
        (('{"then": [{"do": "put", "key": "a", "value": "", "ttl": 0}]}',), "'ttl' of then[0]"),
        (('{"compare": [{"key": "a"}]}',), "compare[0] must have one of revision, value"),
        (('{"compare": [{"key": "a", "absent": true, "is": "<"}]}',), "must have one of"),
        (('{"then": {}}',), "'then' of the transaction must be an array"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(
    shell: Shell, lines: tuple[str, ...], said: str
) -> None:
    assert said in shell.error("txn", *lines, code=2)


@given(JSONS)
def test_whatever_is_json_is_a_transaction_or_refused(item: object) -> None:
    with suppress(ParseError, KritaError):
        transaction_of(json.dumps(item))
