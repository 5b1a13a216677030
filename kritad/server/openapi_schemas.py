"""What bodies look like, for /openapi.json: JSON Schema 2020-12, as OpenAPI 3.1 has it.

What several addresses share has a name in ``SCHEMAS`` and is referred to. A body of a request
has no fields but those that are named; answers may get more.
"""

from __future__ import annotations

from krita.errors import Outcome, Status
from krita.limits import KEY_BYTES_MAX, LEASE_LIMIT, TXN_OPERATIONS_MAX
from kritad.server.http_answers import error_name_of, outcome_text
from kritad.server.http_options import TTL_S_MAX

Schema = dict[str, object]

_NUMBER_MAX = (1 << 63) - 1


def ref(name: str, kind: str = "schemas") -> Schema:
    """A reference to one of the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def thing(needed: str, /, **properties: Schema) -> Schema:
    """An object; ``needed`` are the names of the properties that are always there."""
    return {
        "type": "object",
        "required": needed.split(),
        "properties": properties,
    }


def closed(needed: str, /, **properties: Schema) -> Schema:
    """An object in a request: what is not understood is refused."""
    return thing(needed, **properties) | {"additionalProperties": False}


def array(items: Schema, most: int | None = None) -> Schema:
    """An array."""
    return {"type": "array", "items": items} | ({} if most is None else {"maxItems": most})


def constant(*values: object) -> Schema:
    """One of these."""
    return {"enum": list(values)}


def nullable(schema: Schema) -> Schema:
    """That, or null."""
    return {"oneOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
REVISION: Schema = {"type": "integer", "minimum": 0, "maximum": _NUMBER_MAX}
TOKEN: Schema = {"type": "integer", "minimum": 1, "maximum": _NUMBER_MAX}
COUNT: Schema = {"type": "integer", "minimum": 0}
INTEGER: Schema = {"type": "integer", "minimum": -_NUMBER_MAX, "maximum": _NUMBER_MAX}
LEASE: Schema = {
    "type": "string",
    "pattern": f"^[1-9][0-9]{{0,{len(str(LEASE_LIMIT)) - 1}}}$",
    "description": "a number from 1 to 2**60-1, as text: JavaScript's numbers are too short",
}
SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": TTL_S_MAX}
TTL: Schema = {"type": "number", "minimum": 0.001, "maximum": TTL_S_MAX}
CONTENT_TYPE: Schema = {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"}
TIME: Schema = {"type": "string", "description": "ISO 8601, in UTC"}
BYTES = ref("Bytes")
_KEY = ref("Key")
SUCCESS = constant("success")
_REVISION_OR_NULL = nullable(REVISION) | {"description": "null: of keys of several groups"}


def _writes(also: dict[str, Schema]) -> list[Schema]:
    """Each verb with its fields."""
    key = {"key": _KEY}
    life = {"ttl": ref("TimeToLive"), "lease": LEASE}
    value: dict[str, Schema] = {"value": BYTES}
    return [
        closed("do key value", do=constant("put"), **key, **value, content_type=CONTENT_TYPE,
               **life, **also),
        closed("do key", do=constant("delete"), **key, **also),
        closed("do key", do=constant("add"), **key, by=INTEGER, **life, **also),
        closed("do key value", do=constant("append"), **key, **value, **life, **also),
        closed("do key", do=constant("touch"), **key, ttl=TTL, lease=LEASE, **also)
        | {"anyOf": [{"required": ["ttl"]}, {"required": ["lease"]}]},
        closed("do key", do=constant("persist"), **key, **also),
    ]  # fmt: skip


def _comparisons() -> list[Schema]:
    relation = constant("=", "!=", "<", ">")
    return [
        closed("key revision", key=_KEY, revision=REVISION, **{"is": relation}),
        closed("key value", key=_KEY, value=BYTES, **{"is": relation}),
        closed("key absent", key=_KEY, absent=FLAG, **{"is": constant("=")}),
    ]


_ITEM: dict[str, Schema] = {
    "key": BYTES,
    "revision": REVISION,
    "content_type": TEXT,
    "expires_in": SECONDS,
    "lease": LEASE,
}
_DONE: dict[str, Schema] = {
    "revision": REVISION,
    "existed": FLAG,
    "number": INTEGER,
    "length": COUNT,
}

_ENCODED = closed(
    "base64",
    base64={
        "type": "string",
        "contentEncoding": "base64",
        "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    },
)


def _some(encoded: Schema) -> Schema:
    """The same, and not nothing."""
    return {"allOf": [encoded, thing("base64", base64={"minLength": 4})]}


def _failure(needed: str) -> Schema:
    """An error among other results, with the status that it would have alone."""
    status: Schema = {"type": "integer", "minimum": 400}
    return {"allOf": [ref("Error"), thing(f"http {needed}", http=status)]}


SCHEMAS: dict[str, Schema] = {
    "Bytes": {
        "description": "bytes: as text if they are UTF-8, else in base64",
        "oneOf": [
            TEXT,
            _ENCODED,
        ],
    },
    "Key": {
        "description": "bytes that are not empty",
        "oneOf": [TEXT | {"minLength": 1, "maxLength": KEY_BYTES_MAX}, _some(_ENCODED)],
    },
    "TimeToLive": {
        "description": 'seconds from now on; "keep": as long as the key has left already',
        "oneOf": [TTL, constant("keep")],
    },
    "Error": thing(
        "status message code outcome",
        status=constant("error"),
        message=TEXT | {"description": "what happened, and why"},
        code=constant(
            *sorted(
                {error_name_of(status) for status in Status if status}
                | {"not_found", "method_not_allowed"}
            )
        ),
        outcome=constant(*(outcome_text(outcome) for outcome in Outcome)),
        hint=TEXT | {"description": "what to do about it"},
        key=BYTES,
        lock=BYTES,
        owner=BYTES | {"description": "who holds the lock"},
        left=SECONDS | {"description": "for how long, unless it is given back before"},
        groups=array(BYTES),
        oldest={
            "description": "where one can begin: a time as at takes it, of at_revision a "
            "revision, and of a watch a token; not there if nothing is kept",
            "type": ["integer", "string"],
        },
    ),
    "Problems": thing(
        "status message code outcome problems",
        status=constant("error"),
        message=TEXT,
        code=constant("unavailable", "unhealthy"),
        outcome=constant("not applied"),
        problems=array(TEXT),
    ),
    "Named": thing("status message key", status=SUCCESS, message=TEXT, key=BYTES),
    "NamedValue": thing(
        "status message key value", status=SUCCESS, message=TEXT, key=BYTES, value=BYTES
    ),
    "Previous": thing("value revision", value=BYTES, revision=REVISION, content_type=TEXT),
    "Written": thing(
        "status message key revision",
        status=SUCCESS,
        message=TEXT,
        key=BYTES,
        revision=REVISION,
        previous=nullable(ref("Previous")),
    ),
    "Changed": thing(
        "status message key revision",
        status=SUCCESS,
        message=TEXT,
        key=BYTES,
        revision=REVISION,
        number=INTEGER | {"description": "of do=add: the sum"},
        length=COUNT | {"description": "of do=append: the value's bytes now"},
    ),
    "Item": thing("key revision", value=BYTES, **_ITEM),
    "Page": thing("items next_cursor", items=array(ref("Item")), next_cursor=nullable(TEXT)),
    "Count": thing("count", count=COUNT),
    "Keys": closed("keys", keys=array(_KEY)),
    "Items": thing(
        "items",
        items=array(
            {
                "oneOf": [
                    thing("key value revision", value=nullable(BYTES), **_ITEM),
                    _failure("key"),
                ]
            }
        ),
    ),
    "BulkWrite": {
        "oneOf": _writes({"if_revision": REVISION, "if_absent": FLAG}),
        "not": {"required": ["if_revision", "if_absent"]},
    },
    "Bulk": closed("operations", operations=array(ref("BulkWrite"))),
    "BulkResults": thing(
        "results",
        results=array(
            {
                "oneOf": [
                    thing(
                        "http status revision existed",
                        http=constant(200, 201),
                        status=SUCCESS,
                        **_DONE,
                    ),
                    _failure(""),
                ]
            }
        ),
    ),
    "Comparison": {"oneOf": _comparisons()},
    "TransactionOperation": {
        "oneOf": [*_writes({}), closed("do key", do=constant("get"), key=_KEY)]
    },
    "Transaction": closed(
        "",
        compare=array(ref("Comparison"), TXN_OPERATIONS_MAX),
        then=array(ref("TransactionOperation"), TXN_OPERATIONS_MAX),
        **{"else": array(ref("TransactionOperation"), TXN_OPERATIONS_MAX)},
    ),
    "TransactionResults": thing(
        "status succeeded revision results",
        status=SUCCESS,
        succeeded=FLAG,
        revision=_REVISION_OR_NULL,
        results=array(
            thing(
                "key revision",
                key=BYTES,
                value=nullable(BYTES),
                content_type=TEXT,
                **_DONE | {"revision": _REVISION_OR_NULL},
            )
        ),
    ),
    "WatchEvent": {
        "oneOf": [
            thing(
                "type key value revision",
                type=constant("put"),
                key=BYTES,
                value=nullable(BYTES),
                revision=REVISION,
                content_type=TEXT,
                token=TEXT,
            ),
            thing(
                "type key revision",
                type=constant("delete", "expire"),
                key=BYTES,
                revision=REVISION,
                token=TEXT,
            ),
            thing("type token", type=constant("progress"), token=TEXT),
            {"allOf": [ref("Error"), thing("type", type=constant("error"))]},
        ]
    },
    "LeaseWanted": closed("ttl", ttl=TTL, lease=LEASE),
    "Lease": thing("lease ttl", lease=LEASE, ttl=SECONDS),
    "LeaseState": thing(
        "lease ttl left keys", lease=LEASE, ttl=SECONDS, left=SECONDS, keys=array(BYTES)
    ),
    "LeaseEnded": thing("lease keys", lease=LEASE, keys=COUNT),
    "LockWanted": closed(
        "owner",
        owner=_KEY,
        ttl=TTL,
        lease=LEASE,
        wait={"type": "number", "minimum": 0, "maximum": 600},
    )
    | {"anyOf": [{"required": ["ttl"]}, {"required": ["lease"]}]},
    "LockRenewal": closed("token ttl", token=TOKEN, ttl=TTL),
    "Lock": thing(
        "status message lock token", status=SUCCESS, message=TEXT, lock=BYTES, token=TOKEN
    ),
    "LockHolder": thing(
        "lock owner token", lock=BYTES, owner=BYTES, token=TOKEN, left=SECONDS, lease=LEASE
    ),
    "History": thing(
        "key versions next_before complete_from",
        key=BYTES,
        versions=array(
            thing(
                "revision value",
                revision=REVISION,
                value=nullable(BYTES),
                content_type=TEXT,
                until_revision=REVISION,
                until=TIME,
            )
        ),
        next_before=nullable(REVISION),
        complete_from=nullable(TIME),
    ),
    "Undone": thing(
        "status message key revision restored_revision",
        status=SUCCESS,
        message=TEXT,
        key=BYTES,
        revision=REVISION,
        restored_revision=REVISION,
    ),
    "Retentions": thing(
        "rules",
        rules=array(
            thing("prefix keep complete_from", prefix=BYTES, keep=SECONDS, complete_from=TIME)
        ),
    ),
    "Retention": thing(
        "status message prefix keep", status=SUCCESS, message=TEXT, prefix=BYTES, keep=SECONDS
    ),
}
