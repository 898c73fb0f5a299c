"""The client's requests over REST."""

import asyncio
import secrets
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from api.client.errors import OutcomeUnknown, RequestRefused, Unavailable
from api.client.models import Balance, Book, Fill, Order, Trade
from api.client.retry import TRANSIENT_STATUSES, pauses
from api.client.stream import Stream

REQUEST_S = 10.0
CONNECT_S = 3.0
CONNECTIONS_MAX = 100

Number = str | Decimal | int


def new_key() -> str:
    """A new idempotency key: 128 random bits."""
    return secrets.token_hex(16)


def market_path(symbol: str) -> str:
    """The symbol as paths spell it."""
    return quote(symbol.replace("/", "-"), safe="")


class Client:
    """A venue's API for one key.

    Retries transient errors with the same idempotency key, so that an order is
    placed once however often the network fails.

    Parameters
    ----------
    url : str
        As `holdfast serve` prints it.
    key : str, optional
        API key; market data needs none.
    request_s : float
        Timeout of one try.

    Examples
    --------
    >>> async def main():
    ...     async with Client("http://127.0.0.1:8400", "hf_...") as client:
    ...         return await client.balances()
    """

    def __init__(self, url: str, key: str | None = None, *, request_s: float = REQUEST_S) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._timeout = aiohttp.ClientTimeout(total=request_s, connect=CONNECT_S)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Orders.

    async def place_order(
        self,
        symbol: str,
        side: str,
        type: str = "limit",
        *,
        quantity: Number,
        price: Number | None = None,
        time_in_force: str = "gtc",
        client_order_id: str | None = None,
        post_only: bool = False,
        idempotency_key: str | None = None,
    ) -> Order:
        """Place an order; live, or pending while the engine is down.

        Raises
        ------
        RequestRefused
            A definite no.
        OutcomeUnknown
            Nobody could tell until the last retry; its key can be asked for.
        """
        body: dict[str, Any] = {
            "idempotency_key": idempotency_key or new_key(),
            "symbol": symbol,
            "side": side,
            "type": type,
            "quantity": str(quantity),
            "time_in_force": time_in_force,
        }
        if price is not None:
            body["price"] = str(price)
        if client_order_id is not None:
            body["client_order_id"] = client_order_id
        if post_only:
            body["post_only"] = True
        row, replayed = await self._request("POST", "/v1/orders", body=body, key=body["idempotency_key"])
        return Order.parse(row, replayed=replayed)

    async def cancel_order(self, order_id: str) -> Order | None:
        """Cancel; the order's final state, or None when the cancel is queued."""
        row, _ = await self._request("DELETE", f"/v1/orders/{quote(order_id, safe='')}")
        return Order.parse(row) if "fills" in row else None

    async def cancel_all(self, symbol: str | None = None) -> list[str]:
        """Cancel all open orders, of one market or of all; the ids of those cancelled."""
        row, _ = await self._request("DELETE", "/v1/orders", query={"symbol": symbol})
        return list(row["canceled"])

    async def amend_order(
        self, order_id: str, *, price: Number | None = None, quantity: Number | None = None
    ) -> Order:
        """New price, new OrderQty, or both."""
        body = {"idempotency_key": new_key()}
        if price is not None:
            body["price"] = str(price)
        if quantity is not None:
            body["quantity"] = str(quantity)
        path = f"/v1/orders/{quote(order_id, safe='')}"
        row, replayed = await self._request("PATCH", path, body=body, key=body["idempotency_key"])
        return Order.parse(row, replayed=replayed)

    async def order(self, order_id: str) -> Order:
        """An order by its id."""
        row, _ = await self._request("GET", f"/v1/orders/{quote(order_id, safe='')}")
        return Order.parse(row)

    async def order_by_key(self, idempotency_key: str) -> Order | None:
        """What became of a request; None when the venue never saw its key."""
        try:
            row, _ = await self._request("GET", "/v1/orders", query={"idempotency_key": idempotency_key})
        except RequestRefused as refused:
            if refused.code == "never_seen":
                return None
            raise
        return Order.parse(row)

    async def order_by_client_id(self, client_order_id: str) -> Order:
        """The newest order with this client_order_id."""
        row, _ = await self._request("GET", "/v1/orders", query={"client_order_id": client_order_id})
        return Order.parse(row)

    async def open_orders(self, symbol: str | None = None) -> list[Order]:
        """All open and queued orders, over all pages."""
        orders: list[Order] = []
        cursor: str | None = None
        while True:
            query = {"status": "open", "symbol": symbol, "cursor": cursor, "limit": "1000"}
            page, _ = await self._request("GET", "/v1/orders", query=query)
            orders += [Order.parse(row) for row in page["orders"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return orders

    # The account.

    async def balances(self) -> dict[str, Balance]:
        """Balances by asset."""
        rows, _ = await self._request("GET", "/v1/balances")
        return {
            row["asset"]: Balance(row["asset"], Decimal(row["available"]), Decimal(row["held"]))
            for row in rows["balances"]
        }

    async def fills(self, symbol: str | None = None, *, limit: int = 100) -> list[Fill]:
        """The last fills, newest first."""
        page, _ = await self._request("GET", "/v1/fills", query={"symbol": symbol, "limit": str(limit)})
        return [Fill.parse(row) for row in page["fills"]]

    # Market data.

    async def markets(self) -> list[dict[str, Any]]:
        """All markets."""
        rows, _ = await self._request("GET", "/v1/markets")
        return list(rows["markets"])

    async def book(self, symbol: str, levels: int = 50) -> Book:
        """A market's order book."""
        row, _ = await self._request(
            "GET", f"/v1/markets/{market_path(symbol)}/book", query={"levels": str(levels)}
        )
        return Book.parse(row)

    async def trades(self, symbol: str, limit: int = 100) -> list[Trade]:
        """A market's last trades, newest first."""
        row, _ = await self._request(
            "GET", f"/v1/markets/{market_path(symbol)}/trades", query={"limit": str(limit)}
        )
        return [Trade.parse(trade) for trade in row["trades"]]

    async def health(self) -> dict[str, Any]:
        """The health document."""
        row, _ = await self._request("GET", "/health")
        return row

    def stream(self) -> Stream:
        """A WebSocket that comes back; use it with `async with`."""
        return Stream(self._opened(), self.url, self._key)

    # One request.

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX), headers=headers, timeout=self._timeout
            )
        return self._session

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        query: dict[str, str | None] | None = None,
        key: str | None = None,
    ) -> tuple[dict[str, Any], bool]:
        """The answer's JSON, and whether it was replayed."""
        data = None if body is None else orjson.dumps(body)
        given = {name: value for name, value in (query or {}).items() if value is not None}
        maybe_done = False
        waits = pauses()
        while True:
            retry_after_s = 0.0
            try:
                async with self._opened().request(
                    method,
                    self.url + path,
                    data=data,
                    params=given,
                    headers={"Content-Type": "application/json"},
                ) as response:
                    answer = orjson.loads(await response.read())
                    if response.status < 400:
                        return answer, "Idempotent-Replayed" in response.headers
                    refused = RequestRefused(response.status, answer)
                    if response.status not in TRANSIENT_STATUSES:
                        raise refused
                    maybe_done = maybe_done or response.status == 504
                    failure: Exception = refused
                    retry_after_s = float(response.headers.get("Retry-After", "0"))
            except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
                # Only a refused connection proves that nothing arrived.
                maybe_done = maybe_done or not isinstance(error, aiohttp.ClientConnectorError)
                failure = error
            pause = next(waits, None)
            if pause is None:
                if maybe_done and key is not None:
                    raise OutcomeUnknown(f"{method} {path}: {failure}", key) from failure
                raise Unavailable(f"{method} {path}: {failure}") from failure
            await asyncio.sleep(max(pause, retry_after_s))
