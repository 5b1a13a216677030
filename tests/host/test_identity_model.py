"""A store's starts and announcements at random, copies of it, and views of any age.

Nothing that a store itself does may ever get it refused; every copy that the cluster
has seen a newer start of must be, by whoever judges.
"""

from __future__ import annotations

import random

import attrs
import pytest

from krita.errors import Foreign
from krita.hello import Identity as Told
from krita.operations import Op
from kritad.cluster.view import MetaView
from kritad.host.admission import check_member
from kritad.storage.catalog import NONCES_MAX, Identity
from tests.cluster.records import CLUSTER_ID, DictRecords, add_node, bootstrapped, store_uuid

NODE = 2


@attrs.define
class Life:
    """One store, and the cluster that it tells of its starts."""

    chance: random.Random
    records: DictRecords
    store: Identity
    views: list[MetaView]
    heard: int = 0  # the boot of the newest announcement that the cluster took

    def boot(self) -> None:
        self.store = self.store.booted(self.chance.randbytes(16))

    def announce(self) -> None:
        """As kritad does it: the answer may be lost, and with it the acknowledgement."""
        announce(self.records, self.store)
        self.heard = self.store.boot_counter
        self.views.append(self.records.view)
        if self.chance.random() < 0.6:
            self.store = attrs.evolve(self.store, nonces=self.store.nonces[-1:])


def told(store: Identity) -> Told:
    return Told(CLUSTER_ID, NODE, store.store_uuid, store.boot_counter, "n2:8080", store.nonces)


def announce(records: DictRecords, store: Identity) -> None:
    *before, nonce = store.nonces
    fields = (NODE, store.store_uuid, store.boot_counter, "n2:8080", nonce, before)
    records.call(Op.META_NODE_ANNOUNCE, *fields)


def make_life(seed: int) -> Life:
    records = bootstrapped(shards=1)
    assert add_node(records) == NODE
    store = Identity(CLUSTER_ID, NODE, store_uuid(NODE), 0)
    return Life(random.Random(seed), records, store, [records.view])


@pytest.mark.parametrize("seed", range(30))
def test_a_store_is_never_refused_and_a_copy_of_its_past_always(seed: int) -> None:
    life = make_life(seed)
    copies: list[Identity] = []
    calm = life.chance.choice([0.2, 0.5, 0.9])  # how likely a start gets to its announcement
    for _ in range(life.chance.randint(5, 80)):
        if life.chance.random() < 0.3:
            copies.append(life.store)
        life.boot()
        identity = told(life.store)
        for view in life.views:  # a peer may know any state that there was
            check_member(view, identity)
        if life.chance.random() < calm:
            life.announce()
    view = life.records.view
    known = view.nodes[NODE]
    for copy in life.chance.sample(copies, min(4, len(copies))):
        if known.nonce in copy.nonces or not life.heard:
            continue  # the cluster has seen nothing of the store that the copy has not
        for _ in range(life.chance.randint(1, 2 * NONCES_MAX)):
            copy = copy.booted(life.chance.randbytes(16))
            with pytest.raises(Foreign, match="rolled back"):
                announce(life.records, copy)
            with pytest.raises(Foreign, match="rolled back"):
                check_member(view, told(copy))


def test_a_node_that_nobody_answers_for_long_is_let_in_in_the_end() -> None:
    life = make_life(1)
    life.boot()
    life.announce()
    for _ in range(5 * NONCES_MAX):
        life.boot()
    life.announce()
    check_member(life.records.view, told(life.store))
