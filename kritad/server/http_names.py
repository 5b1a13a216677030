"""What URLs, forms and headers say: keys, fields, parameters, revisions.

All of it is bytes: a key is whatever bytes the URL encodes, compared byte by
byte; nothing is normalised, no dot segments, no Unicode.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from krita.errors import BadRequest, TooLarge
from krita.limits import KEY_BYTES_MAX

_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NO_QUALITY = re.compile(rb"[ \t]*[qQ]=0(\.0{0,3})?[ \t]*")

# A token in a URL ends up in logs, histories and referrers.
_TOKEN_PARAMETERS = frozenset({"token", "access_token", "admin_token", "krita_admin_token"})


def key_of(encoded: bytes) -> bytes:
    """The key that a percent-encoded name means. Raises BadRequest or TooLarge."""
    if not encoded:
        raise BadRequest("no key is named", hint="its name stands in the URL: /NAME")
    return checked_key(unquoted(encoded) if b"%" in encoded else encoded)


def unquoted(encoded: bytes, what: str = "URL") -> bytes:
    """What is percent-encoded. Raises BadRequest for a % that begins nothing: taken for
    itself it would name another key than its sender meant."""
    if _NO_ESCAPE.search(encoded):
        raise BadRequest(
            f"the {what} has a % without two hexadecimal digits", hint="a % itself is %25"
        )
    return unquote_to_bytes(encoded)


def checked_key(key: bytes) -> bytes:
    """The key itself. Raises BadRequest when empty, TooLarge when over the limit."""
    if not key:
        raise BadRequest("no key is named", hint="a key has at least one byte")
    if len(key) > KEY_BYTES_MAX:
        raise TooLarge(f"the key has {len(key)} bytes, the limit is {KEY_BYTES_MAX}")
    return key


def checked_value(value: bytes, value_bytes_max: int) -> bytes:
    """The value itself. Raises TooLarge."""
    if len(value) > value_bytes_max:
        raise TooLarge(
            f"the value has {len(value)} bytes, value_bytes_max is {value_bytes_max}",
            hint="raise value_bytes_max on every node, or store the value in pieces",
        )
    return value


def form_fields(
    form: bytes, allowed: frozenset[str], what: str, *, bare: bool = False
) -> dict[str, bytes]:
    """The fields of a form or a query, decoded as HTML forms are: '+' is a space. A name
    without a value is left out, or with ``bare`` has an empty one.

    Raises BadRequest for a field that is not known or comes twice. Strictly, for
    ``curl -d "value=a&b"`` would otherwise store "a" and say that all is well, and
    a ``?ttl=`` that is not understood would be a promise not kept.
    """
    fields: dict[str, bytes] = {}
    if not form:
        return fields
    if bare and b"%" in form:
        unquoted(form)  # forms of curl's -d have a bare % now and then, and mean it
    for pair in form.split(b"&"):
        if not pair:
            continue
        encoded_name, equals, encoded = pair.partition(b"=")
        name = _form_decode(encoded_name).decode("utf-8", "backslashreplace")
        if name not in allowed:
            raise _unknown_field(name, what, bool(equals))
        if name in fields:
            raise BadRequest(f"the {what} has two fields {name}", hint="send one")
        if equals or bare:
            fields[name] = _form_decode(encoded)
    return fields


def _form_decode(encoded: bytes) -> bytes:
    return unquote_to_bytes(encoded.replace(b"+", b" "))


def _unknown_field(name: str, what: str, has_value: bool) -> BadRequest:
    if name.lower() in _TOKEN_PARAMETERS:
        return BadRequest(
            f"a token does not belong into the {what}",
            hint="send Authorization: Bearer TOKEN, and change this token: it may be in logs",
        )
    shown = name if len(name) <= 40 else name[:40] + "…"
    hint = (
        "a value with & + % or = in it has to be encoded (curl --data-urlencode),"
        " or sent as it is to /v1/kv/NAME"
        if what == "form"
        else "see the documentation of this URL"
    )
    sign = "=" if has_value else ""
    return BadRequest(f'the {what} has a field that is not understood: "{shown}{sign}"', hint=hint)


def accepts(accept: bytes | None, media_type: bytes) -> bool:
    """Whether an Accept header names this very type, and not to exclude it (RFC 9110
    §12.5.1). Wildcards do not count: everybody sends them, and gets plain JSON."""
    if accept is None:
        return False
    for part in accept.split(b","):
        named, *parameters = part.split(b";")
        if named.strip().lower() == media_type:
            return not any(_NO_QUALITY.fullmatch(parameter) for parameter in parameters)
    return False


def stored_content_type(header: bytes | None) -> str | None:
    """A Content-Type to be stored with a value. Raises BadRequest."""
    if header is None:
        return None
    if len(header) > 255 or not header.isascii() or not header.decode().isprintable():
        raise BadRequest("the Content-Type is not 255 printable characters at most")
    return header.decode()


def safe_content_type(stored: object) -> bytes:
    """A stored content type as a header's value. CBOR clients may store any text;
    what could end the header line, or is too long, is not sent."""
    if not isinstance(stored, str) or not stored:
        return b"application/octet-stream"
    if len(stored) > 255 or not stored.isascii() or not stored.isprintable():
        return b"application/octet-stream"
    return stored.encode()
