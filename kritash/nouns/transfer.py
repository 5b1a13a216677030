"""``key import`` and ``key export``: many keys at once, from and to files;
``kritash.importing`` and ``kritash.exporting`` do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.grammar import Argument, Command, Kind, Option

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation
    from kritash.reply import Reply


def import_keys(context: Context, invocation: Invocation) -> Reply:
    """Puts what a file says."""
    # Imported here: a plain get should not pay for the formats.
    from kritash.importing import run_import

    return run_import(context, invocation)


def export_keys(context: Context, invocation: Invocation) -> Reply:
    """Writes what the cluster has."""
    from kritash.exporting import run_export

    return run_export(context, invocation)


_IMPORT_DETAILS = """\
FILE is - for standard input. Its format follows from its name (.jsonl, .ndjson,
.csv), else say it; standard input is jsonl unless said.
jsonl   {"key": "user:1", "value": "Ada", "content_type": "text/plain"} on a line;
        bytes that are not text as {"base64": "/wA="}; "ttl_ms" for a key that is to end
csv     a header of key,value,content_type,ttl_ms; key_base64, value_base64 for bytes
consul  the output of `consul kv export`; flags are not kept
etcd    the output of `etcdctl get "" --prefix -w json`; leases are not kept
A file is checked whole before anything is put; an export also by its last line, which
counts: one that was cut or changed is refused, one without it imported with a warning.
Keys that exist are replaced (--if-absent: kept). When it stops half-way, run it again:
what is there already is set to the same once more."""

_EXPORT_DETAILS = """\
FILE is standard output unless given, jsonl unless --format or its name says csv.
It appears when it is complete, and a file that is there is not written over without
--force. JSON lines have a first line and a last one with a count and a digest, by which
`key import` knows that nothing is missing. Each key is as it was when the export came to it;
what is written meanwhile may be in it or not. `key import` reads it back: a key
that had so long to live lives so long from then on. Leases are not kept."""

_PREFIX_IMPORT = Option("prefix", "what to put in front of every key", "P", Kind.KEY)
_PREFIX_EXPORT = Option("prefix", "only keys that begin with this", "P", Kind.KEY)

# As in kritash.transfer.formats, which a start does not load; a test compares them.
_READABLE = ("jsonl", "csv", "consul", "etcd")
_WRITABLE = ("jsonl", "csv")

COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "import"), "put all keys of a file", import_keys,
        arguments=(Argument("FILE", Kind.TEXT, "where they are; - is standard input"),),
        options=(
            Option("format", ", ".join(_READABLE), "FORMAT", choices=_READABLE),
            _PREFIX_IMPORT,
            Option("if-absent", "leave keys alone that exist"),
            Option("dry-run", "check the file and count; put nothing"),
        ),
        details=_IMPORT_DETAILS, example="key import users.csv --prefix user:",
    ),
    Command(
        ("key", "export"), "write keys and their values into a file", export_keys,
        arguments=(Argument("FILE", Kind.TEXT, "where to; - is standard output", optional=True),),
        options=(Option("format", ", ".join(_WRITABLE), "FORMAT", choices=_WRITABLE),
                 _PREFIX_EXPORT, Option("force", "write over a file that is there")),
        details=_EXPORT_DETAILS, example="key export --prefix user: users.jsonl",
    ),
)  # fmt: skip
