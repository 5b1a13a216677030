"""What the newer operations promise, by the answers alone: no log is asked here.

A sum that transfers move is the same whenever it is read; a token guards nothing once a
newer one was given out; a counter is what was added to it, and a text all that was put
behind it, once each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from krita.operations import Op
from tests.simulator.crafts.deed import Deed
from tests.simulator.crafts.scripts import FROZEN_SUM, GUARDED, READ_ALL
from tests.simulator.history import Fate

_SUMS_MAX = 1 << 16  # of those of unknown outcome: more is not looked into


def check_promises(deeds: Sequence[Deed]) -> list[str]:
    """What is wrong with them."""
    return [*_sums(deeds), *_fences(deeds), *_counters(deeds), *_texts(deeds)]


def _sums(deeds: Iterable[Deed]) -> Iterable[str]:
    for deed in deeds:
        if deed.ask.about == READ_ALL and deed.ok:
            found = sum(int(value or b"0") for value, *_ in deed.body[2])
            if found != FROZEN_SUM:
                yield f"the sum is {found}\n    {deed}"


def _fences(deeds: Sequence[Deed]) -> Iterable[str]:
    """Revisions of a group are of one log: a guarded write is older than any newer token."""
    granted: dict[bytes, list[int]] = {}
    for deed in deeds:
        if deed.op == Op.LOCK and deed.ok and deed.body[1]:
            granted.setdefault(deed.ask.fields[0], []).append(deed.body[0])
    for deed in deeds:
        if deed.ask.about == GUARDED and deed.ok:
            lock, token = deed.field("if_lock")
            newer = [t for t in granted.get(lock, ()) if token < t < deed.body[0]]
            if newer:
                yield f"token {newer[0]} had been given out before\n    {deed}"


def _last_read(deeds: Sequence[Deed], key: bytes) -> bytes | None:
    """The last one is of the end, when nothing was under way any more."""
    for deed in reversed(deeds):
        if deed.op == Op.GET and deed.ask.fields == (key,) and deed.ok:
            value = deed.body[0]
            assert value is None or isinstance(value, bytes), deed
            return value
    return None


def _of_each(deeds: Iterable[Deed], op: Op, shape: bytes) -> dict[bytes, list[Deed]]:
    found: dict[bytes, list[Deed]] = {}
    for deed in deeds:
        if deed.op == op and re.fullmatch(shape, deed.ask.fields[0]):
            found.setdefault(deed.ask.fields[0], []).append(deed)
    return found


def _counters(deeds: Sequence[Deed]) -> Iterable[str]:
    for key, added in _of_each(deeds, Op.ADD, rb"c\d+").items():
        left = int(_last_read(deeds, key) or b"0")
        left -= sum(deed.ask.fields[1] for deed in added if deed.ok)
        sums = {0}
        for deed in added:
            if deed.fate is Fate.UNKNOWN and len(sums) < _SUMS_MAX:
                sums |= {known + deed.ask.fields[1] for known in sums}
        if left not in sums and len(sums) < _SUMS_MAX:
            yield f"counter {key!r} has {left} that nobody has added"


def _texts(deeds: Sequence[Deed]) -> Iterable[str]:
    for key, put in _of_each(deeds, Op.APPEND, rb"a\d+").items():
        pieces = [piece + b";" for piece in (_last_read(deeds, key) or b"").split(b";")[:-1]]
        known = {deed.ask.fields[1]: deed for deed in put}
        strange = [piece for piece in pieces if piece not in known]
        if strange or len(set(pieces)) < len(pieces):
            yield f"{key!r} has {strange or 'a piece twice'}: {pieces}"
            continue
        in_order = sorted((deed for deed in put if deed.ok), key=lambda deed: deed.body[0])
        wanted = [deed.ask.fields[1] for deed in in_order]
        if [piece for piece in pieces if piece in set(wanted)] != wanted:
            yield f"{key!r} is {pieces}, and these were put behind it in order: {wanted}"
