"""The WebSocket of `/v1/stream`: order entry and channels on one connection.

Client messages (JSON, at most 64 KiB)::

    {"op": "auth", "id": 1, "key": "hf_..."}            where headers cannot be set
    {"op": "order", "id": 2, "idempotency_key": ..., "symbol": ..., ...}
    {"op": "cancel", "id": 3, "order_id": "812-5"}
    {"op": "amend", "id": 3, "order_id": "812-5", "price": ..., "quantity": ...}
    {"op": "subscribe" | "unsubscribe", "id": 4, "channel": "book", "symbol": "BTC/USDT"}
    {"op": "ping", "id": 5}

`id` is a text of 1 to 64 characters or an integer within ±2^53.  Each is
answered by ``{"id", "status", "order" | "problem" | "result", "replayed"?}``;
orders are pipelined and may be answered out of order.  Channel messages carry
``channel``, ``type`` and the dense ``sequence`` of `hub`; the answer to
subscribe says the sequence that it starts from and the channel's ``instance``.

What a connection may hold is bounded in bytes.  While half of `OUTBOX_BYTES_MAX`
is unsent, or `REQUESTS_MAX` requests are unanswered, it is not read.  One that
does not take what channels send it is closed with 1013, one whose key was
revoked or has expired with 1008: the close frame gets `CLOSE_S`, then the
connection is cut.
"""

import asyncio
import contextlib
import logging
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
from api.gateway.models import BODY_BYTES_MAX, Amend, NewOrder, convert_request
from api.gateway.validation import market_of

if TYPE_CHECKING:
    from api.gateway.venue import Venue

OUTBOX_BYTES_MAX = 4 * 1024 * 1024
REQUESTS_MAX = 1_000
SUBSCRIPTIONS_MAX = 100
ID_CHARACTERS_MAX = 64
ID_INTEGER_MAX = 1 << 53
"""What every JSON library keeps exactly."""
GUARD_S = 1.0
"""How often a connection is looked at: its key's expiry, what the kernel does not take."""
CLOSE_S = 2.0
CLOSE_POLICY = 1008
CLOSE_SLOW = 1013

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_log = logging.getLogger("holdfast.stream")

Id = bytes
"""A request's id as JSON: encoded when it is read, so that answering cannot fail."""


def encode_id(given: Any) -> Id:
    """A request's id as its answer repeats it.

    Raises
    ------
    Problem
        It is no text or integer within the bounds.
    """
    if isinstance(given, str):
        if 0 < len(given) <= ID_CHARACTERS_MAX:
            return orjson.dumps(given)
        limit = str(ID_CHARACTERS_MAX)
        raise Problem("too_long", f"'id' has 1 to {limit} characters.", field="id", limit=limit)
    if isinstance(given, int) and not isinstance(given, bool):
        if -ID_INTEGER_MAX <= given <= ID_INTEGER_MAX:
            return orjson.dumps(given)
        limit = str(ID_INTEGER_MAX)
        raise Problem("invalid_value", "'id' is an integer within ±2^53.", field="id", limit=limit)
    if given is None:
        raise Problem("missing_field", "'id' is required: the answer repeats it.", field="id")
    raise Problem("wrong_type", f"'id' is a text or an integer, not {type(given).__name__}.", field="id")


def only(body: dict[str, Any], *names: str) -> None:
    """Refuse fields that a message does not have."""
    for name in body:
        if name not in names:
            shown = name[:64]
            raise Problem("unknown_field", f"{shown!r} is not a field of this message.", field=shown)


