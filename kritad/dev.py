"""``kritad dev``: a cluster of real processes on this machine, for trying out and for tests.

The nodes are ordinary ``kritad run`` processes; what they log comes here, with
the node's name before each line. None is restarted: whoever kills a node wants
to see what the others do. Ctrl-C or SIGTERM stops all of them in order, a
second one at once.

A wart: a terminal that is paused (Ctrl-S) stops the reading of the nodes' pipes,
and a node whose pipe is full waits with its next log line. ``--log_file``
avoids it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio
from attrs import define, field

from kritad.dev_plan import NodePlan, Plan, find_taken

POLL_S = 0.1
POLL_TIMEOUT_S = 2.0
# When to say that the start takes long.
PATIENCE_S = 20.0
# Handing leaders over and flushing takes seconds; this is for what hangs.
STOP_TIMEOUT_S = 45.0
LINE_BYTES_MAX = 1 << 16

COLOURS = (36, 33, 35, 32, 34, 31)


def run(plan: Plan) -> int:
    """Run the cluster until it is told to stop; returns the exit status. Nothing is
    started when a port is taken."""
    output = Output.to_stdout()
    taken = find_taken(plan)
    if taken:
        for message in taken:
            print(f"kritad dev: {message}", file=sys.stderr)
        print("Is a cluster running already? --port=N chooses other ports.", file=sys.stderr)
        return 1
    try:
        plan.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"kritad dev: cannot make {plan.data_dir}: {error.strerror}", file=sys.stderr)
        return 1
    return trio.run(Cluster(plan, output).run)


@define
class Output:
    """Lines on standard output, with a name before each; colours on a terminal."""

    colours: bool = False
    # Ctrl-C in ``make run | tee`` ends tee first, and a terminal may be closed. The nodes must
    # be stopped all the same.
    gone: bool = False

    @classmethod
    def to_stdout(cls) -> Output:
        return cls(colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)

    def line(self, name: str, text: str, number: int | None = None) -> None:
        label = f"{name:<5} |"
        if self.colours:
            colour = 1 if number is None else COLOURS[number % len(COLOURS)]
            label = f"\x1b[{colour}m{label}\x1b[0m"
        if self.gone:
            return
        try:
            print(label, text, flush=True)
        except OSError:
            self.gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@define(eq=False)
class Child:
    """A node's process."""

    number: int
    node: NodePlan
    process: trio.Process
    ready: bool = False

    @property
    def running(self) -> bool:
        return self.process.returncode is None


