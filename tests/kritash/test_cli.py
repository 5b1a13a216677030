"""One-shot and piped, through real processes and a real socket."""

from __future__ import annotations

import importlib.abc
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kritash import cli
from kritash.__main__ import main
from kritash.cli import __doc__ as cli_doc
from kritash.exits import MEANINGS
from tests.kritash.server import CLUSTER_ID, Cluster
from tests.kritash.shell import environment, kritash, kritash_here

TOKEN = b"open sesame"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3, token=TOKEN) as running:
        yield running


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_value_that_was_put_is_got_back_byte_for_byte(cluster: Cluster) -> None:
    value = bytes(range(256))
    put = kritash("--nodes", cluster.addresses, "key", "put", "k", "-", stdin=value)
    assert (put.code, put.err) == (0, "")
    assert put.out == b"ok\trevision 1\tnew\n"
    got = kritash("--nodes", cluster.addresses, "key", "get", "k")
    assert (got.code, got.out, got.err) == (0, value, "")


def test_one_node_of_the_cluster_is_enough_to_find_the_others(cluster: Cluster) -> None:
    for number in range(8):
        done = kritash("put", f"key{number}", "x", KRITA_NODES=cluster.nodes[1].address)
        assert done.code == 0, done.err


def test_a_value_can_come_from_a_file_or_be_literal(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"from the file\n")
    kritash("put", "a", f"@{file}", KRITA_NODES=cluster.addresses)
    kritash("put", "b", "@nowhere", "--literal", KRITA_NODES=cluster.addresses)
    kritash("-e", "put c '-'", KRITA_NODES=cluster.addresses)
    assert cluster.rows[b"a"][0] == b"from the file\n"
    assert cluster.rows[b"b"][0] == b"@nowhere"
    assert cluster.rows[b"c"][0] == b"-"


def test_a_file_that_cannot_be_read_is_a_usage_error(cluster: Cluster) -> None:
    done = kritash("put", "a", "@/nonexistent", KRITA_NODES=cluster.addresses)
    assert done.code == 2
    assert "cannot read '/nonexistent': No such file or directory" in done.err
    assert "--literal" in done.err


def test_lines_from_a_pipe_are_commands(cluster: Cluster) -> None:
    lines = b"put a 1\n\n# a comment\nput 'b c' \"2\\x00\"\nget a\nget 'b c'\nexit\nget a\n"
    done = kritash(stdin=lines, KRITA_NODES=cluster.addresses)
    assert (done.code, done.err) == (0, "")
    assert done.out == b"ok\trevision 1\tnew\nok\trevision 2\tnew\n1\n2\x00\n"


def test_a_script_stops_at_its_first_failing_line(cluster: Cluster) -> None:
    done = kritash(stdin=b"get absent\nput a 1\n", KRITA_NODES=cluster.addresses)
    assert done.code == 1
    assert cluster.rows == {}


def test_keep_going_runs_all_lines_and_ends_with_the_first_failure(cluster: Cluster) -> None:
    lines = b"get absent\nfrobnicate\nput a 1\n"
    done = kritash("--keep-going", stdin=lines, KRITA_NODES=cluster.addresses)
    assert done.code == 1
    assert "unknown command 'frobnicate'" in done.err
    assert b"a" in cluster.rows


def test_stdin_cannot_carry_commands_and_a_value_at_once(cluster: Cluster) -> None:
    done = kritash(stdin=b"put a -\nthe value", KRITA_NODES=cluster.addresses)
    assert done.code == 2
    assert "'-' cannot read a value here" in done.err
    assert "      ^" in done.err


@pytest.mark.parametrize("place", ["before", "behind"])
def test_json_is_one_document_for_each_command(cluster: Cluster, place: str) -> None:
    cluster.rows[b"a"] = (b"\xff", 7)
    words = ["--json", "get", "a"] if place == "before" else ["get", "a", "--json"]
    done = kritash(*words, KRITA_NODES=cluster.addresses)
    assert json.loads(done.out) == {
        "key": "a", "value": {"base64": "/w=="}, "revision": 7, "content_type": None,
    }  # fmt: skip


def test_lists_are_arrays_in_json(cluster: Cluster) -> None:
    shards = json.loads(kritash("shard", "list", "--json", KRITA_NODES=cluster.addresses).out)
    assert [shard["shard"] for shard in shards] == [1, 2, 3, 4]
    assert {"node", "role", "lag"} <= shards[0]["replicas"][0].keys()
    nodes = json.loads(kritash("node", "list", "--json", KRITA_NODES=cluster.addresses).out)
    assert [node["node"] for node in nodes] == [1, 2, 3]
    status = json.loads(kritash("cluster", "status", "--json", KRITA_NODES=cluster.addresses).out)
    assert status["cluster_id"] == CLUSTER_ID.hex()


