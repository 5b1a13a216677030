"""The table of operations: one row each, from which everything else follows.

Encoding, dispatch, permission, forwarding, the specification and the tests are
driven by ``OPERATIONS``. To add an operation, add its row; a test then names
every place that has to learn it.

Bodies are positional arrays. A receiver ignores elements behind those it knows
(so a newer client can talk to an older server) and treats missing trailing
elements as null. Codes are below 256 and are never renumbered: a write's code
stands in the log.
"""

from __future__ import annotations

import enum

import attrs


class Op(enum.IntEnum):
    """Operation codes, as sent and as stored in the log."""

    # Data, routed by key.
    GET = 1
    PUT = 2
    DELETE = 3
    # Data, routed by shard number.
    SESSION_OPEN = 4
    SESSION_KEEPALIVE = 5
    SPLIT = 6
    # Data, routed by key, again.
    ADD = 7
    APPEND = 8
    TOUCH = 9
    LOCK = 10
    TXN = 11
    # Data, routed by shard number, again.
    EXPIRE = 12
    LEASE_CHANGE = 13
    RETENTION_CHANGE = 14
    KEY_HISTORY = 15  # by key
    # Answered by whichever node is asked.
    PING = 16
    SHARD_MAP = 17
    CLUSTER_STATUS = 18
    NODE_STATUS = 19
    NODE_LIST = 20
    SHARD_LIST = 21
    MOVE_LIST = 22
    NODE_PLAN = 23
    # What one shard has, routed by its number.
    SHARD_SCAN = 24
    CHANGES = 25
    LEASE_STATE = 26
    RETENTION_STATE = 27
    # A shard's part in a transaction over several.
    TXN_PREPARE = 28
    TXN_FINISH = 29
    TXN_DECIDE = 30  # by key
    TXN_FORGET = 31  # by key
    # Administration. Those that the meta shard decides are entries of its log as they are.
    LEADER_TRANSFER = 32
    NODE_SET = 33
    NODE_LABEL = 34
    SHARD_SPLIT = 35
    SHARD_MOVE = 36
    SHARD_HOLD = 37
    MOVE_CANCEL = 38
    # What whichever node is asked gathers from all shards, or tells all of them.
    SCAN = 40
    LEASE_GRANT = 41
    LEASE_KEEPALIVE = 42
    LEASE_REVOKE = 43
    LEASE_SHOW = 44
    RETENTION_SET = 45
    RETENTION_LIST = 46
    # Between nodes.
    NODE_JOIN = 64
    NODE_ANNOUNCE = 65
    RAFT = 66
    LEADERS = 67
    SNAPSHOT_OPEN = 68
    SNAPSHOT_CHUNK = 69
    # Entries of the meta shard's log; never sent by clients.
    META_BOOTSTRAP = 128
    META_NODE_ADD = 129
    META_NODE_ANNOUNCE = 130
    META_PLACE = 131
    META_REPORT = 132
    META_NODE_DEAD = 133
    META_SPLIT_DONE = 134
    META_REBUILD = 135
    META_RECOVERED = 136


class Access(enum.IntEnum):
    """Who may call: see kritad/access.py for the rule of each."""

    DATA = 0
    STATUS = 1
    ADMIN = 2
    PEER = 3
    LOG = 4  # an entry only, never a request


class Route(enum.IntEnum):
    """Where a request is answered."""

    KEY = 0  # the leader of the shard that owns the body's key
    SHARD = 1  # the leader of the shard that the body names
    META = 2  # the meta shard's leader
    LOCAL = 3  # any node


@attrs.frozen
class Operation:
    """One row. ``fields`` and ``reply`` name the positional elements."""

    code: Op
    name: str
    access: Access
    route: Route
    write: bool  # goes through the log
    fields: tuple[str, ...]
    reply: tuple[str, ...]
    summary: str


# A write's first three fields, the same for all: see krita/session.py.
_SESSION = ("session", "sequence", "acked_to")
# How long a value lasts: null, for ever; KEEP_TTL. `lease`: it ends with that lease.
_LIFE = ("ttl_ms", "lease")
# `if_lock` is [lock's key, token]: nothing happens unless the lock is held so.
# `idempotency`: bytes; the same again within the hour gets the first answer again.
_GUARD = ("if_lock", "idempotency")

