"""If-Match and If-None-Match (RFC 9110 §13.1) in terms of revisions.

An entity tag is a quoted revision: ``"17"``. The database knows one condition,
``if_revision`` (0: absent), which covers the two that matter, create only and
replace exactly this. The others (``If-Match: *``, lists) are a read, a look, and
a write on condition that nothing has changed since, again if something has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from attrs import frozen

from krita.errors import BadRequest, Busy, ConditionFailed, KritaError
from krita.operations import Consistency, Op
from krita.values import read_value
from kritad.server.http_exchange import Exchange

# Each failure means that another writer got in between, so somebody progresses.
_TRIES_MAX = 16
_TAGS_MAX = 64

_ANY = b"*"
# One of the list, with the comma behind it. A comma may stand in a tag (§8.8.3), too.
_LISTED = re.compile(rb'[ \t]*(W/)?"([^"]*)"[ \t]*(?:,|$)')

# As ETag has it. Tags are compared byte by byte (§8.8.3.2), and no key is at revision 0.
_REVISION = re.compile(rb"[1-9][0-9]{0,18}")


@frozen
class Tags:
    """What such a header names: anything that exists, or these revisions."""

    any: bool
    revisions: frozenset[int] = frozenset()

    def __contains__(self, revision: int) -> bool:
        return revision > 0 and (self.any or revision in self.revisions)


@frozen
class Condition:
    """Both headers of a request; None for one that is not there."""

    match: Tags | None = None
    none_match: Tags | None = None

    def holds(self, revision: int) -> bool:
        """Whether a key at this revision (0: absent) meets it."""
        if self.match is not None and revision not in self.match:
            return False
        return self.none_match is None or revision not in self.none_match

    @property
    def only(self) -> int | None:
        """The one revision at which it holds, if there is exactly one."""
        if self.match is None:
            if self.none_match is not None and self.none_match.any:
                return 0
        elif self.none_match is None and len(self.match.revisions) == 1:
            return next(iter(self.match.revisions))
        return None


NO_CONDITION = Condition()


def condition_of(headers: dict[bytes, bytes]) -> Condition:
    """The request's condition. Raises BadRequest for a malformed header."""
    match, none_match = headers.get(b"if-match"), headers.get(b"if-none-match")
    if match is None and none_match is None:
        return NO_CONDITION
    return Condition(
        None if match is None else _tags("If-Match", match, weak_matches=False),
        None if none_match is None else _tags("If-None-Match", none_match, weak_matches=True),
    )


def _tags(name: str, header: bytes, *, weak_matches: bool) -> Tags:
    """A tag that is no revision of ours is a valid tag that matches nothing; a weak
    one matches only where the comparison is weak (§8.8.3.2)."""
    if header.strip() == _ANY:
        return Tags(any=True)
    revisions: set[int] = set()
    at = count = 0
    while at < len(header) or not count:  # an empty header is no list of tags
        found = _LISTED.match(header, at)
        count += 1
        if found is None or count > _TAGS_MAX:
            raise BadRequest(
                f"{name} is neither * nor a list of at most {_TAGS_MAX} entity tags",
                hint=f'send back the ETag of an earlier answer, quotes included: {name}: "17"',
            )
        at = found.end()
        weak, digits = found.groups()
        if _REVISION.fullmatch(digits) and (weak_matches or not weak):
            revisions.add(int(digits))
    return Tags(any=False, revisions=frozenset(revisions))


def failed(condition: Condition, revision: int) -> ConditionFailed:
    """The error of a condition that does not hold at ``revision``, in the words of HTTP."""
    unmatched = condition.match is not None and revision not in condition.match
    header = "If-Match" if unmatched else "If-None-Match"
    found = f"is at revision {revision}" if revision else "is absent"
    return ConditionFailed(
        f"{header} did not hold: the key {found}",
        hint="read the key again and decide anew",
        detail={"revision": revision},
    )


Write = Callable[[Exchange, int | None, Callable[[Exchange, KritaError], None]], None]


def write_if(exchange: Exchange, key: bytes, condition: Condition, write: Write) -> None:
    """Call ``write(exchange, if_revision, otherwise)`` such that it takes effect only
    if the condition holds at that moment; answer 412 if it does not."""
    if condition is NO_CONDITION:
        write(exchange, None, partial(_refused, condition))
    elif condition.only is not None:
        write(exchange, condition.only, partial(_refused, condition))
    else:
        _look_and_write(exchange, key, condition, write, _TRIES_MAX)


def _refused(condition: Condition, exchange: Exchange, error: KritaError) -> None:
    """The database speaks of ``if_revision``, which no HTTP client has sent."""
    revision = error.detail.get("revision")
    if isinstance(error, ConditionFailed) and isinstance(revision, int):
        error = lock_lost(error) if "if_lock" in error.detail else failed(condition, revision)
    exchange.fail(error)


def lock_lost(error: ConditionFailed) -> ConditionFailed:
    """The error of a lock that is not held with the token that was sent."""
    held = "it has another token now" if error.detail.get("revision") else "nobody holds it"
    return ConditionFailed(
        f"the lock is not held any more: {held}",
        hint="take it again, and see what has happened meanwhile",
        detail=error.detail | {"if_lock": True},
    )


def _look_and_write(
    exchange: Exchange, key: bytes, condition: Condition, write: Write, tries: int
) -> None:
    def looked(exchange: Exchange, reply: object) -> None:
        value = read_value(reply)
        revision = value.revision if value is not None else 0
        if not condition.holds(revision):
            exchange.fail(failed(condition, revision))
        else:
            write(exchange, revision, overtaken)

    def overtaken(exchange: Exchange, error: KritaError) -> None:
        if not isinstance(error, ConditionFailed) or "if_lock" in error.detail:
            _refused(condition, exchange, error)
        elif tries <= 1:
            exchange.fail(Busy("the key keeps changing while its condition is checked"))
        else:
            _look_and_write(exchange, key, condition, write, tries - 1)

    exchange.submit(Op.GET, (key, int(Consistency.LINEARIZABLE)), looked)
