"""The prompt, in a real terminal."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kritash.conftest import Shell
from tests.kritash.server import Cluster
from tests.kritash.terminal import CTRL_C, CTRL_D, CTRL_Z, ENTER, TAB, UP, Terminal
from tests.kritash.test_cli import closed_port


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3, token=b"sesame") as running:
        yield running


@pytest.fixture
def terminal(cluster: Cluster, tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(
        KRITA_NODES=cluster.addresses, XDG_STATE_HOME=str(tmp_path), KRITA_ADMIN_TOKEN="sesame"
    ) as shown:
        shown.wait_for("Ctrl-D leaves")
        shown.wait_for(f"krita {cluster.nodes[0].address}>")
        yield shown


def test_a_command_works_and_ctrl_d_leaves_with_0(terminal: Terminal) -> None:
    terminal.type("put greeting 'hello there'" + ENTER)
    terminal.wait_for("ok  revision 1  new")
    terminal.type("get greeting" + ENTER)
    terminal.wait_for("\nhello there\n")
    terminal.wait_for(">")
    terminal.type(CTRL_D)
    assert terminal.wait_for_exit() == 0


def test_ctrl_z_is_for_the_shell_around_and_stands_in_no_line(terminal: Terminal) -> None:
    terminal.type("ge")
    terminal.wait_to_see("> ge")
    terminal.type(CTRL_Z)  # which stops nothing here, where nobody could let it go on
    terminal.type("t absent" + ENTER)
    terminal.wait_for("there is no such key")


@pytest.fixture
def prompt(shell: Shell, tmp_path: Path) -> Iterator[Terminal]:
    """A prompt on nodes that hold real states of shards."""
    with Terminal(KRITA_NODES=shell.cluster.seeds, XDG_STATE_HOME=str(tmp_path)) as shown:
        shown.wait_for(f"krita {shell.cluster.seeds}>")
        yield shown


def test_the_menu_offers_what_a_duration_looks_like_and_locks_that_were_seen(
    prompt: Terminal,
) -> None:
    prompt.type("put k v --ttl ")
    prompt.wait_to_see("as long as it would have")
    prompt.type("1m" + ENTER)
    prompt.wait_for("ok  revision")
    prompt.type("lock acquire job" + ENTER)
    prompt.wait_for("held for 30s")
    prompt.type("lock release jo")
    prompt.wait_to_see("token ")
    prompt.type("b ")
    prompt.wait_to_see("the token of job")
    prompt.type(TAB + ENTER)
    prompt.wait_for("ok  free")


def test_ctrl_c_ends_a_watch_and_the_prompt_goes_on(shell: Shell, prompt: Terminal) -> None:
    with shell.db.watch() as watch:
        token = watch.begin()
    shell.db.put("a", "first")
    prompt.type(f"watch --from {token}" + ENTER)
    prompt.wait_for("put     a  revision")
    prompt.type(CTRL_C)
    prompt.wait_for("go on with: --from ")
    prompt.type("scan --keys-only" + ENTER)
    prompt.wait_for("revision")
    prompt.wait_for(">")
    prompt.type(CTRL_D)
    assert prompt.wait_for_exit() == 0


def test_a_program_under_a_lock_has_the_terminal_and_the_prompt_comes_back(
    prompt: Terminal,
) -> None:
    prompt.type("lock run job -- sh -c 'echo begun$((1+1)); read line; echo \"<$line>\"'" + ENTER)
    prompt.wait_for("begun2")
    prompt.type("something\n")
    prompt.wait_for("<something>")
    prompt.wait_for(">")
    prompt.type(CTRL_D)
    assert prompt.wait_for_exit() == 0


def test_the_toolbar_shows_health_and_leaders(terminal: Terminal) -> None:
    terminal.wait_to_see("healthy")
    terminal.wait_to_see("3/3 nodes | 4 shards | leaders n1:1 n2:2 n3:1")


def test_typing_opens_a_menu_that_says_what_the_words_mean(terminal: Terminal) -> None:
    terminal.type("sh")
    terminal.wait_to_see("list, show, map, transfer, move, split")
    terminal.type("ard m")
    terminal.wait_to_see("which shard and leader a key belongs to")
    terminal.type(TAB + " somekey" + ENTER)
    terminal.wait_for("token")
    terminal.wait_for("leader")


def test_tables_are_drawn(terminal: Terminal) -> None:
    terminal.type("cluster status" + ENTER)
    terminal.wait_for("healthy  3 nodes, 4 shards, survives the loss of 1 node")
    terminal.wait_for("───")
    terminal.wait_for("1 +0, 2 leader, 3 +0")


def test_an_error_has_its_hint_and_outcome_and_the_prompt_goes_on(terminal: Terminal) -> None:
    terminal.type("get fail:forbidden" + ENTER)
    terminal.wait_for("error: the test asked for it")
    terminal.wait_for("hint: ask for something else")
    terminal.wait_for("outcome: not applied")
    terminal.type(r"get a\q" + ENTER)
    terminal.wait_for("       ^")
    terminal.type("exit" + ENTER)
    assert terminal.wait_for_exit() == 0


def test_ctrl_c_clears_the_line_and_does_not_leave(terminal: Terminal) -> None:
    terminal.type("put a 1")
    terminal.wait_for("put a 1")
    terminal.type(CTRL_C)
    terminal.wait_for(">")
    terminal.type("get a" + ENTER)
    terminal.wait_for(">")
    terminal.type(CTRL_D)
    assert terminal.wait_for_exit() == 0


PASTED = "\x1b[200~{}\x1b[201~"


def test_lines_that_are_pasted_are_commands_up_to_the_first_that_fails(
    cluster: Cluster, terminal: Terminal
) -> None:
    terminal.type(PASTED.format("put a 1\n\nput b 'x y'\r\n  put c 3\n") + ENTER)
    for _ in range(3):
        terminal.wait_for("ok  revision")
    assert [cluster.rows[key][0] for key in (b"a", b"b", b"c")] == [b"1", b"x y", b"3"]
    terminal.wait_for(">")
    terminal.type(PASTED.format("put d 4\nget absent\nput e 5\n\nput f 6") + ENTER)
    terminal.wait_for("there is no such key")
    terminal.wait_for("2 lines behind it not run")
    assert b"d" in cluster.rows
    assert not {b"e", b"f"} & cluster.rows.keys()
    terminal.type(PASTED.format("exit\nput g 7") + ENTER)
    assert terminal.wait_for_exit() == 0
    assert b"g" not in cluster.rows


def test_a_transfer_asks_and_takes_no_for_an_answer(cluster: Cluster, terminal: Terminal) -> None:
    terminal.type("shard transfer 1 3" + ENTER)
    terminal.wait_for("Hand the leadership of shard 1 to node 3? [y/N]")
    terminal.type("\n")
    terminal.wait_for("not done")
    assert cluster.leaders[1] == 2
    terminal.wait_for(">")
    terminal.type("shard transfer 1 3" + ENTER)
    terminal.wait_for("[y/N]")
    terminal.type("y\n")
    terminal.wait_for("shard 1 is led by node 3")
    assert cluster.leaders[1] == 3


def test_ctrl_c_at_a_question_leaves_nothing_unknown(terminal: Terminal) -> None:
    terminal.type("shard transfer 1 3" + ENTER)
    terminal.wait_for("[y/N]")
    terminal.type(CTRL_C)
    terminal.wait_for("interrupted")
    assert "outcome" not in terminal.wait_for("krita ")


def test_a_drain_shows_its_plan_asks_and_is_followed_with_a_bar(cluster: Cluster) -> None:
    arguments = ("node", "drain", "3", "--wait")
    variables = {"KRITA_NODES": cluster.addresses, "KRITA_ADMIN_TOKEN": "sesame"}
    cluster.elastic.join()  # whoever gets the replicas
    cluster.elastic.moves.clear()
    with Terminal(*arguments, **variables) as terminal:
        terminal.wait_for("moves 4 replicas of 4 shards, 12.0 MiB")
        terminal.wait_for("nodes that may be lost for good")
        terminal.wait_for("Drain node 3: move its leaders and replicas to other nodes? [y/N]")
        assert cluster.administered == []
        terminal.type("y\n")
        terminal.wait_for("━")
        terminal.wait_for("node 3: 4 replicas left of 4, 4 on the move")
        terminal.wait_for("ok  node 3 is drained: it is safe to stop")
        assert terminal.wait_for_exit() == 0


def test_the_ring_is_drawn_with_and_without_colour(cluster: Cluster) -> None:
    for variables in ({}, {"NO_COLOR": "1"}):
        with Terminal("ring", KRITA_NODES=cluster.addresses, **variables) as terminal:
            terminal.wait_for("BBBBB BBBBB")
            terminal.wait_for("6,000 keys")
            terminal.wait_for("█ leads  ░ holds a copy  · has none")
            assert terminal.wait_for_exit() == 0


def test_ctrl_c_ends_the_waiting_and_not_the_work(cluster: Cluster) -> None:
    cluster.elastic.paused = True
    arguments = ("node", "drain", "3", "--wait", "--yes")
    variables = {"KRITA_NODES": cluster.addresses, "KRITA_ADMIN_TOKEN": "sesame"}
    with Terminal(*arguments, **variables) as terminal:
        terminal.wait_for("all moves are paused")
        terminal.type(CTRL_C)
        terminal.wait_for("interrupted; the cluster goes on with it")
        assert terminal.wait_for_exit() == 130
    assert cluster.elastic.node_rows({})[2]["state"] == "draining"


def test_history_is_private_and_holds_no_secrets(terminal: Terminal, tmp_path: Path) -> None:
    for line in ("put plain 1", "put db/password hunter2", " put hidden 2"):
        terminal.type(line + ENTER)
        terminal.wait_for("ok  revision")
        terminal.wait_for(">")
    terminal.type(CTRL_D)
    assert terminal.wait_for_exit() == 0
    history = tmp_path / "krita" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    text = history.read_text()
    assert "+put plain 1\n" in text
    assert "hunter2" not in text
    assert "hidden" not in text


def test_the_arrow_brings_back_the_last_line(terminal: Terminal) -> None:
    terminal.type("put a 1" + ENTER)
    terminal.wait_for("revision 1  new")
    terminal.wait_for(">")
    terminal.type(UP + ENTER)
    terminal.wait_for("revision 2  replaced")


def test_a_dead_cluster_shows_in_the_toolbar_and_typing_goes_on(tmp_path: Path) -> None:
    with Terminal(KRITA_NODES=closed_port(), XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.wait_to_see("unreachable")
        terminal.type("help ping" + ENTER)
        terminal.wait_for("ask a node whether it is there")
        terminal.type("ping" + ENTER)
        terminal.wait_for("outcome: not applied")
        terminal.wait_for(">")
        terminal.type(CTRL_D)
        assert terminal.wait_for_exit() == 0


def test_a_one_shot_at_a_terminal_draws_tables_without_escapes_when_colour_is_unwanted(
    cluster: Cluster,
) -> None:
    with Terminal("node", "list", KRITA_NODES=cluster.addresses, NO_COLOR="1") as terminal:
        terminal.wait_for("address")
        terminal.wait_for(cluster.nodes[2].address)
        assert terminal.wait_for_exit() == 0


def test_ctrl_c_ends_a_one_shot_with_130(cluster: Cluster) -> None:
    arguments = ("bench", "put", "--seconds", "60", "--connections", "1", "--in-flight", "1")
    with Terminal(*arguments, KRITA_NODES=cluster.addresses) as terminal:
        terminal.wait_for("put  1 of 60 s")
        terminal.type(CTRL_C)
        terminal.wait_for("throughput")
        terminal.wait_for("interrupted before its time")
        assert terminal.wait_for_exit() == 130