class Stream:
    """One connection.

    Attributes
    ----------
    ended : Future of (int, str)
        Code and reason, when this side ends the connection.
    """

    def __init__(self, venue: "Venue", send: Send) -> None:
        self._venue = venue
        self._key: Key | None = None
        self._send = send
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._unanswered = 0
        self._subscriptions: set[tuple[str, int]] = set()
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._operations: dict[str, Callable[[dict[str, Any], Id], None]] = {
            "order": self._order,
            "cancel": self._cancel,
            "amend": self._amend,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "auth": self._auth,
            "ping": self._ping,
        }

    def end(self, code: int, reason: str) -> None:
        """Close from this side; what was not sent yet is dropped."""
        if not self.ended.done():
            self.ended.set_result((code, reason))
        self._outbox.clear()
        self._outbox_bytes = 0

    def leave(self) -> None:
        """The connection is over: no channel and no key knows it any more."""
        for name, number in self._subscriptions:
            self._venue.hub.unsubscribe(name, number, self)
        self._subscriptions.clear()
        if self._key is not None:
            self._venue.hub.close_session(self._key.digest, self)

    # The key.

    def use_key(self, key: Key) -> None:
        """Speak for a key from now on; channels of another account that it spoke for end."""
        hub, former = self._venue.hub, self._key
        if former is not None:
            hub.close_session(former.digest, self)
            if former.account != key.account:
                for name, number in tuple(self._subscriptions):
                    if name not in MARKET_CHANNELS:
                        hub.unsubscribe(name, number, self)
                        self._subscriptions.discard((name, number))
        self._key = key
        hub.open_session(key.digest, self)

    def check_key(self) -> None:
        """End the connection if its key was revoked or has expired."""
        if self._key is not None:
            try:
                self._require(READ)
            except Problem as problem:
                self.end(CLOSE_POLICY, problem.detail)

    def _require(self, scope: int) -> Key:
        if self._key is None:
            raise Problem(
                "missing_key", "Connect with 'Authorization: Bearer <key>', or send op 'auth' first."
            )
        # Asked anew each time, so that a revocation holds at once.
        keys = self._venue.mirror.keys
        return keys.check(keys.get(self._key.digest), scope)

    # Outgoing.

    def push(self, message: bytes) -> None:
        """Queue one message; a connection that does not keep up is ended."""
        if self.ended.done():
            return
        if self._outbox_bytes + len(message) > OUTBOX_BYTES_MAX:
            self._venue.metrics.slow_streams.inc()
            self.end(CLOSE_SLOW, "the connection did not keep up")
            return
        self._outbox.append(message)
        self._outbox_bytes += len(message)
        self._wake.set()

    async def write(self) -> None:
        """Send what is queued, until cancelled."""
        outbox, send = self._outbox, self._send
        while True:
            await self._wake.wait()
            self._wake.clear()
            while outbox:
                message = outbox.popleft()
                self._outbox_bytes -= len(message)
                await send({"type": "websocket.send", "text": message.decode()})
                self._room.set()

    def _answer(self, request: Id, outcome: Outcome) -> None:
        """Answer a request with what an HTTP request would get."""
        name = b'"problem":' if outcome.problem else b'"order":'
        replayed = b',"replayed":true' if outcome.replayed else b""
        status = str(outcome.status).encode()
        self.push(b'{"id":%b,"status":%b%b,%b%b}' % (request, status, replayed, name, outcome.body))

    def _result(self, request: Id, result: dict[str, Any]) -> None:
        self.push(b'{"id":%b,"status":200,"result":%b}' % (request, orjson.dumps(result)))

    # Incoming.

    async def read(self, receive: Receive) -> None:
        """Handle messages until the client leaves."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message["type"] != "websocket.receive":
                continue
            self._handle(message.get("text") or message.get("bytes") or b"")
            while self._unanswered >= REQUESTS_MAX or self._outbox_bytes > OUTBOX_BYTES_MAX // 2:
                self._room.clear()
                await self._room.wait()

    def _handle(self, data: str | bytes) -> None:
        request: Id = b"null"
        try:
            body = self._decoded(data)
            request = encode_id(body.pop("id", None))
            name = body.pop("op", None)
            operation = self._operations.get(name) if isinstance(name, str) else None
            if operation is None:
                names = ", ".join(self._operations)
                raise Problem("invalid_value", f"'op' must be one of {names}.", field="op", limit=names)
            operation(body, request)
        except Problem as problem:
            self._answer(request, problem_outcome(problem))
        except Exception:
            _log.exception("a message could not be handled")
            failed = Problem("internal", "The message failed inside the gateway.")
            self._answer(request, problem_outcome(failed))

    @staticmethod
    def _decoded(data: str | bytes) -> dict[str, Any]:
        if len(data) > BODY_BYTES_MAX:
            limit = str(BODY_BYTES_MAX)
            raise Problem("body_too_large", f"A message may have at most {limit} bytes.", limit=limit)
        try:
            return _decode(data)
        except msgspec.ValidationError as error:
            raise Problem("wrong_type", "A message is a JSON object.", field="body") from error
        except RecursionError as error:
            raise Problem("malformed_json", "The message is nested too deeply.") from error
        except (msgspec.DecodeError, UnicodeError) as error:
            raise Problem("malformed_json", f"The message is not JSON: {error}.") from error

    def _order(self, body: dict[str, Any], request: Id) -> None:
        key = self._require(TRADE)
        order = convert_request(NewOrder, body)
        began = time.perf_counter()

        def done(outcome: Outcome) -> None:
            self._venue.metrics.stream_latency.observe(time.perf_counter() - began)
            self._venue.metrics.count("STREAM order", outcome.status)
            self._answered(request, outcome)

        self._unanswered += 1
        self._sent(lambda: self._venue.entry.place(key.account, order, done))

    def _cancel(self, body: dict[str, Any], request: Id) -> None:
        key = self._require(TRADE)
        only(body, "order_id")
        order_id = self._order_id(body)
        self._unanswered += 1
        self._sent(
            lambda: self._venue.entry.cancel(
                key.account, order_id, lambda outcome: self._answered(request, outcome)
            )
        )

    def _amend(self, body: dict[str, Any], request: Id) -> None:
        key = self._require(TRADE)
        order_id = self._order_id(body)
        amend = convert_request(Amend, body)
        self._unanswered += 1
        self._sent(
            lambda: self._venue.entry.amend_later(
                key.account, order_id, amend, lambda outcome: self._answered(request, outcome)
            )
        )

    @staticmethod
    def _order_id(body: dict[str, Any]) -> str:
        order_id = body.pop("order_id", None)
        if not isinstance(order_id, str):
            raise Problem("missing_field", "'order_id' is required, a text.", field="order_id")
        return order_id

    def _sent(self, work: Callable[[], None]) -> None:
        """Hand a request over; one that is refused at once is answered by the refusal alone."""
        try:
            work()
        except BaseException:
            self._unanswered -= 1
            raise

    def _answered(self, request: Id, outcome: Outcome) -> None:
        self._unanswered -= 1
        self._room.set()
        self._answer(request, outcome)

    def _auth(self, body: dict[str, Any], request: Id) -> None:
        only(body, "key")
        token = body.get("key")
        if not isinstance(token, str) or len(token) > 128:
            raise Problem("missing_field", "'key' is required, a text.", field="key")
        key = self._venue.mirror.keys.authenticate_token(token, READ)
        self.use_key(key)
        self._result(request, {"account": key.account})

    def _ping(self, body: dict[str, Any], request: Id) -> None:
        only(body)
        self._result(request, {"pong": True})

    # Channels.

    def _channel(self, body: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
        name = body.get("channel")
        if not isinstance(name, str) or name not in CHANNELS:
            names = ", ".join(CHANNELS)
            raise Problem("invalid_value", f"'channel' must be one of {names}.", field="channel", limit=names)
        if name not in MARKET_CHANNELS:
            only(body, "channel")
            return name, self._require(READ).account, {}
        only(body, "channel", "symbol")
        symbol = body.get("symbol")
        if not isinstance(symbol, str):
            raise Problem("missing_field", "'symbol' is required, a text.", field="symbol")
        market = market_of(self._venue.mirror.registry, symbol[:64])
        return name, market.number, {"symbol": market.symbol}

    def _subscribe(self, body: dict[str, Any], request: Id) -> None:
        name, number, head = self._channel(body)
        if (name, number) not in self._subscriptions and len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            limit = str(SUBSCRIPTIONS_MAX)
            raise Problem("limit_reached", f"A connection has at most {limit} subscriptions.", limit=limit)
        channel = self._venue.hub.subscribe(name, number, head, self)
        self._subscriptions.add((name, number))
        start = {"sequence": channel.sequence, "instance": channel.instance}
        self._result(request, {"channel": name, **head, **start, "epoch": self._venue.mirror.epoch})
        if name == "book":
            self.push(channel.encode("snapshot", self._venue.mirror.book_snapshot(number)))
        elif name == "balances":
            self._venue.spawn(self._send_balances(channel))

    async def _send_balances(self, channel: Channel) -> None:
        try:
            document = await self._venue.reads.balances(channel.key)
        except Problem as problem:
            message = channel.encode("problem", {"problem": problem.document()})
        else:
            # The channel counts its own messages; what the engine counts has a name of its own.
            document["engine_sequence"] = document.pop("sequence")
            message = channel.encode("snapshot", document)
        if self in channel.subscribers:
            self.push(message)

    def missed(self) -> None:
        """Events were missed: the balances are sent anew (books are, to all who listen)."""
        for name, number in self._subscriptions:
            channel = self._venue.hub.listening(name, number)
            if name == "balances" and channel is not None:
                self._venue.spawn(self._send_balances(channel))

    def _unsubscribe(self, body: dict[str, Any], request: Id) -> None:
        name, number, head = self._channel(body)
        self._venue.hub.unsubscribe(name, number, self)
        self._subscriptions.discard((name, number))
        self._result(request, {"channel": name, **head})


async def guard(stream: Stream, transport: asyncio.Transport | None) -> None:
    """End a connection whose key expires, or whose client asks for control frames it does not read."""
    while True:
        await asyncio.sleep(GUARD_S)
        stream.check_key()
        if transport is not None and transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            stream.end(CLOSE_SLOW, "the connection did not keep up")


async def close(send: Send, transport: asyncio.Transport | None, code: int, reason: str) -> None:
    """Send a close frame; cut the connection of a client that does not take it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await send({"type": "websocket.close", "code": code, "reason": reason[:100]})
            while transport is not None and transport.get_write_buffer_size():
                await asyncio.sleep(CLOSE_S / 20)
            return
    if transport is not None:
        transport.abort()


