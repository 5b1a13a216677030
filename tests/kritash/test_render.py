"""Replies as plain lines, as JSON, and at a terminal."""

from __future__ import annotations

import io
import json

import pytest

from kritash.cells import data_cell, visible
from kritash.render import (
    jsonable,
    render_json,
    render_plain,
    render_terminal,
    terminal_text,
)
from kritash.reply import Reply, View
from kritash.views import VIEWS, nodes
from kritash.words import split

STATUS = {
    "cluster_id": "3f2a9c01" + "00" * 12,
    "health": "degraded",
    "problems": ["node 3 is silent"],
    "failures_tolerated": 0,
    "nodes": [
        {"node": 1, "address": "h:1", "zone": "", "state": "up", "leaders": 1,
         "replicas": 2, "reachable": True},
        {"node": 3, "address": "h:3", "zone": "b", "state": "up", "leaders": 0,
         "replicas": 2, "reachable": False},
    ],
    "shards": [
        {"shard": 1, "hash_lo": 0, "hash_hi": 1 << 32, "leader": 1, "term": 4, "replicas": [
            {"node": 1, "role": "leader", "lag": 0},
            {"node": 2, "role": "voter", "lag": 17},
            {"node": 3, "role": "learner", "lag": None},
        ]},
        {"shard": 2, "hash_lo": 0, "hash_hi": 0, "leader": 0, "term": 5, "replicas": []},
    ],
}  # fmt: skip


def drawn(reply: Reply) -> str:
    from rich.console import Console

    renderable = render_terminal(reply)
    assert renderable is not None
    stream = io.StringIO()
    Console(file=stream, width=100, markup=False, highlight=False).print(renderable)
    return stream.getvalue()


def test_a_value_goes_to_a_pipe_byte_for_byte() -> None:
    assert render_plain(Reply(View.VALUE, {"value": b"a\x00\xff\n"})) == b"a\x00\xff\n"


def test_an_absent_value_prints_nothing() -> None:
    assert render_plain(Reply(View.VALUE, {"value": None})) == b""
    assert terminal_text(Reply(View.VALUE, {"value": None})) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "plain"),
        ("schön 漢".encode(), "schön 漢"),
        (b"two\nlines\t.", "two\nlines\t."),
        (b"\x1b[2Jboo", r"\x1b[2Jboo"),
        (b"\xff\x00", r"\xff\x00"),
        ("\u202egnp.exe".encode(), r"\u202egnp.exe"),
    ],
)
def test_a_stored_value_cannot_drive_the_terminal(value: bytes, shown: str) -> None:
    assert visible(value) == shown


def test_json_holds_text_where_it_is_text_and_base64_where_it_is_not() -> None:
    document = {"key": b"k", "value": b"\xff", "list": [b"x", (1, None)], b"raw": True}
    assert jsonable(document) == {
        "key": "k", "value": {"base64": "/w=="}, "list": ["x", [1, None]], "raw": True,
    }  # fmt: skip


def test_json_is_one_document_on_one_line_in_a_pipe() -> None:
    text = render_json(STATUS, indent=False)
    assert text.count("\n") == 1
    assert json.loads(text) == STATUS


def test_cluster_status_in_a_pipe_begins_each_line_with_its_subject() -> None:
    lines = render_plain(Reply(View.CLUSTER, STATUS)).decode().splitlines()
    assert lines[1:4] == ["health\tdegraded", "failures_tolerated\t0", "problem\tnode 3 is silent"]
    assert lines[4] == "node\t1\th:1\t-\tup\tyes\t1\t2\t1\tno\tno\t-\t-"
    assert (
        lines[6]
        == "shard\t1\t00000000\t100000000\t1\t4\t1:leader:0,2:voter:17,3:learner:-\t-\t-\t-"
    )
    assert lines[7] == "shard\t2\t00000000\t00000000\tnone\t5\t\t-\t-\t-"


def test_cluster_status_at_a_terminal_shows_health_nodes_leaders_and_lag() -> None:
    text = drawn(Reply(View.CLUSTER, STATUS))
    assert "cluster 3f2a9c01  degraded  2 nodes, 2 shards, survives the loss of 0 nodes" in text
    assert "! node 3 is silent" in text
    assert "1 leader, 2 +17, 3 ? learner" in text
    assert "none" in text


def test_lists_in_a_pipe_have_a_header_and_tabs() -> None:
    lines = render_plain(Reply(View.NODES, STATUS["nodes"])).decode().splitlines()
    assert lines[0] == "\t".join(nodes.HEADERS)
    assert lines[2] == "3\th:3\tb\tup\tno\t0\t2\t1\tno\tno\t-\t-"


def test_what_comes_from_the_cluster_is_never_read_as_markup_or_control() -> None:
    hostile = [{"node": 1, "address": "[red]x[/red]", "zone": "\x1b[2J", "state": "a\tb\nc"}]
    text = drawn(Reply(View.NODES, hostile))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert render_plain(Reply(View.NODES, hostile)).count(b"\n") == 2


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize(
    "document", [None, 3, [], {}, [None], [{}], {"nodes": 3, "shards": [None]}]
)
def test_a_document_in_an_unknown_shape_is_shown_as_far_as_it_goes(
    view: View, document: object
) -> None:
    render_plain(Reply(view, document))
    drawn(Reply(view, document))


def test_a_sentence_has_tabs_in_a_pipe_and_blanks_at_a_terminal() -> None:
    reply = Reply(View.SENTENCE, {}, "ok\trevision 3")
    assert render_plain(reply) == b"ok\trevision 3\n"
    assert terminal_text(reply) == "ok  revision 3\n"


VALUES = [
    b"", b"-", b'""', b"a\\b", b"a\\\\b", b"\\x41", b"A", b"\xff", b"\\xff", b"\x85",
    "\x85".encode(),
    b"a\tb", b"a\\tb", b"a\nb", b"a\rb", "\u2028 é".encode(), b'say "so"', b" ", b"''", b"--",
]  # fmt: skip


def test_what_was_stored_is_told_exactly_in_a_pipe() -> None:
    cells = [data_cell(value) for value in VALUES]
    assert len({*cells, data_cell(None)}) == len(VALUES) + 1, "two of them look alike"
    assert data_cell(None) == "-"
    assert data_cell(b"") == '""'
    for cell_text, value in zip(cells, VALUES, strict=True):
        assert not set("\t\n") & set(cell_text)
        typed = '"' + cell_text.replace('"', '\\"') + '"'
        assert split(typed)[0].data == value or value == b""


@pytest.mark.parametrize(
    ("view", "document"),
    [
        (View.ITEMS, {"header": True, "items": [{"key": b"a\\b", "value": b""}]}),
        (View.EVENTS, [{"type": "put", "key": b"a\\b", "revision": 1, "value": b""}]),
        (View.VERSIONS, {"versions": [{"revision": 1, "value": b"", "content_type": "a\\b"}]}),
        (View.TXN, {"results": [{"do": "get", "key": b"a\\b", "value": b"", "revision": 1}]}),
        (View.PAIRS, {"name": b"a\\b", "value": b""}),
    ],
)
def test_every_list_of_stored_things_is_exact_in_a_pipe(view: View, document: object) -> None:
    cells = render_plain(Reply(view, document)).decode().splitlines()[-2:]
    text = "\n".join(cells)
    assert "a\\\\b" in text
    assert text.endswith('""')
