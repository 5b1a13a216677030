"""What a type checker knows of the clients: mypy reads this file as it would a user's."""

from __future__ import annotations

import inspect
import re
from typing import assert_type

import pytest

import krita
import krita.aio
from krita.aio import AsyncClient

# The floor below the surface, and what the interpreter brings.
BELOW = {"AsyncKeeper", "AsyncMailbox", "Call", "Keeper", "Mailbox", "Request", "Start"}
BUILT_IN = {"BaseException", "Exception", "None", "TracebackType"}


def held_while_returning(db: krita.Client) -> str:
    with db.lock("l", ttl_ms=10):
        return "no return is missing behind the block: it swallows nothing"


def leased_while_returning(db: krita.Client) -> str:
    with db.lease(10) as lease:
        assert_type(lease, krita.Lease)
        return "likewise"


async def held_in_a_task_while_returning(db: AsyncClient) -> str:
    async with db.lock("l", ttl_ms=10):
        return "likewise"


async def leased_in_a_task_while_returning(db: AsyncClient) -> str:
    async with db.lease(10):
        return "likewise"


async def within_a_client_while_returning() -> str:
    async with AsyncClient("a") as db:
        assert_type(db, AsyncClient)
        return "likewise"


def keys_of_one_kind_or_of_both(db: krita.Client, both: list[str | bytes]) -> None:
    assert_type(db.get_many(["a", "b"]), dict[str, krita.Value | None])
    assert_type(db.get_many([b"a"]), dict[bytes, krita.Value | None])
    assert_type(db.get_many(both), dict[str | bytes, krita.Value | None])


def names_for_what_comes_back(db: krita.Client) -> None:
    pipeline: krita.Pipeline = db.pipeline()
    item: krita.PipelineItem = pipeline.get("a")
    observation: krita.Observation = db.election("e", ttl_ms=10).observe()
    results: list[krita.StepResult | krita.KritaError | None] = db.bulk([])
    shard_map: krita.ShardMap = db.shard_map()
    assert_type(next(observation), krita.Leader | None)
    assert_type(shard_map.shards[0], krita.ShardInfo)
    assert_type(next(db.watch("a")).kind, krita.EventKind)
    del item, results


def names_in(annotation: object) -> set[str]:
    """Of classes: those that begin with a capital letter."""
    found = re.findall(r"(?<![\w.])[A-Z]\w+", str(annotation).replace("typing.", ""))
    return set(found) - BUILT_IN


@pytest.mark.parametrize("module", [krita, krita.aio])
def test_the_types_of_the_surface_have_public_names(module: object) -> None:
    public = {*krita.__all__, *krita.aio.__all__, *krita.steps.__all__}
    public |= {"Awaitable", "Callable", "Iterable", "Iterator", "Mapping", "Sequence"}
    public |= {
        "Any",
        "ClassVar",
        "HasId",
        "HasToken",
    }  # of Lease and Lock, for those who have others
    for name in module.__all__:  # type: ignore[attr-defined]
        cls = getattr(module, name)
        if not inspect.isclass(cls):
            continue
        for method, function in inspect.getmembers(cls, inspect.isfunction):
            if not method.startswith("_"):
                for annotation in function.__annotations__.values():
                    assert names_in(annotation) - BELOW <= public, f"{name}.{method}"