def transport_of(send: Send) -> asyncio.Transport | None:
    """The connection under an ASGI `send`; ASGI itself has no way to cut one."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    return transport if hasattr(transport, "abort") else None


async def serve_stream(venue: "Venue", scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI side of one connection."""
    await receive()  # websocket.connect
    key = None
    authorization = header(scope, b"authorization")
    try:
        if authorization is not None:
            key = venue.mirror.keys.authenticate(authorization, READ)
        if scope["query_string"]:
            raise Problem("invalid_parameter", "The stream has no query parameters.")
    except Problem as problem:
        outcome = problem_outcome(problem)
        await send(
            {
                "type": "websocket.http.response.start",
                "status": outcome.status,
                "headers": outcome.headers(),
            }
        )
        await send({"type": "websocket.http.response.body", "body": outcome.body})
        return
    await send({"type": "websocket.accept"})
    transport = transport_of(send)
    stream = Stream(venue, send)
    if key is not None:
        stream.use_key(key)
    venue.metrics.streams.inc()
    tasks: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(each)
        for each in (stream.read(receive), stream.write(), guard(stream, transport))
    ]
    try:
        await asyncio.wait((*tasks, stream.ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        venue.metrics.streams.dec()
        stream.leave()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        venue.stream_ended(list(results))
    if stream.ended.done():
        await close(send, transport, *stream.ended.result())
