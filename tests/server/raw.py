"""HTTP and CBOR clients that send exactly the bytes they are given."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from krita.codec import decode, encode_body
from krita.connection import Connection
from krita.errors import KritaError, from_wire
from krita.events import Goodbye, Reply, Welcomed
from krita.framing import FrameBuffer
from krita.hello import Hello
from krita.operations import Op
from tests.server.service import Running


@attrs.define
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        parsed = json.loads(self.body)
        assert isinstance(parsed, dict)
        return parsed


class RawHttp:
    """One connection; answers are cut by their Content-Length."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            more = await self.stream.receive_some()
            assert more, f"the server closed after {self._buffer!r}"
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(mark)
        return head

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer."""
        lines = (await self._until(b"\r\n\r\n")).decode().split("\r\n")
        code = int(lines[0].split(" ")[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = 0 if to_head else int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            more = await self.stream.receive_some()
            assert more, "the server closed within a body"
            self._buffer += more
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(code, headers, body)

    async def head(self) -> Answer:
        """The head of an answer that comes in chunks, or up to the connection's end."""
        lines = (await self._until(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return Answer(int(lines[0].split(" ")[1]), headers, b"")

    async def chunk(self) -> bytes:
        """The next chunk; b"" is the end."""
        size = int(await self._until(b"\r\n"), 16)
        while len(self._buffer) < size + 2:
            more = await self.stream.receive_some()
            assert more, "the server closed within a chunk"
            self._buffer += more
        data, end = self._buffer[:size], self._buffer[size : size + 2]
        assert end == b"\r\n"
        self._buffer = self._buffer[size + 2 :]
        return data

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            while more := await self.stream.receive_some():
                self._buffer += more
        except trio.BrokenResourceError:
            pass
        return self._buffer


@asynccontextmanager
async def http(node: Running) -> AsyncIterator[RawHttp]:
    """A connection that is closed behind the block."""
    async with await node.connect() as stream:
        yield RawHttp(stream)


async def ask(node: Running, request: bytes) -> Answer:
    """One request on a connection of its own."""
    async with http(node) as raw:
        await raw.send(request)
        return await raw.answer(to_head=request.startswith(b"HEAD"))


def request(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """A request of HTTP/1.1 with a Host, and a length if there is a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def is_alive(node: Running) -> bool:
    """Whether a well-behaved client is served."""
    put = await ask(node, request("PUT", "/alive", b"value=yes"))
    get = await ask(node, request("GET", "/alive"))
    return put.code == 200 and get.document["value"] == "yes"


class RawCbor:
    """One connection after its handshake."""

    def __init__(self, stream: trio.SocketStream, connection: Connection) -> None:
        self.stream = stream
        self.connection = connection
        self.replies: dict[int, Reply] = {}
        self.goodbye: KritaError | None = None

    async def request(self, op: Op, *fields: object, deadline_ms: int | None = None) -> Reply:
        """Send one request and wait for its reply."""
        request_id, data = self.connection.request(op, encode_body(op, *fields), deadline_ms)
        await self.stream.send_all(data)
        return await self.reply(request_id)

    async def reply(self, request_id: int) -> Reply:
        while request_id not in self.replies:
            assert await self.read_more(), f"closed, with {self.goodbye!r}"
        return self.replies.pop(request_id)

    async def read_more(self) -> bool:
        """Take in what comes next; False when the server has closed."""
        data = await self.stream.receive_some()
        for event in self.connection.receive_data(data) if data else ():
            match event:
                case Reply():
                    self.replies[event.id] = event
                case Goodbye(error):
                    self.goodbye = error
        return bool(data)

    async def until_closed(self) -> KritaError | None:
        """The goodbye, if there was one."""
        while await self.read_more():
            pass
        return self.goodbye


@asynccontextmanager
async def cbor(
    node: Running, hello: Hello | None = None, peer_key: bytes | None = None
) -> AsyncIterator[RawCbor]:
    """A connection whose handshake has succeeded."""
    async with await node.connect() as stream:
        connection = Connection.client(hello or Hello(), peer_key)
        await stream.send_all(connection.greeting())
        welcomed = False
        while not welcomed:
            data = await stream.receive_some()
            assert data, "closed in the handshake"
            for event in connection.receive_data(data):
                if isinstance(event, Goodbye):
                    raise event.error
                if isinstance(event, Welcomed):
                    welcomed = True
                else:
                    await stream.send_all(event.data)  # type: ignore[union-attr]
        yield RawCbor(stream, connection)


async def last_words(node: Running, data: bytes) -> KritaError:
    """What the server says before it closes, having been sent just these bytes."""
    async with await node.connect() as stream:
        await stream.send_all(data)
        received = b""
        while more := await stream.receive_some():
            received += more
    payloads = FrameBuffer(1 << 20).feed(received)
    assert payloads, "the server closed without a word"
    item = decode(payloads[-1])
    assert isinstance(item, list)
    if item[0] == 0:  # a goodbye: [0, status, body]
        return from_wire(item[1], item[2])
    return from_wire(item[0], item[1:])  # a refused hello
