"""``key import`` and ``key export``: what is put, what is counted, and what is said when
it cannot be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krita.client import Client
from krita.errors import Unavailable
from krita.items import Item
from kritash.importing import BATCH_RECORDS_MAX
from kritash.nouns import transfer
from kritash.transfer.formats import FORMATS
from tests.kritash.conftest import Shell
from tests.kritash.server import Cluster
from tests.kritash.shell import Result, kritash, kritash_here


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running


def here(cluster: Cluster, *words: str) -> Result:
    return kritash_here("--nodes", cluster.addresses, *words)


def file_of(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def lines(count: int) -> str:
    return "".join(f'{{"key": "k{number}", "value": "v{number}"}}\n' for number in range(count))


def values(cluster: Cluster) -> dict[bytes, bytes]:
    return {key: row[0] for key, row in cluster.rows.items()}


def test_the_choices_of_the_commands_are_the_formats_that_there_are() -> None:
    assert tuple(FORMATS) == transfer._READABLE
    writable = tuple(name for name, format in FORMATS.items() if format.write is not None)
    assert writable == transfer._WRITABLE


# -- Import --------------------------------------------------------------------

FILES = {
    "a.jsonl": '{"key": "a", "value": "1"}\n{"key": {"base64": "/w=="}, "value": "2"}\n',
    "b.csv": "key,value,key_base64\r\na,1,\r\n,2,/w==\r\n",
    "c.consul": '[{"key": "a", "flags": 0, "value": "MQ=="}]',
    "d.etcd": '{"kvs": [{"key": "YQ==", "value": "MQ=="}, {"key": "/w==", "value": "Mg=="}]}',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_format_is_put(cluster: Cluster, tmp_path: Path, name: str) -> None:
    path = file_of(tmp_path, name, FILES[name])
    suffix = name.partition(".")[2]
    format = () if suffix in ("jsonl", "csv") else ("--format", suffix)
    done = here(cluster, "key", "import", path, *format)
    assert done.code == 0
    assert ("nobody can tell whether it is whole" in done.err) == (suffix == "jsonl")
    expected = {b"a": b"1", b"\xff": b"2"}
    assert values(cluster) == ({b"a": b"1"} if suffix == "consul" else expected)
    assert done.out.startswith(b"ok\t")


def test_the_summary_counts_what_was_new_and_what_was_replaced(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.rows[b"p:k1"] = (b"before", 1)
    path = file_of(tmp_path, "a.jsonl", lines(3))
    done = here(cluster, "key", "import", path, "--prefix", "p:", "--json")
    assert json.loads(done.out) == {
        "file": path, "format": "jsonl", "dry_run": False, "records": 3, "bytes": 18, "new": 2,
        "replaced": 1, "kept": 0, "lost": {}, "whole": False,
    }  # fmt: skip
    assert values(cluster) == {b"p:k0": b"v0", b"p:k1": b"v1", b"p:k2": b"v2"}
    again = here(cluster, "key", "import", path, "--prefix", "p:")
    assert again.out == b"ok\t3 records, 18 B\t3 replaced\n"


def test_keys_that_exist_are_kept_if_that_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    cluster.rows[b"k1"] = (b"before", 1)
    path = file_of(tmp_path, "a.jsonl", lines(3))
    done = here(cluster, "key", "import", path, "--if-absent")
    assert (done.code, done.out) == (0, b"ok\t3 records, 12 B\t2 new\t1 kept\n")
    assert cluster.rows[b"k1"] == (b"before", 1)


def test_of_one_key_the_last_record_counts(cluster: Cluster, tmp_path: Path) -> None:
    text = "".join(f'{{"key": "k", "value": "{number}"}}\n' for number in range(100))
    here(cluster, "key", "import", file_of(tmp_path, "a.jsonl", text))
    assert values(cluster) == {b"k": b"99"}


def test_a_dry_run_puts_nothing_and_counts(cluster: Cluster, tmp_path: Path) -> None:
    path = file_of(tmp_path, "a.jsonl", lines(3))
    done = here(cluster, "key", "import", path, "--dry-run")
    assert (done.code, done.out) == (0, b"ok\t3 records, 12 B\tnothing was put\n")
    assert cluster.requests == 0


def test_a_malformed_file_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    path = file_of(tmp_path, "a.jsonl", lines(2000) + "?\n")
    done = here(cluster, "key", "import", path)
    assert done.code == 2
    assert f"{path}: line 2001: not JSON" in done.err
    assert "outcome: not applied" in done.err
    assert not cluster.rows


def test_what_stands_before_an_error_on_standard_input_is_put_and_counted(
    cluster: Cluster,
) -> None:
    text = lines(BATCH_RECORDS_MAX + 7) + "?\n"
    done = kritash("--nodes", cluster.addresses, "key", "import", "-", stdin=text.encode())
    assert done.code == 2
    assert f"-: line {BATCH_RECORDS_MAX + 8}: not JSON" in done.err
    assert f"; {BATCH_RECORDS_MAX + 7} records had been imported" in done.err
    assert "outcome: applied" in done.err
    assert len(cluster.rows) == BATCH_RECORDS_MAX + 7


def test_more_than_a_batch_comes_from_standard_input(cluster: Cluster) -> None:
    text = "key,value\n" + "".join(f"k{number},v\n" for number in range(3 * BATCH_RECORDS_MAX))
    words = ("key", "import", "-", "--format", "csv")
    done = kritash("--nodes", cluster.addresses, *words, stdin=b"\xef\xbb\xbf" + text.encode())
    assert (done.code, done.err) == (0, "importing -\n")
    assert len(cluster.rows) == 3 * BATCH_RECORDS_MAX


def test_a_record_that_cannot_be_put_ends_it_with_its_error_and_the_count(
    cluster: Cluster, tmp_path: Path
) -> None:
    text = lines(BATCH_RECORDS_MAX + 1) + '{"key": "fail:no_space", "value": ""}\n'
    done = here(cluster, "key", "import", file_of(tmp_path, "a.jsonl", text))
    assert done.code == 5
    assert "'fail:no_space' could not be put: the test asked for it" in done.err
    assert f"; {BATCH_RECORDS_MAX + 1} records had been imported" in done.err
    assert "set to the same once more" in done.err


def test_what_krita_does_not_keep_is_counted_and_said(cluster: Cluster, tmp_path: Path) -> None:
    rows = [{"key": f"k{flags}", "flags": flags, "value": ""} for flags in range(3)]
    path = file_of(tmp_path, "a.json", json.dumps(rows))
    done = here(cluster, "key", "import", path, "--format", "consul", "--json")
    assert json.loads(done.out)["lost"] == {"flags": 2}
    assert done.err == "2 records had flags in the source, which Krita does not keep\n"


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_key_lives_on_for_as_long_as_it_had_left_when_it_was_exported(
    shell: Shell, tmp_path: Path, name: str
) -> None:
    path = str(tmp_path / name)
    shell.db.put("k", "v", ttl_ms=60_000)
    shell.db.put("good", "v")
    shell.cluster.advance(20_000)
    assert shell.json("key", "export", path)["records"] == 2
    shell("key", "import", path, "--prefix", "copy:")
    assert shell.json("get", "copy:k")["expires_in_ms"] == 40_000
    assert "expires_in_ms" not in shell.json("get", "copy:good")


def test_an_export_says_how_many_records_had_a_lease(shell: Shell) -> None:
    lease = shell.db.lease(60_000)
    lease.grant()
    shell.db.put("k", "v", lease=lease)
    done = shell("key", "export")
    assert b'\n{"key": "k", "value": "v"}\n' in done.out
    assert done.err == "1 record had a lease; where it is imported it lasts for good\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{folder}/none.jsonl",), "cannot read"),
        (("{folder}",), "does not tell the file's format"),
        (("{folder}/a.txt",), "does not tell the file's format"),
        (("{folder}/a.jsonl", "--format", "xml"), "--format must be one of jsonl, csv,"),
        (("{folder}/latin.jsonl",), "latin.jsonl: the text: not UTF-8"),
        (("{folder}/a.jsonl", "--prefix", "p" * 4096), "the key has 4097 bytes"),
    ],
)
def test_what_cannot_be_imported_is_a_usage_error(
    cluster: Cluster, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    file_of(tmp_path, "a.jsonl", '{"key": "k", "value": "v"}\n')
    (tmp_path / "latin.jsonl").write_bytes(b'{"key": "\xe9", "value": "v"}\n')
    done = here(cluster, "key", "import", *(word.format(folder=tmp_path) for word in words))
    assert (done.code, said in done.err) == (2, True), done.err
    assert not cluster.rows


# -- Export --------------------------------------------------------------------


ITEMS = [
    Item(b"a", b"1", 7, "text/plain"),
    Item(b"b:1", b"\xff", 7, None),
    Item(b"b:2", b"x,y\r\n", 7, None),
]


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """What the client's scan finds; a test may add to it."""
    items = list(ITEMS)

    def scan(_: Client, prefix: bytes | None) -> Iterator[Item]:
        return (item for item in items if item.key.startswith(prefix or b""))

    monkeypatch.setattr(Client, "scan", scan)
    return items


