"""The client's WebSocket: pipelined orders and channels, over a connection that comes back.

After a reconnect every subscription is made again; channels begin with a
snapshot or say from which sequence they go on, and ``{"type": "reconnected"}``
tells the reader that something may have been missed.  A request that waited
when the connection ended is sent again with its idempotency key.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from api.client.errors import RequestRefused, StreamClosed
from api.client.models import Order
from api.client.retry import pauses

EVENTS_MAX = 100_000
HEARTBEAT_S = 10.0
TRIES = 3


class Stream:
    """One WebSocket.

    Examples
    --------
    >>> async def watch(client):
    ...     async with client.stream() as stream:
    ...         await stream.subscribe("trades", "BTC/USDT")
    ...         async for event in stream:
    ...             print(event)
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str | None) -> None:
        self._session = session
        self._url = f"{url}/v1/stream"
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._subscriptions: list[tuple[str, str | None]] = []
        self._events: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue(EVENTS_MAX)

    async def __aenter__(self) -> "Stream":
        self._socket = await self._connect()
        self._up.set()
        self._task = asyncio.create_task(self._run(), name="stream")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection."""
        tasks = [task for task in (self._task, self._again) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = self._again = None
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        self._fail(StreamClosed("the stream was closed"))

    # Requests.

    async def place_order(self, **order: Any) -> Order:
        """An order as `Client.place_order`'s body; `idempotency_key` is required."""
        for attempt in range(TRIES):
            try:
                answer = await self.request("order", **order)
            except StreamClosed:
                # The key makes a second sending safe.
                if attempt == TRIES - 1:
                    raise
                continue
            return Order.parse(answer["order"], replayed=bool(answer.get("replayed")))
        raise StreamClosed("not sent")

    async def cancel_order(self, order_id: str) -> dict[str, Any]:
        """Cancel; the order's JSON."""
        return dict((await self.request("cancel", order_id=order_id))["order"])

    async def subscribe(self, channel: str, symbol: str | None = None) -> dict[str, Any]:
        """Subscribe, now and after each reconnect."""
        result = await self._subscribe(channel, symbol)
        if (channel, symbol) not in self._subscriptions:
            self._subscriptions.append((channel, symbol))
        return result

    async def _subscribe(self, channel: str, symbol: str | None) -> dict[str, Any]:
        arguments = {"channel": channel} if symbol is None else {"channel": channel, "symbol": symbol}
        return dict((await self.request("subscribe", **arguments))["result"])

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises
        ------
        RequestRefused
            The answer is a problem.
        StreamClosed
            The connection ended before the answer came.
        """
        await self._up.wait()
        socket = self._socket
        if socket is None:
            raise StreamClosed("the stream was closed")
        self._number += 1
        number = self._number
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            await socket.send_str(orjson.dumps({"op": op, "id": number, **arguments}).decode())
            answer = await future
        except (aiohttp.ClientError, ConnectionError) as error:
            raise StreamClosed(str(error)) from error
        finally:
            self._answers.pop(number, None)
        if "problem" in answer:
            raise RequestRefused(int(answer["status"]), answer["problem"])
        return answer

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event

    # The connection's life.

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        return await self._session.ws_connect(self._url, headers=self._headers, heartbeat=HEARTBEAT_S)

    async def _run(self) -> None:
        while True:
            await self._read()
            self._up.clear()
            self._fail(StreamClosed("the connection ended"))
            try:
                await self._reconnect()
            except (aiohttp.ClientError, OSError) as error:
                self._socket = None
                self._up.set()
                self._emit(StreamClosed(f"the venue cannot be reached: {error}"))
                return

    async def _read(self) -> None:
        socket = self._socket
        if socket is None:
            return
        async for message in socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            body = orjson.loads(message.data)
            if "channel" in body or "type" in body:
                self._emit(body)
                continue
            future = self._answers.get(body.get("id"))
            if future is not None and not future.done():
                future.set_result(body)

    async def _reconnect(self) -> None:
        waits = pauses()
        while True:
            pause = next(waits, None)
            try:
                self._socket = await self._connect()
                break
            except (aiohttp.ClientError, OSError):
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        self._up.set()
        self._emit({"type": "reconnected"})
        self._again = asyncio.create_task(self._subscribe_again())

    async def _subscribe_again(self) -> None:
        for channel, symbol in tuple(self._subscriptions):
            try:
                await self._subscribe(channel, symbol)
            except (RequestRefused, StreamClosed) as error:
                self._emit(error)
                return

    def _emit(self, event: dict[str, Any] | Exception) -> None:
        if self._events.full():
            # The reader is too slow to be told everything: it is told that.
            while not self._events.empty():
                self._events.get_nowait()
            self._events.put_nowait(StreamClosed(f"{EVENTS_MAX} events were not read"))
            return
        self._events.put_nowait(event)

    def _fail(self, error: Exception) -> None:
        for future in self._answers.values():
            if not future.done():
                future.set_exception(error)
