"""``lock``: one of many at a time, told apart by a number that only grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.errors import ConditionFailed, Locked, LockLost
from kritash.cells import shortened
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import LOCK, TOKEN
from kritash.reply import Reply, sentence
from kritash.times import duration_word

if TYPE_CHECKING:
    from krita.blocking.locks import Lock
    from kritash.context import Context
    from kritash.grammar import Invocation

TTL_MS_DEFAULT = 30_000
OWNER_CHARS_MAX = 60


def acquire(context: Context, invocation: Invocation) -> Reply:
    """Takes a lock, or waits for it as long as was said."""
    lock = lock_of(context, invocation)
    take(context, lock, invocation.count("wait") or 0)
    return taken(context, lock)


def lock_of(context: Context, invocation: Invocation) -> Lock:
    """The lock that was named, not taken yet."""
    return context.client.lock(
        invocation.key("NAME"), ttl_ms=ttl_of(invocation), owner=invocation.bytes("owner")
    )


def ttl_of(invocation: Invocation) -> int:
    """How long it is held without being renewed."""
    return invocation.count("ttl") or TTL_MS_DEFAULT


def take(context: Context, lock: Lock, wait_ms: int | None) -> int:
    """Its token. Says once for whom it waits; None: as long as it takes. Raises Locked."""
    try:
        token = _take(context, lock, wait_ms)
    except Locked as error:
        hint = "--wait TIME waits for it" if wait_ms == 0 else "it was held for all that time"
        raise Locked(f"the lock is {_holder(error)}", hint=hint, detail=error.detail) from error
    finally:
        context.display.progress_done()
    context.recent.saw_lock(lock.key, token)
    return token


def _take(context: Context, lock: Lock, wait_ms: int | None) -> int:
    try:
        return lock.acquire(wait_ms=0)
    except Locked as error:
        if wait_ms == 0:
            raise
        context.display.progress(f"waiting: it is {_holder(error)}")
    return lock.acquire(wait_ms=wait_ms)


def _holder(error: Locked) -> str:
    """``held by me, token 17, for 12s``, as far as it is known."""
    owner, token, left_ms = (error.detail.get(name) for name in ("owner", "token", "left_ms"))
    parts = [f"held by {shortened(owner, OWNER_CHARS_MAX) if isinstance(owner, bytes) else '?'}"]
    parts += [f"token {token}"] if isinstance(token, int) else []
    parts += [f"for {duration_word(left_ms)}"] if isinstance(left_ms, int) else []
    return ", ".join(parts)


def taken(context: Context, lock: Lock) -> Reply:
    """What to say of a lock that was taken."""
    context.recent.saw_lock(lock.key, lock.token)
    document = {
        "lock": lock.key, "token": lock.token, "owner": lock.owner, "ttl_ms": lock.ttl_ms,
    }  # fmt: skip
    return sentence(document, "ok", f"token {lock.token}", f"held for {duration_word(lock.ttl_ms)}")


def renew(context: Context, invocation: Invocation) -> Reply:
    """Holds it for longer. Raises LockLost."""
    name, token, ttl_ms = invocation.key("NAME"), invocation.integer("TOKEN"), ttl_of(invocation)
    try:
        context.client.touch(name, ttl_ms, if_revision=token)
    except ConditionFailed as error:
        raise LockLost(
            f"the lock is not held by token {token} any more",
            hint="somebody else may have it: stop what relies on it",
            detail=error.detail,
        ) from error
    document = {"lock": name, "token": token, "ttl_ms": ttl_ms}
    return sentence(document, "ok", f"token {token}", f"held for {duration_word(ttl_ms)}")


def release(context: Context, invocation: Invocation) -> Reply:
    """Lets it go; code NO when it was not held by that token."""
    name, token = invocation.key("NAME"), invocation.integer("TOKEN")
    try:
        held = context.client.delete(name, if_revision=token).existed
    except ConditionFailed:
        held = False
    document = {"lock": name, "token": token, "released": held}
    if not held:
        return sentence(document, f"it was not held by token {token} any more", code=Exit.NO)
    return sentence(document, "ok", "free")


def show(context: Context, invocation: Invocation) -> Reply:
    """Who holds it; code NO when nobody does."""
    name = invocation.key("NAME")
    found = context.client.get(name)
    context.recent.saw_lock(name, 0 if found is None else found.revision)
    if found is None:
        return sentence({"lock": name, "token": None, "owner": None}, "free", code=Exit.NO)
    document: dict[str, object] = {
        "lock": name, "token": found.revision, "owner": found.data, "left_ms": found.expires_in_ms,
    }  # fmt: skip
    parts = [f"held by {shortened(found.data, OWNER_CHARS_MAX)}", f"token {found.revision}"]
    if found.expires_in_ms is not None:
        parts.append(f"for {duration_word(found.expires_in_ms)}")
    if found.lease is not None:
        document["lease"] = str(found.lease)
        parts.append(f"with lease {found.lease}")
    return sentence(document, *parts)


def run(context: Context, invocation: Invocation) -> Reply:
    """Holds it while a program runs."""
    from kritash.holding import run_holding

    return run_holding(context, invocation)


LOCK_TTL = Option("ttl", "held so long without being renewed; 30s unless given", "TIME",
                  Kind.DURATION)  # fmt: skip
OWNER = Option(
    "owner", "who to say holds it; otherwise this machine and process", "NAME", Kind.NAME
)

COMMANDS: tuple[Command, ...] = (
    Command(
        ("lock", "acquire"), "take a lock, and print its token", acquire, arguments=(LOCK,),
        options=(LOCK_TTL, Option("wait", "wait for it so long; not at all unless given", "TIME",
                                  Kind.DURATION), OWNER),
        details="A lock is a key, whose value says who holds it, and the token is its revision:\n"
        "higher than that of any holder before. What is written under the lock should say\n"
        "--if-lock NAME@TOKEN: only that is refused when it went to somebody else meanwhile.\n"
        "Exit code 1 when another holds it. The same --owner again gets the same token.",
        example="lock acquire {report}lock --ttl 1m --wait 10s",
    ),
    Command(
        ("lock", "renew"), "hold a lock for longer", renew, arguments=(LOCK, TOKEN),
        options=(LOCK_TTL,),
        details="Its --ttl counts from now on. Exit code 1 when it is not held by that token.",
        example="lock renew {report}lock 17 --ttl 1m",
    ),
    Command(
        ("lock", "release"), "let a lock go", release, arguments=(LOCK, TOKEN),
        details="Exit code 1 when it was not held by that token any more.",
        example="lock release {report}lock 17",
    ),
    Command(("lock", "show"), "who holds a lock, by which token, for how long", show,
            arguments=(LOCK,), details="Exit code 1 when it is free.",
            example="lock show {report}lock"),
    Command(
        ("lock", "run"), "hold a lock while a program runs", run,
        arguments=(LOCK, Argument("COMMAND", Kind.TEXT, "the program and its arguments, behind --",
                                  rest=True, foreign=True)),
        options=(LOCK_TTL, Option("wait", "wait for it at most so long; otherwise as long as it "
                                  "takes", "TIME", Kind.DURATION), OWNER),
        details="The lock is renewed while the program runs, and let go behind it. The exit code\n"
        "is the program's (128 and the signal's number when a signal ended it), 1 when another\n"
        "held the lock for all of --wait, 2 when there is no such program. When the lock is\n"
        "lost, or could not be renewed in its time, the program gets SIGTERM, and the exit code\n"
        "is 8 once it has ended. SIGTERM and SIGHUP are handed on to it. Its environment has\n"
        "KRITA_LOCK_TOKEN, KRITA_LOCK (NAME@TOKEN, for --if-lock) and KRITA_NODES.",
        example="lock run {report}lock --ttl 10s -- make report",
    ),
)  # fmt: skip
