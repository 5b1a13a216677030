"""The benchmarks read their tools' output and the kernel's figures correctly. No test
here is timed, and none starts a database."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from benchmarks import compare_etcd, failover, footprint, machine, regions
from benchmarks.etcd_cluster import EtcdCluster, encode
from benchmarks.krita_cluster import KritaCluster, batches, is_settled, key_of, led_shards
from benchmarks.processes import (
    BLOCK_BYTES,
    ROOT,
    BenchmarkError,
    Memory,
    Process,
    parse_count,
    parse_cpu_ticks,
    parse_kib_line,
    plain_environment,
    wait_until,
)
from benchmarks.samples import Load, Sample, Series, parse_kritash, parse_wrk, run_wrk

WRK = """\
Running 2s test @ http://127.0.0.1:4001/
  1 threads and 64 connections
  2000 requests in 2.00s, 1.00MB read
Requests/sec:   1000.00
{"requests": 2000, "duration_us": 2000000, "p50_us": 14500, "p99_us": 61000, "max_us": 90000, \
"errors": {"connect": 0, "read": 1, "write": 0, "status": 500, "timeout": 2}}
"""


# -- Load generators


def test_a_response_with_an_error_status_is_no_success_of_wrk() -> None:
    sample = parse_wrk(WRK)
    assert sample == Sample(
        throughput_per_s=750.0, p50_ms=14.5, p99_ms=61.0, errors=503, seconds=2.0
    )


def test_wrk_that_measured_nothing_is_an_error_with_what_it_said() -> None:
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_the_document_of_kritash_bench_is_read() -> None:
    document = {
        "seconds": 3.008,
        "throughput_per_s": 8038.0,
        "latency_ms": {"put": {"count": 24175, "p50": 53.669, "p95": 129.652, "p99": 172.302}},
        "errors": {"unknown": 2, "timeout": 1},
    }
    sample = parse_kritash(json.dumps(document), "put")
    assert sample == Sample(
        throughput_per_s=8038.0, p50_ms=53.669, p99_ms=172.302, errors=3, seconds=3.008
    )


@pytest.mark.parametrize("output", ["", "no json", '{"throughput_per_s": 0, "latency_ms": {}}'])
def test_kritash_bench_that_measured_nothing_is_an_error(output: str) -> None:
    with pytest.raises(BenchmarkError, match="measured nothing"):
        parse_kritash(output, "put")


class Recorder(BaseHTTPRequestHandler):
    """Answers every request with 200 and keeps what was asked, by port."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[dict[int, list[tuple[str, bytes]]]] = {}

    def handle(self) -> None:
        # When its time is up, wrk hangs up on whatever is still in flight.
        with suppress(ConnectionError):
            super().handle()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        port = self.connection.getsockname()[1]
        self.seen.setdefault(port, []).append((self.requestline, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = answer

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def servers() -> Iterator[list[str]]:
    """The addresses of two recorders."""
    Recorder.seen.clear()
    started = [ThreadingHTTPServer(("127.0.0.1", 0), Recorder) for _ in range(2)]
    for server in started:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield [f"127.0.0.1:{server.server_port}" for server in started]
    for server in started:
        server.shutdown()
        server.server_close()


def check_key(script: str, request: str, body: bytes) -> bytes:
    """The key that a request of that script is about; fails unless it is well formed."""
    if script.startswith("krita"):
        method = "PUT" if script.endswith("put.lua") else "GET"
        found = re.fullmatch(rf"{method} /v1/kv/(\S+) HTTP/1\.1", request)
        assert found, request
        assert len(body) == (100 if method == "PUT" else 0)
        return found[1].encode()
    document = json.loads(body)
    assert request.startswith("POST /v3/kv/")
    if script.endswith("put.lua"):
        assert len(base64.b64decode(document.pop("value"), validate=True)) == 100
    key = base64.b64decode(document.pop("key"), validate=True)
    assert document == {}
    return key


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "benchmarks").glob("*_*.lua")))
def test_a_script_for_wrk_asks_every_address_for_the_keys_that_were_filled(
    script: str, servers: list[str]
) -> None:
    sample = run_wrk(ROOT / "benchmarks" / script, servers, Load(1, 4, 10, 100, 1))
    assert sample.errors == 0
    assert len(Recorder.seen) == 2, "all connections went to one address"
    seen = [one for requests in Recorder.seen.values() for one in requests]
    assert sample.throughput_per_s > 0
    # 10 keys, asked for hundreds of times: one that never comes up is not drawn.
    assert {check_key(script, *one) for one in seen} == {key_of(n) for n in range(10)}


# -- Comparing


def series(*throughputs: float) -> Series:
    return Series(
        tuple(Sample(t, 10.0 * n, 20.0 * n, n, 1.0) for n, t in enumerate(throughputs, 1))
    )


