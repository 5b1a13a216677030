"""What people get wrong when they start a node, and what strangers send to one."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from krita import BadRequest, TooLarge, handshake
from krita.connection import Connection, State
from krita.handshake import derive_peer_key
from krita.hello import Identity
from krita.limits import FRAME_BYTES_MAX_PEER
from tests.system.cluster import Cluster
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.node import Node, free_ports, run_kritad, wait_until

pytestmark = pytest.mark.slow

EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG = 1, 2, 78


# --- starting -----------------------------------------------------------------------


def test_a_port_that_is_taken_is_named_and_the_data_is_not_touched(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_kritad("run", f"--port={port}", f"--data_dir={tmp_path / 'data'}")
    assert done.returncode == EXIT_FAILURE
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Address already in use; is another kritad running there?" in done.stderr
    assert "--port" in done.stderr
    assert "Errno" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flag", "suggestion"),
    [
        ("--prot=8080", "--port"),
        ("--raft-election=5", "--raft_election_ms"),
        ("--sards=4", "--shards"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_one_that_was_meant(
    tmp_path: Path, flag: str, suggestion: str
) -> None:
    done = run_kritad("run", flag, f"--data_dir={tmp_path / 'data'}")
    assert done.returncode == EXIT_USAGE
    assert flag.partition("=")[0] in done.stderr
    assert suggestion in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_unknown_setting_of_the_environment_is_answered_likewise(tmp_path: Path) -> None:
    done = run_kritad("run", f"--data_dir={tmp_path / 'data'}", extra={"KRITA_SHARD": "4"})
    assert done.returncode == EXIT_CONFIG
    assert "KRITA_SHARD" in done.stderr
    assert "KRITA_SHARDS" in done.stderr


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("shards: 4\nport: [8080\nzone: a\n", 3, ""),
        ("shards: 4\nprot: 8080\n", 2, "port"),
        ("shards: 4\n\nport: eight\n", 3, "port"),
    ],
)
def test_a_bad_configuration_file_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    path = tmp_path / "krita.yaml"
    path.write_text(text)
    done = run_kritad("run", f"--config={path}", f"--data_dir={tmp_path / 'data'}")
    assert done.returncode == EXIT_CONFIG
    assert f"{path}:{line}" in done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_in_use_is_refused_naming_the_process_that_uses_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(count=1)
    cluster.start()
    (node,) = cluster.nodes
    (port,) = free_ports(1)
    done = run_kritad("run", f"--port={port}", f"--data_dir={node.data_dir}")
    assert done.returncode == EXIT_CONFIG
    assert f"already used by pid {node.pid}" in done.stderr
    assert node.http("PUT", "/v1/kv/a", b"1")[0] == 201


def test_listening_beyond_loopback_is_refused_without_a_token(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = run_kritad(
        "run", "--listen_ip=0.0.0.0", f"--port={port}", f"--data_dir={tmp_path / 'data'}"
    )
    assert done.returncode == EXIT_CONFIG
    assert "KRITA_ADMIN_TOKEN" in done.stderr
    assert not (tmp_path / "data").exists()


def test_listening_beyond_loopback_is_refused_with_a_token_that_can_be_guessed(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    done = run_kritad(
        "run",
        "--listen_ip=0.0.0.0",
        f"--port={port}",
        f"--data_dir={tmp_path / 'data'}",
        extra={"KRITA_ADMIN_TOKEN": "sesame"},
    )
    assert done.returncode == EXIT_CONFIG
    assert "at least 16 characters" in done.stderr
    assert "openssl rand -hex 32" in done.stderr
    assert "sesame" not in done.stderr
    assert not (tmp_path / "data").exists()


# --- joining ------------------------------------------------------------------------


def joiner(folder: Path, address: str, token: str = "") -> Node:
    """A node that is told to join ``address``."""
    (port,) = free_ports(1)
    extra = {"KRITA_ADMIN_TOKEN": token} if token else {}
    return Node(9, port, folder, [f"--join_ip={address}"], extra)


def test_a_node_that_joins_nobody_says_whom_it_tries_and_stops_when_asked(tmp_path: Path) -> None:
    (dead,) = free_ports(1)
    node = joiner(tmp_path, f"127.0.0.1:{dead}")
    try:
        node.start()
        wait_until(
            "the address that does not answer is named",
            lambda: f"joining through 127.0.0.1:{dead}" in node.log_text(),
        )
        assert node.terminate(timeout_s=10) == 0
        assert "Traceback" not in node.log_text()
    finally:
        node.close()


def test_a_node_that_joins_something_else_says_so(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        node = joiner(tmp_path, address)
        try:
            node.start()
            stream, _ = listener.accept()
            with stream:
                stream.sendall(b"220 mail.example.org ESMTP\r\n")
                wait_until(
                    "the address that is no node is named",
                    lambda: f"joining through {address}" in node.log_text(),
                )
            assert node.terminate(timeout_s=10) == 0
            assert "Traceback" not in node.log_text()
        finally:
            node.close()


def test_a_cluster_of_a_release_with_other_logs_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "FEATURES", 0)  # as 0.2.0 answers
    identity = Identity(b"c" * 16, 1, b"s" * 16, 1, "127.0.0.1:1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        node = joiner(tmp_path, f"127.0.0.1:{listener.getsockname()[1]}")
        try:
            node.start()
            stream, _ = listener.accept()
            with stream:
                older = Connection.server()
                while older.state is not State.JUDGING:
                    older.receive_data(stream.recv(65536))
                nonce, key = b"n" * 16, derive_peer_key(None)
                stream.sendall(
                    older.accept(identity, FRAME_BYTES_MAX_PEER, peer_key=key, nonce=nonce)
                )
                assert node.wait_exit() == EXIT_CONFIG
            assert "install the same release on each" in node.log_text()
            assert "Traceback" not in node.log_text()
        finally:
            node.close()


@pytest.mark.parametrize("token", ["", "another-token-of-a-test"])
def test_a_node_with_a_wrong_token_is_not_let_in(
    shared: Cluster, tmp_path: Path, token: str
) -> None:
    node = joiner(tmp_path, shared.nodes[0].address, token)
    try:
        node.start()
        assert node.wait_exit() == EXIT_CONFIG
        assert "KRITA_ADMIN_TOKEN" in node.log_text()
        assert TOKEN not in node.log_text()
        assert "Traceback" not in node.log_text()
    finally:
        node.close()
    assert len(shared.wait_status()["nodes"]) == 3


# --- asking -------------------------------------------------------------------------


def test_keys_and_values_beyond_their_limits_are_refused_by_http_on_every_node(
    shared: Cluster,
) -> None:
    large = b"v" * ((1 << 20) + 1)
    for node in shared.nodes:
        status, body = node.http("PUT", "/v1/kv/large", large)
        assert status == 413
        assert json.loads(body)["outcome"] == "not applied"
        assert node.http("PUT", "/large", b"value=" + large)[0] == 413
        assert node.http("PUT", "/v1/kv/" + "k" * 4097, b"v")[0] == 413
        assert node.http("GET", "/v1/kv/" + "k" * 4097)[0] == 413
        assert node.http("PUT", "/v1/kv/", b"v")[0] == 400
        assert node.http("PUT", "/key", b"key=&value=v")[0] == 400
        assert node.http("GET", "/v1/kv/large")[0] == 404
        assert node.http("PUT", "/v1/kv/" + "k" * 4096, large[:-1])[0] in (200, 201)


def test_keys_and_values_beyond_their_limits_are_refused_by_the_client(shared: Cluster) -> None:
    with shared.client() as db:
        for key in ("", b""):
            with pytest.raises(BadRequest, match="empty"):
                db.put(key, b"v")
            with pytest.raises(BadRequest, match="empty"):
                db.get(key)
        with pytest.raises(TooLarge, match="4096"):
            db.put("k" * 4097, b"v")
        with pytest.raises(TooLarge, match="1048576"):  # the cluster's own, lower limit
            db.put("large", b"v" * ((1 << 20) + 1))
        assert db.get("large") is None
        db.put("k" * 4096, b"v" * (1 << 20))
        found = db.get("k" * 4096)
        assert found is not None
        assert len(found.data) == 1 << 20


GREETING = b"\x00KRITA\x01\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GREETING + b"\xff\xff\xff\xff", id="frame of 2**32-1 bytes"),
        pytest.param(GREETING + bytes(4), id="frame of 0 bytes"),
        pytest.param(GREETING + b"\0\0\1\0" + b"x", id="truncated frame"),
        pytest.param(GREETING + b"\0\0\0\1\xff", id="malformed CBOR"),
        pytest.param(GREETING + b"\0\0\0\x40" + b"\x81" * 64, id="deep CBOR"),
        pytest.param(GREETING + b"\0\0\0\5\xa2\1\1\1\2", id="duplicate keys"),
        pytest.param(GREETING + b"\0\0\0\3\xd9\xd9\xf7", id="tagged CBOR"),
        pytest.param(b"\x00KRITO\x01\n", id="another magic"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", id="bare LF"),
        pytest.param(b"GET /a HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", id="huge header"),
        pytest.param(
            b"PUT /a HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="both lengths",
        ),
        pytest.param(os.urandom(3000), id="noise"),
    ],
)
def test_a_node_outlives_whatever_a_stranger_sends(shared: Cluster, data: bytes) -> None:
    node = shared.nodes[1]
    pid = node.pid
    with socket.create_connection(("127.0.0.1", node.port), 10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass  # it hung up before it had read everything
    assert node.http("PUT", "/v1/kv/alive", b"1")[0] in (200, 201)
    assert (node.up, node.pid) == (True, pid)
    shared.check_logs()
