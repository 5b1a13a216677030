"""What a request that is sent again is known by, and what it was answered.

A client repeats a request with the same place in its session, or with the same idempotency
key. A write of one group is looked up by the entry that does it (user_keys.py); a transaction
over several shards by the entry that decides it, with the same sessions and the same memos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from krita.errors import BadRequest
from krita.operations import Op
from kritad.state.keyspace import Keyspace
from kritad.state.memos import Memo
from kritad.state.sessions import Sessions
from kritad.state.verbs import Reply

NO_SESSION = (None, 0)


@attrs.frozen
class Asker:
    """Who asks: as the request says it."""

    session: Any = None
    sequence: Any = None
    acked_to: Any = None
    name: Any = None  # the idempotency key
    request: Any = None  # a digest of all that it asks for

    @property
    def may_repeat(self) -> bool:
        """Whether it may ask again and expect the same answer."""
        return self.session not in NO_SESSION or self.name is not None

    def to_wire(self) -> list[object]:
        """As a request between nodes has it."""
        return [self.session, self.sequence, self.acked_to, self.name, self.request]

    @classmethod
    def parse(cls, fields: Sequence[object]) -> Asker:
        """The inverse of ``to_wire``. Raises BadRequest."""
        session, sequence, acked_to, name, request = fields
        if name is not None and (type(name) is not bytes or type(request) is not bytes):
            raise BadRequest("an idempotency key comes with the digest of its request")
        return cls(session, sequence, acked_to, name, request)


class Repeats:
    """See the module's docstring."""

    def __init__(self, keyspace: Keyspace, sessions: Sessions) -> None:
        self._keyspace = keyspace
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<Repeats of {self._sessions!r}>"

    def begin(self, asker: Asker, home: bytes, index: int) -> Reply | None:
        """What it was answered. None: nothing, and ``finish`` is to be told what it is.
        Raises SessionExpired, BadRequest."""
        if asker.session not in NO_SESSION:
            known = self._begin_in_session(asker, index)
            if known is not None:
                return known
        memo = self._memo(asker, home)
        known = None if memo is None else memo.reply()
        if known is not None and asker.session not in NO_SESSION:
            self._sessions.finish(asker.session, asker.sequence, known)
        return known

    def finish(self, asker: Asker, home: bytes, reply: Reply, index: int) -> None:
        """It is answered this, now and whenever it asks again."""
        if asker.session not in NO_SESSION:
            self._sessions.finish(asker.session, asker.sequence, reply)
        memo = self._memo(asker, home)
        if memo is not None:
            memo.keep(reply, index)

    def _begin_in_session(self, asker: Asker, index: int) -> Reply | None:
        session, sequence, acked_to = asker.session, asker.sequence, asker.acked_to
        if any(type(number) is not int or number < 0 for number in (session, sequence, acked_to)):
            raise BadRequest("session, sequence and acked_to have to be whole numbers")
        return self._sessions.begin(session, sequence, acked_to, index, self._keyspace.clock_ms)

    def _memo(self, asker: Asker, home: bytes) -> Memo | None:
        if asker.name is None:
            return None
        return Memo(self._keyspace, asker.name, home, Op.TXN, [asker.request])
