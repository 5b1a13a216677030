"""Looking after a cluster: whole commands, through a real socket."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from kritash.documents import Node
from kritash.joining import Wishes, command_for, remarks_on
from tests.kritash.elastic import DRAINING, LEFT, SHARD_BYTES
from tests.kritash.samples import node
from tests.kritash.server import Cluster
from tests.kritash.shell import Result, kritash_here

TOKEN = b"open sesame"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(5, token=TOKEN) as running:
        yield running


def run(cluster: Cluster, line: str) -> Result:
    """With the token."""
    return kritash_here(
        *shlex.split(line), KRITA_NODES=cluster.addresses, KRITA_ADMIN_TOKEN=TOKEN.decode()
    )


def document(cluster: Cluster, line: str, code: int = 0) -> Any:
    done = run(cluster, f"{line} --json")
    assert (done.code, done.err) == (code, ""), done
    return json.loads(done.out)


# -- Plans, and being asked ----------------------------------------------------


@pytest.mark.parametrize("line", ["node drain 3", "node remove 3", "node replace 3 5"])
def test_a_plan_changes_nothing(cluster: Cluster, line: str) -> None:
    done = run(cluster, f"{line} --plan")
    assert (done.code, done.err) == (0, "")
    assert f"bytes\t{3 * SHARD_BYTES}\n".encode() in done.out
    plan = document(cluster, f"{line} --plan --yes")
    assert plan["successor"] == (5 if "replace" in line else None)
    assert cluster.administered == []


@pytest.mark.parametrize(
    "line",
    ["node drain 3", "node remove 3", "node replace 3 5", "shard split 1", "shard move 1 2 5",
     "move cancel 1"],
)  # fmt: skip
def test_what_moves_data_asks_and_where_nobody_can_be_asked_needs_yes(
    cluster: Cluster, line: str
) -> None:
    done = run(cluster, line)
    assert done.code == 2
    assert "add --yes" in done.err
    assert ("intent" in done.err) == line.startswith("node"), "the plan stands before the question"
    assert cluster.administered == []
    assert run(cluster, f"{line} --yes").code == 0
    assert len(cluster.administered) == 1


def test_administration_needs_the_token_a_plan_does_not(cluster: Cluster) -> None:
    assert kritash_here("node", "drain", "3", "--plan", KRITA_NODES=cluster.addresses).code == 0
    done = kritash_here("node", "drain", "3", "--yes", KRITA_NODES=cluster.addresses)
    assert done.code == 4
    assert "KRITA_ADMIN_TOKEN" in done.err


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("node drain 3 -y", ("node_set", 3, 1, None)),
        ("node remove 3 -y", ("node_set", 3, 4, None)),
        ("node replace 3 5 -y", ("node_set", 3, 4, 5)),
        ("node recommission 3", ("node_set", 3, 0, None)),
        ("node set-zone 3 'rack b'", ("node_label", 3, "rack b", None)),
        ("node set-zone 3 ''", ("node_label", 3, "", None)),
        ("node set-weight 3 2", ("node_label", 3, None, 2)),
        ("shard split 2 -y", ("shard_split", 2)),
        ("shard move 1 2 5 -y", ("shard_move", 1, 2, 5)),
        ("move pause", ("shard_hold", 0, True)),
        ("move pause 2", ("shard_hold", 2, True)),
        ("move resume", ("shard_hold", 0, False)),
        ("move resume 2", ("shard_hold", 2, False)),
        ("move cancel 2 -y", ("move_cancel", 2)),
    ],
)
def test_each_command_asks_the_cluster_for_what_it_says(
    cluster: Cluster, line: str, asked: tuple[object, ...]
) -> None:
    done = run(cluster, line)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(b"ok\t")
    assert cluster.administered == [asked]


def test_what_the_cluster_refuses_is_no_with_its_reason(cluster: Cluster) -> None:
    done = run(cluster, "shard move 1 5 2 -y")
    assert done.code == 1
    assert "shard 1 cannot move from node 5 to 2" in done.err


def test_a_plan_that_would_be_refused_is_no(cluster: Cluster) -> None:
    for other in cluster.elastic.states:
        if other != 3:
            cluster.elastic.states[other] = DRAINING
    for line in ("node drain 3 --plan", "node remove 3 --plan"):
        done = run(cluster, line)
        assert done.code == 1
        assert b"refused\tnode 3 is the last node that is up\n" in done.out


@pytest.mark.parametrize("waits", ["", " --wait"])
def test_a_node_that_has_left_is_not_being_removed(cluster: Cluster, waits: str) -> None:
    cluster.elastic.states[3] = LEFT
    done = run(cluster, f"node remove 3 --yes{waits}")
    assert (done.code, done.out) == (0, b"ok\tnode 3 has left the cluster\n")
    found = document(cluster, f"node remove 3 --yes{waits}")
    assert (found["state"], found["done"]) == ("left", True)


def test_of_a_node_that_is_up_nothing_is_taken_back(cluster: Cluster) -> None:
    assert b"node 3 was up already" in run(cluster, "node recommission 3").out
    run(cluster, "node drain 3 --yes")
    assert b"node 3 is up again" in run(cluster, "node recommission 3").out


# -- Waiting -------------------------------------------------------------------


def test_a_drain_is_followed_line_by_line_in_a_pipe(cluster: Cluster) -> None:
    done = run(cluster, "node drain 3 --yes --wait")
    assert (done.code, done.out) == (0, b"ok\tnode 3 is drained: it is safe to stop\n")
    lines = done.err.splitlines()
    assert lines[0] == "node 3: 3 replicas left of 3, 3 on the move"
    assert len(lines) == len(set(lines)), "a line for each change and no more"


def test_a_drain_in_json_is_one_document_at_the_end(cluster: Cluster) -> None:
    assert document(cluster, "node drain 3 --yes --wait") == {
        "node": 3, "state": "draining", "successor": None, "drained": True,
        "replicas_left": 0, "done": True,
    }  # fmt: skip


def test_a_removed_node_is_waited_for_until_it_has_left(cluster: Cluster) -> None:
    found = document(cluster, "node replace 3 1 --yes --wait")
    assert (found["done"], found["state"]) == (True, "left")
    assert all(3 not in nodes for nodes in cluster.elastic.holders.values())


def test_without_wait_the_answer_comes_at_once(cluster: Cluster) -> None:
    found = document(cluster, "node drain 3 --yes")
    assert (found["done"], found["state"]) == (False, "draining")


def test_patience_ends_with_code_1_and_the_work_goes_on(cluster: Cluster) -> None:
    cluster.elastic.paused = True
    done = run(cluster, "node drain 3 --yes --wait-s 0.2")
    assert done.code == 1
    assert b"not done yet; the cluster goes on with it\tnode 3: 3 replicas left of 3" in done.out
    assert b"all moves are paused" in done.out


def test_a_split_and_a_move_can_be_waited_for(cluster: Cluster) -> None:
    found = document(cluster, "shard split 2 --yes --wait")
    assert (found["shard_new"], found["done"]) == (5, True)
    found = document(cluster, "shard move 5 2 1 --yes --wait")
    assert (found["nodes"], found["done"]) == ([1, 3, 4], True)


# -- Looking -------------------------------------------------------------------


def test_moves_are_listed_with_their_progress(cluster: Cluster) -> None:
    run(cluster, "node drain 3 --yes")
    moves = document(cluster, "move list")
    assert {(move["shard"], move["step"]) for move in moves} == {
        (1, "waiting"), (2, "waiting"), (3, "waiting"),
    }  # fmt: skip
    assert {move["step"] for move in document(cluster, "move list")} == {"copying"}


@pytest.mark.parametrize(
    ("change", "health", "code"),
    [({}, "healthy", 0), ({"silent": {2}}, "degraded", 1)],
)
def test_health_is_told_by_the_exit_code_too(
    cluster: Cluster, change: dict[str, object], health: str, code: int
) -> None:
    for name, value in change.items():
        setattr(cluster.elastic, name, value)
    assert document(cluster, "cluster health", code)["health"] == health


def test_a_cluster_without_leaders_is_code_5(cluster: Cluster) -> None:
    cluster.health = "unavailable"
    assert document(cluster, "cluster health", 5)["health"] == "unavailable"


def test_the_doctor_s_code_tells_whether_anything_is_wrong(cluster: Cluster) -> None:
    assert document(cluster, "doctor") == []
    cluster.elastic.dead = {4}
    codes = [finding["code"] for finding in document(cluster, "doctor", 1)]
    assert "node-dead" in codes


def test_a_shard_is_shown_in_full_and_an_unknown_one_is_wrong_usage(cluster: Cluster) -> None:
    shown = document(cluster, "shard show 2")
    assert (shown["shard"], shown["bytes"], shown["under_way"]) == (2, SHARD_BYTES, [])
    assert [replica["wanted"] for replica in shown["replicas"]] == ["yes"] * 3
    done = run(cluster, "shard show 99")
    assert done.code == 2
    assert "there is no shard 99" in done.err


def test_the_ring_is_a_document_of_arcs(cluster: Cluster) -> None:
    ring = document(cluster, "ring")
    assert [arc["shard"] for arc in ring["arcs"]] == [1, 2, 3, 4]
    assert sum(arc["share"] for arc in ring["arcs"]) == 1
    assert [row["node"] for row in ring["nodes"]] == [1, 2, 3, 4, 5]


# -- A new node ----------------------------------------------------------------


def test_how_to_add_a_node_is_a_command_line_and_nothing_else_on_stdout(cluster: Cluster) -> None:
    done = run(cluster, "node add --zone b")
    words = shlex.split(done.out.decode())
    assert words[0] == "kritad"
    assert f"--join_ip={cluster.addresses}" in words
    assert "--zone=b" in words
    assert "KRITA_ADMIN_TOKEN" in done.err
    assert TOKEN.decode() not in done.err


def test_a_node_that_joins_is_waited_for(cluster: Cluster) -> None:
    cluster.joins_after = 3
    done = run(cluster, "node add --wait --json")
    found = json.loads(done.out)
    assert (done.code, found["done"], found["node"], found["replicas"]) == (0, True, 6, 2)
    assert found["command"][0] == "kritad"


@pytest.mark.parametrize(
    ("nodes", "wishes", "words"),
    [
        ([node(1), node(2)], Wishes(),
         ["--listen_ip=0.0.0.0", "--data_dir=/var/lib/krita",
          "--join_ip=10.0.0.1:8080,10.0.0.2:8080"]),
        ([node(1), node(2)], Wishes("b", "9000", "/data", "10.0.0.7"),
         ["--listen_ip=10.0.0.7", "--port=9000", "--data_dir=/data", "--zone=b",
          "--join_ip=10.0.0.1:8080,10.0.0.2:8080"]),
        # The port that most have.
        ([node(1, address="h1:7000"), node(2, address="h2:7000"), node(3)], Wishes(),
         ["--listen_ip=0.0.0.0", "--port=7000", "--data_dir=/var/lib/krita",
          "--join_ip=h1:7000,h2:7000,10.0.0.3:8080"]),
        # On this machine the port has to be another, and so has the directory.
        ([node(1, address="127.0.0.1:8080"), node(4, address="127.0.0.1:8083")], Wishes(),
         ["--port=8084", "--data_dir=node5", "--join_ip=127.0.0.1:8080,127.0.0.1:8083"]),
        # Who is gone is not asked; who is down is not either, unless all are.
        ([node(1), node(2, state="left"), node(3, reachable=False), node(4, dead=True)], Wishes(),
         ["--listen_ip=0.0.0.0", "--data_dir=/var/lib/krita", "--join_ip=10.0.0.1:8080"]),
        ([node(1, reachable=False)], Wishes(),
         ["--listen_ip=0.0.0.0", "--data_dir=/var/lib/krita", "--join_ip=10.0.0.1:8080"]),
    ],
)  # fmt: skip
def test_the_command_line_of_a_new_node_fits_the_cluster(
    nodes: list[dict[str, object]], wishes: Wishes, words: list[str]
) -> None:
    assert command_for(list(map(Node.of, nodes)), wishes).words == ["kritad", *words]


def test_a_new_node_is_told_about_the_token_only_where_there_is_one() -> None:
    command = command_for([Node.of(node(1))], Wishes())
    assert not any("KRITA_ADMIN_TOKEN" in line for line in remarks_on(command, has_token=False))
    assert any("KRITA_ADMIN_TOKEN" in line for line in remarks_on(command, has_token=True))
