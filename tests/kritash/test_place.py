"""``key explain``, alias ``why``."""

from __future__ import annotations

import json

from krita.items import Explanation
from krita.ring import token
from kritash.nouns.place import place_document
from kritash.render import render_terminal
from kritash.reply import Reply, View
from tests.kritash.conftest import Shell
from tests.kritash.server import Cluster
from tests.kritash.shell import kritash_here


def test_a_key_s_shard_leader_and_copies_are_told() -> None:
    with Cluster(3) as cluster:
        done = kritash_here("--nodes", cluster.addresses, "--json", "why", "{shop}stock")
        document = json.loads(done.out)
        info = cluster.shard_map().shard_of(b"{shop}stock")
        assert (document["tag"], document["place"]) == ("shop", token(b"{shop}stock"))
        assert (document["shard"], document["leader"]) == (info.shard, info.leader)
        assert document["address"] == cluster.nodes[info.leader - 1].address
        copies = {copy["node"]: copy for copy in document["replicas"]}
        assert set(copies) == set(info.nodes)
        assert copies[info.leader]["role"] == "leader"
        assert {"address", "lag", "zone"} <= copies[info.leader].keys()
        lines = kritash_here("--nodes", cluster.addresses, "key", "explain", "{shop}stock").out
        assert f"copy\t{info.leader}\t{document['address']}\tleader\t0\t".encode() in lines


def test_without_the_nodes_status_it_says_what_the_map_says(shell: Shell) -> None:
    done = shell("why", "k")
    assert done.err.startswith("roles and lags are not known: ")
    assert f"copy\t1\t{shell.cluster.seeds}\t-\t-\t-\n".encode() in done.out


def test_a_shard_without_a_leader_is_said_in_words() -> None:
    from rich.console import Console

    drawn = render_terminal(Reply(View.PLACE, {"key": b"k", "tag": b"k", "leader": 0}))
    assert drawn is not None
    console = Console(width=100)
    with console.capture() as captured:
        console.print(drawn)
    assert "none: nobody answers for it now" in captured.get()


def test_where_nobody_leads_no_node_is_named_for_it() -> None:
    found = Explanation(b"k", b"k", 7, 1, 0, None, 3, {1: "a:1"})
    assert place_document(found, {})["leader"] is None
