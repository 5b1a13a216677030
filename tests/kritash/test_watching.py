"""``key watch``: what it shows, how it ends, and how it goes on."""

from __future__ import annotations

import json

from krita.errors import Compacted, Unavailable
from krita.operations import Op
from tests.kritash.conftest import Shell
from tests.kritash.terminal import CTRL_C, Terminal
from tests.protocol.server import answer


def watched(shell: Shell) -> str:
    """The token of a watch of everything that begins now."""
    with shell.db.watch() as watch:
        return watch.begin()


def test_a_watch_goes_on_from_its_token_and_ends_after_its_count(shell: Shell) -> None:
    token = watched(shell)
    shell.db.put("a", "1")
    shell.db.put("b", b"\xff", content_type="x/y")
    shell.db.delete("a")
    done = shell("watch", "--from", token, "--count", "2", "--start", "a", "--stop", "b")
    kinds = [line.split("\t") for line in done.out.decode().splitlines()]
    assert [(kind, key) for kind, key, *_ in kinds] == [("put", "a"), ("delete", "a")]
    assert "go on with: --from " in done.err


def test_in_json_every_event_is_a_line_with_the_token_behind_it(shell: Shell) -> None:
    token = watched(shell)
    shell.db.put("a", b"\xff", content_type="x/y")
    shell.db.put("a", "2")
    lines = shell("--json", "watch", "--from", token, "--count", "1").out.splitlines()
    event = json.loads(lines[0])
    assert (event["type"], event["key"], event["value"]) == ("put", "a", {"base64": "/w=="})
    assert event["content_type"] == "x/y"
    again = shell.json("watch", "--from", event["token"], "--count", "1")
    assert again["value"] == "2"


def test_what_another_try_may_change_is_noted_and_the_watch_goes_on(shell: Shell) -> None:
    token = watched(shell)
    shell.db.put("a", "1")
    shell.cluster.on(Op.CHANGES, answer(Unavailable("no leader")), times=2)
    done = shell("watch", "a", "--from", token, "--count", "1", "--timeout-ms", "300")
    assert done.out.startswith(b"put\ta\t")


def test_a_past_that_is_not_kept_ends_the_watch_with_code_6(shell: Shell) -> None:
    token = watched(shell)
    shell.db.put("a", "1")
    shell.cluster.on(Op.CHANGES, answer(Compacted("not kept", detail={"oldest": 9})), times=99)
    assert "not kept" in shell.error("watch", "a", "--from", token, "--count", "1", code=6)


def test_a_watch_is_of_one_thing(shell: Shell) -> None:
    assert "name one of them" in shell.error("watch", "a", "--prefix", "b", code=2)
    assert "no token of a watch" in shell.error("watch", "a", "--from", "x", code=2)


def test_ctrl_c_ends_a_watch_at_a_terminal_with_0_and_the_token(shell: Shell) -> None:
    token = watched(shell)
    shell.db.put("a", "first")
    arguments = ("watch", "a", "--from", token)
    with Terminal(*arguments, KRITA_NODES=shell.cluster.seeds) as terminal:
        terminal.wait_for("put     a  revision")
        terminal.wait_for("first")
        shell.db.delete("a")
        terminal.wait_for("delete  a")
        terminal.type(CTRL_C)
        terminal.wait_for("go on with: --from ")
        assert terminal.wait_for_exit() == 0


def test_ctrl_c_before_the_count_is_code_130(shell: Shell) -> None:
    token = watched(shell)
    shell.db.put("a", "1")
    arguments = ("watch", "a", "--from", token, "--count", "2")
    with Terminal(*arguments, KRITA_NODES=shell.cluster.seeds) as terminal:
        terminal.wait_for("put     a  revision")
        terminal.type(CTRL_C)
        assert terminal.wait_for_exit() == 130
