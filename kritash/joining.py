"""The command line that starts a node which joins a cluster. Pure."""

from __future__ import annotations

import ipaddress
import shlex
from collections import Counter
from collections.abc import Sequence

import attrs

from krita.address import AddressError, parse
from krita.limits import PORT_DEFAULT
from kritash.documents import Node

DATA_DIR = "/var/lib/krita"
JOIN_MAX = 5  # addresses to try; any one that lives is enough


@attrs.frozen
class Wishes:
    """What was said about the new node; "": nothing."""

    zone: str = ""
    port: str = ""
    data_dir: str = ""
    listen_ip: str = ""


@attrs.frozen
class JoinCommand:
    """``kritad`` and its flags. ``on_this_machine``: the cluster listens on loopback, so
    the new node can only be here."""

    words: list[str]
    on_this_machine: bool

    @property
    def line(self) -> str:
        """As a shell takes it."""
        return shlex.join(self.words)


def command_for(nodes: Sequence[Node], wishes: Wishes) -> JoinCommand:
    """How to start a node that joins these."""
    members = [node for node in nodes if not node.left and node.address]
    living = [node for node in members if not node.dead and node.reachable is not False]
    places = [(_host_and_port(node.address), node.address) for node in members]
    here = bool(places) and all(_is_loopback(host) for (host, _), _ in places)
    ports = Counter(port for (_, port), _ in places)
    number = max((node.node for node in nodes), default=0) + 1
    if here:
        port = str(max(ports) + 1)
        listen_ip, data_dir = "", f"node{number}"
    else:
        port = str(ports.most_common(1)[0][0]) if ports else str(PORT_DEFAULT)
        listen_ip, data_dir = "0.0.0.0", DATA_DIR
    port = wishes.port or port
    join = [node.address for node in (living or members)][:JOIN_MAX]
    flags = [
        ("listen_ip", wishes.listen_ip or listen_ip),
        ("port", "" if port == str(PORT_DEFAULT) and not wishes.port else port),
        ("data_dir", wishes.data_dir or data_dir),
        ("zone", wishes.zone),
        ("join_ip", ",".join(join)),
    ]
    words = ["kritad", *(f"--{name}={value}" for name, value in flags if value)]
    return JoinCommand(words, here)


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        place = parse(address)
    except AddressError:
        return address, PORT_DEFAULT
    return place.host, place.port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def remarks_on(command: JoinCommand, has_token: bool) -> list[str]:
    """What else the new node needs, for people."""
    where = "on this machine" if command.on_this_machine else "on the new node's machine"
    remarks = [f"run this {where}, with an empty data directory:"]
    if has_token:
        remarks.append("its environment needs the same KRITA_ADMIN_TOKEN as the other nodes")
    remarks.append(
        "settings that are to be the same on every node (value_bytes_max, dead_after_s, "
        "shard_bytes_max, leader_zones, leaders_follow_requests_per_s) go with it if yours are "
        "not the defaults; `kritad dev`, and so `make run`, has --dead_after_s=30"
    )
    return remarks
