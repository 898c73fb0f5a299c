"""The WebSocket, and the Python client against a real venue."""

import asyncio
import base64
import os
import socket as sockets
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from api.client import Client, RequestRefused
from persistence.crc32c import crc32c
from tests.api.venue import Trader, Venue

ANSWER_S = 20.0
ORDER: dict[str, Any] = {"symbol": "ETH/USDT", "side": "buy", "quantity": "1", "price": "1000"}


class Socket:
    """A WebSocket that sorts answers from channel messages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, **message: Any) -> None:
        await self._socket.send_json(message)

    async def send_text(self, message: str) -> None:
        await self._socket.send_str(message)

    async def closed(self) -> int | None:
        """Until the venue closes; the code."""
        while (await asyncio.wait_for(self._socket.receive(), ANSWER_S)).type == aiohttp.WSMsgType.TEXT:
            pass
        return self._socket.close_code

    async def answer(self, number: int | str | None) -> dict[str, Any]:
        """The answer to request `number`; channel messages on the way are kept."""
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), ANSWER_S)
            if message.get("id", ...) == number:
                return dict(message)
            self.events.append(message)

    async def event(self, channel: str, kind: str) -> dict[str, Any]:
        """The next message of a channel."""
        while True:
            for index, event in enumerate(self.events):
                if (event.get("channel"), event.get("type")) == (channel, kind):
                    return self.events.pop(index)
            self.events.append(await asyncio.wait_for(self._socket.receive_json(), ANSWER_S))


@pytest.fixture
async def socket(venue: Venue, trader: Trader) -> AsyncIterator[Socket]:
    """A connection of the trader's."""
    headers = {"Authorization": f"Bearer {trader.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{venue.url}/v1/stream", headers=headers) as connection,
    ):
        yield Socket(connection)


@pytest.fixture
async def client(venue: Venue, trader: Trader) -> AsyncIterator[Client]:
    """A client of the trader's."""
    async with Client(venue.url, trader.token) as each:
        yield each


# The stream.


async def test_pipelined_orders_are_each_answered_under_their_id(socket: Socket) -> None:
    for number in range(100):
        await socket.send(
            op="order", id=number, idempotency_key=f"p-{number}", **{**ORDER, "quantity": "0.1"}
        )
    answers = [await socket.answer(number) for number in range(100)]
    assert {answer["status"] for answer in answers} == {201}
    assert len({answer["order"]["order_id"] for answer in answers}) == 100
    await socket.send(op="order", id=200, idempotency_key="p-0", **{**ORDER, "quantity": "0.1"})
    replayed = await socket.answer(200)
    assert replayed["replayed"] is True
    assert replayed["order"] == answers[0]["order"]


