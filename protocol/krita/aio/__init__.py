"""``krita.aio``: the client for trio and asyncio, over anyio.

``AsyncClient`` has the surface of ``krita.Client``: what is a method there is to be
awaited here, ``for`` and ``with`` are ``async for`` and ``async with``. All of it is written
once, in here; ``krita.blocking`` is made from it by ``tests/client_sources.py``.
"""

from krita.aio.client import AsyncClient, connect
from krita.aio.elections import AsyncElection, AsyncObservation
from krita.aio.leases import AsyncLease
from krita.aio.locks import AsyncLock
from krita.aio.pipeline import AsyncPipeline
from krita.aio.scans import AsyncScan
from krita.aio.watches import AsyncWatch

__all__ = [
    "AsyncClient",
    "AsyncElection",
    "AsyncLease",
    "AsyncLock",
    "AsyncObservation",
    "AsyncPipeline",
    "AsyncScan",
    "AsyncWatch",
    "connect",
]