def compared() -> compare_etcd.Result:
    etcd = dict.fromkeys((w.name for w in compare_etcd.ETCD), series(100.0))
    etcd["HTTP PUT spread"] = series(190.0, 210.0, 200.0)
    return compare_etcd.Result(
        etcd, dict.fromkeys((w.name for w in compare_etcd.KRITA), series(300.0))
    )


def test_a_series_is_told_by_its_medians_and_its_extent() -> None:
    document = series(30.0, 10.0, 20.0).to_document()
    assert {name: document[name] for name in document if name != "samples"} == {
        "throughput_per_s": 20.0, "throughput_per_s_min": 10.0, "throughput_per_s_max": 30.0,
        "p50_ms": 20.0, "p99_ms": 40.0, "server_cpus": 0.0, "server_cpu_us_per_request": 0.0,
        "errors": 6,
    }  # fmt: skip
    assert len(document["samples"]) == 3


def test_the_ratio_is_to_the_better_of_the_two_etcd_figures() -> None:
    result = compared()
    assert result.best_of_etcd("put")[0] == "HTTP PUT spread"
    ratios = {w.operation: result.ratio(w) for w in compare_etcd.KRITA}
    assert ratios == {"put": 1.5, "get": 3.0}
    assert result.to_document()["ratios"]["kritash bench put"] == 1.5


def test_the_table_has_a_row_for_each_workload_and_says_what_the_ratio_is_to() -> None:
    lines = compared().to_table().splitlines()
    assert len(lines) == 3 + len(compare_etcd.ETCD) + len(compare_etcd.KRITA)
    row = next(line for line in lines if line.startswith("etcd   HTTP PUT spread"))
    assert row.split() == [
        "etcd", "HTTP", "PUT", "spread", "200", "190", "-", "210", "20.0", "40.0", "0.00", "0", "6",
    ]  # fmt: skip
    assert next(line for line in lines if "kritash" in line).endswith(" 1.50")
    assert "HTTP PUT spread" in lines[-2]


def test_every_workload_of_wrk_has_its_script() -> None:
    for workload in (*compare_etcd.ETCD, *compare_etcd.KRITA):
        assert not workload.script or (ROOT / "benchmarks" / workload.script).is_file()


def test_processor_time_is_told_per_second_and_per_request() -> None:
    busy = Sample(5000.0, 1.0, 2.0, 0, seconds=4.0, server_cpu_s=6.0)
    assert busy.server_cpus == 1.5
    assert busy.server_cpu_us == 300.0


# -- Clusters


def status(leaders: tuple[int, ...], *, roles: str = "lvv") -> dict[str, object]:
    """Three nodes leading so many shards each; one shard with these replicas."""
    role = {"l": "leader", "v": "voter", "n": "learner"}
    return {
        "health": "healthy",
        "replication_factor": 3,
        "nodes": [{"node": n, "reachable": True, "leaders": x} for n, x in enumerate(leaders, 1)],
        "shards": [
            {"shard": 0, "leader": 1, "replicas": [{"role": role[r]} for r in "lvv"]},
            {"shard": 5, "leader": 1, "replicas": [{"role": role[r]} for r in roles]},
        ],
    }


def test_a_cluster_has_settled_when_all_is_there_and_leaders_are_spread() -> None:
    assert is_settled(status((7, 5, 5)), 3)
    assert not is_settled(status((8, 5, 4)), 3), "one node leads too many"
    assert not is_settled(status((9, 8)), 3), "a node is missing"
    assert not is_settled(status((7, 5, 5), roles="lvn"), 3), "a copy is still being made"
    assert not is_settled(status((7, 5, 5), roles="lv"), 3), "a shard has two copies"
    assert not is_settled(status((7, 5, 5)) | {"health": "degraded"}, 3)


def test_the_node_to_kill_is_the_one_that_leads_most_data_shards() -> None:
    document = status((7, 5, 5))
    assert led_shards(document, 1) == [5], "the meta shard is none of the clients'"
    assert failover.busiest(document) == 1


