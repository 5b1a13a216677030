"""From a reply to what is shown: a table, plain lines, or JSON.

The only module that imports rich (70 ms), and only when a table is drawn at a
terminal. What comes from the cluster is data: it is never read as markup, and
control characters in it are shown escaped, so that a stored value cannot drive
the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kritash.reply import Reply, View

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

Rows = list[list[str]]

_GOOD = frozenset({"healthy", "up", "alive", "active", "yes"})
_BAD = frozenset({"unavailable", "down", "dead", "no", "none"})


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


def visible(data: bytes | str) -> str:
    """Text that is safe at a terminal: whatever is neither printable UTF-8, tab
    nor newline appears as ``\\xHH`` (``\\uHHHH`` beyond one byte)."""
    if isinstance(data, bytes):
        data = data.decode("utf-8", "backslashreplace")
    if data.isprintable():
        return data
    return "".join(
        char if char.isprintable() or char in "\n\t" else _escaped(char) for char in data
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def render_plain(reply: Reply) -> bytes:
    """For a pipe: tab-separated lines without colour, a value as it is stored."""
    document = reply.document
    match reply.view:
        case View.NOTHING:
            return b""
        case View.VALUE:
            value = _get(document, "value")
            return value if isinstance(value, bytes) else b""
        case View.SENTENCE | View.TEXT:
            return f"{reply.text}\n".encode()
        case View.CLUSTER:
            return _lines(_cluster_lines(document))
        case View.NODES:
            return _lines([NODE_HEADERS, *node_rows(document)])
        case View.SHARDS:
            return _lines([SHARD_HEADERS, *shard_rows(document, machine=True)])
        case View.PAIRS:
            return _lines([[name, _cell(value)] for name, value in _items(document)])


def render_terminal(reply: Reply) -> RenderableType | None:
    """For a terminal: something that a rich console prints, or None where plain
    text (``terminal_text``) says it."""
    match reply.view:
        case View.CLUSTER:
            return _cluster_view(reply.document)
        case View.NODES:
            return _table(NODE_HEADERS, node_rows(reply.document))
        case View.SHARDS:
            return _table(SHARD_HEADERS, shard_rows(reply.document))
        case View.PAIRS:
            return _pairs_view(reply.document)
        case _:
            return None


def terminal_text(reply: Reply) -> str:
    """For a terminal, where no table is needed (and so no rich)."""
    if reply.view is View.VALUE:
        value = _get(reply.document, "value")
        return f"{visible(value)}\n" if isinstance(value, bytes) else ""
    if reply.view is View.SENTENCE:
        return visible(reply.text.replace("\t", "  ")) + "\n"
    return f"{reply.text}\n" if reply.view is View.TEXT else ""


NODE_HEADERS = ["node", "address", "zone", "state", "reachable", "leaders", "replicas"]
SHARD_HEADERS = ["shard", "from", "to", "leader", "term", "replicas"]


def node_rows(nodes: object) -> Rows:
    """One row for each node of a node_list document, as NODE_HEADERS say."""
    return [[_cell(_get(node, header)) for header in NODE_HEADERS] for node in _list(nodes)]


def shard_rows(shards: object, machine: bool = False) -> Rows:
    """One row for each shard of a shard_list document, as SHARD_HEADERS say.
    Replicas read ``1 leader, 2 +0, 3 +17``; for machines ``1:leader:0,2:voter:0``."""
    rows = []
    for shard in _list(shards):
        leader = _get(shard, "leader")
        replicas = _list(_get(shard, "replicas"))
        rows.append([
            _cell(_get(shard, "shard")),
            _arc(_get(shard, "hash_lo")),
            _arc(_get(shard, "hash_hi")),
            _cell(leader) if leader else "none",
            _cell(_get(shard, "term")),
            "," .join(map(_machine_replica, replicas)) if machine
            else ", ".join(map(_replica, replicas)),
        ])  # fmt: skip
    return rows


def _arc(edge: object) -> str:
    return f"{edge:08x}" if isinstance(edge, int) else "-"


def _replica(replica: object) -> str:
    node, role, lag = (_get(replica, name) for name in ("node", "role", "lag"))
    if role == "leader":
        return f"{node} leader"
    behind = f"+{lag}" if isinstance(lag, int) else "?"
    return f"{node} {behind}" if role == "voter" else f"{node} {behind} {role}"


def _machine_replica(replica: object) -> str:
    node, role, lag = (_get(replica, name) for name in ("node", "role", "lag"))
    return f"{node}:{role}:{'-' if lag is None else lag}"


def _cluster_lines(status: object) -> Rows:
    """Every line begins with what it is about, so that grep finds it."""
    lines = [
        ["cluster", _cell(_get(status, "cluster_id"))],
        ["health", _cell(_get(status, "health"))],
        ["failures_tolerated", _cell(_get(status, "failures_tolerated"))],
    ]
    lines += [["problem", _cell(problem)] for problem in _list(_get(status, "problems"))]
    lines += [["node", *row] for row in node_rows(_get(status, "nodes"))]
    lines += [["shard", *row] for row in shard_rows(_get(status, "shards"), machine=True)]
    return lines


def _cluster_view(status: object) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    nodes, shards = _list(_get(status, "nodes")), _list(_get(status, "shards"))
    health = _cell(_get(status, "health"))
    headline = Text("cluster ")
    headline.append(_cell(_get(status, "cluster_id"))[:8], "bold")
    headline.append("  ")
    headline.append(health, _style(health, "bold yellow"))
    headline.append(f"  {_count(len(nodes), 'node')}, {_count(len(shards), 'shard')}")
    tolerated = _get(status, "failures_tolerated")
    if isinstance(tolerated, int):
        headline.append(f", survives the loss of {_count(tolerated, 'node')}")
    problems = [
        Text(f"  ! {_cell(problem)}", "yellow") for problem in _list(_get(status, "problems"))
    ]
    return Group(
        headline,
        *problems,
        _table(NODE_HEADERS, node_rows(nodes)),
        _table(SHARD_HEADERS, shard_rows(shards)),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _pairs_view(document: object) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in _items(document):
        table.add_row(_text(name, "bold"), _text(_cell(value)))
    return table


def _table(headers: Sequence[str], rows: Rows) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numeric = {"node", "shard", "leader", "leaders", "term"}
    for header in headers:
        table.add_column(_text(header), justify="right" if header in numeric else "left")
    for row in rows:
        table.add_row(*(_text(cell, _style(cell)) for cell in row))
    return table


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _style(cell: str, otherwise: str = "") -> str:
    if cell in _GOOD:
        return "green"
    return "bold red" if cell in _BAD else otherwise


def _cell(value: object) -> str:
    """One cell: no tab or newline of the data may end it."""
    match value:
        case None | "" | b"":
            return "-"
        case bool():
            return "yes" if value else "no"
        case bytes() | str():
            return visible(value).replace("\t", "\\t").replace("\n", "\\n")
        case list() | tuple():
            return ",".join(map(_cell, value))
        case _:
            return str(value)


def _lines(rows: Rows) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode("utf-8", "backslashreplace")


# A reply from another version may lack a field or have it in another shape:
# that shows as "-", and never as a traceback.
def _get(item: object, name: str) -> object:
    return item.get(name) if isinstance(item, dict) else None


def _list(item: object) -> list[object]:
    return list(item) if isinstance(item, (list, tuple)) else []


def _items(item: object) -> list[tuple[str, object]]:
    return [(str(name), value) for name, value in item.items()] if isinstance(item, dict) else []
