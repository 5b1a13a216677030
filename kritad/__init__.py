"""kritad, the daemon. Its floors, from the ground up; each imports only those below it.

    krita (protocol/krita)    errors, operations, codec, framing, ring, clients
    kritad.raft               the consensus core: pure
    kritad.storage            raft.db and data.db: synchronous SQLite
    kritad.state              what a log entry means: deterministic
    kritad.cluster            the meta shard's state and the planner: pure
    kritad.metrics, stream    counters and connections, shared by the floors above
    kritad.host               replicas, drive loop, writer thread, transport: trio begins here
    kritad.service, access    the only door to the database: data_service (a key, a group, a shard),
                              gather and scan_page (all shards), coordinator and
                              txn_steps (several); admin/ gathers views of it
    kritad.server             the listener: CBOR and HTTP on one port
    kritad.daemon, config, cli, dev ...

tests/test_layers.py holds the code to this list.
"""

__version__ = "0.3.0.dev0"