async def test_an_order_is_amended_and_cancelled_over_the_stream(socket: Socket) -> None:
    await socket.send(op="order", id=1, idempotency_key="c", **ORDER)
    order_id = (await socket.answer(1))["order"]["order_id"]
    await socket.send(op="amend", id=2, order_id=order_id, quantity="0.5")
    assert (await socket.answer(2))["order"]["quantity"] == "0.5000"
    await socket.send(op="cancel", id=3, order_id=order_id)
    assert (await socket.answer(3))["order"]["status"] == "CANCELED"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"op": "nonsense"}, "invalid_value"),
        ({"op": "order", "idempotency_key": "x", **ORDER, "price": "0"}, "zero"),
        ({"op": "order", **ORDER}, "missing_field"),
        ({"op": "order", "idempotency_key": "x", **ORDER, "surprise": 1}, "unknown_field"),
        ({"op": "cancel", "order_id": "999999"}, "order_not_found"),
        ({"op": "cancel"}, "missing_field"),
        ({"op": "subscribe", "channel": "nonsense"}, "invalid_value"),
        ({"op": "subscribe", "channel": "book", "symbol": "NO/SUCH"}, "unknown_symbol"),
        ({"op": "subscribe", "channel": "book"}, "missing_field"),
        ({"op": "subscribe", "channel": "book", "symbol": "ETH/USDT", "levels": 5}, "unknown_field"),
        ({"op": "subscribe", "channel": "orders", "symbol": "ETH/USDT"}, "unknown_field"),
        ({"op": "cancel", "order_id": "1-1", "surprise": 1}, "unknown_field"),
        ({"op": "ping", "surprise": 1}, "unknown_field"),
        ({"op": "auth", "key": "hf_x", "surprise": 1}, "unknown_field"),
        ({"op": ["ping"]}, "invalid_value"),
        ({"op": {}}, "invalid_value"),
        ({"op": "subscribe", "channel": []}, "invalid_value"),
    ],
)
async def test_a_bad_message_gets_a_problem_and_the_connection_lives(
    socket: Socket, message: dict[str, Any], code: str
) -> None:
    await socket.send(id=1, **message)
    answer = await socket.answer(1)
    assert answer["problem"]["code"] == code
    assert answer["status"] == answer["problem"]["status"]
    await socket.send(op="ping", id=2)
    assert (await socket.answer(2))["result"] == {"pong": True}


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (1 << 64, "invalid_value"),
        (-(1 << 53) - 1, "invalid_value"),
        (True, "wrong_type"),
        (1.5, "wrong_type"),
        ([1], "wrong_type"),
        (None, "missing_field"),
        ("", "too_long"),
        ("x" * 65, "too_long"),
    ],
)
async def test_an_id_that_cannot_be_repeated_is_refused_and_nobody_waits_in_vain(
    socket: Socket, other: Trader, number: Any, code: str
) -> None:
    """The answer is made where the answers of everybody's orders are handed out."""
    neighbours = [asyncio.create_task(asyncio.to_thread(other.place)) for _ in range(5)]
    await socket.send(op="order", id=number, idempotency_key="bad-id", **ORDER)
    answer = await socket.answer(None)
    assert (answer["problem"]["code"], answer["problem"]["field"]) == (code, "id")
    assert {(await each).status for each in neighbours} == {201}
    await socket.send(op="order", id="x" * 64, idempotency_key="bad-id", **ORDER)
    placed = await socket.answer("x" * 64)
    assert (placed["status"], "replayed" in placed) == (201, False)


@pytest.mark.parametrize("message", ["[" * 60_000, '{"op":' + "[" * 60_000, '{"id":' * 10_000, "\0", '"'])
async def test_what_is_no_message_gets_a_problem_and_the_connection_lives(
    socket: Socket, message: str
) -> None:
    await socket.send_text(message)
    assert (await socket.answer(None))["problem"]["code"] in ("malformed_json", "wrong_type")
    await socket.send(op="ping", id=2)
    assert (await socket.answer(2))["result"] == {"pong": True}


def raw_stream(venue: Venue) -> sockets.socket:
    """A connection whose reading and writing is ours, with little room in the kernel."""
    address = urlsplit(venue.url)
    connection = sockets.socket()
    connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    connection.settimeout(ANSWER_S)
    connection.connect((str(address.hostname), address.port))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return connection


def frame(message: bytes) -> bytes:
    """A client's text frame of less than 126 bytes, under the mask 0."""
    return bytes((0x81, 0x80 | len(message))) + bytes(4) + message


def test_a_client_that_does_not_read_is_not_read_and_gets_its_answers_when_it_does(venue: Venue) -> None:
    pings = b"".join(frame(b'{"op":"ping","id":"%064d"}' % number) for number in range(1000))
    connection = raw_stream(venue)
    sent, sent_max = 0, 64 * 1024 * 1024
    connection.settimeout(3)
    try:
        while sent < sent_max:
            sent += connection.send(pings[sent % len(pings) :])
    except TimeoutError:
        pass
    assert 0 < sent < sent_max
    assert venue.call("GET", "/health/live").status == 200
    with connection:
        connection.settimeout(ANSWER_S)
        missing, rest = sent // (len(pings) // 1000), b""
        while missing > 0:
            rest += connection.recv(1 << 20)
            *whole, rest = rest.split(b'"result":{"pong":true}}')
            missing -= len(whole)
            assert not [answer for answer in whole if b"problem" in answer]


async def test_without_a_key_only_market_data_is_open(venue: Venue) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{venue.url}/v1/stream") as connection:
        socket = Socket(connection)
        await socket.send(op="order", id=1, idempotency_key="x", **ORDER)
        assert (await socket.answer(1))["problem"]["code"] == "missing_key"
        await socket.send(op="subscribe", id=2, channel="book", symbol="ETH/USDT")
        assert (await socket.answer(2))["status"] == 200
        await socket.send(op="auth", id=3, key="hf_wrong")
        assert (await socket.answer(3))["problem"]["code"] == "invalid_key"
        await socket.send(op="auth", id=4, key=venue.keys["alice"])
        assert (await socket.answer(4))["status"] == 200


