"""Every bound on what a stranger may cost this server, with its reason.

The bounds of the protocol itself (key, frame, depth) are in ``krita.limits``;
these are one server's own and may differ from node to node.
"""

from __future__ import annotations

import resource

from attrs import evolve, field, frozen, validators

from krita.limits import (
    KEY_BYTES_MAX,
    POLLS_IN_FLIGHT_MAX,
    REQUESTS_IN_FLIGHT_MAX,
    VALUE_BYTES_MAX_DEFAULT,
)

_positive = validators.gt(0)
_some_time = validators.gt(0.0)

# Descriptors that the node needs beside its clients: databases, logs, peers.
_DESCRIPTORS_RESERVED = 128


@frozen
class ServerLimits:
    """Times are absolute unless they say otherwise: a byte now and then buys nothing."""

    value_bytes_max: int = field(default=VALUE_BYTES_MAX_DEFAULT, validator=_positive)

    # Clients of both kinds. A peer may be accepted above it, by so many, so that
    # a crowd of clients cannot cut a node off from its cluster.
    connections_max: int = field(default=1024, validator=_positive)
    connections_reserved: int = field(default=64, validator=_positive)

    # Watches and requests that wait, over HTTP: each has a poll out at every shard.
    watches_max: int = field(default=512, validator=_positive)
    # Of one POST /v1/bulk or /v1/get. Each costs a log entry or a read of its own.
    bulk_max: int = field(default=1000, validator=_positive)

    # From accept to the end of the first HTTP head. Long, because a person may be
    # typing it: telnet sends a line when Enter is pressed, so neither the first
    # byte nor the next line comes sooner than somebody can write it. What a
    # slowloris gains by that is bounded by connections_max.
    first_head_s: float = field(default=30.0, validator=_some_time)
    head_s: float = field(default=5.0, validator=_some_time)  # later heads, from their first byte
    body_s: float = field(default=30.0, validator=_some_time)
    idle_s: float = field(default=60.0, validator=_some_time)  # between two HTTP requests
    hello_s: float = field(default=5.0, validator=_some_time)  # CBOR, from the first byte
    write_s: float = field(default=30.0, validator=_some_time)  # to take what was answered
    linger_s: float = field(default=2.0, validator=_some_time)  # to read our last words

    # An URL may name a key with every byte percent-encoded, and some parameters.
    url_bytes_max: int = field(default=3 * KEY_BYTES_MAX + 1024, validator=_positive)
    head_bytes_max: int = field(default=32 << 10, validator=_positive)  # the URL included
    headers_max: int = field(default=100, validator=_positive)

    # Of HTTP bodies that are being received, on all connections together. A stranger needs no
    # token to send one, and connections_max of them would be gigabytes. What is within the
    # first bytes of each is not counted: a crowd of large ones keeps out no small one.
    bodies_bytes_max: int = field(default=256 << 20, validator=_positive)
    body_free_bytes: int = field(default=64 << 10, validator=_positive)

    requests_in_flight_max: int = field(default=REQUESTS_IN_FLIGHT_MAX, validator=_positive)
    # Polls for changes wait for as long as nothing happens. Counted with the others they kept
    # a client that watches much from being heard at all.
    polls_in_flight_max: int = field(default=POLLS_IN_FLIGHT_MAX, validator=_positive)
    # Above the first, a CBOR connection is not read until the client has taken
    # its answers; above the second (answers to what was in flight already) it is
    # closed. HTTP answers at most one batch at a time and needs neither.
    output_bytes_high: int = field(default=4 << 20, validator=_positive)
    output_bytes_max: int = field(default=64 << 20, validator=_positive)

    @property
    def form_bytes_max(self) -> int:
        """A form's body: key and value with every byte percent-encoded, and their names."""
        return 3 * (self.value_bytes_max + KEY_BYTES_MAX) + 64

    @property
    def connections_all_max(self) -> int:
        """The most that are ever open at once, peers among them."""
        return self.connections_max + self.connections_reserved


def fit_descriptors(limits: ServerLimits) -> ServerLimits:
    """The limits, with no more connections than the process may have descriptors.

    Raises the soft limit as far as it is allowed to first.
    """
    wanted = limits.connections_all_max + _DESCRIPTORS_RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        short = wanted - soft
        if short > 0:
            return evolve(limits, connections_max=max(1, limits.connections_max - short))
    return limits