_ROWS = (
    Operation(Op.GET, "get", Access.DATA, Route.KEY, False,
              ("key", "consistency", "staleness_ms_max", "revision_min", "at_revision", "at_ms"),
              ("value", "revision", "content_type", "shard_revision", "staleness_ms",
               "expires_in_ms", "lease"),
              "read a key; value is null and revision 0 when it is absent; "
              "at_revision or at_ms ask for what it was then"),
    Operation(Op.PUT, "put", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "value", "content_type", "if_revision", *_LIFE, *_GUARD,
               "previous"),
              ("revision", "existed", "previous"),
              "set a key; if_revision 0 asks that it be absent, null asks nothing; with "
              "previous true the answer has [value, revision, content_type] of before"),
    Operation(Op.DELETE, "delete", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "if_revision", *_GUARD, "previous"),
              ("revision", "existed", "previous"),
              "remove a key"),
    Operation(Op.ADD, "add", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "delta", "if_revision", *_LIFE, *_GUARD),
              ("revision", "existed", "number"),
              "add to a value that is a whole number in decimal; an absent one is 0"),
    Operation(Op.APPEND, "append", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "data", "if_revision", *_LIFE, *_GUARD, "value_bytes_max"),
              ("revision", "existed", "value_bytes"),
              "put bytes behind a value; an absent one is empty"),
    Operation(Op.TOUCH, "touch", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "if_revision", *_LIFE, *_GUARD),
              ("revision", "existed"),
              "change how long a key lasts, and nothing else: its revision stays"),
    Operation(Op.LOCK, "lock", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "owner", *_LIFE, "idempotency"),
              ("token", "acquired"),
              "take a lock that is free, or one's own for longer; a lock is a key, its value the "
              "owner, and the token its revision"),
    Operation(Op.TXN, "txn", Access.DATA, Route.KEY, True,
              (*_SESSION, "key", "compare", "then", "otherwise", "idempotency",
               "value_bytes_max"),
              ("revision", "succeeded", "results"),
              "do `then` if all comparisons hold, `otherwise` if not, in one step; `key` is one "
              "of its keys. Over several groups the revisions in the results are null"),
    Operation(Op.KEY_HISTORY, "key_history", Access.DATA, Route.KEY, False,
              ("key", "limit", "before"),
              ("versions", "complete_from_ms"),
              "the newest versions of a key, [revision, value, content_type, until_revision, "
              "until_ms], the newest first; before: only those that ended at or before it"),
    Operation(Op.SESSION_OPEN, "session_open", Access.DATA, Route.SHARD, True,
              ("shard", "session"), ("session",),
              "open a session in one shard, so that a retried write happens once; its id is drawn "
              "by the node that is asked, whatever a client sends as `session`"),
    Operation(Op.SESSION_KEEPALIVE, "session_keepalive", Access.DATA, Route.SHARD, True,
              ("shard", "session"), (),
              "keep an idle session from expiring"),
    Operation(Op.SPLIT, "split", Access.LOG, Route.SHARD, True,
              ("shard", "shard_new", "at", "conf_version", "replicas"), ("version",),
              "cut the shard's arc: what is at and behind `at` is the new shard's from now on"),
    Operation(Op.EXPIRE, "expire", Access.LOG, Route.SHARD, True,
              ("shard",), ("more",),
              "time has passed: end what is due by the shard's clock"),
    Operation(Op.LEASE_CHANGE, "lease_change", Access.PEER, Route.SHARD, True,
              ("shard", "lease", "change", "ttl_ms"), ("ttl_ms", "keys", "hash_lo", "hash_hi"),
              "grant (0), keep alive (1) or revoke (2) a lease in one shard; ttl_ms null: there "
              "was none to revoke"),
    Operation(Op.RETENTION_CHANGE, "retention_change", Access.PEER, Route.SHARD, True,
              ("shard", "prefix", "retention_ms"), ("hash_lo", "hash_hi"),
              "how long one shard keeps old versions of the keys of a prefix; 0: not"),
    Operation(Op.SHARD_SCAN, "shard_scan", Access.DATA, Route.SHARD, False,
              ("shard", "start", "stop", "limit", "reverse", "what", "bytes_max"),
              ("rows", "more", "shard_revision", "hash_lo", "hash_hi"),
              "one shard's keys from start on and below stop, [key, value, revision, "
              "content_type, expires_in_ms, lease]; what: 0 that, 1 no values, 2 their number"),
    Operation(Op.CHANGES, "changes", Access.DATA, Route.SHARD, False,
              ("shard", "after", "start", "stop", "limit", "wait_ms", "bytes_max"),
              ("events", "revision", "oldest"),
              "what has changed in one shard behind a revision, as soon as something has; "
              "an event is [kind, key, value, revision, content_type, index]; the value of a "
              "put is null where one step made more than an answer holds"),
    Operation(Op.LEASE_STATE, "lease_state", Access.DATA, Route.SHARD, False,
              ("shard", "lease", "limit"), ("ttl_ms", "left_ms", "keys", "hash_lo", "hash_hi"),
              "what one shard knows of a lease; ttl_ms null: nothing"),
    Operation(Op.RETENTION_STATE, "retention_state", Access.DATA, Route.SHARD, False,
              ("shard",), ("rules", "hash_lo", "hash_hi"),
              "of which prefixes one shard keeps versions, [prefix, retention_ms, since_ms]"),
    Operation(Op.TXN_PREPARE, "txn_prepare", Access.PEER, Route.SHARD, True,
              ("shard", "attempt", "home", "keys", "told", "hold_ms", "bytes_max", "wait_ms"),
              ("rows", "clock_ms"),
              "hold keys for a transaction over several shards, and tell what they are"),
    Operation(Op.TXN_FINISH, "txn_finish", Access.PEER, Route.SHARD, True,
              ("shard", "attempt", "plan"), ("revision", "misplaced", "held"),
              "do the shard's part of it, or nothing (plan null), and let the keys go"),
    Operation(Op.TXN_DECIDE, "txn_decide", Access.PEER, Route.KEY, True,
              ("key", "attempt", "commit", "plan", "answer", "begun_ms",
               "session", "sequence", "acked_to", "idempotency", "digest"),
              ("verdict", "plan", "answer"),
              "let it have happened, or never happen, if that is not decided yet"),
    Operation(Op.TXN_FORGET, "txn_forget", Access.PEER, Route.KEY, True,
              ("key", "attempt"), (),
              "all shards have done their part of it"),
    Operation(Op.SCAN, "scan", Access.DATA, Route.LOCAL, False,
              ("start", "stop", "limit", "reverse", "what"),
              ("rows", "next"),
              "keys of all shards in order, as shard_scan has them; next: where to go on, or "
              "null"),
    Operation(Op.LEASE_GRANT, "lease_grant", Access.DATA, Route.LOCAL, False,
              ("ttl_ms", "lease"), ("lease", "ttl_ms"),
              "begin a lease, that ends all of its keys when it is not kept alive"),
    Operation(Op.LEASE_KEEPALIVE, "lease_keepalive", Access.DATA, Route.LOCAL, False,
              ("lease",), ("ttl_ms",),
              "let a lease last for its whole time from now on"),
    Operation(Op.LEASE_REVOKE, "lease_revoke", Access.DATA, Route.LOCAL, False,
              ("lease",), ("keys",),
              "end a lease, and all of its keys, now"),
    Operation(Op.LEASE_SHOW, "lease_show", Access.DATA, Route.LOCAL, False,
              ("lease",), ("ttl_ms", "left_ms", "keys"),
              "how long a lease will last, and the keys that end with it"),
    Operation(Op.RETENTION_SET, "retention_set", Access.DATA, Route.LOCAL, False,
              ("prefix", "retention_ms"), (),
              "keep old versions of the keys of a prefix for so long; 0: not any more"),
    Operation(Op.RETENTION_LIST, "retention_list", Access.DATA, Route.LOCAL, False,
              (), ("rules",),
              "of which prefixes versions are kept, [prefix, retention_ms, since_ms]"),
    Operation(Op.PING, "ping", Access.DATA, Route.LOCAL, False,
              (), ("node", "cluster_id", "version", "clock_ms"),
              "ask a node whether it is there, and who it is"),
    Operation(Op.SHARD_MAP, "shard_map", Access.DATA, Route.LOCAL, False,
              (), ("version", "shards", "nodes"),
              "which shard owns which arc of the ring, and who leads it"),
    Operation(Op.CLUSTER_STATUS, "cluster_status", Access.STATUS, Route.LOCAL, False,
              (), ("status",), "nodes, shards, leaders and lag, gathered from all nodes"),
    Operation(Op.NODE_STATUS, "node_status", Access.STATUS, Route.LOCAL, False,
              (), ("status",), "what one node knows of itself and its replicas"),
    Operation(Op.NODE_LIST, "node_list", Access.STATUS, Route.LOCAL, False,
              (), ("nodes",), "the nodes of the cluster"),
    Operation(Op.SHARD_LIST, "shard_list", Access.STATUS, Route.LOCAL, False,
              (), ("shards",), "the shards of the cluster with their replicas"),
    Operation(Op.MOVE_LIST, "move_list", Access.STATUS, Route.LOCAL, False,
              (), ("moves",), "the replicas on the move: step, progress, estimate"),
    Operation(Op.NODE_PLAN, "node_plan", Access.STATUS, Route.LOCAL, False,
              ("node", "state", "successor"), ("plan",),
              "what a node_set would move, and how many failures are tolerated before and after"),
    Operation(Op.LEADER_TRANSFER, "leader_transfer", Access.ADMIN, Route.SHARD, False,
              ("shard", "node"), ("node",),
              "hand a shard's leadership to its replica on another node"),
    Operation(Op.NODE_SET, "node_set", Access.ADMIN, Route.META, True,
              ("node", "state", "successor"), ("state",),
              "what the cluster intends with a node: 0 up, 1 drain, 4 remove; "
              "successor, if not null, gets its replicas"),
    Operation(Op.NODE_LABEL, "node_label", Access.ADMIN, Route.META, True,
              ("node", "zone", "weight"), (),
              "set a node's zone or weight; null leaves it as it is"),
    Operation(Op.SHARD_SPLIT, "shard_split", Access.ADMIN, Route.META, True,
              ("shard",), ("shard_new",),
              "cut a shard in two, in place; answered when it is decided, not when it is done"),
    Operation(Op.SHARD_MOVE, "shard_move", Access.ADMIN, Route.META, True,
              ("shard", "source", "target"), ("version",),
              "move a shard's replica from one node to another"),
    Operation(Op.SHARD_HOLD, "shard_hold", Access.ADMIN, Route.META, True,
              ("shard", "held"), (),
              "stop or resume the moves of one shard; of all with shard 0"),
    Operation(Op.MOVE_CANCEL, "move_cancel", Access.ADMIN, Route.META, True,
              ("shard",), ("version",),
              "take back the shard's move and hold the shard where it is"),
    Operation(Op.NODE_JOIN, "node_join", Access.PEER, Route.META, False,
              ("store_uuid", "address", "zone"),
              ("cluster_id", "node", "meta_replica", "members"),
              "make a new node a member"),
    Operation(Op.NODE_ANNOUNCE, "node_announce", Access.PEER, Route.META, False,
              ("node", "store_uuid", "boot_counter", "address", "nonce", "nonces_before"), (),
              "tell the cluster that a node has started, and where"),
    Operation(Op.RAFT, "raft", Access.PEER, Route.LOCAL, False,
              ("heartbeats", "messages"), (), "Raft messages of all shards; one-way"),
    Operation(Op.LEADERS, "leaders", Access.PEER, Route.LOCAL, False,
              ("leaders", "unwilling", "damaged", "demand"), (),
              "what the sender leads, [shard, term], whether it takes no more, which of its "
              "replicas are damaged, [shard, replica], and what a second its own clients ask and "
              "it serves as leader, [shard, asked, served]; one-way"),
    Operation(Op.SNAPSHOT_OPEN, "snapshot_open", Access.PEER, Route.LOCAL, False,
              ("shard", "replica", "sender", "term", "transfer", "meta"),
              ("next_chunk", "known_to"),
              "offer a snapshot; the answer says from which chunk on, and up to which key an "
              "earlier transfer has brought rows, if one has"),
    Operation(Op.SNAPSHOT_CHUNK, "snapshot_chunk", Access.PEER, Route.LOCAL, False,
              ("shard", "replica", "transfer", "chunk", "rows", "crc", "last"),
              ("next_chunk", "missing"),
              "one slice of a snapshot's rows, some as their digests; missing: the places of "
              "those that have to be sent whole, if any"),
    Operation(Op.META_BOOTSTRAP, "meta_bootstrap", Access.LOG, Route.META, True,
              ("cluster_id", "shards", "replication_factor", "store_uuid", "address", "zone"), (),
              "the first entry of a cluster's life"),
    Operation(Op.META_NODE_ADD, "meta_node_add", Access.LOG, Route.META, True,
              ("store_uuid", "address", "zone"), ("node", "meta_replica"),
              "a new member"),
    Operation(Op.META_NODE_ANNOUNCE, "meta_node_announce", Access.LOG, Route.META, True,
              ("node", "store_uuid", "boot_counter", "address", "nonce", "nonces_before"), (),
              "a member has started, and where"),
    Operation(Op.META_PLACE, "meta_place", Access.LOG, Route.META, True,
              ("shard", "expected_version", "nodes"), ("version",),
              "which nodes shall hold a shard; allocates the new replica ids"),
    Operation(Op.META_REPORT, "meta_report", Access.LOG, Route.META, True,
              ("shard", "conf_version", "term", "replicas", "placement_version"), (),
              "which replicas do hold a shard, as its leader says, and which wish it knows"),
    Operation(Op.META_NODE_DEAD, "meta_node_dead", Access.LOG, Route.META, True,
              ("node", "dead", "boot_counter"), (),
              "a member has been silent for too long, or is back"),
    Operation(Op.META_SPLIT_DONE, "meta_split_done", Access.LOG, Route.META, True,
              ("shard", "shard_new", "at", "version", "conf_version", "term"), (),
              "a shard's log has cut the shard in two, as its leader says; at 0: it cannot be cut"),
    Operation(Op.META_REBUILD, "meta_rebuild", Access.LOG, Route.META, True,
              ("shard", "expected_version", "replica"), ("version",),
              "a damaged replica shall be made anew where it is, under a new id"),
    Operation(Op.META_RECOVERED, "meta_recovered", Access.LOG, Route.META, True,
              ("node", "replica", "shard", "shards"), (),
              "a recovery has gone on without some nodes; the highest numbers that are known of to "
              "those that are left, and their shards, [shard, lo, hi, [[replica, node]]]"),
)  # fmt: skip

