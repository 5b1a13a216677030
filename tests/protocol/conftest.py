"""What the tests of the clients share: clusters on real sockets.

Property tests here are repeatable, and not a race against a busy machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from krita.client import Client
from tests.protocol import server
from tests.protocol.server import Cluster

settings.register_profile("krita", derandomize=True, deadline=None)
settings.load_profile("krita")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with server.running() as one:
        yield one


@pytest.fixture
def three() -> Iterator[Cluster]:
    with server.running(nodes=3) as nodes:
        yield nodes


@pytest.fixture
def db(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.seeds) as client:
        yield client


def once(cluster: Cluster) -> bool:
    """Whether no (session, sequence) was executed twice, and something was."""
    return set(cluster.executed.values()) == {1}
