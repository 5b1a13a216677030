"""What a node says of itself over HTTP: /livez, /readyz, /health, /metrics.

The first three are open to everybody: a load balancer has no token, and they say
no more than yes or no and why. /metrics needs what the status of a node needs.

/livez means that the event loop turns, and never that there is a quorum: a node
restarted for lack of one is a second node lost.
"""

from __future__ import annotations

from krita.operations import Op
from kritad.metrics import CONTENT_TYPE
from kritad.server.http_answers import TEXT
from kritad.server.http_exchange import Exchange


def livez(exchange: Exchange) -> None:
    """GET /livez"""
    health = exchange.database.health()
    _say(exchange, health.live, "live", health.problems, 503)


def readyz(exchange: Exchange) -> None:
    """GET /readyz"""
    health = exchange.database.health()
    _say(exchange, health.ready, "ready", health.problems, 503)


def health(exchange: Exchange) -> None:
    """GET /health: 200 ``healthy`` or 500 with what is wrong, as the first users know it."""
    health = exchange.database.health()
    _say(exchange, health.healthy, "healthy", health.problems, 500)


def metrics(exchange: Exchange) -> None:
    """GET /metrics"""
    exchange.check(Op.NODE_STATUS)
    text = exchange.database.metrics.render()
    exchange.reply(200, text.encode(), content_type=CONTENT_TYPE.encode())


def _say(exchange: Exchange, good: bool, word: str, problems: list[str], bad_code: int) -> None:
    if good:
        exchange.reply(200, word.encode(), b"Cache-Control: no-store\r\n", TEXT)
        return
    document: dict[str, object] = {
        "status": "error",
        "message": f"not {word}: {'; '.join(problems) or 'starting or stopping'}",
        "problems": list(problems),
    }
    exchange.reply_json(bad_code, document, b"Cache-Control: no-store\r\n")
