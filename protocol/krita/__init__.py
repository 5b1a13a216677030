"""The Python client of Krita.

``krita.errors`` has everything that can be caught, all under ``KritaError``.
"""

from krita.client import Client, connect
from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    Foreign,
    InternalError,
    KritaError,
    NoSpace,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    ProtocolError,
    SessionExpired,
    Status,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    WrongShard,
)
from krita.operations import Consistency
from krita.values import DeleteResult, Pong, PutResult, Value

# The same as kritad.__version__, which tests/protocol compares: the client may
# be installed where the daemon is not.
__version__ = "0.2.0"

__all__ = [
    "BadRequest",
    "Busy",
    "Client",
    "ConditionFailed",
    "ConnectionFailed",
    "Consistency",
    "DeadlineExceeded",
    "DeleteResult",
    "Forbidden",
    "Foreign",
    "InternalError",
    "KritaError",
    "NoSpace",
    "NotLeader",
    "Outcome",
    "OutcomeUnknown",
    "Pong",
    "ProtocolError",
    "PutResult",
    "SessionExpired",
    "Status",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Value",
    "WrongShard",
    "__version__",
    "connect",
]