@pytest.mark.usefixtures("scanned")
def test_an_export_goes_to_standard_output_as_json_lines(cluster: Cluster) -> None:
    done = here(cluster, "key", "export")
    assert (done.code, done.err) == (0, "")
    head, *records, tail = done.out.decode().splitlines()
    assert head == '{"krita_export": {"format": 1}}'
    assert json.loads(tail)["krita_export"]["records"] == 3
    assert records == [
        '{"key": "a", "value": "1", "content_type": "text/plain"}',
        '{"key": "b:1", "value": {"base64": "/w=="}}',
        '{"key": "b:2", "value": "x,y\\r\\n"}',
    ]


@pytest.mark.usefixtures("scanned")
def test_the_name_of_the_file_says_its_format(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    done = here(cluster, "key", "export", str(path), "--prefix", "b:")
    assert (done.code, done.out) == (0, f"ok\t2 records, 12 B\t{path}\n".encode())
    assert path.read_bytes() == (
        b"key,value,content_type,key_base64,value_base64,ttl_ms\r\n"
        b'b:1,,,,/w==,\r\nb:2,"x,y\r\n",,,,\r\n'
    )
    assert os.listdir(tmp_path) == ["out.csv"]


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_what_was_exported_can_be_imported(cluster: Cluster, tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    assert here(cluster, "key", "export", path).code == 0
    done = here(cluster, "key", "import", path, "--json")
    document: dict[str, Any] = json.loads(done.out)
    assert (document["records"], document["new"]) == (3, 3)
    assert values(cluster) == {item.key: item.data for item in ITEMS}


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_an_export_that_was_cut_is_refused_with_what_is_missing(
    cluster: Cluster, tmp_path: Path, source: str
) -> None:
    whole = here(cluster, "key", "export").out.decode()
    text = "".join(whole.splitlines(keepends=True)[:-1])
    path = file_of(tmp_path, "x.jsonl", text) if source == "file" else "-"
    done = kritash_here(
        "--json", "--nodes", cluster.addresses, "key", "import", path, stdin=text.encode()
    )
    error = json.loads(done.err)
    assert (done.code, error["error"]) == (2, "BadRequest")
    assert "whatever stood behind 3 records: the file was cut" in error["message"]
    assert len(values(cluster)) == (0 if source == "file" else 3)
    checked = here(cluster, "key", "import", file_of(tmp_path, "y.jsonl", whole), "--dry-run")
    assert (checked.code, checked.err) == (0, "")


def test_an_export_that_fails_leaves_the_file_as_it_was(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(_: Client, __: bytes | None) -> Iterator[Item]:
        yield ITEMS[0]
        raise Unavailable("no leader")

    monkeypatch.setattr(Client, "scan", scan, raising=False)
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    done = here(cluster, "key", "export", str(path), "--force")
    assert (done.code, "no leader" in done.err) == (5, True)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.usefixtures("scanned")
def test_a_file_that_is_there_is_written_over_when_that_is_said(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("yesterday's backup")
    done = here(cluster, "key", "export", str(path))
    assert (done.code, "--force writes over it" in done.err) == (2, True)
    assert path.read_text() == "yesterday's backup"
    assert here(cluster, "key", "export", str(path), "--force").code == 0
    assert path.read_text().startswith('{"krita_export"')


@pytest.mark.usefixtures("scanned")
def test_a_file_that_cannot_be_written_is_a_usage_error(cluster: Cluster) -> None:
    done = here(cluster, "key", "export", "/nonexistent/x")
    assert (done.code, "cannot write '/nonexistent/x.part'" in done.err) == (2, True)
    assert here(cluster, "key", "export", "--format", "consul").code == 2
