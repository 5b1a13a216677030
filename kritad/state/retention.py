"""For which keys of a shard old versions are kept, and for how long.

A rule is about a prefix; of several that fit, the longest counts. Rules are part of the
shard's state (notes), because what a put leaves behind has to be the same on every
replica. A rule remembers since when its history is whole, in time and in the log:
whoever asks for an earlier moment is told so and not given a guess.
"""

from __future__ import annotations

from hashlib import blake2b

import attrs

from krita.codec import decode, encode
from krita.errors import Busy
from krita.limits import LEASE_LIMIT
from kritad.state.notes import Notes

RULES_MAX = 1_000  # of a shard
_FIRST = -2 * LEASE_LIMIT  # rules' notes are numbered from here down
_LAST = -3 * LEASE_LIMIT


@attrs.frozen
class Rule:
    """One prefix's rule."""

    prefix: bytes
    retention_ms: int
    since_ms: int  # the history has every change behind this time of the shard's clock
    since_index: int  # and behind this entry

    def whole_from_ms(self, clock_ms: int) -> int:
        """The earliest time of which everything is known now."""
        return max(self.since_ms, clock_ms - self.retention_ms)


class Retention:
    """The rules of one shard."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.rules: list[Rule] = []  # longest prefix first, so the first that fits counts
        for number, blob in notes:
            if _LAST < number <= _FIRST:
                self.rules.append(Rule(*decode(blob)))  # type: ignore[misc]
        self._sort()

    def __repr__(self) -> str:
        return f"<Retention {self.rules!r}>"

    def of(self, key: bytes) -> Rule | None:
        """The rule for a key; None: nothing is kept of it."""
        for rule in self.rules:
            if key.startswith(rule.prefix):
                return rule
        return None

    def set(self, prefix: bytes, retention_ms: int, clock_ms: int, index: int) -> None:
        """From now on; 0: keep nothing more. What is kept already goes at its time.
        Raises Busy."""
        known = next((rule for rule in self.rules if rule.prefix == prefix), None)
        if retention_ms == 0:
            if known is not None:
                self._remove(known, clock_ms)
        elif known is None:
            if len(self.rules) >= RULES_MAX:
                raise Busy(f"there are {RULES_MAX} retention rules already", hint="remove some")
            self._keep(Rule(prefix, retention_ms, clock_ms, index))
        else:
            # What is kept already goes when the shorter time has said: a longer one
            # is whole only for what changes from now on.
            longer = retention_ms > known.retention_ms
            since_ms = clock_ms if longer else known.since_ms
            self._keep(attrs.evolve(known, retention_ms=retention_ms, since_ms=since_ms))

    def forgot(self, key: bytes, until_index: int) -> None:
        """A version that had ended with the entry at ``until_index`` is gone."""
        rule = self.of(key)
        if rule is not None and until_index > rule.since_index:
            self._keep(attrs.evolve(rule, since_index=until_index))

    def _remove(self, rule: Rule, clock_ms: int) -> None:
        self.rules.remove(rule)
        self._notes.remove(_number(rule.prefix))
        around = self.of(rule.prefix)
        if around is None:
            return
        # From now on it speaks for these keys too. They have no more than the removed
        # rule kept, and what that kept of late will go sooner.
        since_ms = clock_ms if around.retention_ms > rule.retention_ms else rule.since_ms
        self._keep(
            attrs.evolve(
                around,
                since_ms=max(around.since_ms, since_ms),
                since_index=max(around.since_index, rule.since_index),
            )
        )

    def _keep(self, rule: Rule) -> None:
        for place, known in enumerate(self.rules):
            if known.prefix == rule.prefix:
                self.rules[place] = rule
                break
        else:
            self.rules.append(rule)
            self._sort()
        self._notes.put(_number(rule.prefix), encode(list(attrs.astuple(rule))))

    def _sort(self) -> None:
        self.rules.sort(key=lambda rule: (-len(rule.prefix), rule.prefix))


def _number(prefix: bytes) -> int:
    digest = blake2b(prefix, digest_size=7, person=b"retention").digest()
    return _FIRST - int.from_bytes(digest, "big")
