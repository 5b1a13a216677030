"""The surface of ``krita.Client``, without event loop or threads.

All but ``mailbox`` and ``keeper`` is made from ``krita.aio`` by ``tests/client_sources.py``:
change it there.
"""
