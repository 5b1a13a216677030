"""Whether a request comes from a web page of somebody else's, in a browser on this machine.

Over the loopback interface no token is needed, and a browser lets every page that it shows
send requests there: a POST of text/plain without asking first (Fetch standard, "simple"
requests), so the page could write, although it would not see the answer.

Rules:
* A browser says where a request comes from: ``Origin`` of all that may write, and
  ``Sec-Fetch-Site`` (W3C Fetch Metadata) of everything sent to this machine by a name of its
  own. Programs send neither, and are not looked at.
* The page has to be of this very host and port. Whatever else it is of is foreign, another
  port of this machine as well: what runs there need not be ours.
* A page may also have a name that DNS now says is this machine (rebinding), and then is of
  this very host by what it says. So that host has to be a name of loopback or of this node.

What this does not see: a GET of such a page by a rebound name, which has neither header. It
reads; only a token keeps it from that.
"""

from __future__ import annotations

import re

from krita.errors import Forbidden

ORIGIN, SITE = b"origin", b"sec-fetch-site"

_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[^:\[\]]*)(:[0-9]*)?")
_LOOPBACK = re.compile(rb"localhost|127(\.[0-9]{1,3}){3}|\[::1\]")
_OWN_SITES = (b"same-origin", b"none")  # none: a person has typed the address


def is_foreign(headers: dict[bytes, bytes], address: str) -> bool:
    """Whether a page that is not of this node has sent it. ``address`` is the node's own."""
    if headers.get(SITE, b"none") not in _OWN_SITES:
        return True
    origin = headers.get(ORIGIN)
    if origin is None:
        return False
    host = headers.get(b"host", b"").lower()
    if origin.lower() not in (b"http://" + host, b"https://" + host):
        return True
    parts = _HOST.fullmatch(host)
    if parts is None:
        return True
    name = parts.group(1)
    own = address.rpartition(":")[0].lower().encode()
    return not _LOOPBACK.fullmatch(name) and name != own


def foreign() -> Forbidden:
    """The error of such a request."""
    return Forbidden(
        "a web page of another origin may not ask without a token",
        hint="ask from a page of this very address, or let a server of yours ask, with a token",
    )
