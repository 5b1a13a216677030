"""Asking before acting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.exits import Exit
from kritash.reply import Reply, View
from kritash.words import ParseError

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

NOT_DONE = Reply(View.SENTENCE, {"done": False}, "not done", Exit.NO)


def has_consent(context: Context, invocation: Invocation) -> bool:
    """Whether nobody need be asked: --yes, before the command or behind it."""
    return context.assume_yes or invocation.flag("yes")


def may_act(context: Context, invocation: Invocation, question: str) -> bool:
    """Whether to act: by --yes, or by the answer to the question.

    Raises ParseError when there is nobody to ask.
    """
    if has_consent(context, invocation):
        return True
    answer = context.ask(question)
    if answer is None:
        raise ParseError(
            f"{invocation.command.name} asks before it acts, and there is nobody to ask",
            hint="add --yes",
        )
    return answer