def test_shard_map_names_the_leader_of_a_key(cluster: Cluster) -> None:
    done = kritash("shard", "map", "a", "--json", KRITA_NODES=cluster.addresses)
    found = json.loads(done.out)
    info = cluster.shard_map().shard_of(b"a")
    assert (found["shard"], found["leader"]) == (info.shard, info.leader)
    assert found["address"] == cluster.nodes[info.leader - 1].address


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["get", "absent"], 1, ""),
        (["del", "absent"], 1, ""),
        (["get", "fail:condition_failed"], 1, "outcome: not applied"),
        (["get"], 2, "usage: key get KEY"),
        (["gett", "a"], 2, "did you mean 'get'?"),
        (["get", "fail:too_large"], 2, "outcome: not applied"),
        (["get", "fail:unauthenticated"], 4, "hint: ask for something else"),
        (["get", "fail:forbidden"], 4, ""),
        (["get", "fail:unavailable"], 5, "outcome: not applied"),
        (["get", "fail:busy"], 5, ""),
        (["put", "fail:no_space", "x"], 5, "outcome: not applied"),
        (["put", "drop:", "x"], 7, "read before you write again"),
        (["put", "fail:unknown", "x"], 7, "outcome: unknown"),
    ],
)
def test_the_exit_code_tells_a_script_what_happened(
    cluster: Cluster, words: list[str], code: int, said: str
) -> None:
    done = kritash(*words, "--timeout-ms", "300", KRITA_NODES=cluster.addresses)
    assert done.code == code, done
    assert said in done.err


def test_an_absent_key_is_told_on_stderr_and_leaves_stdout_empty(cluster: Cluster) -> None:
    done = kritash("key", "get", "absent", KRITA_NODES=cluster.addresses)
    assert (done.code, done.out) == (1, b"")
    assert done.err == "absent: there is no such key\n"
    document = kritash("key", "get", "absent", "--json", KRITA_NODES=cluster.addresses)
    assert (document.code, document.err) == (1, "")
    assert json.loads(document.out)["value"] is None


def test_nobody_listening_is_code_3_at_once_and_names_every_address() -> None:
    first, second = closed_port(), closed_port()
    done = kritash("put", "a", "1", KRITA_NODES=f"{first},{second}")
    assert done.code == 3
    assert f"{first}: Connection refused; {second}: Connection refused" in done.err
    assert "outcome: not applied" in done.err


def test_an_error_in_json_mode_is_a_document_on_stderr(cluster: Cluster) -> None:
    done = kritash("get", "fail:forbidden", "--json", KRITA_NODES=cluster.addresses)
    assert done.out == b""
    error = json.loads(done.err)
    assert (error["error"], error["outcome"], error["exit_code"]) == ("Forbidden", "not_applied", 4)


def test_administration_needs_the_token_and_a_yes(cluster: Cluster, tmp_path: Path) -> None:
    transfer = ("shard", "transfer", "1", "3")
    unasked = kritash(*transfer, KRITA_NODES=cluster.addresses, KRITA_ADMIN_TOKEN=TOKEN.decode())
    assert unasked.code == 2
    assert "add --yes" in unasked.err
    without = kritash(*transfer, "--yes", KRITA_NODES=cluster.addresses)
    assert without.code == 4
    wrong = kritash(*transfer, "-y", KRITA_NODES=cluster.addresses, KRITA_ADMIN_TOKEN="wrong")
    assert wrong.code == 4
    assert cluster.leaders[1] == 2
    file = tmp_path / "token"
    file.write_bytes(TOKEN + b"\n")
    done = kritash(*transfer, "--yes", "--token-file", str(file), KRITA_NODES=cluster.addresses)
    assert (done.code, cluster.leaders[1]) == (0, 3), done.err


def test_a_token_file_that_cannot_be_read_stops_before_anything_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "absent"
    done = kritash("--token-file", str(file), "get", "a")
    assert done.code == 2
    assert f"cannot read the token file {file}: No such file or directory\n" in done.err


@pytest.mark.parametrize("nodes", [",", "host:99999", "::1:80"])
def test_a_malformed_address_is_a_usage_error_that_names_its_source(nodes: str) -> None:
    assert "KRITA_NODES" in kritash("ping", KRITA_NODES=nodes).err
    done = kritash("--nodes", nodes, "ping")
    assert done.code == 2
    assert "--nodes" in done.err


def test_help_lists_every_exit_code_and_needs_no_cluster() -> None:
    done = kritash("--help")
    assert (done.code, done.err) == (0, "")
    for code, meaning in MEANINGS.items():
        assert f"{code.value:>3}  {meaning}" in done.out.decode()


def test_help_on_a_command_is_asked_for_in_three_ways() -> None:
    ways = [kritash("help", "key", "put"), kritash("key", "put", "--help"), kritash("put", "-h")]
    assert {way.out for way in ways} == {ways[0].out}
    assert b"key put KEY VALUE" in ways[0].out
    assert {way.code for way in ways} == {0}


def test_the_module_documents_every_exit_code() -> None:
    assert cli_doc is not None
    for code in MEANINGS:
        assert f"\n{code.value:<6}" in cli_doc


def test_a_reader_that_has_enough_of_one_answer_ends_the_output_quietly(cluster: Cluster) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kritash", "node", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(KRITA_NODES=cluster.addresses),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 0


