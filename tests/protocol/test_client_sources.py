"""The blocking client's surface is made from the asynchronous one, and current."""

from __future__ import annotations

import inspect

import pytest

import krita
from krita.aio import AsyncClient
from tests.client_sources import BY_HAND, KRITA, NAMES, blocking_source


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_the_blocking_client_is_what_its_twin_makes(name: str) -> None:
    text = (KRITA / "blocking" / f"{name}.py").read_text(encoding="utf-8")
    assert text == blocking_source(name), "python -m tests.client_sources writes it anew"
    assert "async" not in text.replace("asynchronous", "")
    assert "await" not in text


def test_every_file_of_the_asynchronous_client_has_a_twin_or_is_written_by_hand() -> None:
    found = {path.stem for path in (KRITA / "aio").glob("*.py")}
    assert found == set(NAMES) | BY_HAND
    twins = {path.stem for path in (KRITA / "blocking").glob("*.py")}
    assert twins == set(NAMES) | {"__init__", "keeper", "mailbox", "turns"}


def test_both_clients_have_the_same_operations_with_the_same_parameters() -> None:
    def surface(client: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    blocking, asynchronous = surface(krita.Client), surface(AsyncClient)
    del blocking["close"], blocking["turn"]
    assert blocking == asynchronous


@pytest.mark.parametrize("client", [krita.Client, AsyncClient])
def test_every_operation_says_what_it_does(client: type) -> None:
    for name, method in inspect.getmembers(client, inspect.isfunction):
        assert name.startswith("_") or inspect.getdoc(method), name
