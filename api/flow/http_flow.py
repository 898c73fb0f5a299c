"""`holdfast flow`: recorded order flow through the API, as orders of demo accounts.

One WebSocket an account; an order's owner follows from its id.  Rows are sent in
their order, at most `--window` unanswered; a cancel waits for the answer of the
order that it names, which is how a client learns its id.  A modify is a cancel
and a new order.

Latency is from the moment a request was due (with `--rate`, its place in the
schedule, so that a stall counts for all that it delayed) to its answer.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import uvloop
from hdrh.histogram import HdrHistogram

from api.decimals import from_units, scale_of, to_units
from api.demo import ACCOUNTS, KEYS_FILE
from api.flow.errors import UnusableInput
from api.flow.flow import Flow, Op
from api.flow.formats import read_flow
from api.flow.generator import synthetic_flow

LATENCY_US_MAX = 60_000_000
GENERATED_ROWS = 20_000
WINDOW_DEFAULT = 100
WINDOW_MAX = 900
ANSWER_S = 60.0
EXIT_UNUSABLE = 2

Answer = dict[str, Any]


class FlowFailed(Exception):
    """The venue went away, or does not have what the flow needs."""


class Connection:
    """One account's WebSocket; answers resolve futures by id."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self.reader = asyncio.create_task(self._read())

    async def send(self, message: dict[str, Any]) -> "asyncio.Future[Answer]":
        """Send one request; its answer later."""
        self._number += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        await self._socket.send_str(orjson.dumps({"id": self._number, **message}).decode())
        return future

    async def _read(self) -> None:
        async for message in self._socket:
            answer = orjson.loads(message.data)
            future = self._waiting.pop(answer.get("id"), None)
            if future is not None and not future.done():
                future.set_result(answer)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(FlowFailed("the venue closed the connection"))

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()
        await asyncio.gather(self.reader, return_exceptions=True)


class Player:
    """Sends a flow and measures its answers."""

    def __init__(self, flow: Flow, connections: list[Connection], market: Answer, options: Any) -> None:
        self._flow = flow
        self._connections = connections
        self._symbol = market["symbol"]
        self._tick, self._lot = str(market["tick_size"]), str(market["lot_size"])
        self._window = asyncio.Semaphore(options.window)
        self._rate = options.rate
        self._run = f"{time.time_ns():x}"
        self._orders: dict[int, asyncio.Future[str | None]] = {}
        self._quantities: dict[int, int] = {}
        self._pending: set[asyncio.Future[Answer]] = set()
        self._histogram = HdrHistogram(1, LATENCY_US_MAX, 3)
        self.requests = self.accepted = self.queued = self.refused = self.trades = 0
        self.refusals: dict[str, int] = {}
        self.seconds = 0.0

    def _text(self, units: int, size: str) -> str:
        scale = scale_of(size)
        return from_units(units, to_units(size, 1, scale), scale)

    async def play(self) -> None:
        """Send all rows and wait for all answers."""
        flow = self._flow
        began = time.perf_counter()
        rows = zip(
            flow.op.tolist(),
            flow.order.tolist(),
            flow.side.tolist(),
            flow.price.tolist(),
            flow.quantity.tolist(),
            strict=True,
        )
        for number, (op, order, side, price, quantity) in enumerate(rows):
            due = time.perf_counter()
            if self._rate:
                due = began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if op in (Op.NEW, Op.IOC):
                await self._place(number, op, order, side, price, quantity, due)
            elif op == Op.CANCEL:
                await self._cancel(order, due)
            elif op == Op.REDUCE:
                await self._reduce(order, quantity, due)
            else:
                await self._cancel(order, due)
                await self._place(number, Op.NEW, order, side, price, quantity, due)
        if self._pending:
            await asyncio.wait(tuple(self._pending), timeout=ANSWER_S)
        self.seconds = time.perf_counter() - began

    def _connection(self, order: int) -> Connection:
        return self._connections[order % len(self._connections)]

    async def _place(
        self, number: int, op: int, order: int, side: int, price: int, quantity: int, due: float
    ) -> None:
        message = {
            "op": "order",
            "idempotency_key": f"{self._run}-{number}",
            "symbol": self._symbol,
            "side": "sell" if side else "buy",
            "type": "limit",
            "price": self._text(price, self._tick),
            "quantity": self._text(quantity, self._lot),
            "time_in_force": "ioc" if op == Op.IOC else "gtc",
        }
        named: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._orders[order] = named
        self._quantities[order] = quantity
        answer = await self._send(order, message, due)

        def name(done: "asyncio.Future[Answer]") -> None:
            if done.cancelled() or done.exception() is not None:
                named.set_result(None)
                return
            placed = done.result().get("order")
            named.set_result(placed["order_id"] if placed else None)
            if placed:
                self.trades += len(placed["fills"])

        answer.add_done_callback(name)

    async def _order_id(self, order: int) -> str | None:
        named = self._orders.get(order)
        return None if named is None else await named

    async def _cancel(self, order: int, due: float) -> None:
        order_id = await self._order_id(order)
        if order_id is not None:
            await self._send(order, {"op": "cancel", "order_id": order_id}, due)

    async def _reduce(self, order: int, quantity: int, due: float) -> None:
        order_id = await self._order_id(order)
        left = self._quantities.get(order, 0) - quantity
        if order_id is None:
            return
        self._quantities[order] = left
        if left < 1:
            await self._send(order, {"op": "cancel", "order_id": order_id}, due)
            return
        message = {"op": "amend", "order_id": order_id, "quantity": self._text(left, self._lot)}
        await self._send(order, message, due)

    async def _send(self, order: int, message: dict[str, Any], due: float) -> "asyncio.Future[Answer]":
        await self._window.acquire()
        future = await self._connection(order).send(message)
        self.requests += 1
        self._pending.add(future)
        future.add_done_callback(lambda done: self._answered(done, due))
        return future

    def _answered(self, done: "asyncio.Future[Answer]", due: float) -> None:
        self._window.release()
        self._pending.discard(done)
        if done.cancelled() or done.exception() is not None:
            return
        microseconds = int((time.perf_counter() - due) * 1e6)
        self._histogram.record_value(min(max(1, microseconds), LATENCY_US_MAX))
        answer = done.result()
        if "problem" in answer:
            self.refused += 1
            code = answer["problem"]["code"]
            self.refusals[code] = self.refusals.get(code, 0) + 1
        elif answer["status"] == 202:
            self.queued += 1
        else:
            self.accepted += 1

    def report(self) -> dict[str, Any]:
        """Rate and latency."""
        histogram = self._histogram
        return {
            "flow": self._flow.name,
            "rows": len(self._flow),
            "requests": self.requests,
            "accepted": self.accepted,
            "queued": self.queued,
            "refused": self.refused,
            "refusals": self.refusals,
            "unanswered": len(self._pending),
            "trades": self.trades,
            "seconds": round(self.seconds, 3),
            "rate": round(self.requests / self.seconds, 1) if self.seconds else 0.0,
            "latency_us": {
                "p50": histogram.get_value_at_percentile(50),
                "p99": histogram.get_value_at_percentile(99),
                "p99.9": histogram.get_value_at_percentile(99.9),
                "max": histogram.get_max_value(),
            },
        }


