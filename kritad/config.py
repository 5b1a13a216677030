"""Config: every effective setting of one node, checked, and where each came from.

Precedence: flag > environment variable > YAML file > default. ``load`` either
returns a Config that kritad can start with or raises ConfigError with every
problem it found. What is checked here needs no more than the settings
themselves; whether the port is free or the directory ours is found out by
those who open them.

The guard (design 1.6): a node that listens beyond loopback needs an admin
token, else anybody on the network could administer it, and one that is too long
to be guessed, for whoever reaches the port can try.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen

from krita.address import Address, parse
from kritad.settings import (
    BY_NAME,
    SETTINGS,
    TOKEN_VARIABLE,
    BadValue,
    Kind,
    Value,
)
from kritad.sources import Given, Problem, read_environment, read_file, read_flags

# Demanded beyond loopback. 16 characters drawn at random, even of hexadecimal
# digits only, are 64 bits: nobody tries so many over a network.
ADMIN_TOKEN_BYTES_MIN = 16
ADMIN_TOKEN_BYTES_MAX = 512

DEFAULT = "default"


class ConfigError(Exception):
    """kritad cannot start with these settings; ``problems`` says why, all of it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = tuple(problems)

    @property
    def usage(self) -> bool:
        """Whether the command line itself makes no sense."""
        return any(problem.usage for problem in self.problems)


