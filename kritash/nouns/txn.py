"""``txn``: compare, and do one thing or the other, in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind
from kritash.nouns.common import IDEMPOTENCY
from kritash.operands import value_document
from kritash.reply import Reply, View
from kritash.words import ParseError

if TYPE_CHECKING:
    from krita.values import StepResult
    from kritash.context import Context
    from kritash.grammar import Invocation
    from kritash.transaction import Named, Transaction

STDIN = "-"
CHARS_MAX = 64 << 20  # twice what the largest value may be, in base64


def txn(context: Context, invocation: Invocation) -> Reply:
    """Does it; code NO when the comparisons did not hold. Raises ParseError."""
    wanted = _read(context, invocation.words("LINE"))
    if not (wanted.compare or wanted.then or wanted.otherwise):
        raise ParseError("the transaction is empty", hint="'help txn' shows how they are written")
    result = context.client.txn(
        compare=wanted.compare,
        then=[named.step for named in wanted.then],
        otherwise=[named.step for named in wanted.otherwise],
        idempotency=invocation.bytes("idempotency"),
    )
    done = wanted.then if result.succeeded else wanted.otherwise
    document = {
        "succeeded": result.succeeded,
        "revision": result.revision,
        "results": list(map(_result, done, result.results)),
    }
    return Reply(View.TXN, document, code=Exit.DONE if result.succeeded else Exit.NO)


def _read(context: Context, lines: list[str]) -> Transaction:
    from kritash.commands import COMMANDS  # the table names this action
    from kritash.transaction import transaction_of
    from kritash.transaction_lines import read_lines

    if lines == [STDIN]:
        if context.stdin is None:
            raise ParseError("'-' cannot read a transaction here", hint="give it as arguments")
        text = context.stdin.read(CHARS_MAX).decode("utf-8", "surrogateescape")
        lines = text.splitlines()
    text = "\n".join(lines)
    if text.lstrip().startswith("{"):
        return transaction_of(text)
    return read_lines(context, lines, COMMANDS)


def _result(named: Named, result: StepResult | None) -> dict[str, object]:
    """What became of a step, as HTTP has it."""
    from krita.values import AddResult, AppendResult, Value

    document: dict[str, object] = {"do": named.do, "key": named.step.key}
    if result is None:
        return document | {"value": None, "revision": 0}
    if isinstance(result, Value):
        return document | (value_document(result) or {})
    document |= {"revision": result.revision, "existed": result.existed}
    if isinstance(result, AddResult):
        document["number"] = result.number
    elif isinstance(result, AppendResult):
        document["length"] = result.value_bytes
    return document


COMMANDS: tuple[Command, ...] = (
    Command(
        ("txn",), "compare, and do one thing or the other, in one step", txn,
        arguments=(Argument("LINE", Kind.TEXT, "its lines, each one argument; JSON; or - for "
                            "either from standard input", rest=True),),
        options=(IDEMPOTENCY,),
        details="Lines: if KEY = VALUE, if KEY revision = N (or != < >), if KEY absent, if KEY\n"
        "exists; then and else with get, put, delete, add, append, touch or persist as under key,\n"
        "with --ttl, --lease, --content-type and --literal. JSON, as HTTP's /v1/txn has it:\n"
        '{"compare": [{"key": "a", "revision": 7}], "then": [{"do": "put", "key": "a",\n'
        '"value": "b"}], "else": [{"do": "get", "key": "a"}]}\n'
        "If a step cannot be done, none is. With keys of one group, which have the same text in\n"
        "braces, it is quickest. Exit code 1 when a comparison did not hold, and else was done.",
        example="txn 'if {a}n = 5' 'then put {a}n 6' 'then put {a}m x --ttl 1h' 'else get {a}n'",
    ),
)  # fmt: skip
