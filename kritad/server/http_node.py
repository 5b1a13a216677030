"""What a node says of itself over HTTP: /, /livez, /readyz, /health, /metrics.

All but /metrics are open to everybody: a load balancer has no token, and they say no
more than yes or no and why, and / what this is at all. /metrics needs what the status of
a node needs.

/health is about this node alone (docs/decisions.md): of others that are down kritash cluster
health and the metrics tell.

/livez means that the event loop turns, and never that there is a quorum: a node
restarted for lack of one is a second node lost.
"""

from __future__ import annotations

import re

from krita.limits import PORT_DEFAULT
from krita.operations import Op
from kritad.metrics import CONTENT_TYPE
from kritad.server.http_answers import NOT_APPLIED, NOT_NOW, TEXT, refusal_document
from kritad.server.http_exchange import Exchange

# What may stand in a line that somebody copies into a shell.
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,261}")

_WELCOME = """\
This is a node of Krita, a distributed key-value database. Every node answers for all keys:

  curl -X PUT http://{host}/greeting -d "value=hello"
  curl http://{host}/greeting
  curl -X PUT http://{host}/v1/kv/photo --data-binary @photo.jpg
  curl http://{host}/v1/kv/photo -o photo.jpg

  curl http://{host}/health      what is wrong with this node, if anything is
  curl http://{host}/metrics     figures for Prometheus

Unless you come over the loopback interface, add  -H "Authorization: Bearer $KRITA_ADMIN_TOKEN".
docs/http.md describes all addresses and errors; kritash is the shell.
"""


def welcome(exchange: Exchange) -> None:
    """GET /: what this is, and what to try, by the name that the client calls us."""
    host = exchange.request.headers.get(b"host", b"")
    if not _HOST.fullmatch(host):
        host = b"127.0.0.1:%d" % PORT_DEFAULT
    text = _WELCOME.format(host=host.decode())
    exchange.reply(200, text.encode(), b"X-Content-Type-Options: nosniff\r\n", TEXT)


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
    exchange.name()
    message = f"not {word}: {'; '.join(problems) or 'starting or stopping'}"
    name, headers = ("unavailable", NOT_NOW) if bad_code == 503 else ("unhealthy", NOT_APPLIED)
    document = refusal_document(message, "", name) | {"problems": list(problems)}
    exchange.reply_json(bad_code, document, headers + b"Cache-Control: no-store\r\n")
