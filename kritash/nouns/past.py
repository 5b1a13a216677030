"""``key history``, ``diff`` and ``undo``, and ``retention``: for how long the past is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.consent import NOT_DONE, may_act
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import KEY
from kritash.reply import Reply, View, sentence
from kritash.times import duration_word

if TYPE_CHECKING:
    from krita.items import RetentionRule
    from krita.values import Version
    from kritash.context import Context
    from kritash.grammar import Invocation


def history(context: Context, invocation: Invocation) -> Reply:
    """The versions of a key; code NO when it never was, as far as is known."""
    key = invocation.key()
    context.recent.saw_key(key)
    found = context.client.history(key, limit=invocation.count("limit"))
    document = {
        "key": key,
        "complete_from_ms": found.complete_from_ms,
        "versions": list(map(_version_document, found.versions)),
    }
    return Reply(View.VERSIONS, document, code=Exit.DONE if found.versions else Exit.NO)


def _version_document(version: Version) -> dict[str, object]:
    return {
        "revision": version.revision,
        "value": version.data,
        "content_type": version.content_type,
        "until_revision": version.until_revision,
        "until_ms": version.until_ms,
    }


def diff(context: Context, invocation: Invocation) -> Reply:
    """What a change has changed."""
    from kritash.past import run_diff

    return run_diff(context, invocation)


def undo(context: Context, invocation: Invocation) -> Reply:
    """The way back."""
    from kritash.past import run_undo

    return run_undo(context, invocation)


def retention_list(context: Context, _: Invocation) -> Reply:
    """Of which keys old versions are kept."""
    return Reply(View.RULES, list(map(_rule_document, context.client.retention_list())))


def _rule_document(rule: RetentionRule) -> dict[str, object]:
    return {
        "prefix": rule.prefix,
        "retention_ms": rule.retention_ms,
        "since_ms": rule.since_ms,
    }


def retention_set(context: Context, invocation: Invocation) -> Reply:
    """Has them kept; asks before some that are kept are given up."""
    prefix, retention_ms = invocation.key("PREFIX"), invocation.integer("TIME")
    kept = _kept_ms(context, prefix)
    if kept > retention_ms:
        question = f"Versions are kept for {duration_word(kept)}: give up the older ones?"
        if not may_act(context, invocation, question):
            return NOT_DONE
    context.client.retention_set(prefix, retention_ms)
    document = {"prefix": prefix, "retention_ms": retention_ms}
    return sentence(document, "ok", f"versions are kept for {duration_word(retention_ms)}")


def retention_remove(context: Context, invocation: Invocation) -> Reply:
    """Has them kept no more; code NO when they were not."""
    prefix = invocation.key("PREFIX")
    kept = _kept_ms(context, prefix)
    if not kept:
        return sentence({"prefix": prefix, "existed": False}, "there is no such rule", code=Exit.NO)
    question = f"Give up the versions of {duration_word(kept)} that are kept?"
    if not may_act(context, invocation, question):
        return NOT_DONE
    context.client.retention_set(prefix, 0)
    return sentence({"prefix": prefix, "existed": True}, "ok", "no more versions are kept")


def _kept_ms(context: Context, prefix: bytes) -> int:
    """For how long the rule of this very prefix keeps them; 0: there is none."""
    rules = context.client.retention_list()
    return next((rule.retention_ms for rule in rules if rule.prefix == prefix), 0)


_PREFIX = Argument("PREFIX", Kind.PREFIX, 'how the keys begin; "" is all keys')

COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "history"), "what a key was, the newest first", history, arguments=(KEY,),
        options=(Option("limit", "so many versions at most", "N", Kind.COUNT),),
        details="Versions are kept of prefixes that have a retention, from the moment it was set;\n"
        "otherwise it is what the key is now. Exit code 1 when nothing is known of it.",
        example="key history app/config",
    ),
    Command(
        ("key", "diff"), "what changed in a key", diff, arguments=(KEY,),
        options=(
            Option("from", "from here: a revision, a time, or -10m; otherwise from what it was "
                   "before its newest change", "WHEN", Kind.MOMENT),
            Option("to", "to here; otherwise to what it is now", "WHEN", Kind.MOMENT),
        ),
        details="Text is compared line by line, of other bytes the sizes and the first difference\n"
        "are shown. Exit code 6 when what it was then is not kept.",
        example="key diff app/config --from -1h",
    ),
    Command(
        ("key", "undo"), "take a key's newest change back", undo, arguments=(KEY,),
        details="Shows what it will change, and asks; where nobody can be asked it needs --yes.\n"
        "It happens only if nobody else has changed the key meanwhile (exit code 1), and is a\n"
        "change like any other: undone, it is there again. How long the key lasts stays as it is.",
        example="key undo app/config",
    ),
    Command(
        ("retention", "list"), "of which keys old versions are kept, and for how long",
        retention_list,
    ),
    Command(
        ("retention", "set"), "keep old versions of keys", retention_set,
        arguments=(_PREFIX, Argument("TIME", Kind.DURATION, "for how long: 12h, 7d")),
        details="From now on. Of several prefixes that fit a key the longest counts. Asks before\n"
        "it shortens a rule: what is older then is lost.",
        example="retention set app/ 7d",
    ),
    Command(
        ("retention", "remove"), "keep old versions of keys no more", retention_remove,
        arguments=(_PREFIX,),
        details="Asks first; where nobody can be asked it needs --yes. Exit code 1 when there is\n"
        "no rule of this very prefix.",
        example="retention remove app/",
    ),
)  # fmt: skip
