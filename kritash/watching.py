"""Following changes: ``key watch`` and ``election observe``.

A follower is there to stay. So what the client raises and another try may change is noted,
once, and the following goes on; it ends at Ctrl-C, after ``--count``, or with an error
that is final, such as a past that is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from krita.errors import KritaError
from kritash.exits import Exit
from kritash.render import jsonable
from kritash.reply import Reply, View
from kritash.words import ParseError

if TYPE_CHECKING:
    from krita.watching import Event
    from kritash.context import Context
    from kritash.grammar import Invocation

T = TypeVar("T")
PAUSE_S = 0.5  # behind an error, until the next try


def run_watch(context: Context, invocation: Invocation) -> Reply:
    """Watches what the invocation names. Raises ParseError for two ways to name it, KritaError
    when it cannot begin or go on."""
    key, prefix = invocation.bytes("KEY"), invocation.bytes("prefix")
    start, stop = invocation.bytes("start"), invocation.bytes("stop")
    if sum((key is not None, prefix is not None, bool(start or stop))) > 1:
        raise ParseError(
            "a watch is of a key, of a --prefix, or of --start and --stop",
            hint="name one of them; without any it is of all keys",
        )
    token = invocation.text("from")
    with context.client.watch(key, prefix=prefix, start=start, stop=stop, token=token) as watch:
        watch.begin()

        def show(event: Event) -> None:
            context.recent.saw_key(event.key)
            _show(context, event_document(event), watch.token)

        reply = follow_all(context, watch, show, invocation.count("count"))
        context.display.note(f"go on with: --from {watch.token}")
    # Ctrl-C may have come while an answer was being read: the next command dials anew.
    context.close()
    return reply


def event_document(event: Event) -> dict[str, object]:
    """An event for programs, as HTTP has it."""
    document: dict[str, object] = {
        "type": event.kind, "key": event.key, "revision": event.revision,
    }  # fmt: skip
    if event.kind == "put":
        document["value"] = event.data
    if event.content_type is not None:
        document["content_type"] = event.content_type
    return document


def _show(context: Context, document: dict[str, object], token: str) -> None:
    if context.display.as_json:
        show_line(context, document | {"token": token})
    else:
        context.display.part(Reply(View.EVENTS, [document]))


def show_line(context: Context, document: dict[str, object]) -> None:
    """A document on a line of its own. Raises OSError."""
    context.display.data(json.dumps(jsonable(document), ensure_ascii=False) + "\n")


def follow_all(
    context: Context, found: Iterator[T], show: Callable[[T], None], count: int | None
) -> Reply:
    """Shows what comes: ``count`` of them, or until Ctrl-C, which is the way to end a
    following and so DONE; of one that had a count it is INTERRUPTED. Raises KritaError."""
    left = count
    trouble = ""
    try:
        while left is None or left > 0:
            try:
                each = next(found)
            except KritaError as error:
                if not error.retryable:
                    raise
                if error.message != trouble:
                    context.display.note(f"no answer: {error.message}; following goes on")
                trouble = error.message
                context.pause(PAUSE_S)
                continue
            trouble = ""
            show(each)
            left = None if left is None else left - 1
    except KeyboardInterrupt:
        return Reply(View.NOTHING, code=Exit.DONE if count is None else Exit.INTERRUPTED)
    return Reply(View.NOTHING)
