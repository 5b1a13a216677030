"""Ctrl-C: what is said of a request, by where it came."""

from __future__ import annotations

import io
import json

import pytest

from kritash import cli
from kritash.interruption import NothingSent, nothing_sent, patient
from tests.kritash.conftest import Shell


class Interrupted(io.RawIOBase):
    """A stdin with some bytes, and then somebody who presses Ctrl-C."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if not self._data:
            raise KeyboardInterrupt
        some, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(some)] = some
        return len(some)


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, behind: bytes = b"") -> None:
    raw = io.BufferedReader(Interrupted(behind))  # type: ignore[type-var]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(raw, "utf-8"))


@pytest.mark.parametrize("words", ["put k -", "key import -", "txn -", ""])
def test_while_stdin_is_waited_for_nothing_is_unknown(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: str,
) -> None:
    shell("put", "other", "x")
    press_ctrl_c(monkeypatch)
    assert cli.main(["--nodes", shell.cluster.seeds, *words.split()]) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_an_import_says_what_it_had_put_before(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line = '{"key": "k%d", "value": "v"}\n'
    press_ctrl_c(monkeypatch, "".join(line % number for number in range(700)).encode())
    words = ["--json", "--nodes", shell.cluster.seeds, "key", "import", "-"]
    assert cli.main(words) == 130
    document = json.loads(capfd.readouterr().err)
    assert (document["outcome"], document["hint"]) == ("applied", "500 records had been imported")


def test_with_a_request_on_its_way_it_may_have_happened(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def put(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("krita.client.Client.put", put)
    assert cli.main(["--nodes", shell.cluster.seeds, "put", "k", "v"]) == 130
    assert "its outcome is unknown" in capfd.readouterr().err


def test_before_anything_is_sent_it_has_not_happened(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def check(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kritash.context.check_reachable", check)
    assert cli.main(["put", "k", "v"]) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_a_patient_stream_gives_what_is_there() -> None:
    """A program that converses with us by lines waits for our answer to each."""
    raw = Interrupted(b"one\ntwo")
    stream = patient(io.BufferedReader(raw))  # type: ignore[type-var]
    assert stream.readline() == b"one\n"
    assert stream.read(3) == b"two"
    with pytest.raises(NothingSent):
        stream.read(1)


def test_what_is_told_already_is_told_as_it_is() -> None:
    told = NothingSent("2 records had been imported")
    with pytest.raises(NothingSent) as caught, nothing_sent():
        raise told
    assert caught.value is told
