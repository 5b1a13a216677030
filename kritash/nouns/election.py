"""``election``: who of several leads. It is a lock, whose value is the candidate's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.cells import shortened
from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import LOCK, TOKEN
from kritash.nouns.lock import LOCK_TTL, OWNER_CHARS_MAX, release, renew, take, taken, ttl_of
from kritash.reply import Reply, sentence

if TYPE_CHECKING:
    from krita.values import Leader
    from kritash.context import Context
    from kritash.grammar import Invocation

_ANY_TTL_MS = 1000  # of an election that is only looked at


def campaign(context: Context, invocation: Invocation) -> Reply:
    """Waits until the candidate leads."""
    candidate = invocation.bytes("CANDIDATE")
    assert candidate is not None
    election = context.client.election(invocation.key("NAME"), ttl_ms=ttl_of(invocation))
    lead = election.lead(candidate)
    take(context, lead, invocation.count("wait"))
    return taken(context, lead)


def observe(context: Context, invocation: Invocation) -> Reply:
    """Who leads, and who does whenever that changes."""
    from kritash.watching import follow_all, show_line

    def show(leader: Leader | None) -> None:
        if context.display.as_json:
            show_line(context, leader_document(leader))
        elif leader is None:
            context.display.part(sentence(None, "nobody"))
        else:
            name = shortened(leader.name, OWNER_CHARS_MAX)
            context.display.part(sentence(None, name, f"token {leader.token}"))

    election = context.client.election(invocation.key("NAME"), ttl_ms=_ANY_TTL_MS)
    found = election.observe()
    try:
        return follow_all(context, found, show, invocation.count("count"))
    finally:
        found.close()
        context.close()  # as behind a watch: Ctrl-C may have come at any place


def leader_document(leader: Leader | None) -> dict[str, object]:
    """Who leads, for programs."""
    if leader is None:
        return {"leader": None, "token": None}
    return {"leader": leader.name, "token": leader.token}


COMMANDS: tuple[Command, ...] = (
    Command(
        ("election", "campaign"), "wait until a candidate leads, and print the token", campaign,
        arguments=(LOCK, Argument("CANDIDATE", Kind.NAME, "its name; each has another")),
        options=(LOCK_TTL, Option("wait", "wait at most so long; otherwise as long as it takes",
                                  "TIME", Kind.DURATION)),
        details="It leads for --ttl, and for as long again with each `election renew`. Exit code\n"
        "1 when another has led for all of --wait. To lead while a program runs:\n"
        "lock run NAME --owner CANDIDATE -- COMMAND…",
        example="election campaign {jobs}leader worker-7 --ttl 10s",
    ),
    Command(
        ("election", "observe"), "follow who leads", observe, arguments=(LOCK,),
        options=(Option("count", "end after so many leaders, the one of now among them", "N",
                        Kind.COUNT),),
        details="Until Ctrl-C, which is exit code 0 (130 with --count).",
        example="election observe {jobs}leader",
    ),
    Command(("election", "renew"), "lead for longer", renew, arguments=(LOCK, TOKEN),
            options=(LOCK_TTL,), details="Exit code 1 when another leads, or nobody."),
    Command(("election", "resign"), "lead no more", release, arguments=(LOCK, TOKEN),
            details="Exit code 1 when another leads already, or nobody."),
)  # fmt: skip
