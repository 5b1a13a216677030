"""What the ends of a snapshot say to each other, beside the rows.

The opening says what state follows, in the ``meta`` of snapshot_open:

``[index, term, clock_ms, state_hash, configuration, hash_lo, hash_hi, cell_width, lineage]``.
A kritad that kept no arcs sends the first five: the receiver's replica then knows its
arc, since nothing was split by that one. What is in the cells is not sent: the receiver
counts it in the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from krita.codec import CodecError
from krita.errors import ProtocolError, Status, from_wire
from krita.events import Reply
from kritad.raft.configuration import decode_configuration
from kritad.state.split import Lineage
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.extent import Extent, cells_between, fits
from kritad.storage.rows import Applied

_NUMBER_MAX = (1 << 63) - 1  # what SQLite keeps


@attrs.frozen
class SnapshotAnswer:
    """What the receiver says. ``known_to`` (to an opening): up to this key rows have come by
    an earlier transfer. ``missing`` (to a slice): the places of those that it does not have."""

    next_chunk: int
    known_to: bytes = b""
    missing: Sequence[int] = ()

    @classmethod
    def of(cls, reply: Reply) -> SnapshotAnswer:
        """Raises KritaError, also for what is none."""
        if reply.status != Status.OK:
            raise from_wire(reply.status, reply.body)
        match reply.body:
            case [int(next_chunk), bytes(known_to), *_] if next_chunk >= 0:
                return cls(next_chunk, known_to)
            case [int(next_chunk), list(places), *_] if next_chunk >= 0:
                return cls(next_chunk, missing=[n for n in places if isinstance(n, int)])
            case [int(next_chunk), *_] if next_chunk >= 0:
                return cls(next_chunk)
        raise ProtocolError("the answer to a snapshot's slice is malformed")


def meta_of(applied: Applied) -> list[object]:
    """What is sent of it."""
    extent = Extent.decode(applied.hash_lo, applied.hash_hi, applied.cells)
    return [
        applied.index,
        applied.term,
        applied.clock_ms,
        applied.state_hash,
        applied.configuration,
        applied.hash_lo,
        applied.hash_hi,
        extent.step,
        applied.lineage,
    ]


def parse_meta(meta: object, own: Applied) -> Applied:
    """The state that is announced, as the replica with the state ``own`` will have it, with
    empty cells. Raises ProtocolError."""
    match meta:
        case [int(index), int(term), int(clock_ms), int(state_hash), bytes(conf), *place] if all(
            0 <= number <= _NUMBER_MAX for number in (index, term, clock_ms)
        ):
            pass
        case _:
            raise ProtocolError("a malformed snapshot_open")
    try:
        decode_configuration(conf)
    except ValueError as problem:
        raise ProtocolError(f"snapshot_open brings no configuration: {problem}") from problem
    extent, lineage = _parse_place(place, own)
    return attrs.evolve(
        own,
        index=index,
        term=term,
        clock_ms=clock_ms,
        state_hash=state_hash % HASH_MODULUS,
        configuration=conf,
        hash_lo=extent.hash_lo,
        hash_hi=extent.hash_hi,
        cells=extent.encode(),
        lineage=lineage,
    )


def _parse_place(place: list[Any], own: Applied) -> tuple[Extent, bytes]:
    if not place and own.hash_hi:
        extent = Extent.decode(own.hash_lo, own.hash_hi, own.cells)
        return extent.emptied(), own.lineage
    match place:
        case [int(lo), int(hi), int(step), bytes(lineage), *_] if lo < hi and step > 0:
            count = cells_between(lo, hi, step)
            if fits(lo, hi, step, count):
                try:
                    Lineage.decode(lineage)
                except (CodecError, ValueError) as problem:
                    raise ProtocolError(f"snapshot_open: {problem}") from problem
                return Extent(lo, hi, step, count), lineage
    raise ProtocolError("snapshot_open does not say what arc of the ring it brings")
