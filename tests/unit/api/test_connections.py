"""HTTP connections are bounded: heads, time, number; and each refusal is a problem."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
import uvicorn

from api.gateway.http import ClientLeft, Message, Outcome, read_body, send_outcome
from api.gateway.process import Listener, bind
from api.gateway.protocol import HEAD_BYTES_MAX, BoundedHttp

READ_S = 5
ORDER = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
Talk = Callable[..., Awaitable[list[tuple[int, str | None]]]]


class Short(BoundedHttp):
    """Bounds that a test can wait for."""

    incomplete_s = 0.3
    connections_max = 3


class App:
    """Answers with the number of the request, when allowed."""

    def __init__(self) -> None:
        self.served = 0
        self.left = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        try:
            await read_body(scope, receive)
        except ClientLeft:
            self.left += 1
            return
        await self.go.wait()
        self.served += 1
        await send_outcome(send, Outcome(200, b"%d" % self.served))


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def port(app: App) -> AsyncIterator[int]:
    """A listener with `Short` bounds, on this loop."""
    listener = bind(("127.0.0.1", 0))
    server = Listener(
        uvicorn.Config(app, http=Short, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    await task
    listener.close()


async def answers(reader: asyncio.StreamReader) -> list[tuple[int, str | None]]:
    """(status, code) of each answer, until the connection ends."""
    raw = await asyncio.wait_for(reader.read(), READ_S)
    found: list[tuple[int, str | None]] = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        body = orjson.loads(rest[:length])
        found.append((int(lines[0].split()[1]), body["code"] if isinstance(body, dict) else None))
        raw = rest[length:]
    return found


@pytest.fixture
async def talk(port: int) -> Talk:
    """Send these pieces, one read each; what was answered until the server closed."""

    async def speak(*pieces: bytes) -> list[tuple[int, str | None]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass  # The server has said all that it wants to say.
        try:
            return await answers(reader)
        except ConnectionResetError:
            return []
        finally:
            writer.close()

    return speak


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * HEAD_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (HEAD_BYTES_MAX // 6 + 1) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
)
async def test_a_head_beyond_its_bound_is_refused(talk: Talk, app: App, head: bytes) -> None:
    assert await talk(head) == [(431, "headers_too_large")]
    assert app.served == 0


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nA: ", b"GET / HTTP/1.1\r\n"])
async def test_a_head_without_end_is_refused_while_it_comes(port: int, start: bytes) -> None:
    """The parser keeps an unfinished header, so it cannot be the one to count."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    sent = 0
    while not reader.at_eof() and sent < 100 * HEAD_BYTES_MAX:
        writer.write(b"x" * 4096)
        sent += 4096
        await asyncio.sleep(0)
        if reader._buffer:  # type: ignore[attr-defined]
            break
    assert sent < 100 * HEAD_BYTES_MAX, "read without bound"
    assert (await reader.read(12)) == b"HTTP/1.1 431"
    writer.close()


async def test_many_requests_in_few_reads_are_no_large_head(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 2 * HEAD_BYTES_MAX // len(ORDER)
    stream = ORDER * count + ORDER.replace(b"Host: x", b"Connection: close")
    for start in range(0, len(stream), 30_011):
        writer.write(stream[start : start + 30_011])
        await asyncio.sleep(0)
    assert await answers(reader) == [(200, None)] * (count + 1)
    writer.close()


@pytest.mark.parametrize(
    "start", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}", b"\r\n"]
)
async def test_a_request_that_does_not_end_is_dropped(talk: Talk, app: App, start: bytes) -> None:
    assert await talk(start) == [(408, "request_timeout")]
    assert app.served == 0
    assert app.left == (1 if b"Length" in start else 0)


async def test_line_ends_on_an_idle_connection_do_not_keep_it(talk: Talk) -> None:
    assert await talk(ORDER, b"\r\n") == [(200, None), (408, "request_timeout")]


async def test_a_request_may_take_longer_than_its_sending(talk: Talk, app: App) -> None:
    app.go.clear()
    asyncio.get_running_loop().call_later(3 * Short.incomplete_s, app.go.set)
    assert await talk(ORDER + b"NONSENSE\r\n\r\n") == [(200, None)]


async def test_a_complete_request_is_answered_though_garbage_follows(talk: Talk, app: App) -> None:
    assert await talk(ORDER + b"\x00\x01garbage\r\n\r\n") == [(200, None)]
    assert await talk(ORDER, b"\x00\x01garbage\r\n\r\n") == [(200, None), (400, "malformed_request")]
    broken = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n"
    app.go.clear()
    asyncio.get_running_loop().call_later(0.1, app.go.set)
    assert await talk(ORDER + ORDER + broken) == [(200, None), (200, None)]
    assert app.served == 4


@pytest.mark.parametrize(
    "raw",
    [
        b"NONSENSE / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
async def test_what_is_no_http_is_a_problem_with_a_code(talk: Talk, app: App, raw: bytes) -> None:
    assert await talk(raw) == [(400, "malformed_request")]
    assert app.served == 0


async def test_connections_beyond_the_bound_are_refused_and_room_comes_back(port: int, talk: Talk) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(Short.connections_max)]
    await asyncio.sleep(0.05)
    assert await talk() == [(503, "overloaded")]
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert await talk(ORDER, b"\0") == [(200, None), (400, "malformed_request")]