OPERATIONS: dict[int, Operation] = {row.code: row for row in _ROWS}
OPERATIONS_BY_NAME: dict[str, Operation] = {row.name: row for row in _ROWS}


KEEP_TTL = -1  # a ttl_ms: the deadline and the lease that the key has; null: it lasts for ever


class LeaseChange(enum.IntEnum):
    """What LEASE_CHANGE does."""

    GRANT = 0
    KEEPALIVE = 1
    REVOKE = 2


class What(enum.IntEnum):
    """What a scan tells."""

    ROWS = 0
    KEYS = 1
    COUNT = 2


class Change(enum.IntEnum):
    """The kinds of events in a shard's feed."""

    PUT = 0
    DELETE = 1
    EXPIRE = 2  # a delete by the clock or a lease's end
    SPLIT = 3  # [3, null, shard_new, index, at, index]: keys from token `at` on go on there


class Compare(enum.IntEnum):
    """What a transaction compares of a key; an absent one has revision 0 and value null."""

    REVISION = 0
    VALUE = 1


class Relation(enum.IntEnum):
    """How it compares. A value that is null is less than any other."""

    EQUAL = 0
    UNEQUAL = 1
    LESS = 2
    GREATER = 3


class Consistency(enum.IntEnum):
    """How fresh a read must be."""

    LINEARIZABLE = 0  # sees every write that was acknowledged before it began
    STALE = 1  # whatever the asked node has; the reply says how stale that may be
