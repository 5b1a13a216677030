"""Every bound that both ends of a connection share, and how they relate."""

from __future__ import annotations

KEY_BYTES_MAX = 4096
VALUE_BYTES_MAX_DEFAULT = 1 << 20
VALUE_BYTES_MAX_CEILING = 32 << 20  # what value_bytes_max may be set to

# A frame carries one value and its surroundings; peers also send batches.
FRAME_OVERHEAD_BYTES = 64 << 10
FRAME_BYTES_MAX_HELLO = 4096  # before the other side is known, it gets no more
FRAME_BYTES_MAX_PEER = 40 << 20

CBOR_DEPTH_MAX = 16
CBOR_ITEMS_MAX = 1 << 20  # elements of one item in all, however nested

REQUESTS_IN_FLIGHT_MAX = 1024  # per connection; above it the server stops reading
POLLS_IN_FLIGHT_MAX = 4096  # the same of `changes`, which wait for long and are not among those

TXN_OPERATIONS_MAX = 1024  # comparisons and operations of one transaction together
LEASE_LIMIT = 1 << 60  # leases' ids are below it
TTL_MS_MAX = 100 * 366 * 86_400_000  # a hundred years: more is a mistake in the unit
IDEMPOTENCY_KEY_BYTES_MAX = 255

PORT_DEFAULT = 8080


def frame_bytes_max(value_bytes_max: int) -> int:
    """The largest client frame of a cluster whose values are that large."""
    return value_bytes_max + KEY_BYTES_MAX + FRAME_OVERHEAD_BYTES


assert VALUE_BYTES_MAX_DEFAULT <= VALUE_BYTES_MAX_CEILING
assert frame_bytes_max(VALUE_BYTES_MAX_CEILING) < FRAME_BYTES_MAX_PEER
assert frame_bytes_max(0) > FRAME_BYTES_MAX_HELLO
