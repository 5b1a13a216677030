"""A shard of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.state.shard import Shard, open_shard


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    with open_shard(tmp_path / "data.db") as opened:
        yield opened
