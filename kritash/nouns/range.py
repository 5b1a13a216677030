"""``key scan``, ``count`` and ``watch``: many keys at once, named by how they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import KEY, PREFIX, START, STOP
from kritash.reply import Reply, View, sentence
from kritash.words import ParseError

if TYPE_CHECKING:
    from krita.items import Item
    from kritash.context import Context
    from kritash.grammar import Invocation


class Range(TypedDict):
    """As the client takes it."""

    prefix: bytes | None
    start: bytes | None
    stop: bytes | None


def range_of(invocation: Invocation) -> Range:
    """The range that was named; nothing is all keys. Raises ParseError for two of them."""
    found = Range(
        prefix=invocation.bytes("PREFIX"),
        start=invocation.bytes("start"),
        stop=invocation.bytes("stop"),
    )
    if found["prefix"] is not None and (found["start"] or found["stop"]):
        raise ParseError(
            "a range is a prefix, or --start and --stop, not both",
            hint="all keys that begin with a: key scan a; from a up to c: --start a --stop c",
        )
    return found


def scan(context: Context, invocation: Invocation) -> Reply:
    """The keys of a range, shown as they come."""
    from kritash.listing import Listing

    keys_only = invocation.flag("keys-only")
    listing = Listing(context.display, View.ITEMS, header=not keys_only)
    found = context.client.scan(
        **range_of(invocation),
        limit=invocation.count("limit"),
        reverse=invocation.flag("reverse"),
        keys_only=keys_only,
    )
    for item in found:
        context.recent.saw_key(item.key)
        listing.add(item_document(item))
    listing.end()
    return Reply(View.NOTHING)


def item_document(item: Item) -> dict[str, object]:
    """A key of a scan for programs."""
    document: dict[str, object] = {"key": item.key, "revision": item.revision}
    if item.data is not None:
        document["value"] = item.data
        document["content_type"] = item.content_type
    if item.expires_in_ms is not None:
        document["expires_in_ms"] = item.expires_in_ms
    if item.lease is not None:
        document["lease"] = str(item.lease)
    return document


def count(context: Context, invocation: Invocation) -> Reply:
    """How many keys a range has."""
    wanted = range_of(invocation)
    number = context.client.count(**wanted)
    told = {name: key for name, key in wanted.items() if key is not None}
    return sentence({**told, "count": number}, str(number))


def watch(context: Context, invocation: Invocation) -> Reply:
    """What changes from now on."""
    from kritash.watching import run_watch

    return run_watch(context, invocation)


_RANGE = Argument("PREFIX", Kind.KEY, "how they begin; otherwise all keys", optional=True)

COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "scan"), "the keys that begin with something, in order", scan, aliases=("scan",),
        arguments=(_RANGE,),
        options=(START, STOP, Option("limit", "so many at most", "N", Kind.COUNT),
                 Option("reverse", "the last first"),
                 Option("keys-only", "without values; in a pipe a key on each line")),
        details="They are shown page by page, each as it was when the scan came to it. With\n"
        "--json all of them are one array. A terminal gets values cut short, a pipe whole ones.",
        example="key scan user: --limit 20",
    ),
    Command(
        ("key", "count"), "how many keys begin with something", count, aliases=("count",),
        arguments=(_RANGE,), options=(START, STOP),
        details="Every shard looks at each of them, some 200,000 in a second.",
        example="key count user:",
    ),
    Command(
        ("key", "watch"), "follow what changes", watch, aliases=("watch",),
        arguments=(Argument(KEY.name, KEY.kind, "the key; otherwise a range, or all keys",
                            optional=True),),
        options=(PREFIX, START, STOP,
                 Option("from", "go on where an earlier watch ended, by its token", "TOKEN"),
                 Option("count", "end after so many changes", "N", Kind.COUNT)),
        details="Until Ctrl-C, which is exit code 0 (130 with --count). Every change comes once,\n"
        "those of one shard in their order. The end says a token on stderr, with which --from\n"
        "goes on; with --json, a document on each line, every change has one. Exit code 6 when\n"
        "the cluster has not kept what lies between. Changes of leader are not noticed; while\n"
        "nothing can be reached stderr says so, and the watch goes on.",
        example="key watch --prefix user:",
    ),
)  # fmt: skip
