"""What ``kritad dev`` will start: decided in full before anything is.

Every mistake in the flags shows here, once, instead of in the logs of each node.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from krita.address import Address
from kritad.config import DEFAULT, Config, ConfigError, load
from kritad.settings import BY_NAME
from kritad.sources import Problem, read_flags, suggestion

NODES_DEFAULT = 3
NODES_MAX = 9

# Whoever tries out what happens when a node dies does not wait five minutes for it.
DEAD_AFTER_S = 30


@frozen
class NodePlan:
    """One process to start."""

    name: str
    host: str  # where this machine reaches it
    listen_ip: str
    port: int
    data_dir: Path
    command: tuple[str, ...]

    @property
    def address(self) -> str:
        return str(Address(self.host, self.port))


@frozen
class Plan:
    """What ``kritad dev`` will start."""

    nodes: tuple[NodePlan, ...]
    data_dir: Path
    fresh: bool = False  # none of them has data: a cluster begins


def make_plan(arguments: Sequence[str], environment: Mapping[str, str]) -> Plan:
    """The nodes that these flags (``--nodes`` and any of kritad's) ask for. Raises ConfigError."""
    count, flags = _take_nodes(arguments)
    base = load(flags, environment)
    _refuse_own_settings(base)
    if base.port + count - 1 > BY_NAME["port"].maximum:
        raise ConfigError([Problem(f"{count} nodes from port {base.port} on are too many ports")])
    host = _local_host(base.listen_ip)
    dirs = [base.data_dir / f"node{number}" for number in range(1, count + 1)]
    # A node that has data knows its cluster; those without join it. A fresh cluster
    # is started by node1. (Were node1 alone empty, it must not start a second one.)
    seed = next((i for i, path in enumerate(dirs) if _has_data(path)), None)
    shared = [
        f"--{given.name}={given.text}"
        for given in read_flags(flags).given
        if given.name not in ("port", "data_dir")
    ]
    if base.origins["dead_after_s"] == DEFAULT:
        shared.append(f"--dead_after_s={DEAD_AFTER_S}")
    nodes = []
    for i, path in enumerate(dirs):
        own = [f"--port={base.port + i}", f"--data_dir={path}"]
        if seed is None and i == 0:
            own.append("--start_cluster")
        elif i != (seed or 0):
            own.append(f"--join_ip={Address(host, base.port + (seed or 0))}")
        command = (sys.executable, "-m", "kritad", "run", *shared, *own)
        nodes.append(NodePlan(f"node{i + 1}", host, base.listen_ip, base.port + i, path, command))
    return Plan(tuple(nodes), base.data_dir, fresh=seed is None)


def _take_nodes(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """``--nodes`` out of the arguments, and the rest."""
    count, rest, waiting = str(NODES_DEFAULT), list[str](), list(arguments)
    while waiting:
        argument = waiting.pop(0)
        word, equals, text = argument.partition("=")
        if word == "--nodes":
            count = text if equals else (waiting.pop(0) if waiting else "")
        elif word[2:].replace("-", "_") not in BY_NAME and suggestion(word, ["--nodes"]):
            raise ConfigError([Problem(f"unknown flag {word}; did you mean --nodes?", usage=True)])
        else:
            rest.append(argument)
    if not re.fullmatch("[0-9]+", count) or not 1 <= int(count) <= NODES_MAX:
        message = f'nodes is "{count}" (flag --nodes): must be a whole number from 1 to {NODES_MAX}'
        raise ConfigError([Problem(message)])
    return int(count), rest


def _refuse_own_settings(base: Config) -> None:
    """Some settings differ from node to node, so one value for all cannot be right."""
    problems = [
        Problem(f"kritad dev sets {name} for each node itself; remove it ({base.origins[name]})")
        for name in ("join_ip", "start_cluster", "advertise")
        if base.origins[name] != DEFAULT
    ]
    if problems:
        raise ConfigError(problems)


def _local_host(listen_ip: str) -> str:
    address = ipaddress.ip_address(listen_ip)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return listen_ip


def _has_data(path: Path) -> bool:
    return (path / "raft.db").exists()


def find_taken(plan: Plan) -> list[str]:
    """One line for each port that is not free."""
    taken = []
    for node in plan.nodes:
        family = socket.AF_INET6 if ":" in node.listen_ip else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((node.listen_ip, node.port))
                probe.listen(1)
            except OSError as error:
                where = Address(node.listen_ip, node.port)
                taken.append(f"{node.name} cannot listen on {where}: {error.strerror}")
    return taken
