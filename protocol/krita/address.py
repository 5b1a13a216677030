"""Addresses of nodes, as people write them.

``host``, ``host:port``, ``[v6]``, ``[v6]:port``; several of them separated by
commas, with or without ``krita://`` in front. Without a port it is 8080.

An IPv6 address with a port needs its brackets (RFC 3986 §3.2.2): ``::1:8080``
is itself a valid address, and guessing would connect to the wrong place.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

from krita.errors import BadRequest
from krita.limits import PORT_DEFAULT

_SCHEME = "krita://"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")


class AddressError(BadRequest, ValueError):
    """The text is no address; the message repeats it and says why not."""


@attrs.frozen(order=True)
class Address:
    """A place to connect to. ``str()`` gives what ``parse`` takes."""

    host: str  # a name or an IP address, without brackets
    port: int = PORT_DEFAULT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """One address. Raises AddressError."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise AddressError(f"{text!r} has no closing bracket")
        if rest and not rest.startswith(":"):
            raise AddressError(f"{text!r} has {rest!r} where :PORT belongs")
        return Address(_check_ip6(host, text), _port(rest[1:], text) if rest else PORT_DEFAULT)
    if text.count(":") > 1:
        raise AddressError(
            f"{text!r} has several colons", hint="an IPv6 address is written [::1]:8080"
        )
    host, colon, port = text.partition(":")
    if not host:
        raise AddressError(f"{text!r} names no host", hint="write HOST or HOST:PORT")
    # RFC 1035 2.3.4. Asking for such a name would not fail as others do, but as bad text.
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not _HOST.fullmatch(host) or not all(0 < len(n) < 64 for n in labels):
        raise AddressError(f"{text!r} is no host name or IP address")
    return Address(host, _port(port, text) if colon else PORT_DEFAULT)


def parse_many(text: str) -> tuple[Address, ...]:
    """At least one address, in the order given, each once. Raises AddressError."""
    places = text.strip()
    if "://" in places:
        if not places.startswith(_SCHEME):
            raise AddressError(
                f"{text!r} is a URL of something else",
                hint="write HOST[:PORT][,HOST...], without http://",
            )
        places = places.removeprefix(_SCHEME).removesuffix("/")
    found = [parse(place) for place in places.split(",") if place.strip()]
    if not found:
        raise AddressError(f"{text!r} names no host", hint="write HOST[:PORT][,HOST...]")
    return tuple(dict.fromkeys(found))


def _port(text: str, whole: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise AddressError(f"{whole!r} has no port from 1 to 65535 behind the colon")


def _check_ip6(host: str, whole: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise AddressError(f"{whole!r} has no IPv6 address in its brackets: {error}") from error
    return host
