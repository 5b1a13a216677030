"""krita.address: what people write, and what they get told when it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.address import Address, AddressError, parse, parse_many
from krita.errors import KritaError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", 8080),
        ("10.0.0.5", "10.0.0.5", 8080),
        ("10.0.0.5:81", "10.0.0.5", 81),
        (" db-1.example.org:65535 ", "db-1.example.org", 65535),
        ("krita_node_1:8080", "krita_node_1", 8080),
        ("example.org.:1", "example.org.", 1),
        ("[::1]", "::1", 8080),
        ("[::1]:81", "::1", 81),
        ("[fe80::1%eth0]:81", "fe80::1%eth0", 81),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    assert parse(text) == Address(host, port)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no host"),
        (":8080", "names no host"),
        ("host:", "no port from 1 to 65535"),
        ("host:0", "no port from 1 to 65535"),
        ("host:65536", "no port from 1 to 65535"),
        ("host:+80", "no port from 1 to 65535"),
        ("host:\N{SUPERSCRIPT TWO}", "no port from 1 to 65535"),
        ("host:http", "no port from 1 to 65535"),
        ("::1", "several colons"),
        ("::1:8080", r"written \[::1\]:8080"),
        ("[::1", "no closing bracket"),
        ("[::1]8080", "where :PORT belongs"),
        ("[]:80", "no IPv6 address in its brackets"),
        ("[10.0.0.1]:80", "no IPv6 address in its brackets"),
        ("a b:80", "no host name or IP address"),
        ("me@host", "no host name or IP address"),
        ("-host", "no host name or IP address"),
        ("host/path", "no host name or IP address"),
        ("node2..example.org:80", "no host name or IP address"),
        ("example.org..", "no host name or IP address"),
        (f"{'n' * 64}.example.org", "no host name or IP address"),
    ],
)
def test_a_wrong_address_is_refused_with_its_fault(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        parse(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    "text", ["krita://a,b:81,[::1]", "a,b:81,[::1]", " krita://a, b:81 ,[::1]/", "a,,b:81,a,[::1],"]
)
def test_several_addresses_are_read_in_order_each_once(text: str) -> None:
    assert parse_many(text) == (Address("a", 8080), Address("b", 81), Address("::1", 8080))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no host"),
        (" , ", "names no host"),
        ("krita://", "names no host"),
        ("http://a", "HOST\\[:PORT\\].* without http://"),
        ("krita://a/db", "no host name"),
        ("a,b:x", "'b:x' has no port"),
    ],
)
def test_a_wrong_list_of_addresses_is_refused_with_its_fault(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        parse_many(text)


def test_an_address_error_is_both_a_krita_error_and_a_value_error() -> None:
    with pytest.raises(KritaError):
        parse("")
    with pytest.raises(ValueError, match="names no host"):
        parse("")


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        address = parse(text)
    except AddressError:
        return
    assert parse(str(address)) == address
