# Made from krita/aio/groups.py by tests/client_sources.py: change it there.
"""Operations on several keys: in one step, or side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from krita import checks, requests
from krita.blocking.runner import Runner
from krita.checks import K
from krita.operations import Consistency

if TYPE_CHECKING:
    from krita.errors import KritaError
    from krita.parts import Comparison, Step
    from krita.values import StepResult, TxnResult, Value


class Groups(Runner):
    """See the module."""

    def get_many(
        self,
        keys: Iterable[K],
        *,
        consistency: Consistency | str | None = None,
        timeout_ms: float | None = None,
    ) -> dict[K, Value | None]:
        """The values of many keys, each read for itself: there is no moment that they share.
        None for an absent one. Raises BadRequest or TooLarge for what is no key, and the first
        error if any of them fails."""
        batch = self.pipeline(timeout_ms=timeout_ms)
        wanted = list(dict.fromkeys(checks.keys(keys)))
        found = [batch.get(key, consistency=consistency) for key in wanted]
        batch.execute()
        return {
            key: cast("Value | None", item.value()) for key, item in zip(wanted, found, strict=True)
        }

    def bulk(
        self, steps: Iterable[Step], *, timeout_ms: float | None = None
    ) -> list[StepResult | KritaError | None]:
        """Many independent operations, made by ``krita.steps``, side by side; those on one
        key in the order given. Each succeeds, fails and is retried for itself: what became
        of each is in the list, an error as a value. ``timeout_ms`` counts for each. Raises
        BadRequest, with nothing sent, for what is not made by ``krita.steps``."""
        batch = self.pipeline(timeout_ms=timeout_ms)
        for step in checks.listed(steps, "steps"):
            batch.step(step)
        return cast("list[StepResult | KritaError | None]", batch.execute())

    def txn(
        self,
        *,
        compare: Iterable[Comparison] = (),
        then: Iterable[Step] = (),
        otherwise: Iterable[Step] = (),
        idempotency: str | bytes | None = None,
        timeout_ms: float | None = None,
    ) -> TxnResult:
        """Do ``then`` if all comparisons hold, ``otherwise`` if not, all in one step.

        Comparisons and steps are made by ``krita.steps``. If a step cannot be done, none
        is. Keys of one group, which have the same text in braces, cost one entry of one log;
        of several groups it is as atomic, but three times as slow, and the revisions in the
        result are 0. Raises Conflict, Busy when others hold the keys, TooLarge for too many or
        too much, BadRequest for what is not made by ``krita.steps``, and as ``put`` does.
        """
        request = requests.txn(compare, then, otherwise, idempotency=idempotency)
        return self.run(request, timeout_ms)