@pytest.mark.parametrize("arguments", [["key", "get", "k"], ["--json", "node", "list"]])
def test_an_answer_that_cannot_be_written_is_not_a_no(
    cluster: Cluster, arguments: list[str]
) -> None:
    assert kritash("put", "k", "v", KRITA_NODES=cluster.addresses).code == 0
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kritash", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(KRITA_NODES=cluster.addresses),
            check=False,
        )
    assert done.returncode == 9
    said = json.loads(done.stderr)["message"] if "--json" in arguments else done.stderr.decode()
    assert said.removeprefix("error: ").strip() == (
        "the answer cannot be written: No space left on device"
    )


def test_a_shell_that_has_closed_the_streams_is_no_reason_to_fail(cluster: Cluster) -> None:
    command = f"{sys.executable} -m kritash ping >&- 2>&-"
    env = environment(KRITA_NODES=cluster.addresses)
    assert subprocess.run(["sh", "-c", command], env=env, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [("put k v", 0), ("", 0), ("put k -", 0), ("node remove 3", 2), ("-e ping", 0)],
)
def test_a_closed_stdin_is_an_empty_one_at_which_nobody_sits(
    cluster: Cluster, words: str, code: int
) -> None:
    command = f"{sys.executable} -m kritash {words} <&-"
    env = environment(KRITA_NODES=cluster.addresses, KRITA_ADMIN_TOKEN=TOKEN.decode())
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, check=False)
    assert done.returncode == code, done
    assert b"Traceback" not in done.stderr


def test_a_bug_is_not_a_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_argv: object, _output: object) -> int:
        raise AssertionError("this cannot be")

    monkeypatch.setattr(cli, "run", fail)
    assert cli.main([]) == 70
    assert "AssertionError: this cannot be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--json", "--bogus"], 2),
        (["--json", "--timeout-ms", "x", "ping"], 2),
        (["--timeout-ms", "x", "ping", "--json"], 2),
        (["--json", "-e", "ping", "ping"], 2),
        (["--json", "--token-file", "/nonexistent", "ping"], 2),
        (["--json", "frobnicate"], 2),
        (["--json", "-e", "put a 'b"], 2),
    ],
)
def test_with_json_what_is_wrong_with_the_words_is_a_document_too(
    words: list[str], code: int
) -> None:
    done = kritash_here(*words)
    document = json.loads(done.err)
    assert (done.code, document["exit_code"], document["outcome"]) == (code, code, "not_applied")
    assert document["message"]
    assert done.out == b""


@pytest.mark.parametrize(
    ("raised", "name", "code", "outcome"),
    [
        (KeyboardInterrupt(), "Interrupted", 130, "not_applied"),  # there is no connection yet
        (OSError(28, "No space left on device"), "OSError", 9, "unknown"),
        (AssertionError("this cannot be"), "AssertionError", 70, "unknown"),
    ],
)
def test_with_json_every_end_is_a_document(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: BaseException,
    name: str,
    code: int,
    outcome: str,
) -> None:
    def fail(*_: object) -> int:
        raise raised

    monkeypatch.setattr(cli, "_run_mode", fail)
    monkeypatch.setattr(cli, "_write_nowhere", lambda _: None)
    assert cli.main(["--json", "ping"]) == code
    document = json.loads(capfd.readouterr().err)
    assert (document["error"], document["exit_code"]) == (name, code)
    assert document["outcome"] == outcome


def test_with_json_a_plan_does_not_stand_in_front_of_the_error(cluster: Cluster) -> None:
    """Nobody can be asked, so nobody needs to see what it is about."""
    done = kritash(
        "--json", "node", "drain", "3",
        KRITA_NODES=cluster.addresses, KRITA_ADMIN_TOKEN=TOKEN.decode(),
    )  # fmt: skip
    assert done.code == 2
    assert json.loads(done.err)["error"] == "ParseError"


@pytest.mark.parametrize("words", [["--json", "node", "add"], ["node", "add", "--json"]])
def test_with_json_the_remarks_on_a_new_node_are_in_its_document(
    cluster: Cluster, words: list[str]
) -> None:
    done = kritash(*words, KRITA_NODES=cluster.addresses, KRITA_ADMIN_TOKEN=TOKEN.decode())
    assert (done.code, done.err) == (0, "")
    assert "with an empty data directory" in json.loads(done.out)["remarks"][0]


def test_a_script_whose_reader_has_enough_says_that_it_was_not_run_to_its_end(
    cluster: Cluster,
) -> None:
    script = "\n".join(["node list"] * 2000).encode()
    process = subprocess.Popen(
        [sys.executable, "-m", "kritash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(KRITA_NODES=cluster.addresses),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(script)
    process.stdin.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141


def test_a_one_shot_imports_neither_the_prompt_nor_tables_nor_an_event_loop() -> None:
    code = (
        "import sys, kritash.cli;"
        "heavy = {'prompt_toolkit', 'rich', 'trio', 'anyio', 'asyncio', 'argparse', 'kritad'};"
        "print(*(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=True
    )
    assert done.stdout == b"\n"


def test_ctrl_c_while_it_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname == "kritash.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "kritash.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert main() == 130
