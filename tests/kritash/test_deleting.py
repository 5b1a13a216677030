"""key delete --prefix, against real states of shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from krita.client import Client
from krita.errors import Outcome, OutcomeUnknown, Unavailable
from krita.items import Item
from krita.pipeline import Pipeline
from kritash import deleting
from tests.kritash.conftest import Shell


def fill(shell: Shell, number: int, prefix: str = "p:") -> None:
    with shell.db.pipeline() as pipeline:
        for at in range(number):
            pipeline.put(f"{prefix}{at:05d}", b"v")


def keys(shell: Shell) -> list[bytes]:
    return [item.key for item in shell.db.scan(keys_only=True)]


def test_all_keys_that_begin_so_are_deleted_and_no_other(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "BATCH_KEYS_MAX", 7)
    fill(shell, 40)
    shell.db.put("p", b"shorter")
    shell.db.put("p;", b"behind")
    assert shell.said("delete", "--prefix", "p:", "-y") == ["ok 40 keys deleted"]
    assert keys(shell) == [b"p", b"p;"]
    assert shell.json("key", "delete", "--prefix", "p;", "--yes") == {"prefix": "p;", "deleted": 1}


def test_where_there_is_none_it_is_no(shell: Shell) -> None:
    shell.db.put("other", b"v")
    assert shell.json("del", "--prefix", "p:", code=1) == {"prefix": "p:", "deleted": 0}
    assert "nothing to delete" in shell.said("del", "--prefix", "p:", "-y", code=1)[0]


def test_nobody_to_ask_is_wrong_usage_and_deletes_nothing(shell: Shell) -> None:
    fill(shell, 3)
    assert "add --yes" in shell.error("delete", "--prefix", "p:", code=2)
    assert len(keys(shell)) == 3


@pytest.mark.parametrize("answer", [False, True])
def test_the_question_names_how_many_there_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    fill(shell, 1234)
    asked: list[str] = []

    def may_act(_context: object, _invocation: object, question: str) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(deleting, "may_act", may_act)
    shell("delete", "--prefix", "p:", code=0 if answer else 1)
    assert asked == ["Delete 1,234 keys beginning with 'p:'?"]
    assert len(keys(shell)) == (0 if answer else 1234)


@pytest.mark.parametrize(
    "words",
    [
        ["delete"],
        ["delete", "k", "--prefix", "p:"],
        ["delete", "--prefix", "p:", "--if-revision", "0"],
        ["delete", "--prefix", "p:", "--previous"],
        ["delete", "--prefix", ""],
    ],
)
def test_what_makes_no_sense_together_is_refused(shell: Shell, words: list[str]) -> None:
    fill(shell, 3)
    shell.error(*words, "-y", code=2)
    assert len(keys(shell)) == 3


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (Unavailable("no leader"), 5, "applied"),
        (OutcomeUnknown("lost", outcome=Outcome.UNKNOWN), 7, "unknown"),
    ],
)
def test_what_was_deleted_before_an_error_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: Any, code: int, outcome: str
) -> None:
    fill(shell, 30)
    monkeypatch.setattr(deleting, "BATCH_KEYS_MAX", 10)
    execute = Pipeline.execute
    times = iter(range(9))

    def fail_at_last(pipeline: Pipeline) -> list[Any]:
        return execute(pipeline) if next(times) < 2 else [error] * 10

    monkeypatch.setattr(Pipeline, "execute", fail_at_last)
    done = shell("--json", "delete", "--prefix", "p:", "-y", code=code)
    document = json.loads(done.err)
    assert document["outcome"] == outcome
    assert document["message"].endswith("; 20 keys had been deleted")
    assert document["hint"] == "delete again: what is gone is passed over"
    assert len(keys(shell)) == 10


def test_a_scan_that_fails_half_way_tells_what_is_gone(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shell, 30)
    monkeypatch.setattr(deleting, "BATCH_KEYS_MAX", 10)
    scan = Client.scan

    def cut_short(*words: Any, **named: Any) -> Iterator[Item]:
        for at, item in enumerate(scan(*words, **named)):
            if at == 15:
                raise Unavailable("no leader")
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Client, "scan", cut_short)
        said = shell.error("delete", "--prefix", "p:", "-y", code=5)
    assert "no leader; 10 keys had been deleted" in said
    assert len(keys(shell)) == 20
