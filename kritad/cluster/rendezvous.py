"""Weighted rendezvous hashing: which nodes a shard would like best.

Every (shard, node) has a number in (0, 1) that nobody can foresee and everybody
computes alike; a shard's nodes in the order of ``-weight / ln(number)`` are its
wish. A node that joins takes from each other node what is its share; one that
leaves hands its shards to all others evenly; nothing else moves.

Used to choose among nodes that are otherwise as good: a bare hash balances too
badly to be the placement itself (raft.md 4.3).

Sources: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous"
(1996); the weighting is the logarithmic method of Schindelhauer and Schomaker
(2005).
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b

_PAIRS_MAX = 1 << 17  # 4096 shards on 32 nodes; 100 bytes each when full


def wish(shard: int, node: int, weight: int = 1) -> float:
    """How much a shard would like to be on a node; larger is more. ~0.3 µs."""
    return weight * _wish(shard, node)


@lru_cache(maxsize=_PAIRS_MAX)
def _wish(shard: int, node: int) -> float:
    digest = blake2b(b"%d/%d" % (shard, node), digest_size=8, person=b"krita wish").digest()
    # 52 bits and a half: exactly representable, never 0 and never 1.
    number = ((int.from_bytes(digest) >> 12) + 0.5) / (1 << 52)
    return -1.0 / math.log(number)
