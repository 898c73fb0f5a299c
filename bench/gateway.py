"""Durable orders through the gateway: REST and one WebSocket, a whole venue behind it.

The client is a bare socket protocol of its own, so that the gateway's core is the
one that is full.  Baseline: the same order to an idiomatic FastAPI + pydantic
application that stores nothing, on the same server, in the same run.  Rates are
wall clock; "a gateway core" is orders per CPU-second of the gateway's process.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import orjson

from api.drills.venue import Venue
from bench.measure import Figure, cpu_seconds, percentiles

CONNECTIONS = 64
ORDERS = 20_000
SINGLES = 500
PIPELINED = 100


def order(index: int, run_name: str) -> dict[str, str]:
    return {
        "idempotency_key": f"{run_name}-{index}",
        "symbol": "BTC/USDT",
        "side": "buy" if index % 2 else "sell",
        "type": "limit",
        "quantity": "0.001",
        "price": f"{59_000 + index % 500 if index % 2 else 61_000 + index % 500}.00",
    }


class Requester(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, next_request: Callable[[], bytes | None], done: asyncio.Future[None]) -> None:
        self._next = next_request
        self._done = done
        self._received = b""
        self.latencies: list[float] = []
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request = self._next()
        if request is None:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.latencies.append(time.perf_counter() - self._sent_at)
        if b" 201 " not in head.partition(b"\r\n")[0]:
            self._done.set_exception(RuntimeError((head + b"\r\n\r\n" + body).decode()))
            self._transport.close()
            return
        self._received = b""
        self._send()


async def rest(
    port: int, token: str, count: int, connections: int, run_name: str
) -> tuple[float, list[float]]:
    """`count` orders over `connections`; orders/s and each one's seconds."""
    issued = iter(range(count))

    def next_request() -> bytes | None:
        index = next(issued, None)
        if index is None:
            return None
        body = orjson.dumps(order(index, run_name))
        return (
            b"POST /v1/orders HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            + f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    loop = asyncio.get_running_loop()
    dones = [loop.create_future() for _ in range(connections)]
    began = time.perf_counter()
    clients = []
    for done in dones:
        _, client = await loop.create_connection(
            lambda done=done: Requester(next_request, done), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*dones)
    seconds = time.perf_counter() - began
    return count / seconds, [latency for client in clients for latency in client.latencies]


async def stream(
    port: int, token: str, count: int, in_flight: int, run_name: str
) -> tuple[float, list[float]]:
    """`count` orders over one WebSocket, `in_flight` at a time; orders/s, seconds of each."""
    sent_at: dict[int, float] = {}
    latencies: list[float] = []
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/v1/stream", headers=headers, compress=0) as ws,
    ):
        began = time.perf_counter()
        issued = 0
        while len(latencies) < count:
            while issued < count and len(sent_at) < in_flight:
                sent_at[issued] = time.perf_counter()
                message = {"op": "order", "id": issued, **order(issued, run_name)}
                await ws.send_str(orjson.dumps(message).decode())
                issued += 1
            answer = orjson.loads((await ws.receive(timeout=30)).data)
            if answer.get("id") not in sent_at:
                continue
            if "order" not in answer:
                raise RuntimeError(f"not accepted: {answer}")
            latencies.append(time.perf_counter() - sent_at.pop(answer["id"]))
        return count / (time.perf_counter() - began), latencies


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _against(
    port: int, token: str, pid: int, label: str
) -> dict[str, tuple[float, float, list[float]]]:
    """REST and WebSocket, loaded and one at a time: (orders/s, orders/CPU-second, seconds)."""
    found: dict[str, tuple[float, float, list[float]]] = {}
    for name, run_one in (
        ("rest", lambda: rest(port, token, ORDERS, CONNECTIONS, f"{label}-rest")),
        ("rest-1", lambda: rest(port, token, SINGLES, 1, f"{label}-rest-1")),
        ("ws", lambda: stream(port, token, ORDERS, PIPELINED, f"{label}-ws")),
        ("ws-1", lambda: stream(port, token, SINGLES, 1, f"{label}-ws-1")),
    ):
        before = cpu_seconds(pid)
        rate, latencies = await run_one()
        used = cpu_seconds(pid) - before
        found[name] = (rate, len(latencies) / used if used else float("nan"), latencies)
    return found


async def _echo() -> dict[str, tuple[float, float, list[float]]]:
    port = _free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.echo", str(port))
    try:
        for _ in range(500):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            break
        return await _against(port, "none", process.pid, "echo")
    finally:
        process.terminate()
        await process.wait()


async def _venue() -> dict[str, tuple[float, float, list[float]]]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=".") as temporary:
        venue = Venue(Path(temporary) / "venue")
        try:
            await venue.start()
            port = int(venue.url.rpartition(":")[2])
            return await _against(port, venue.keys["alice"], await venue.pid("gateway"), "venue")
        finally:
            await venue.stop()


def run() -> list[Figure]:
    echo = asyncio.run(_echo())
    venue = asyncio.run(_venue())
    baseline = "FastAPI + pydantic, nothing stored"
    figures = []
    for name, title, goal in (
        ("rest", f"durable orders over REST, {CONNECTIONS} connections", "≥ 20 k/s a gateway core, ≥ 4 ×"),
        ("ws", f"durable orders over one WebSocket, {PIPELINED} in flight", "≥ 60 k/s a gateway core"),
    ):
        rate, core_rate, latencies = venue[name]
        p50, p99 = percentiles(latencies, 50, 99)
        figures.append(
            Figure(
                title,
                rate,
                "orders/s",
                echo[name][0],
                baseline,
                goal,
                {
                    "a gateway core": core_rate,
                    "a baseline core": echo[name][1],
                    "p50 ms": p50 * 1e3,
                    "p99 ms": p99 * 1e3,
                },
            )
        )
    for name, title in (
        ("rest-1", "REST order, one in flight, p50"),
        ("ws-1", "WebSocket order, one in flight, p50"),
    ):
        figures.append(
            Figure(
                title,
                percentiles(venue[name][2], 50)[0] * 1e6,
                "µs",
                percentiles(echo[name][2], 50)[0] * 1e6,
                baseline,
            )
        )
    return figures
