"""From a reply to what is shown: JSON, plain lines, or a drawing.

JSON, values and sentences are made here; ``views`` has a drawing for each kind of
document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.cells import lines, visible
from kritash.reply import Reply, View

if TYPE_CHECKING:
    from rich.console import RenderableType


def render_json(document: object, indent: bool) -> str:
    """One JSON document and a newline; on one line unless ``indent``."""
    import json

    return json.dumps(jsonable(document), indent=2 if indent else None, ensure_ascii=False) + "\n"


def jsonable(item: object) -> object:
    """The same with bytes as text, or as ``{"base64": …}`` where they are no
    UTF-8; keys of dicts become text."""
    if isinstance(item, bytes):
        try:
            return item.decode("utf-8")
        except UnicodeDecodeError:
            import base64

            return {"base64": base64.b64encode(item).decode("ascii")}
    if isinstance(item, dict):
        return {_json_key(key): jsonable(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [jsonable(element) for element in item]
    return item


def _json_key(key: object) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


def render_plain(reply: Reply) -> bytes:
    """For a pipe: tab-separated lines without colour, a value as it is stored."""
    match reply.view:
        case View.NOTHING:
            return b""
        case View.VALUE:
            return _value_of(reply)
        case View.SENTENCE | View.TEXT:
            return f"{reply.text}\n".encode()
    # Imported when a document is shown: a plain get should not pay for it.
    from kritash.views import VIEWS

    return lines(VIEWS[reply.view].plain(reply.document))


def render_terminal(reply: Reply) -> RenderableType | None:
    """For a terminal: something that a rich console prints, or None where plain
    text (``terminal_text``) says it."""
    if reply.view in (View.NOTHING, View.VALUE, View.SENTENCE, View.TEXT):
        return None
    from kritash.views import VIEWS

    return VIEWS[reply.view].drawn(reply.document)


def terminal_text(reply: Reply) -> str:
    """For a terminal, where nothing is drawn (and so rich is not needed)."""
    if reply.view is View.VALUE:
        has_value = isinstance(reply.document, dict) and reply.document.get("value") is not None
        return f"{visible(_value_of(reply))}\n" if has_value else ""
    if reply.view is View.SENTENCE:
        return visible(reply.text.replace("\t", "  ")) + "\n"
    return f"{reply.text}\n" if reply.view is View.TEXT else ""


def _value_of(reply: Reply) -> bytes:
    value = reply.document.get("value") if isinstance(reply.document, dict) else None
    return value if isinstance(value, bytes) else b""