async def test_a_wrong_key_is_refused_before_the_upgrade(venue: Venue) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{venue.url}/v1/stream", headers={"Authorization": "Bearer hf_no"})
    assert caught.value.status == 401


async def test_a_book_kept_from_snapshot_and_deltas_has_the_checksum(socket: Socket, other: Trader) -> None:
    await asyncio.to_thread(other.place, price="990")
    await socket.send(op="subscribe", id=1, channel="book", symbol="ETH/USDT")
    started = (await socket.answer(1))["result"]["sequence"]
    snapshot = await socket.event("book", "snapshot")
    sides = [{row[0]: row[1] for row in snapshot[side]} for side in ("bids", "asks")]
    assert snapshot["sequence"] == started
    for price in ("991", "992", "990"):
        await asyncio.to_thread(other.place, price=price)
    await asyncio.to_thread(other.place, side="sell", price="992", quantity="0.25")
    for expected in range(started + 1, started + 5):
        delta = await socket.event("book", "delta")
        assert delta["sequence"] == expected
        for levels, side in zip(sides, ("bids", "asks"), strict=True):
            for price, quantity, count in delta[side]:
                levels[price] = quantity
                if count == 0:
                    del levels[price]
        best = [
            *sorted(sides[0].items(), key=lambda row: -Decimal(row[0]))[:10],
            *sorted(sides[1].items(), key=lambda row: Decimal(row[0]))[:10],
        ]
        assert delta["checksum"] == crc32c(
            "".join(f"{price}:{quantity};" for price, quantity in best).encode()
        )
    assert sides[0]["992.00"] == "0.7500"


async def test_a_book_deeper_than_the_channel_shows_stays_the_best_hundred_levels(
    socket: Socket, venue: Venue, other: Trader
) -> None:
    items = [
        {"symbol": "ETH/USDT", "side": "buy", "quantity": "0.1", "price": str(1000 - i)} for i in range(150)
    ]
    orders: list[str] = []
    for part in (items[:100], items[100:]):
        body = {"idempotency_key": f"deep-{len(orders)}", "orders": part}
        answer = await asyncio.to_thread(other.call, "POST", "/v1/orders/batch", body)
        orders += [result["order"]["order_id"] for result in answer.body["results"]]
    await socket.send(op="subscribe", id=1, channel="book", symbol="ETH/USDT")
    await socket.answer(1)
    bids = {row[0]: row[1:] for row in (await socket.event("book", "snapshot"))["bids"]}
    assert len(bids) == 100

    async def follow() -> list[list[Any]]:
        """The bids once they are the book's; the book itself is asked in full."""
        wanted = (await asyncio.to_thread(venue.call, "GET", "/v1/markets/ETH-USDT/book?levels=100")).body
        while True:
            best = sorted(([price, *row] for price, row in bids.items()), key=lambda row: -Decimal(row[0]))
            if best == wanted["bids"]:
                return best
            for price, *row in (await socket.event("book", "delta"))["bids"]:
                bids[price] = row
                if row == ["0", 0]:
                    del bids[price]

    for order_id in orders[:95]:
        await asyncio.to_thread(other.call, "DELETE", f"/v1/orders/{order_id}")
    assert len(await follow()) == 55
    body = {"idempotency_key": "deep-again", "orders": items[:95]}
    await asyncio.to_thread(other.call, "POST", "/v1/orders/batch", body)
    assert len(await follow()) == 100


async def test_who_comes_back_to_a_channel_sees_that_messages_were_missed(
    socket: Socket, trader: Trader
) -> None:
    await socket.send(op="subscribe", id=1, channel="orders")
    first = (await socket.answer(1))["result"]
    await socket.send(op="subscribe", id=2, channel="orders")
    assert (await socket.answer(2))["result"]["instance"] == first["instance"]
    await socket.send(op="unsubscribe", id=3, channel="orders")
    await socket.answer(3)
    await asyncio.to_thread(trader.place)
    await socket.send(op="subscribe", id=4, channel="orders")
    assert (await socket.answer(4))["result"]["instance"] != first["instance"]


