"""What an action hands back: a document, and how people like to see it."""

from __future__ import annotations

import enum

import attrs

from kritash.exits import Exit


class View(enum.Enum):
    """The shapes of reply that ``render`` and ``views`` know."""

    NOTHING = "nothing"
    VALUE = "value"  # {"key","value": bytes|None,"revision","content_type"}
    SENTENCE = "sentence"  # text says it; the document is for programs
    TEXT = "text"  # text, several lines, shown as it is
    PAIRS = "pairs"  # a flat dict, shown name by name
    CLUSTER = "cluster"  # the cluster_status document
    HEALTH = "health"  # what `cluster health` makes of it
    FINDINGS = "findings"  # what `doctor` found: a list
    NODES = "nodes"  # the node_list document
    SHARDS = "shards"  # the shard_list document
    SHARD = "shard"  # one of its rows, and what is under way with it
    MOVES = "moves"  # the move_list document
    PLAN = "plan"  # the node_plan document
    ITEMS = "items"  # {"items": what a scan found, "header": whether one is wanted}
    EVENTS = "events"  # a list of what a watch has seen
    VERSIONS = "versions"  # {"key","complete_from_ms","versions"}
    DIFFERENCE = "difference"  # what `differences` makes of two values
    RULES = "rules"  # a list of retentions
    TXN = "txn"  # {"succeeded","revision","results"}
    PLACE = "place"  # where a key is: what `key explain` tells
    RING = "ring"  # {"arcs","nodes"}


@attrs.frozen
class Reply:
    """``document`` holds what ``--json`` prints: dicts with text keys, lists,
    numbers, text, None, and bytes (which ``render`` turns into text or base64).
    The ``text`` of a VALUE says on stderr why there is none."""

    view: View
    document: object = None
    text: str = ""
    code: int = Exit.DONE  # an Exit; another only as the status of a program that was run
    leave: bool = False  # the prompt ends after this


def sentence(document: object, *parts: str, code: Exit = Exit.DONE) -> Reply:
    """A reply of one line, whose parts stand in columns."""
    return Reply(View.SENTENCE, document, "\t".join(parts), code)
