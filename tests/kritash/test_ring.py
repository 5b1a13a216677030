"""The picture of the ring, and the shapes of the other drawings."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from krita.ring import RING_SIZE
from kritash.documents import Cluster, Move
from kritash.health import health_document
from kritash.plan import Plan
from kritash.render import render_plain, render_terminal
from kritash.reply import Reply, View
from kritash.ring import EMPTY, HOLDS, LEADS, NOBODY, STRIP_COLUMNS, UNKNOWN, picture, ring_document
from kritash.shard_detail import shard_document
from kritash.views.moves import move_text
from tests.kritash import samples
from tests.kritash.samples import MIB, Document


def ring_of(status: Document) -> Document:
    cluster = Cluster.of(status)
    return ring_document(cluster.nodes, cluster.shards)


def drawn(view: View, document: object, width: int = 80) -> list[str]:
    renderable = render_terminal(Reply(view, document))
    assert renderable is not None
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, highlight=False).print(renderable)
    return stream.getvalue().splitlines()


def plain(view: View, document: object) -> list[list[str]]:
    text = render_plain(Reply(view, document)).decode()
    return [line.split("\t") for line in text.splitlines()]


# -- The ring ------------------------------------------------------------------


def test_the_document_has_every_arc_and_each_node_s_part() -> None:
    document = ring_of(samples.status(4, 8))
    arcs, nodes = document["arcs"], document["nodes"]
    assert [arc["shard"] for arc in arcs] == list(range(1, 9))
    assert sum(arc["hash_hi"] - arc["hash_lo"] for arc in arcs) == RING_SIZE
    assert [(row["letter"], row["leads"], row["holds"]) for row in nodes] == [
        ("A", 2, 6), ("B", 2, 6), ("C", 2, 6), ("D", 2, 6),
    ]  # fmt: skip
    assert nodes[0]["bytes"] == 6 * 10 * MIB
    assert sum(row["led_share"] for row in nodes) == pytest.approx(1)


def test_a_node_that_has_left_is_not_on_the_ring_and_an_unknown_size_is_not_summed() -> None:
    status = samples.status(4, 4)
    status["nodes"][3]["state"] = "left"
    status["shards"][2]["bytes"] = None
    nodes = ring_of(status)["nodes"]
    assert [row["node"] for row in nodes] == [1, 2, 3]
    # Shard 2 is on the nodes 2, 3 and 4.
    assert [row["bytes"] for row in nodes] == [30 * MIB, None, None]


def test_the_circle_runs_clockwise_from_the_top_with_the_leader_s_letter() -> None:
    shown = picture(ring_of(samples.status(4, 4)))
    # Shards 1 to 4 are quarters, led by the nodes 1 to 4.
    middle = len(shown.circle) // 2
    top, bottom = shown.circle[0].strip(), shown.circle[-1].strip()
    assert (top[0], top[-1]) == ("D", "A")
    assert (bottom[0], bottom[-1]) == ("C", "B")
    upper, lower = shown.circle[middle - 2].strip(), shown.circle[middle + 2].strip()
    assert (upper[0], upper[-1], lower[0], lower[-1]) == ("D", "A", "C", "B")


def test_every_letter_has_its_share_of_the_circle() -> None:
    status = samples.status(3, 4)
    for shard, leader in zip(status["shards"][1:], (1, 1, 2, 3), strict=True):
        shard["leader"] = leader
    letters = "".join(picture(ring_of(status)).circle)
    counts = {letter: letters.count(letter) for letter in "ABC"}
    whole = sum(counts.values())
    assert counts["A"] / whole == pytest.approx(0.5, abs=0.05)
    assert counts["B"] / whole == pytest.approx(0.25, abs=0.05)


def test_shards_are_numbered_inside_the_circle_while_there_is_room() -> None:
    circle = "\n".join(picture(ring_of(samples.status(3, 8))).circle)
    assert all(f" {number} " in circle for number in range(1, 9))
    many = "\n".join(picture(ring_of(samples.status(3, 64))).circle)
    assert not any(char.isdigit() for char in many)


def test_arcs_of_one_leader_are_kept_apart_by_a_gap() -> None:
    status = samples.status(3, 4)
    for shard in status["shards"]:
        shard["leader"] = 2
    circle = picture(ring_of(status)).circle
    top, middle = circle[0].strip(), circle[len(circle) // 2].strip()
    assert top.split() == ["B" * (len(top) // 2)] * 2
    assert middle == ""


def test_a_shard_without_a_leader_stands_out() -> None:
    status = samples.status(3, 4)
    status["shards"][2]["leader"] = 0
    document = ring_of(status)
    assert NOBODY in "".join(picture(document).circle)
    assert any("no leader" in line for line in drawn(View.RING, document))


def test_a_strip_shows_what_a_node_leads_holds_and_does_not_have() -> None:
    strip = picture(ring_of(samples.status(4, 4))).strips[1]  # node 2: leads shard 2, is not on 3
    quarter = STRIP_COLUMNS // 4
    assert strip == "".join(each * quarter for each in (HOLDS, LEADS, EMPTY, HOLDS))


def test_there_may_be_more_nodes_than_letters() -> None:
    document = ring_of(samples.status(60, 64))
    assert document["nodes"][-1]["letter"] == UNKNOWN
    drawn(View.RING, document)


@pytest.mark.parametrize("shards", [1, 2, 8, 64, 256])
@pytest.mark.parametrize("nodes", [3, 5, 12])
def test_the_ring_fits_into_80_columns(nodes: int, shards: int) -> None:
    status = samples.status(nodes, shards)
    for row in status["nodes"]:
        row["zone"] = "zone-b"
    assert max(map(len, drawn(View.RING, ring_of(status)))) <= 80


def test_in_a_pipe_arcs_and_nodes_are_lines() -> None:
    lines = plain(View.RING, ring_of(samples.status(3, 4)))
    assert lines[0][:6] == ["arc", "1", "00000000", "40000000", "0.250000", "1"]
    assert [line[:3] for line in lines[4:]] == [["node", n, x] for n, x in zip("123", "ABC")]  # noqa: B905


# -- Moves, plans, health ------------------------------------------------------


def test_moves_have_a_bar_a_rate_and_a_time() -> None:
    text = "\n".join(drawn(View.MOVES, [samples.move(3, 1, 4)]))
    assert "40.0 %" in text
    assert "2.0 MiB/s" in text
    assert "3 s" in text
    assert "━" in text


def test_a_move_that_stands_says_why() -> None:
    move = samples.move(3, 1, 4, held=True, step="waiting", reason="all moves are paused")
    move |= dict.fromkeys(("sent_bytes", "total_bytes", "bytes_per_s", "eta_s"))
    text = "\n".join(drawn(View.MOVES, [move]))
    assert "held (waiting): all moves are paused" in text
    assert plain(View.MOVES, [move])[1] == [
        "3", "1", "4", "waiting", "yes", "-", "-", "-", "-", "all moves are paused",
    ]  # fmt: skip


def test_no_moves_are_told_at_a_terminal_and_a_bare_header_in_a_pipe() -> None:
    assert drawn(View.MOVES, []) == ["nothing moves"]
    assert len(plain(View.MOVES, [])) == 1


PLAN: Document = {
    "node": 3, "state": "removing", "successor": 5, "shards": [1, 4], "replicas": 2,
    "bytes": 20 * MIB, "stays": 1,
    "moves": [{"from": 3, "to": 5, "replicas": 1, "bytes": 10 * MIB},
              {"from": None, "to": 2, "replicas": 1, "bytes": 10 * MIB}],
    "before": {"availability": 1, "data": 2}, "after": {"availability": -1, "data": 0},
    "refusals": [], "warnings": ["1 replica stays where it is: only 2 nodes are left"],
}  # fmt: skip


def test_a_plan_shows_moves_tolerated_failures_and_warnings() -> None:
    lines = [" ".join(line.split()) for line in drawn(View.PLAN, PLAN)]
    assert lines[0] == "remove node 3, with node 5 in its place"
    assert "moves 2 replicas of 2 shards, 20.0 MiB" in lines
    assert "3 5 1 10.0 MiB" in lines
    assert "new 2 1 10.0 MiB" in lines
    assert "nodes that may be off 1 none: too few are left" in lines
    assert "nodes that may be lost for good 2 0" in lines
    assert "! 1 replica stays where it is: only 2 nodes are left" in lines


def test_a_plan_in_a_pipe_begins_each_line_with_its_subject() -> None:
    lines = plain(View.PLAN, PLAN)
    assert ["move", "3", "5", "1", str(10 * MIB)] in lines
    assert ["tolerates_off", "1", "-1"] in lines
    assert lines[-1][0] == "warning"


def test_a_plan_that_would_be_refused_says_so() -> None:
    refused = PLAN | {"refusals": ["node 3 is the last"], "replicas": 0, "moves": [], "shards": []}
    assert "  cannot be done: node 3 is the last" in drawn(View.PLAN, refused)


def test_the_state_of_a_plan_is_a_word_or_its_code() -> None:
    assert Plan.of(PLAN | {"state": 4}).title == Plan.of(PLAN).title
    assert Plan.of({"node": 2, "state": 1}).title == "drain node 2"


def test_health_tells_what_goes_on_and_what_waits() -> None:
    status = samples.status(
        health="degraded",
        moves=[samples.move(1, 2, 4), samples.move(2, 3, 4, reason="node 4 does not answer")],
        moves_to_come=2,
        tolerates={"availability": 0, "data": 1},
    )
    document = health_document(status)
    text = "\n".join(drawn(View.HEALTH, document, 100))
    assert "tolerates: no node may be off, 1 node may be lost for good" in text
    assert "under way: shard 1: copying from 2 to 4, 40.0 % of 10.0 MiB, 3 s left" in text
    assert "waits: shard 2: copying from 3 to 4, 40.0 % of 10.0 MiB" in text
    assert "; node 4 does not answer" in text
    assert "2 shards more will move" in text
    assert ["moves_to_come", "2"] in plain(View.HEALTH, document)


def test_what_waits_is_a_sentence() -> None:
    waits = samples.move(3, 1, 2, to=[2, 3], sent_bytes=None, total_bytes=None, eta_s=None)
    waits |= {"from": [], "reason": "nodes 2 and 3 do not answer"}
    assert move_text(Move.of(waits)) == "shard 3: copying to 2,3; nodes 2 and 3 do not answer"


def test_a_number_below_none_says_what_it_means() -> None:
    document = health_document(samples.status(tolerates={"availability": -1, "data": 0}))
    lines = plain(View.HEALTH, document)
    assert ["tolerates_off", "-1", "some shard has lost its majority"] in lines
    assert ["tolerates_lost", "0"] in lines


def test_health_knows_when_it_is_too_late() -> None:
    document = health_document(samples.status(tolerates={"availability": -1, "data": -1}))
    text = "\n".join(drawn(View.HEALTH, document))
    assert "some shard has lost its majority, of some shard no copy answers" in text


# -- One shard, all nodes ------------------------------------------------------


def test_a_shard_shows_who_is_wanted_and_is_not_there_and_the_reverse() -> None:
    row = samples.shard(3, [1, 2, 4], (0, 1 << 30), in_motion=True, held=True)
    row["reported"] = [{"node": n, "replica": n, "voter": True} for n in (1, 2, 5)]
    documents: dict[int, object] = {
        5: {"replicas": [{"shard": 3, "replica": 15, "role": "follower", "applied": 7}]},
        6: {"replicas": [{"shard": 4, "replica": 16, "role": "follower", "applied": 7}]},
    }
    document = shard_document(row, documents, [samples.move(3, 5, 4), samples.move(4, 1, 2)])
    replicas = document["replicas"]
    assert isinstance(replicas, list)
    assert [(r["node"], r["wanted"]) for r in replicas] == [
        (1, "yes"), (2, "yes"), (4, "not yet"), (5, "no longer"),
    ]  # fmt: skip
    text = "\n".join(drawn(View.SHARD, document))
    assert "00000000 to 40000000" in text
    assert "copying from 5 to 4" in text
    assert "kritash move resume 3" in text
    assert ["replica", "5", "15", "follower", "-", "7", "no longer"] in plain(View.SHARD, document)


@pytest.mark.parametrize(
    ("different", "standing"),
    [
        ({}, "up"),
        ({"reachable": False}, "silent"),
        ({"reachable": False, "dead": True}, "dead"),
        ({"state": "draining"}, "draining"),
        ({"state": "draining", "drained": True}, "drained"),
        ({"state": "draining", "dead": True}, "draining, dead"),
        ({"state": "removing", "reachable": False}, "removing, silent"),
        ({"state": "left", "reachable": False}, "left"),
    ],
)
def test_a_node_s_standing_is_a_word_or_two(different: Document, standing: str) -> None:
    text = "\n".join(drawn(View.NODES, [samples.node(1, **different)]))
    assert f" {standing} " in text


def test_columns_that_say_nothing_are_left_out_at_a_terminal() -> None:
    nodes = [samples.node(1), samples.node(2)]
    header = drawn(View.NODES, nodes)[1].split()
    assert header == ["node", "address", "state", "leaders", "replicas", "bytes"]
    nodes[1] |= {"zone": "b", "weight": 2, "version": "0.2.0"}
    assert {"zone", "weight", "version"} <= set(drawn(View.NODES, nodes, 120)[1].split())


def test_a_silent_node_s_countdown_stands_below_the_table() -> None:
    lines = drawn(View.NODES, [samples.node(1, reachable=False, dead_in_s=90.0)])
    assert "  node 1 is silent, and declared dead in 1 min 30 s" in lines


def test_a_narrow_terminal_does_without_some_columns_of_shards() -> None:
    shards = samples.status(3, 8)["shards"]
    for shard in shards:
        shard["keys"] = 1_000_000
    assert drawn(View.SHARDS, shards, 120)[1].split() == [
        "shard", "from", "to", "leader", "term", "replicas", "keys", "bytes",
    ]  # fmt: skip
    narrow = drawn(View.SHARDS, shards, 78)
    assert "term" not in narrow[1].split()
    assert len(narrow) == len(shards) + 4  # nothing is wrapped