async def test_the_snapshot_of_balances_has_its_place_in_the_channels_sequence(
    socket: Socket, trader: Trader
) -> None:
    await socket.send(op="subscribe", id=1, channel="balances")
    started = (await socket.answer(1))["result"]["sequence"]
    snapshot = await socket.event("balances", "snapshot")
    assert snapshot["sequence"] == started
    placed = await asyncio.to_thread(trader.place)
    told = await socket.event("balances", "balance")
    assert told["sequence"] == started + 1
    assert snapshot["engine_sequence"] < told["engine_sequence"] == placed.body["sequence"]


async def test_a_stream_ends_at_once_when_its_key_is_revoked(
    venue: Venue, trader: Trader, socket: Socket
) -> None:
    await socket.send(op="subscribe", id=1, channel="orders")
    await socket.answer(1)
    revoked = await asyncio.to_thread(venue.admin, "DELETE", f"/v1/admin/keys/{trader.key_id}")
    assert revoked.status == 200
    assert await socket.closed() == 1008


async def test_a_stream_ends_when_its_key_expires(venue: Venue, trader: Trader) -> None:
    wanted = {"account": trader.account, "scopes": ["read"], "expires_in_s": 2}
    key = (await asyncio.to_thread(venue.admin, "POST", "/v1/admin/keys", wanted)).body["token"]
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{venue.url}/v1/stream") as connection:
        socket = Socket(connection)
        await socket.send(op="auth", id=1, key=key)
        assert (await socket.answer(1))["status"] == 200
        await socket.send(op="subscribe", id=2, channel="orders")
        assert (await socket.answer(2))["status"] == 200
        assert await socket.closed() == 1008


async def test_another_account_on_the_same_connection_ends_what_was_private(
    venue: Venue, trader: Trader, other: Trader, socket: Socket
) -> None:
    await socket.send(op="subscribe", id=1, channel="orders")
    await socket.answer(1)
    await socket.send(op="auth", id=2, key=other.token)
    await socket.answer(2)
    await asyncio.to_thread(trader.place)
    await socket.send(op="ping", id=3)
    await socket.answer(3)
    assert not socket.events


async def test_private_channels_tell_of_orders_fills_and_balances(socket: Socket, other: Trader) -> None:
    for number, channel in enumerate(("orders", "fills", "balances")):
        await socket.send(op="subscribe", id=number, channel=channel)
        assert (await socket.answer(number))["status"] == 200
    await socket.send(op="subscribe", id=3, channel="trades", symbol="ETH/USDT")
    await socket.answer(3)
    snapshot = await socket.event("balances", "snapshot")
    assert {row["asset"] for row in snapshot["balances"]} == {"USDT", "ETH"}
    await socket.send(op="order", id=4, idempotency_key="private", **ORDER)
    await socket.answer(4)
    assert (await socket.event("orders", "order"))["order"]["status"] == "NEW"
    assert (await socket.event("balances", "balance"))["held"] == "1000.5"
    await asyncio.to_thread(other.place, side="sell")
    assert (await socket.event("orders", "order"))["order"]["status"] == "FILLED"
    fill = (await socket.event("fills", "fill"))["fill"]
    assert (fill["liquidity"], fill["quantity"], fill["fee"]) == ("maker", "1.0000", "0.2")
    assert (await socket.event("trades", "trade"))["trade"]["trade_id"] == fill["trade_id"]


async def test_subscribers_are_told_of_a_new_epoch_and_get_a_new_snapshot(
    venue: Venue, socket: Socket
) -> None:
    await socket.send(op="subscribe", id=1, channel="book", symbol="ETH/USDT")
    await socket.answer(1)
    await socket.event("book", "snapshot")
    epoch = await asyncio.to_thread(venue.epoch)
    await asyncio.to_thread(venue.kill, "engine")
    told = await socket.event(None, "epoch")  # type: ignore[arg-type]
    assert told["epoch"] == epoch + 1
    assert (await socket.event("book", "snapshot"))["epoch"] == epoch + 1
    await socket.send(op="ping", id=2)
    assert (await socket.answer(2))["status"] == 200