@define(eq=False)
class Cluster:
    """The processes of a plan, from the first start to the last exit."""

    plan: Plan
    output: Output
    children: list[Child] = field(factory=list)
    stopping: bool = False
    failed: bool = False

    async def run(self) -> int:
        """Returns the exit status: 0 when every node stopped as it was told to."""
        stop_signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with trio.open_signal_receiver(*stop_signals) as signals:
            try:
                async with trio.open_nursery() as helpers:
                    helpers.start_soon(self._stop_on_signal, signals)
                    async with trio.open_nursery() as followers:
                        for number, node in enumerate(self.plan.nodes):
                            child = await self._start(number, node)
                            followers.start_soon(self._follow, child)
                            if self.plan.fresh:
                                await self._wait_for_membership(child)
                        helpers.start_soon(self._announce)
                    helpers.cancel_scope.cancel()
            finally:
                # Only after an error of our own is anyone still there.
                self._signal(signal.SIGKILL)
        if not self.stopping:
            self._say("no node is left")
            return 1
        return 1 if self.failed else 0

    def _say(self, text: str) -> None:
        self.output.line("dev", text)

    async def _start(self, number: int, node: NodePlan) -> Child:
        # In a session of its own: Ctrl-C is for us, and we tell the nodes.
        process = await trio.lowlevel.open_process(
            node.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        child = Child(number, node, process)
        self.children.append(child)
        if self.stopping:  # told to stop while starting
            process.terminate()
        return child

    async def _follow(self, child: Child) -> None:
        """Pass on what the node says until it exits, then report how it did."""
        stdout = child.process.stdout
        assert stdout is not None
        async with stdout:
            async for line in lines(stdout):
                self.output.line(child.node.name, line, child.number)
        status = await child.process.wait()
        # Told to stop before it had set up to be told so: no harm done.
        too_early = status == -signal.SIGTERM and not child.ready
        if self.stopping and (status == 0 or too_early):
            return
        self.failed = self.failed or self.stopping
        # Whom a signal kills has no last words.
        reason = "; the reason is in its last lines above" if status >= 0 else ""
        self._say(f"{child.node.name} {exit_words(status)}{reason}")
        if not self.stopping:
            self._say(f"start it again with: {shlex.join(child.node.command)}")

    # -- Stopping --

    async def _stop_on_signal(self, signals: AsyncIterator[int]) -> None:
        await anext(signals)
        self.stopping = True
        self._say("stopping; once more Ctrl-C kills")
        self._signal(signal.SIGTERM)
        with trio.move_on_after(STOP_TIMEOUT_S) as limit:
            await anext(signals)
        if limit.cancelled_caught:
            names = ", ".join(child.node.name for child in self.children if child.running)
            self._say(f"still not stopped after {STOP_TIMEOUT_S:.0f} s: {names}; killing")
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for child in self.children:
            if child.running:
                child.process.send_signal(number)

    # -- Starting --

    async def _wait_for_membership(self, child: Child) -> None:
        """Until the node is a member: it answers nobody before. The cluster numbers
        its nodes as they come, and node2 should be called 2 there as well."""
        while child.running and not self.stopping:
            if await answers_200(child.node.host, child.node.port, "/livez"):
                return
            await trio.sleep(POLL_S)

    async def _announce(self) -> None:
        """Wait until every node that runs is ready, then say what to try."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_of_waiting)
            while not self.stopping:
                waiting = [c for c in self.children if c.running and not c.ready]
                if not waiting:
                    break
                for child in waiting:
                    node = child.node
                    child.ready = await answers_200(node.host, node.port, "/readyz")
                await trio.sleep(POLL_S)
            nursery.cancel_scope.cancel()
        ready = [child.node for child in self.children if child.running and child.ready]
        if ready and not self.stopping:
            for line in what_to_try(ready, self.plan):
                self._say(line)

    async def _tell_of_waiting(self) -> None:
        await trio.sleep(PATIENCE_S)
        names = ", ".join(c.node.name for c in self.children if c.running and not c.ready)
        self._say(f"still waiting for {names} to be ready")


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    """The stream's lines, without their ends; one that is longer than LINE_BYTES_MAX in pieces."""
    held = b""
    async for chunk in stream:
        held += chunk
        *whole, held = held.split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
        if len(held) > LINE_BYTES_MAX:
            yield held.decode("utf-8", "replace")
            held = b""
    if held:
        yield held.decode("utf-8", "replace")


async def answers_200(host: str, port: int, path: str) -> bool:
    """Whether GET ``path`` answers 200."""
    with trio.move_on_after(POLL_TIMEOUT_S):
        try:
            async with await trio.open_tcp_stream(host, port) as stream:
                await stream.send_all(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                # The status line comes in one piece: it is the first thing written.
                return (await stream.receive_some(64)).startswith(
                    (b"HTTP/1.1 200", b"HTTP/1.0 200")
                )
        except (OSError, trio.BrokenResourceError):
            return False
    return False


def exit_words(status: int) -> str:
    """An exit status of subprocess in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def what_to_try(ready: Sequence[NodePlan], plan: Plan) -> list[str]:
    """The announcement, line by line. The shell is given all nodes, so that it still
    finds the cluster when whoever tries it out kills one of them."""
    first, last = ready[0], ready[-1]
    shell = f"{_shell_command()} --nodes {','.join(node.address for node in plan.nodes)}"
    addresses = ", ".join(f"http://{node.address}" for node in ready)
    count = len(ready) if len(ready) == len(plan.nodes) else f"{len(ready)} of {len(plan.nodes)}"
    return [
        f"ready: {count} {'node' if count == 1 else 'nodes'}, {addresses}; data in {plan.data_dir}",
        "try, in another terminal:",
        f'  curl -X PUT http://{first.address}/greeting -d "value=hello"',
        f"  curl http://{last.address}/greeting",
        f"  {shell} cluster status",
        f"  {shell}",
        "Ctrl-C stops the cluster; its data stays.",
    ]


def _shell_command() -> str:
    """How kritash is called from here: ``make run`` puts no .venv/bin on the PATH."""
    beside = Path(sys.executable).with_name("kritash")
    if shutil.which("kritash") or not beside.exists():
        return "kritash"
    shown = beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside
    return shlex.quote(str(shown))