async def play(flow: Flow, tokens: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Connect, play, report."""
    url = options.url.rstrip("/")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(connect=5)) as session:
        path = quote(options.symbol.replace("/", "-"), safe="")
        async with session.get(f"{url}/v1/markets/{path}") as response:
            market = await response.json(content_type=None)
            if response.status != 200:
                raise FlowFailed(f"market {options.symbol}: {market.get('detail')}")
        connections = []
        try:
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}"}
                connections.append(Connection(await session.ws_connect(f"{url}/v1/stream", headers=headers)))
            player = Player(flow, connections, market, options)
            await player.play()
            return player.report()
        finally:
            await asyncio.gather(*(connection.close() for connection in connections))


def tokens_of(options: argparse.Namespace) -> list[str]:
    """The keys to trade with."""
    if options.key:
        return list(options.key)
    if options.data is None:
        raise FlowFailed("whose orders are they? give --key TOKEN (several times), or --data of a demo venue")
    keys = orjson.loads((options.data / KEYS_FILE).read_bytes())
    return [keys[name] for name in ACCOUNTS]


def show(report: dict[str, Any]) -> str:
    """The report for people."""
    latency = report["latency_us"]
    lines = [
        f"flow       {report['flow']}, {report['rows']} rows",
        f"requests   {report['requests']} in {report['seconds']} s: {report['rate']:.0f}/s",
        f"answers    {report['accepted']} accepted, {report['queued']} queued, {report['refused']} refused, "
        f"{report['unanswered']} missing",
        f"trades     {report['trades']}",
        f"latency    p50 {latency['p50']} us, p99 {latency['p99']} us, p99.9 {latency['p99.9']} us, "
        f"max {latency['max']} us",
    ]
    lines += [f"           {code}: {count}" for code, count in sorted(report["refusals"].items())]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Entry point: 0, 1 when answers are missing, 2 when the input is unusable."""
    parser = argparse.ArgumentParser(
        prog="holdfast flow", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="recorded flow, any format")
    parser.add_argument("--generate", action="store_true", help="seeded synthetic flow instead of a file")
    parser.add_argument("--seed", type=int, default=1, help="of --generate (default %(default)s)")
    parser.add_argument("--url", required=True, help="of the venue")
    parser.add_argument("--data", type=Path, help="directory of a demo venue, for its keys")
    parser.add_argument("--key", action="append", help="an API key; several: several accounts")
    parser.add_argument("--symbol", default="AAPL/USD", help="market (default %(default)s)")
    parser.add_argument("--limit", type=int, help="at most so many rows")
    parser.add_argument(
        "--window", type=int, default=WINDOW_DEFAULT, help="unanswered requests (default %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests a second; 0: as fast as answers come"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))
    if (options.file is None) != options.generate:
        parser.error("give a FILE, or --generate")
    if not 1 <= options.window <= WINDOW_MAX:
        parser.error(f"--window is from 1 to {WINDOW_MAX}")
    try:
        if options.generate:
            flow = synthetic_flow(options.limit or GENERATED_ROWS, options.seed)
        else:
            flow = read_flow(options.file)
            flow = flow.first(options.limit) if options.limit else flow
        report = uvloop.run(play(flow, tokens_of(options), options))
    except (UnusableInput, FlowFailed, aiohttp.ClientError, OSError) as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(orjson.dumps(report).decode() if options.json else show(report))
    return 1 if report["unanswered"] else 0