@frozen
class Config:
    """The settings by name (meaning and units: ``kritad/settings.py``), the admin
    token, and the origin of each."""

    listen_ip: str
    port: int
    advertise: str
    connections_max: int
    watches_max: int
    bulk_max: int
    scan_rows_max: int
    txn_operations_max: int
    request_timeout_ms: int
    join_ip: tuple[str, ...]
    start_cluster: bool
    shards: int
    replication_factor: int
    zone: str
    leader_zones: str
    leaders_follow_requests_per_s: int
    dead_after_s: int
    shard_bytes_max: int
    move_bytes_per_s: int
    raft_tick_ms: int
    raft_heartbeat_ms: int
    raft_election_ms: int
    data_dir: Path
    cache_bytes: int
    memtable_bytes: int
    value_bytes_max: int
    log_tail_bytes: int
    disk_reserve_bytes: int
    scrub_pass_h: int
    admin_token_file: Path | None
    log_level: str
    log_format: str
    log_file: Path | None
    config: Path | None
    # What follows is not in the table.
    admin_token: bytes | None = field(default=None, repr=False)
    origins: Mapping[str, str] = field(factory=dict, repr=False, eq=False)
    # Not wrong enough to refuse; the daemon logs them.
    warnings: tuple[str, ...] = field(default=(), repr=False, eq=False)

    @classmethod
    def make(cls, *, admin_token: bytes | None = None, **settings: Any) -> Config:
        """A Config of these values and otherwise defaults, unchecked but for the names."""
        unknown = settings.keys() - BY_NAME.keys()
        assert not unknown, f"no such settings: {unknown}"
        values: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
        return cls(**(values | settings), admin_token=admin_token)

    @property
    def listens_beyond_loopback(self) -> bool:
        return not ipaddress.ip_address(self.listen_ip).is_loopback

    @property
    def leader_zones_listed(self) -> tuple[str, ...]:
        """The zones that ``leader_zones`` names, the preferred one first."""
        named = (zone.strip() for zone in self.leader_zones.split(","))
        return tuple(zone for zone in named if zone)

    @property
    def address(self) -> str:
        """host:port, where the others reach this node.

        Without ``advertise`` it is listen_ip; when that is all interfaces, the
        address of the one which leads to the node to join, or to the world
        (asks the kernel's routing table; nothing is sent). Raises ConfigError
        when there is no such interface.
        """
        if self.advertise:
            named = re.search(r":[0-9]+$", self.advertise)
            address = parse(self.advertise)
            return str(address if named else Address(address.host, self.port))
        if not ipaddress.ip_address(self.listen_ip).is_unspecified:
            return str(Address(self.listen_ip, self.port))
        return str(Address(self._outbound_ip(), self.port))

    def _outbound_ip(self) -> str:
        # RFC 5737 sets 192.0.2.0/24 aside for documentation: the default route leads there.
        towards = self.join_addresses[0] if self.join_ip else Address("192.0.2.1")
        try:
            found = socket.getaddrinfo(towards.host, towards.port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, sockaddr = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(sockaddr)
                return str(probe.getsockname()[0])
        except OSError as error:
            raise ConfigError(
                [
                    Problem(
                        f"listen_ip is {self.listen_ip}, and which of this machine's addresses the "
                        f"other nodes can reach is not clear ({error}); set advertise"
                    )
                ]
            ) from None

    @property
    def join_addresses(self) -> tuple[Address, ...]:
        """join_ip, the default port filled in."""
        return tuple(parse(text) for text in self.join_ip)


@define
class _Gathering:
    """A Config on its way: values by name, the strongest source so far."""

    values: dict[str, Value] = field(factory=dict)
    origins: dict[str, str] = field(factory=dict)
    problems: list[Problem] = field(factory=list)
    warnings: list[str] = field(factory=list)

    def add_layer(self, given: Iterable[Given]) -> None:
        """Layers come from the strongest to the weakest: what is set stays. A bad
        value is a problem even where a stronger source hides it."""
        layer: dict[str, Value] = {}
        for item in given:
            setting = BY_NAME[item.name]
            try:
                value = setting.parse(item.text)
            except BadValue as error:
                self.problems.append(
                    Problem(f"{item.name} is {_quoted(item.text)} ({item.origin}): {error}")
                )
                continue
            before = layer.get(item.name)
            if setting.kind is Kind.ADDRESSES and isinstance(before, tuple):
                assert isinstance(value, tuple)
                value = before + value
            layer[item.name] = value
            if item.name not in self.values:
                self.origins[item.name] = item.origin
        self.values = layer | self.values

    def wrong(self, message: str) -> None:
        self.problems.append(Problem(message))


def _quoted(text: str) -> str:
    """A value as an error shows it: one line, and not more of it than helps."""
    shown = text if len(text) <= 80 else text[:77] + "…"
    return '"' + shown.encode("unicode_escape").decode("ascii") + '"'


def load(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    defaults: Mapping[str, Value] | None = None,
) -> Config:
    """The Config that these flags and variables, and the file they may name, amount to.

    ``defaults`` replace those of the table. Reads the configuration file and the
    token file. Raises ConfigError with everything that is wrong.
    """
    gathering = _Gathering()
    flags, variables = read_flags(arguments), read_environment(environment)
    for reading in (flags, variables):
        gathering.problems.extend(reading.problems)
        gathering.add_layer(reading.given)
    path = gathering.values.get("config")
    if isinstance(path, Path):
        from_file = read_file(path, gathering.origins["config"])
        gathering.problems.extend(from_file.problems)
        gathering.add_layer(from_file.given)
    table = {setting.name: setting.default for setting in SETTINGS} | dict(defaults or {})
    values: dict[str, Any] = table | gathering.values
    origins = dict.fromkeys(table, DEFAULT) | gathering.origins
    token = _find_token(gathering, variables.admin_token, values["admin_token_file"])
    config = Config(**values, admin_token=token, origins=origins)
    # A value that was bad stands at its default here, and would only seem to clash.
    if not gathering.problems:
        _check_relations(gathering, config)
        _check_guard(gathering, config)
    if gathering.problems:
        raise ConfigError(gathering.problems)
    return attrs.evolve(config, warnings=tuple(gathering.warnings))


def _find_token(gathering: _Gathering, variable: str | None, path: Path | None) -> bytes | None:
    """The admin token from the environment or the file. An empty variable counts as
    unset: that is what templates make of a token that was not given to them."""
    from_file = _read_token_file(gathering, path) if path is not None else None
    if not variable:
        return from_file
    token = _checked_token(gathering, variable.encode("utf-8", "surrogateescape"), TOKEN_VARIABLE)
    if token is not None and from_file is not None and token != from_file:
        gathering.wrong(f"{TOKEN_VARIABLE} and admin_token_file ({path}) differ; keep one")
    return token


def _read_token_file(gathering: _Gathering, path: Path) -> bytes | None:
    where = f"admin_token_file is {path} ({gathering.origins['admin_token_file']})"
    try:
        with path.open("rb") as file:
            data = file.read(ADMIN_TOKEN_BYTES_MAX + 3)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        gathering.wrong(f"{where}: cannot read it: {error.strerror}")
        return None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        # Kubernetes mounts its secrets so by default, hence no refusal.
        gathering.warnings.append(f"{where}: other users can read it; chmod 600 it")
    return _checked_token(gathering, data.removesuffix(b"\n").removesuffix(b"\r"), where)


def _checked_token(gathering: _Gathering, token: bytes, where: str) -> bytes | None:
    """Visible ASCII only, so that it can stand in an HTTP header as it is. The message
    does not show the token."""
    if not token:
        gathering.wrong(f"{where}: the admin token is empty")
    elif len(token) > ADMIN_TOKEN_BYTES_MAX:
        gathering.wrong(f"{where}: the admin token has over {ADMIN_TOKEN_BYTES_MAX} bytes")
    elif not all(0x21 <= byte <= 0x7E for byte in token):
        gathering.wrong(
            f"{where}: the admin token may have visible ASCII characters only, and no spaces"
        )
    else:
        return token
    return None


def _check_relations(gathering: _Gathering, config: Config) -> None:
    """What single settings cannot say. Each message names both sides and their origins."""

    def shown(name: str) -> str:
        value = getattr(config, name)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        return f"{name} ({text}, {config.origins[name]})"

    if config.raft_tick_ms > config.raft_heartbeat_ms:
        gathering.wrong(
            f"{shown('raft_tick_ms')} must be at most {shown('raft_heartbeat_ms')}: "
            "heartbeats are sent on ticks"
        )
    if config.raft_heartbeat_ms * 2 >= config.raft_election_ms:
        gathering.wrong(
            f"{shown('raft_heartbeat_ms')} must be less than half of {shown('raft_election_ms')}: "
            "else one heartbeat that is late costs the leader its place"
        )
    if config.start_cluster and config.join_ip:
        gathering.wrong(
            f"start_cluster ({config.origins['start_cluster']}) starts a new cluster, and "
            f"{shown('join_ip')} joins one: give only one of them"
        )
    if config.advertise and _is_unspecified(parse(config.advertise).host):
        gathering.wrong(f"{shown('advertise')} is no address that another node could connect to")


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False  # a name


_GOOD_TOKEN = (
    "openssl rand -hex 32, or python3 -c 'import secrets; print(secrets.token_hex(32))', "
    "makes a good one"
)


def _check_guard(gathering: _Gathering, config: Config) -> None:
    """The token that there is must be good enough for those who can reach the port."""
    token = config.admin_token
    short = token is not None and len(token) < ADMIN_TOKEN_BYTES_MIN
    exposed = (
        f"listen_ip is {config.listen_ip} ({config.origins['listen_ip']}), which others can reach"
    )
    if config.listens_beyond_loopback and token is None:
        gathering.wrong(
            f"{exposed}, and there is no admin token to keep them out; set {TOKEN_VARIABLE} or "
            f"admin_token_file, the same on every node ({_GOOD_TOKEN})"
        )
    elif config.listens_beyond_loopback and short:
        gathering.wrong(
            f"{exposed}, and the admin token is short enough to be guessed: it must have at "
            f"least {ADMIN_TOKEN_BYTES_MIN} characters ({_GOOD_TOKEN})"
        )
    elif short:
        gathering.warnings.append(
            f"the admin token has fewer than {ADMIN_TOKEN_BYTES_MIN} characters, which is "
            f"accepted on loopback only ({_GOOD_TOKEN})"
        )
