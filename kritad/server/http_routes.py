"""Which handler answers which address and method: one table.

A path in ``paths`` is the server's; what does not begin with /v1/ is else a key of the first
users' (http_plain.py), so a key that is called like a path of the server's is
reached through /v1/kv/NAME, and a 405 says so.

What the addresses take and answer is described in openapi.py, for programs; a test holds
the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from kritad.metrics import Metrics
from kritad.server import (
    http_batch,
    http_history,
    http_kv,
    http_lease,
    http_lock,
    http_node,
    http_plain,
    http_scan,
    http_txn,
    http_verbs,
    http_wait,
    http_watch,
    openapi,
)
from kritad.server.http_exchange import Exchange
from kritad.server.http_options import refuse_guards
from kritad.server.http_wire import HttpRefusal
from kritad.server.limits import ServerLimits
from kritad.server.watches import Watches

Handler = Callable[[Exchange], None]
Methods = Mapping[bytes, Handler]


def _reads(handler: Handler) -> dict[bytes, Handler]:
    return {b"GET": handler, b"HEAD": handler}


def _unguarded(handler: Handler) -> Handler:
    """Of a write that takes no conditions and happens again when it is sent again: headers
    that ask for more are refused, for to ignore them would break a promise."""

    def checked(exchange: Exchange) -> None:
        refuse_guards(exchange.request.headers)
        handler(exchange)

    return checked


class Routes:
    """The table of one server. ``paths`` are whole; ``below`` ends in a slash, behind which a
    name stands."""

    def __init__(self, limits: ServerLimits, metrics: Metrics) -> None:
        value_bytes_max = limits.value_bytes_max
        watches = Watches(limits.watches_max, metrics)
        self.named: Methods = {
            **_reads(http_plain.get_by_name),
            b"PUT": _unguarded(partial(http_plain.put_by_name, value_bytes_max=value_bytes_max)),
            b"DELETE": _unguarded(http_plain.delete_by_name),
        }
        self.paths: dict[bytes, Methods] = {
            b"/health": _reads(http_node.health),
            b"/livez": _reads(http_node.livez),
            b"/readyz": _reads(http_node.readyz),
            b"/metrics": _reads(http_node.metrics),
            b"/openapi.json": _reads(openapi.openapi),
            # A PUT there is one to the key without a name, and refused as such.
            b"/": {**self.named, **_reads(http_node.welcome)},
            b"/key": {
                **_reads(http_plain.get_by_query),
                b"PUT": _unguarded(
                    partial(http_plain.put_by_form, value_bytes_max=value_bytes_max)
                ),
                b"DELETE": _unguarded(http_plain.delete_by_name),
            },
            b"/v1/kv": _reads(http_scan.scan),
            b"/v1/watch": {b"GET": partial(http_watch.watch, watches=watches)},
            b"/v1/get": {
                b"POST": _unguarded(partial(http_batch.get_many, keys_max=limits.bulk_max))
            },
            b"/v1/bulk": {b"POST": partial(http_batch.bulk, items_max=limits.bulk_max)},
            b"/v1/txn": {b"POST": http_txn.txn},
            b"/v1/lease": {b"POST": _unguarded(http_lease.grant)},
            b"/v1/retention": {
                **_reads(http_history.retentions),
                b"PUT": _unguarded(http_history.retain),
                b"DELETE": _unguarded(http_history.forget),
            },
        }
        self._kv: Methods = {
            **_reads(partial(http_wait.get_or_wait, watches=watches)),
            b"PUT": partial(http_kv.put, value_bytes_max=value_bytes_max),
            b"DELETE": http_kv.delete,
            b"POST": partial(http_verbs.post, value_bytes_max=value_bytes_max),
        }
        self.below: dict[bytes, Methods] = {
            http_kv.PREFIX: self._kv,
            http_lease.PREFIX: {
                **_reads(http_lease.show),
                b"PUT": _unguarded(http_lease.keep_alive),
                b"DELETE": _unguarded(http_lease.revoke),
            },
            http_lock.PREFIX: {
                **_reads(http_lock.show),
                b"POST": _unguarded(partial(http_lock.acquire, watches=watches)),
                b"PUT": _unguarded(http_lock.renew),
                b"DELETE": _unguarded(http_lock.release),
            },
            http_history.HISTORY: _reads(http_history.history),
            http_history.UNDO: {b"POST": _unguarded(http_history.undo)},
        }

    def handle(self, exchange: Exchange) -> None:
        """Hand the exchange to its handler. Raises HttpRefusal (404, 405)."""
        request = exchange.request
        path = request.path
        methods = self.paths.get(path)
        if methods is None:
            methods = self._below_or_named(path)
        handler = methods.get(request.method)
        if handler is None:
            raise self._not_allowed(methods, path)
        handler(exchange)

    def _below_or_named(self, path: bytes) -> Methods:
        if not path.startswith(b"/v1/"):
            if path == b"/v1":
                raise _unknown_path()
            return self.named
        if path.startswith(http_kv.PREFIX):
            return self._kv
        methods = self.below.get(path[: path.find(b"/", 4) + 1])
        if methods is None:
            raise _unknown_path()
        return methods

    def _not_allowed(self, methods: Methods, path: bytes) -> HttpRefusal:
        allowed = tuple(method.decode() for method in methods)
        hint = f"allowed here: {', '.join(allowed)}"
        if path in self.paths and path != b"/":
            name = path[1:].decode()
            hint += f"; a key called {name} is at /v1/kv/{name}"
        return HttpRefusal(
            405, "this URL does not have that method", hint, allowed, "method_not_allowed"
        )


def _unknown_path() -> HttpRefusal:
    return HttpRefusal(
        404,
        "there is nothing at this URL",
        "keys are at /NAME and /v1/kv/NAME; a key that begins with v1/ is at /v1/kv/v1%2F…",
        error="not_found",
    )
