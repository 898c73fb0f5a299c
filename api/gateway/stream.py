"""The WebSocket of `/v1/stream`: order entry and channels on one connection.

Client messages (JSON, at most 64 KiB)::

    {"op": "auth", "id": 1, "key": "hf_..."}            where headers cannot be set
    {"op": "order", "id": 2, "idempotency_key": ..., "symbol": ..., ...}
    {"op": "cancel", "id": 3, "order_id": "812-5"}
    {"op": "amend", "id": 3, "order_id": "812-5", "price": ..., "quantity": ...}
    {"op": "subscribe" | "unsubscribe", "id": 4, "channel": "book", "symbol": "BTC/USDT"}
    {"op": "ping", "id": 5}

Each is answered by ``{"id", "status", "order" | "problem" | "result", "replayed"?}``;
orders are pipelined and may be answered out of order.  Channel messages carry
``channel``, ``type`` and the dense ``sequence`` of `hub`.

A connection that lets `OUTBOX_MESSAGES_MAX` messages pile up is closed with
1013, never buffered without bound; one with `REQUESTS_MAX` unanswered requests
is not read until some are answered.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from api.gateway.errors import Problem
from api.gateway.http import Outcome, Receive, Scope, Send, header, problem_outcome
from api.gateway.hub import CHANNELS, MARKET_CHANNELS, Channel
from api.gateway.keys import READ, TRADE, Key
from api.gateway.mirror import SNAPSHOT_LEVELS
from api.gateway.models import BODY_BYTES_MAX, Amend, NewOrder, convert_request
from api.gateway.validation import market_of

if TYPE_CHECKING:
    from api.gateway.venue import Venue

OUTBOX_MESSAGES_MAX = 20_000
REQUESTS_MAX = 1_000
SUBSCRIPTIONS_MAX = 100
CLOSE_SLOW = 1013
CLOSE_RESTART = 1012

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Stream:
    """One connection."""

    def __init__(self, venue: "Venue", key: Key | None, send: Send) -> None:
        self._venue = venue
        self._key = key
        self._send = send
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._unanswered = 0
        self._subscriptions: set[tuple[str, int]] = set()
        self.slow = False
        self._operations: dict[str, Callable[[dict[str, Any], Any], None]] = {
            "order": self._order,
            "cancel": self._cancel,
            "amend": self._amend,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "auth": self._auth,
            "ping": self._ping,
        }

    # Outgoing.

    def push(self, message: bytes) -> None:
        """Queue one message; a connection that does not keep up is marked slow."""
        if len(self._outbox) >= OUTBOX_MESSAGES_MAX:
            if not self.slow:
                self.slow = True
                self._venue.metrics.slow_streams.inc()
            self._wake.set()
            return
        self._outbox.append(message)
        self._wake.set()

    async def write(self) -> None:
        """Send what is queued until the connection is slow or the task is cancelled."""
        outbox, send = self._outbox, self._send
        while not self.slow:
            await self._wake.wait()
            self._wake.clear()
            while outbox and not self.slow:
                await send({"type": "websocket.send", "text": outbox.popleft().decode()})
        await send(
            {"type": "websocket.close", "code": CLOSE_SLOW, "reason": "the connection did not keep up"}
        )

    def _answer(self, request: Any, outcome: Outcome) -> None:
        """Answer a request with what an HTTP request would get."""
        name = b'"problem":' if outcome.problem else b'"order":'
        replayed = b',"replayed":true' if outcome.replayed else b""
        self.push(
            b'{"id":'
            + orjson.dumps(request)
            + b',"status":'
            + str(outcome.status).encode()
            + replayed
            + b","
            + name
            + outcome.body
            + b"}"
        )

    def _result(self, request: Any, result: dict[str, Any]) -> None:
        self.push(orjson.dumps({"id": request, "status": 200, "result": result}))

    # Incoming.

    async def read(self, receive: Receive) -> None:
        """Handle messages until the client leaves."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message["type"] != "websocket.receive":
                continue
            data = message.get("text") or message.get("bytes") or b""
            self._handle(data)
            if self._unanswered >= REQUESTS_MAX:
                self._room.clear()
                await self._room.wait()

    def _handle(self, data: str | bytes) -> None:
        request: Any = None
        try:
            if len(data) > BODY_BYTES_MAX:
                limit = str(BODY_BYTES_MAX)
                raise Problem("body_too_large", f"A message may have at most {limit} bytes.", limit=limit)
            try:
                body = _decode(data)
            except msgspec.ValidationError as error:
                raise Problem("wrong_type", "A message is a JSON object.", field="body") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Problem("malformed_json", f"The message is not JSON: {error}.") from error
            request = body.pop("id", None)
            if not isinstance(request, (str, int, type(None))):
                request, given = None, type(request).__name__
                raise Problem("wrong_type", f"'id' is a string or an integer, not {given}.", field="id")
            operation = self._operations.get(body.pop("op", None))
            if operation is None:
                names = ", ".join(self._operations)
                raise Problem("invalid_value", f"'op' must be one of {names}.", field="op", limit=names)
            operation(body, request)
        except Problem as problem:
            self._answer(request, problem_outcome(problem))

    def _require(self, scope: int) -> Key:
        if self._key is None:
            raise Problem(
                "missing_key", "Connect with 'Authorization: Bearer <key>', or send op 'auth' first."
            )
        # Asked anew each time, so that a revocation holds at once.
        key = self._venue.mirror.keys.get(self._key.digest)
        return self._venue.mirror.keys.check(key, scope)

    def _order(self, body: dict[str, Any], request: Any) -> None:
        key = self._require(TRADE)
        order = convert_request(NewOrder, body)
        began = time.perf_counter()

        def done(outcome: Outcome) -> None:
            self._venue.metrics.stream_latency.observe(time.perf_counter() - began)
            self._venue.metrics.count("STREAM order", outcome.status)
            self._answered(request, outcome)

        self._venue.entry.place(key.account, order, done)
        self._unanswered += 1

    def _cancel(self, body: dict[str, Any], request: Any) -> None:
        key = self._require(TRADE)
        order_id = body.get("order_id")
        if not isinstance(order_id, str):
            raise Problem("missing_field", "'order_id' is required, a string.", field="order_id")
        self._venue.entry.cancel(key.account, order_id, lambda outcome: self._answered(request, outcome))
        self._unanswered += 1

    def _amend(self, body: dict[str, Any], request: Any) -> None:
        key = self._require(TRADE)
        order_id = body.pop("order_id", None)
        if not isinstance(order_id, str):
            raise Problem("missing_field", "'order_id' is required, a string.", field="order_id")
        amend = convert_request(Amend, body)
        self._venue.entry.amend_later(
            key.account, order_id, amend, lambda outcome: self._answered(request, outcome)
        )
        self._unanswered += 1

    def _answered(self, request: Any, outcome: Outcome) -> None:
        self._unanswered -= 1
        if self._unanswered < REQUESTS_MAX:
            self._room.set()
        self._answer(request, outcome)

    def _auth(self, body: dict[str, Any], request: Any) -> None:
        token = body.get("key")
        if not isinstance(token, str) or len(token) > 128:
            raise Problem("missing_field", "'key' is required, a string.", field="key")
        self._key = self._venue.mirror.keys.authenticate_token(token, READ)
        self._result(request, {"account": self._key.account})

    def _ping(self, body: dict[str, Any], request: Any) -> None:
        self._result(request, {"pong": True})

    # Channels.

    def _channel(self, body: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
        name = body.get("channel")
        if name not in CHANNELS:
            names = ", ".join(CHANNELS)
            raise Problem("invalid_value", f"'channel' must be one of {names}.", field="channel", limit=names)
        if name in MARKET_CHANNELS:
            market = market_of(self._venue.mirror.registry, str(body.get("symbol", "")))
            return name, market.number, {"symbol": market.symbol}
        return name, self._require(READ).account, {}

    def _subscribe(self, body: dict[str, Any], request: Any) -> None:
        name, number, head = self._channel(body)
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            limit = str(SUBSCRIPTIONS_MAX)
            raise Problem("limit_reached", f"A connection has at most {limit} subscriptions.", limit=limit)
        channel = self._venue.hub.subscribe(name, number, head, self)
        self._subscriptions.add((name, number))
        self._result(
            request,
            {"channel": name, **head, "sequence": channel.sequence, "epoch": self._venue.mirror.epoch},
        )
        if name == "book":
            self.push(channel.encode("snapshot", self._venue.mirror.book_document(number, SNAPSHOT_LEVELS)))
        elif name == "balances":
            self._venue.spawn(self._send_balances(channel, number))

    async def _send_balances(self, channel: Channel, account: int) -> None:
        document = await self._venue.reads.balances(account)
        self.push(channel.encode("snapshot", document))

    def _unsubscribe(self, body: dict[str, Any], request: Any) -> None:
        name, number, head = self._channel(body)
        self._venue.hub.unsubscribe(name, number, self)
        self._subscriptions.discard((name, number))
        self._result(request, {"channel": name, **head})


async def serve_stream(venue: "Venue", scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI side of one connection."""
    await receive()  # websocket.connect
    key = None
    authorization = header(scope, b"authorization")
    if authorization is not None:
        try:
            key = venue.mirror.keys.authenticate(authorization, READ)
        except Problem as problem:
            outcome = problem_outcome(problem)
            headers = outcome.headers()
            await send(
                {"type": "websocket.http.response.start", "status": outcome.status, "headers": headers}
            )
            await send({"type": "websocket.http.response.body", "body": outcome.body})
            return
    await send({"type": "websocket.accept"})
    stream = Stream(venue, key, send)
    venue.metrics.streams.inc()
    reader = asyncio.create_task(stream.read(receive))
    writer = asyncio.create_task(stream.write())
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        venue.metrics.streams.dec()
        venue.hub.leave(stream)
        for task in (reader, writer):
            task.cancel()
        ended = await asyncio.gather(reader, writer, return_exceptions=True)
        venue.stream_ended(list(ended))
