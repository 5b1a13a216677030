"""What the opening of a snapshot says: it is taken as it was meant, or refused."""

from __future__ import annotations

import attrs
import pytest

from krita.codec import decode, encode
from krita.errors import ProtocolError
from kritad.host.snapshot_meta import meta_of, parse_meta
from kritad.raft.configuration import encode_configuration
from kritad.raft.types import Configuration
from kritad.state.split import Cut, Lineage
from kritad.storage.extent import NO_ARC, WHOLE_RING, Extent
from kritad.storage.rows import Applied

CONF = encode_configuration(Configuration(3, voters=frozenset({7}), nodes={7: 1}))


def state(arc: tuple[int, int], extent: Extent | None = None) -> Applied:
    extent = extent or Extent.of(arc)
    lineage = Lineage(2, 40, Cut(9, 1 << 30, 2)).encode()
    return Applied(
        5, 7, 1, 50, 3, 1_700_000_000_000, (1 << 64) - 1, CONF, 1,
        extent.hash_lo, extent.hash_hi, extent.encode(), lineage,
    )  # fmt: skip


def test_a_newcomer_takes_over_arc_cells_and_lineage() -> None:
    quarter = Extent.of(WHOLE_RING).cut(3 << 30)  # whose cells are as wide as the whole's
    quarter.count(2, 77, 1, 10)
    sent = state(quarter.arc, quarter)
    own = attrs.evolve(state(NO_ARC), replica=8, generation=6, rows=6, index=0, lineage=b"")
    got = parse_meta(decode(encode(meta_of(sent))), own)
    assert got == attrs.evolve(
        sent, replica=8, generation=6, rows=6, cells=quarter.emptied().encode()
    )


def test_an_older_sender_leaves_the_receiver_s_arc_as_it_is() -> None:
    full = Extent.of((1 << 30, 1 << 31))
    full.count(0, 77, 1, 10)
    own = state(full.arc, full)
    got = parse_meta(meta_of(state(WHOLE_RING))[:5], own)
    assert (got.arc, got.lineage, got.index) == (own.arc, own.lineage, 50)
    assert got.cells == full.emptied().encode()
    with pytest.raises(ProtocolError):
        parse_meta(meta_of(state(WHOLE_RING))[:5], state(NO_ARC))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, -1), (0, 1 << 63), (0, "50"), (1, -1), (2, -5), (3, None), (4, b"no configuration"),
        (5, -1), (5, 1 << 32), (6, 0), (6, (1 << 32) + 1), (7, 0), (7, 1), (7, -1), (7, "x"),
        (8, b"\xff"), (8, encode([1])), (8, None),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(place: int, value: object) -> None:
    meta = meta_of(state(WHOLE_RING))
    meta[place] = value
    with pytest.raises(ProtocolError):
        parse_meta(meta, state(WHOLE_RING))


@pytest.mark.parametrize("meta", [None, [], [1], b"x", {}])
def test_what_has_no_shape_is_refused(meta: object) -> None:
    with pytest.raises(ProtocolError):
        parse_meta(meta, state(WHOLE_RING))


def test_a_replica_without_an_arc_has_nothing_to_send_and_says_so() -> None:
    with pytest.raises(ProtocolError):
        parse_meta(meta_of(state(NO_ARC)), state(WHOLE_RING))
