"""``kritad dev``: what it plans to start, and that it starts, reports and stops it.

The processes are real; ``stand_in.py`` plays the nodes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field

from kritad import dev
from kritad.config import ConfigError
from kritad.dev_plan import NodePlan, Plan, find_taken, make_plan
from tests.kritad import stand_in

TIMEOUT_S = 30


# -- Planning ------------------------------------------------------------------


def flags_of(node: NodePlan) -> list[str]:
    assert node.command[:4] == (sys.executable, "-m", "kritad", "run")
    return list(node.command[4:])


def test_a_fresh_cluster_is_started_by_node1_and_joined_by_the_others(tmp_path: Path) -> None:
    plan = make_plan(["--port", "9000", f"--data_dir={tmp_path}"], {})
    assert [node.name for node in plan.nodes] == ["node1", "node2", "node3"]
    assert [node.address for node in plan.nodes] == [f"127.0.0.1:{9000 + i}" for i in range(3)]
    one, two, three = map(flags_of, plan.nodes)
    assert "--start_cluster" in one
    for number, flags in ((2, two), (3, three)):
        assert "--start_cluster" not in flags
        assert "--join_ip=127.0.0.1:9000" in flags
        assert f"--port={8999 + number}" in flags
        assert f"--data_dir={tmp_path / f'node{number}'}" in flags


def with_data(path: Path) -> None:
    path.mkdir()
    (path / "raft.db").touch()


def test_a_cluster_that_has_data_is_not_started_anew(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with_data(tmp_path / f"node{number}")
    plan = make_plan([f"--data_dir={tmp_path}"], {})
    assert not any("--start_cluster" in node.command for node in plan.nodes)


def test_a_wiped_node1_joins_the_others_instead_of_starting_a_second_cluster(
    tmp_path: Path,
) -> None:
    with_data(tmp_path / "node2")
    one, two, three = map(flags_of, make_plan([f"--data_dir={tmp_path}"], {}).nodes)
    assert "--join_ip=127.0.0.1:8081" in one
    assert "--join_ip=127.0.0.1:8081" in three
    assert not any("--join_ip" in flag or flag == "--start_cluster" for flag in two)


def test_settings_come_from_everywhere_and_flags_are_passed_on(tmp_path: Path) -> None:
    flags = ["--nodes=1", "--shards=4", f"--data_dir={tmp_path}"]
    (node,) = make_plan(flags, {"KRITA_PORT": "9000"}).nodes
    assert node.port == 9000
    assert "--shards=4" in node.command


def test_a_node_is_given_up_soon_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    directory = f"--data_dir={tmp_path}"
    for arguments, environment, expected in (
        ([directory], {}, "--dead_after_s=30"),
        ([directory, "--dead_after_s=7"], {}, "--dead_after_s=7"),
        ([directory], {"KRITA_DEAD_AFTER_S": "9"}, None),
    ):
        for node in make_plan(arguments, environment).nodes:
            said = [flag for flag in flags_of(node) if flag.startswith("--dead_after_s")]
            assert said == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    "flags", [["--port=9000", "--data-dir", "{}"], ["--port", "9000", "--data_dir={}"]]
)
def test_a_nodes_command_names_its_port_and_directory_once(
    tmp_path: Path, flags: list[str]
) -> None:
    arguments = [flag.format(tmp_path) for flag in flags]
    for number, node in enumerate(make_plan([*arguments, "--zone=a"], {}).nodes, 1):
        given = [flag for flag in flags_of(node) if "port" in flag or "data" in flag]
        assert given == [f"--port={8999 + number}", f"--data_dir={tmp_path / f'node{number}'}"]
        assert "--zone=a" in node.command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nodes=0"], "must be a whole number from 1 to 9"),
        (["--nodes", "ten"], 'nodes is "ten" (flag --nodes)'),
        (["--nodes"], 'nodes is ""'),
        (["--node=3"], "unknown flag --node; did you mean --nodes?"),
        (["--port=65534"], "3 nodes from port 65534 on are too many ports"),
        (["--shards=3"], "must be a power of two"),
        (["--join_ip=a"], "kritad dev sets join_ip for each node itself; remove it (flag"),
        (["--start_cluster"], "sets start_cluster for each node itself"),
    ],
)
def test_a_mistake_is_found_before_anything_is_started(arguments: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(arguments, {})
    assert expected in str(caught.value)


def test_a_variable_that_would_hold_for_every_node_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="environment variable KRITA_JOIN_IP"):
        make_plan([], {"KRITA_JOIN_IP": "10.0.0.1"})


def test_listening_everywhere_the_nodes_still_meet_on_loopback(tmp_path: Path) -> None:
    flags = ["--listen_ip=0.0.0.0", f"--data_dir={tmp_path}"]
    plan = make_plan(flags, {"KRITA_ADMIN_TOKEN": "0123456789abcdef"})
    assert plan.nodes[1].address == "127.0.0.1:8081"
    assert "--join_ip=127.0.0.1:8080" in plan.nodes[1].command


# -- Running -------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def plan_of(tmp_path: Path, *modes: str) -> Plan:
    """A node for each mode of the stand-in."""
    nodes = []
    for number, (port, mode) in enumerate(zip(free_ports(len(modes)), modes, strict=True), 1):
        command = (sys.executable, str(stand_in.PATH), str(port), mode)
        data_dir = tmp_path / f"node{number}"
        nodes.append(NodePlan(f"node{number}", "127.0.0.1", "127.0.0.1", port, data_dir, command))
    return Plan(tuple(nodes), tmp_path)


@define
class Recorder(dev.Output):
    """Keeps the lines, and lets a test wait for one."""

    lines: list[str] = field(factory=list)
    changed: trio.Event = field(factory=trio.Event)

    def line(self, name: str, text: str, number: int | None = None) -> None:  # noqa: ARG002
        self.lines.append(f"{name}: {text}")
        self.changed.set()
        self.changed = trio.Event()

    async def saw(self, text: str) -> str:
        while True:
            for line in self.lines:
                if text in line:
                    return line
            await self.changed.wait()


@define
class Running:
    cluster: dev.Cluster
    said: Recorder
    status: int | None = None

    def process(self, number: int) -> trio.Process:
        return self.cluster.children[number - 1].process


@asynccontextmanager
async def running(plan: Plan) -> AsyncIterator[Running]:
    """The cluster of the plan; the block has to make it end."""
    said = Recorder()
    it = Running(dev.Cluster(plan, said), said)

    async def run() -> None:
        it.status = await it.cluster.run()

    with trio.fail_after(TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield it
    assert not any(child.running for child in it.cluster.children)


async def test_it_says_what_to_try_when_all_are_ready_and_stops_all_on_sigterm(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path, "", "", "")
    async with running(plan) as it:
        await it.said.saw("ready: 3 nodes")
        port = plan.nodes[0].port
        await it.said.saw(f'curl -X PUT http://127.0.0.1:{port}/greeting -d "value=hello"')
        every_node = ",".join(node.address for node in plan.nodes)
        await it.said.saw(f"kritash --nodes {every_node} cluster status")
        assert f"node2: listening on {plan.nodes[1].port}" in it.said.lines
        signal.raise_signal(signal.SIGTERM)
    assert it.status == 0
    assert [it.process(n).returncode for n in (1, 2, 3)] == [0, 0, 0]


async def test_a_killed_node_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    async with running(plan_of(tmp_path, "", "")) as it:
        await it.said.saw("ready: 2 nodes")
        it.process(1).kill()
        killed = await it.said.saw("node1 was killed by SIGKILL")
        assert "last lines" not in killed, "a node that SIGKILL ends has no time to say why"
        again = await it.said.saw("start it again with: ")
        assert str(stand_in.PATH) in again
        assert it.process(2).returncode is None
        signal.raise_signal(signal.SIGINT)
    assert it.status == 0, "the node that died before has nothing to do with the clean stop"


async def test_a_node_that_fails_to_start_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    async with running(plan_of(tmp_path, "", "broken")) as it:
        await it.said.saw("node2: kritad: this setting is bad")
        await it.said.saw("node2 exited with status 78; the reason is in its last lines above")
        await it.said.saw("ready: 1 of 2 nodes")
        signal.raise_signal(signal.SIGTERM)
    assert it.status == 0


async def test_when_every_node_has_died_it_ends_with_a_failure(tmp_path: Path) -> None:
    async with running(plan_of(tmp_path, "broken", "broken")) as it:
        await it.said.saw("no node is left")
    assert it.status == 1


async def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    async with running(plan_of(tmp_path, "deaf", "")) as it:
        await it.said.saw("ready: 2 nodes")
        signal.raise_signal(signal.SIGINT)
        await it.said.saw("once more Ctrl-C kills")
        await it.process(2).wait()
        assert it.process(1).returncode is None
        signal.raise_signal(signal.SIGINT)
    assert it.status == 1
    assert it.process(1).returncode == -signal.SIGKILL


async def test_a_node_that_stops_uncleanly_makes_the_stop_a_failure(tmp_path: Path) -> None:
    async with running(plan_of(tmp_path, "unclean")) as it:
        await it.said.saw("ready: 1 node,")
        signal.raise_signal(signal.SIGTERM)
    assert it.status == 1
    assert any("node1 exited with status 3" in line for line in it.said.lines)


async def test_a_node_that_is_not_ready_is_not_announced(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "unready")
    async with running(plan) as it:
        await it.said.saw("node1: listening on")
        assert not await dev.answers_200("127.0.0.1", plan.nodes[0].port, "/readyz")
        assert not any("ready:" in line for line in it.said.lines)
        signal.raise_signal(signal.SIGTERM)
    assert it.status == 0


async def test_a_port_where_nobody_listens_is_not_ready() -> None:
    assert not await dev.answers_200("127.0.0.1", free_ports(1)[0], "/readyz")


def test_a_port_that_is_taken_is_named_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tmp_path / "data", "", "")
    with socket.create_server(("127.0.0.1", plan.nodes[1].port)):
        (message,) = find_taken(plan)
        assert f"node2 cannot listen on 127.0.0.1:{plan.nodes[1].port}: Address already" in message
        assert dev.run(plan) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert not plan.data_dir.exists()


async def test_lines_are_split_wherever_the_chunks_end() -> None:
    class Chunks(trio.abc.ReceiveStream):
        def __init__(self, *chunks: bytes) -> None:
            self.chunks = list(chunks)

        async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002
            await trio.lowlevel.checkpoint()
            return self.chunks.pop(0) if self.chunks else b""

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    stream = Chunks(b"o", b"ne\r\ntw", b"o\n\nth", b"r\xff", b"ee")
    assert [line async for line in dev.lines(stream)] == ["one", "two", "", "thr\ufffdee"]
    endless = Chunks(b"x" * dev.LINE_BYTES_MAX, b"xy", b"z\n")
    assert [len(line) async for line in dev.lines(endless)] == [dev.LINE_BYTES_MAX + 2, 1]


def test_output_that_nobody_reads_any_more_stops_nothing() -> None:
    code = (
        "import sys; from kritad.dev import Output; o = Output.to_stdout(); sys.stdin.read()\n"
        "o.line('dev', 'one'); o.line('dev', 'two'); sys.exit(7)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (7, b"")


def test_names_are_coloured_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    dev.Output(colours=True).line("node1", "hello", 0)
    dev.Output().line("node1", "hello", 0)
    assert capsys.readouterr().out == "\x1b[36mnode1 |\x1b[0m hello\nnode1 | hello\n"
