"""The Python client of Krita.

``krita.errors`` has everything that can be caught, all under ``KritaError``.
"""

from krita import steps
from krita.blocking.elections import Election, Observation
from krita.blocking.leases import Lease
from krita.blocking.locks import Lock
from krita.blocking.scans import Scan
from krita.blocking.watches import Watch
from krita.checks import Data, Key
from krita.client import Client, connect
from krita.errors import (
    BadRequest,
    Busy,
    Compacted,
    ConditionFailed,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    Foreign,
    InternalError,
    KritaError,
    LeaseUnknown,
    Locked,
    LockLost,
    NoSpace,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    ProtocolError,
    SessionExpired,
    SeveralGroups,
    Status,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    WrongShard,
)
from krita.items import Difference, Explanation, Item, LeaseInfo, Pong, RetentionRule
from krita.operations import KEEP_TTL, Consistency
from krita.pipeline import Item as PipelineItem
from krita.pipeline import Pipeline
from krita.ring import ShardInfo, ShardMap
from krita.values import (
    AddResult,
    AppendResult,
    DeleteResult,
    History,
    Leader,
    PutResult,
    StepResult,
    TouchResult,
    TxnResult,
    Value,
    Version,
)
from krita.watching import Event, EventKind

# The same as kritad.__version__, which tests/protocol compares: the client may
# be installed where the daemon is not.
__version__ = "0.3.0.dev0"

__all__ = [
    "KEEP_TTL",
    "AddResult",
    "AppendResult",
    "BadRequest",
    "Busy",
    "Client",
    "Compacted",
    "ConditionFailed",
    "Conflict",
    "ConnectionFailed",
    "Consistency",
    "Data",
    "DeadlineExceeded",
    "DeleteResult",
    "Difference",
    "Election",
    "Event",
    "EventKind",
    "Explanation",
    "Forbidden",
    "Foreign",
    "History",
    "InternalError",
    "Item",
    "Key",
    "KritaError",
    "Leader",
    "Lease",
    "LeaseInfo",
    "LeaseUnknown",
    "Lock",
    "LockLost",
    "Locked",
    "NoSpace",
    "NotLeader",
    "Observation",
    "Outcome",
    "OutcomeUnknown",
    "Pipeline",
    "PipelineItem",
    "Pong",
    "ProtocolError",
    "PutResult",
    "RetentionRule",
    "Scan",
    "SessionExpired",
    "SeveralGroups",
    "ShardInfo",
    "ShardMap",
    "Status",
    "StepResult",
    "TooLarge",
    "TouchResult",
    "TxnResult",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Value",
    "Version",
    "Watch",
    "WrongShard",
    "__version__",
    "connect",
    "steps",
]