def test_batches_cover_every_number_once() -> None:
    assert [list(batch) for batch in batches(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_no_setting_but_names_ports_and_directories_is_given(tmp_path: Path) -> None:
    krita = KritaCluster.create(tmp_path / "krita")
    etcd = EtcdCluster.create(tmp_path / "etcd")
    assert {a.split("=")[0] for n in krita.nodes for a in n.command if a.startswith("--")} == {
        "--port", "--data_dir", "--start_cluster", "--join_ip",
    }  # fmt: skip
    assert {a.split("=")[0] for m in etcd.members for a in m.command if a.startswith("--")} == {
        "--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls",
        "--listen-client-urls", "--advertise-client-urls", "--listen-peer-urls",
    }  # fmt: skip
    assert len({*krita.ports, *etcd.ports}) == 6


def test_etcd_is_given_base64() -> None:
    assert encode(b"bench:00000007") == "YmVuY2g6MDAwMDAwMDc="


# -- Processes and the kernel's figures


def sleeper(tmp_path: Path, code: str = "import signal; print('up', flush=True); signal.pause()") \
        -> Process:  # fmt: skip
    process = Process("sleeper", (sys.executable, "-c", code), tmp_path / "sleeper.log")
    process.start()
    return process


def test_processor_time_is_found_behind_a_name_with_brackets() -> None:
    stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 3 0 5 6 7"
    assert parse_cpu_ticks(stat) == 42


def test_figures_of_the_kernel_are_found_by_name_and_in_bytes() -> None:
    assert (
        parse_count("wchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n", "write_bytes")
        == 4096
    )
    assert parse_kib_line("Rss:                1024 kB\nPss:  10 kB\n", "Rss") == 1 << 20
    with pytest.raises(BenchmarkError, match="write_bytes"):
        parse_count("rchar: 1\n", "write_bytes")


def test_a_process_is_measured_while_it_runs_and_gone_when_killed(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    try:
        wait_until("it is up", lambda: process.last_words() == "  up", [process], poll_s=0.01)
        assert process.running
        assert process.memory().rss_bytes > 1 << 20
        assert process.cpu_s() >= 0
        assert process.written_bytes() >= 0
    finally:
        process.kill()
    assert not process.running
    process.kill()  # there is nobody left, and that is no error


def test_what_a_process_wrote_is_known_after_its_end(tmp_path: Path) -> None:
    code = (
        "import os; f = open('x', 'wb'); f.write(bytes(1 << 20)); f.flush(); os.fsync(f.fileno())"
    )
    process = sleeper(tmp_path, code)
    assert process.wait(30.0)
    counted = process.written_at_end
    # A file system without a disk, such as tmpfs, writes nothing.
    assert counted in (0, *range(1 << 20, 2 << 20, BLOCK_BYTES))


def test_waiting_for_a_server_that_has_died_shows_its_last_words(tmp_path: Path) -> None:
    process = sleeper(tmp_path, "raise SystemExit('the port is taken')")
    with pytest.raises(BenchmarkError, match="the port is taken"):
        wait_until("never", lambda: False, [process], timeout_s=30.0, poll_s=0.01)


def test_a_signal_reaches_only_what_runs(tmp_path: Path) -> None:
    process = sleeper(tmp_path, "pass")
    assert process.wait(30.0)
    process.signal(signal.SIGTERM)
    assert not process.running


def test_settings_in_the_environment_do_not_reach_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("KRITA_SHARDS", "LISTEN_IP", "ETCD_QUOTA_BACKEND_BYTES"):
        monkeypatch.setenv(name, "4")
    environment = plain_environment()
    assert not {"KRITA_SHARDS", "LISTEN_IP", "ETCD_QUOTA_BACKEND_BYTES"} & environment.keys()
    assert "PATH" in environment


# -- Reports


def test_failover_is_told_in_election_timeouts() -> None:
    found = tuple(failover.Failover(1, 5, first, 2 * first) for first in (1500.0, 1200.0, 1800.0))
    result = failover.Result(found, 1000)
    assert result.to_document()["median_in_election_timeouts"] == 1.5
    assert "median 1,500 ms = 1.50 election timeouts  (1,200 - 1,800)" in result.to_text()


def test_what_distance_costs_is_told_for_each_region() -> None:
    far = regions.Latencies("us", 164.1, 162.7, 0.2)
    result = regions.Result(40.0, 100, (regions.Latencies("eu", 83.25, 81.9, 0.13), far))
    text = result.to_text()
    assert "40 ms each way between any two of 2 regions, leaders in eu; medians of 100" in text
    assert "us        164.1 ms    162.7 ms      0.2 ms" in text
    assert result.to_document()["regions"][1]["stale_get_ms"] == 0.2


def test_the_footprint_names_every_figure() -> None:
    written = footprint.Written(footprint.Puts(2000, 256, 1), (20.0, 22.0, 24.0))
    result = footprint.Result(
        10.0,
        (Memory(60 << 20, 50 << 20),),
        footprint.Starts((0.5, 0.7, 0.6), (0.4,), (0.5,)),
        (written,),
    )
    text = result.to_text()
    assert "node 1: 60.0 MiB resident (PSS 50.0)" in text
    assert "empty         0.60 s  (0.50 - 0.70)" in text
    assert "22.0  (20.0 - 24.0)" in text
    (row,) = result.to_document()["written"]
    assert row == {
        "count": 2000, "value_bytes": 256, "in_flight": 1, "bytes_per_byte": [20.0, 22.0, 24.0],
    }  # fmt: skip


def test_the_machine_is_described_and_left_as_it_was(tmp_path: Path) -> None:
    facts = machine.describe(tmp_path, [("no-such-command-anywhere", "--version")])
    assert {"processor", "memory", "system", "file system", "fdatasync", "krita"} <= facts.keys()
    assert list(tmp_path.iterdir()) == []