async def test_orders_from_before_the_engine_died_are_heard_of_and_the_gap_is_seen(
    venue: Venue, trader: Trader, other: Trader, socket: Socket
) -> None:
    placed = [(await asyncio.to_thread(trader.place, client_order_id=f"old-{i}")).body for i in range(3)]
    await socket.send(op="subscribe", id=1, channel="orders")
    started = (await socket.answer(1))["result"]["sequence"]
    epoch = await asyncio.to_thread(venue.epoch)
    await asyncio.to_thread(venue.kill, "engine")
    await socket.event(None, "gap")  # type: ignore[arg-type]
    await asyncio.to_thread(venue.wait_open, epoch)
    await asyncio.to_thread(other.place, side="sell", quantity="0.5")
    told = await socket.event("orders", "order")
    assert told["sequence"] == started + 2
    order = told["order"]
    assert (order["order_id"], order["client_order_id"]) == (placed[0]["order_id"], "old-0")
    assert (order["status"], order["filled_quantity"]) == ("PARTIALLY_FILLED", "0.5000")
    assert [fill["quantity"] for fill in order["fills"]] == ["0.5000"]
    for each in placed:
        await asyncio.to_thread(trader.call, "DELETE", f"/v1/orders/{each['order_id']}")
        order = (await socket.event("orders", "order"))["order"]
        assert (order["order_id"], order["status"]) == (each["order_id"], "CANCELED")
        found = await asyncio.to_thread(trader.call, "GET", f"/v1/orders/{each['order_id']}")
        assert found.body == order


# The client.


async def test_the_client_trades_and_reads(client: Client, other: Trader) -> None:
    order = await client.place_order(
        "ETH/USDT", "buy", quantity=Decimal("2"), price="1000", client_order_id="cli"
    )
    assert (order.status, order.quantity, order.live) == ("NEW", Decimal(2), True)
    assert (await client.order(order.order_id)).price == Decimal(1000)
    assert (await client.order_by_client_id("cli")).order_id == order.order_id
    await asyncio.to_thread(other.place, side="sell", quantity="1")
    assert [fill.quantity for fill in await client.fills()] == [Decimal(1)]
    assert (await client.trades("ETH/USDT", 1))[0].price == Decimal(1000)
    amended = await client.amend_order(order.order_id, quantity="1.5")
    assert (amended.status, amended.remaining_quantity) == ("PARTIALLY_FILLED", Decimal("0.5"))
    assert (await client.book("ETH/USDT")).bids == ((Decimal(1000), Decimal("0.5"), 1),)
    assert [each.order_id for each in await client.open_orders()] == [order.order_id]
    canceled = await client.cancel_order(order.order_id)
    assert canceled is not None
    assert canceled.status == "CANCELED"
    balances = await client.balances()
    assert (balances["ETH"].available, balances["USDT"].held) == (Decimal(1001), Decimal(0))
    assert await client.order_by_key("unheard of") is None
    with pytest.raises(RequestRefused) as refused:
        await client.place_order("ETH/USDT", "buy", quantity="0", price="1")
    assert (refused.value.code, refused.value.field) == ("zero", "quantity")


async def test_the_client_places_an_order_once_across_a_kill(venue: Venue, client: Client) -> None:
    epoch = await asyncio.to_thread(venue.epoch)
    placing = [
        asyncio.create_task(
            client.place_order("ETH/USDT", "buy", quantity="0.1", price="800", idempotency_key=f"once-{i}")
        )
        for i in range(50)
    ]
    await asyncio.to_thread(venue.kill, "engine")
    orders = await asyncio.gather(*placing)
    orders.append(await client.place_order("ETH/USDT", "buy", quantity="0.1", price="800"))
    assert orders[-1].pending
    await asyncio.to_thread(venue.wait_open, epoch)
    assert len(await client.open_orders("ETH/USDT")) == 51


async def test_the_clients_stream_comes_back_after_the_gateway_died(venue: Venue, client: Client) -> None:
    async with client.stream() as stream:
        await stream.subscribe("book", "ETH/USDT")
        first = await stream.place_order(idempotency_key="s-1", **ORDER)
        assert first.status == "NEW"
        await asyncio.to_thread(venue.kill, "gateway")
        seen: list[str] = []
        async for event in stream:
            seen.append(str(event["type"]))
            if "reconnected" in seen and seen[-1] == "snapshot":
                break
        await asyncio.to_thread(venue.wait_open)
        again = await stream.place_order(idempotency_key="s-1", **ORDER)
        assert (again.order_id, again.replayed) == (first.order_id, True)
