"""An etcd cluster of three members on this machine, as Debian packages it: no setting
but names, ports and directories."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import define, field

from benchmarks.krita_cluster import VALUES, batches, key_of, make_values
from benchmarks.processes import (
    BenchmarkError,
    Process,
    free_ports,
    kill_all,
    stop_all,
    wait_until,
)

PACKAGES = ("etcd-server", "etcd-client", "wrk")
COMMANDS = ("etcd", "etcdctl", "wrk")
# etcd takes at most 128 operations in one transaction (--max-txn-ops).
BATCH = 128


def install_missing() -> None:
    """Debian's packages of etcd and wrk, unless they are there. Raises BenchmarkError."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if not missing:
        return
    line = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise BenchmarkError(f"not found: {', '.join(missing)}; as root of a Debian: {line}")
    print(f"not found: {', '.join(missing)}; running: {line}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run([*line.split(), "--yes"], env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        raise BenchmarkError(f"{line}: exit status {done.returncode}; try apt-get update first")
    print("note: the package may have started an etcd of its own (service etcd)", file=sys.stderr)


@define(eq=False)
class EtcdCluster:
    """``members[i]`` serves clients on ``ports[i]``. Started again, it has the data it had."""

    directory: Path
    ports: list[int]
    members: list[Process] = field(factory=list)

    @classmethod
    def create(cls, directory: Path, count: int = 3) -> EtcdCluster:
        """Nothing is started yet."""
        directory.mkdir(parents=True)
        ports = free_ports(2 * count)
        cluster, peers = cls(directory, ports[:count]), ports[count:]
        names = [f"etcd{number}" for number in range(1, count + 1)]
        everyone = ",".join(
            f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, peers, strict=True)
        )
        for name, port, peer in zip(names, cluster.ports, peers, strict=True):
            command = (
                "etcd",
                f"--name={name}",
                f"--data-dir={directory / name}",
                f"--listen-client-urls=http://127.0.0.1:{port}",
                f"--advertise-client-urls=http://127.0.0.1:{port}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster={everyone}",
            )
            cluster.members.append(Process(name, command, directory / f"{name}.log"))
        return cluster

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    def start(self) -> None:
        """Start every member; returns when all are healthy and have one leader."""
        for member in self.members:
            member.start()
        wait_until("etcd has a leader", self._has_leader, self.members)

    def stop(self) -> None:
        stop_all(self.members)

    def kill(self) -> None:
        kill_all(self.members)

    def leader_address(self) -> str:
        """Raises BenchmarkError when there is none."""
        for port in self.ports:
            status = ask(port, "/v3/maintenance/status", {})
            if status["leader"] == status["header"]["member_id"]:
                return f"127.0.0.1:{port}"
        raise BenchmarkError("etcd has lost its leader")

    def fill(self, keys: int, value_size: int) -> None:
        """Put every key of the load generators once. Raises BenchmarkError."""
        values = [encode(value) for value in make_values(value_size)]
        for numbers in batches(range(keys), BATCH):
            puts = [
                {"request_put": {"key": encode(key_of(n)), "value": values[n % VALUES]}}
                for n in numbers
            ]
            if not ask(self.ports[0], "/v3/kv/txn", {"success": puts}).get("succeeded"):
                raise BenchmarkError("etcd refused a transaction of puts")

    def cpu_s(self) -> float:
        return sum(member.cpu_s() for member in self.members)

    def _has_leader(self) -> bool:
        try:
            statuses = [ask(port, "/v3/maintenance/status", {}) for port in self.ports]
        except BenchmarkError:
            return False
        leaders = {status.get("leader", "0") for status in statuses}
        return len(leaders) == 1 and "0" not in leaders


def ask(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request to the JSON gateway. Raises BenchmarkError unless it answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchmarkError(f"etcd at port {port}: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise BenchmarkError(f"etcd at port {port}, {path}: {response.status} {text[:200]!r}")
    answer = json.loads(text)
    assert isinstance(answer, dict)
    return answer


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
