"""The public routes that FastAPI serves: all but placing and cancelling one order.

Handlers return `Outcome`s; problems are raised and answered in one place
(`app`).  Public market data needs no key.
"""

import re
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from api.gateway import models
from api.gateway.batcher import IN_FLIGHT_MAX
from api.gateway.books import LEVELS_MAX, TRADES_KEPT, trade_document
from api.gateway.clock import iso
from api.gateway.errors import Problem
from api.gateway.http import Outcome, body_too_large
from api.gateway.keys import READ, TRADE
from api.gateway.models import PAGE_DEFAULT, PAGE_MAX, decode_amend, decode_batch
from api.gateway.openapi import DOCS_PAGE, ORDER_ID, operation, path, query
from api.gateway.registry import Market
from api.gateway.stream import REQUESTS_MAX
from api.gateway.venue import Venue
from api.gateway.watch import health, ready, require_fresh
from engine.types import IDEMPOTENCY_QUOTA

LEVELS_DEFAULT = 50
TRADES_DEFAULT = 100

_LIMIT = query("limit", "integer", "How many.", minimum=1, maximum=PAGE_MAX, default=PAGE_DEFAULT)
_CURSOR = query("cursor", "string", "next_cursor of the page before.", maxLength=128)
_SYMBOL = query("symbol", "string", "BTC/USDT or BTC-USDT.", maxLength=32)
_MARKET = path("symbol", "The symbol with a hyphen: BTC-USDT.")


def json_response(outcome: Outcome) -> Response:
    """An `Outcome` as Starlette sends it."""
    headers = {name.decode(): value.decode() for name, value in outcome.headers()}
    return Response(outcome.body, outcome.status, headers)


def answer(document: Any, status: int = 200) -> Response:
    """A document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


async def body_of(request: Request) -> bytes:
    """The body, bounded."""
    length = request.headers.get("content-length")
    if length is not None and (not length.isdigit() or int(length) > models.BODY_BYTES_MAX):
        raise body_too_large()
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > models.BODY_BYTES_MAX:
            raise body_too_large()
    return body


def account_of(venue: Venue, request: Request, scope: int) -> int:
    """The caller's account."""
    authorization = request.headers.get("authorization")
    key = venue.mirror.keys.authenticate(
        None if authorization is None else authorization.encode("latin-1"), scope
    )
    if key.account == 0:
        raise Problem("forbidden", "This API key belongs to no account.", field="Authorization")
    return key.account


def parameters(request: Request, *allowed: str) -> dict[str, str]:
    """The query parameters; unknown and repeated ones are refused."""
    given = request.query_params.multi_items()
    values: dict[str, str] = {}
    for name, value in given:
        if name not in allowed:
            raise Problem(
                "unknown_field", f"{name[:64]!r} is not a parameter of this route.", field=name[:64]
            )
        if name in values:
            raise Problem("invalid_parameter", f"{name!r} was given twice.", field=name)
        if len(value) > 128 or "\0" in value:
            raise Problem("too_long", f"{name!r} may have at most 128 characters.", field=name, limit="128")
        values[name] = value
    return values


def whole_number(values: dict[str, str], name: str, default: int, highest: int) -> int:
    """A parameter from 1 to `highest`."""
    text = values.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= highest:
        raise Problem(
            "invalid_parameter", f"{name!r} must be from 1 to {highest}.", field=name, limit=str(highest)
        )
    return int(text)


def market_document(market: Market) -> dict[str, Any]:
    """A market's JSON."""
    return {
        "symbol": market.symbol,
        "base": market.base.symbol,
        "quote": market.quote.symbol,
        "tick_size": market.tick_size,
        "lot_size": market.lot_size,
        "maker_fee_ppm": market.maker_fee_ppm,
        "taker_fee_ppm": market.taker_fee_ppm,
        "state": market.state.name,
        "last_price": market.price_text(market.last_price) if market.last_price else None,
    }


def public_router(venue: Venue) -> APIRouter:
    """All routes of the public listener but the order entry."""
    router = APIRouter()
    _add_orders(router, venue)
    _add_account(router, venue)
    _add_markets(router, venue)
    add_operations(router, venue)
    return router


def _add_orders(router: APIRouter, venue: Venue) -> None:
    reads, entry = venue.reads, venue.entry

    @router.post(
        "/v1/orders/batch",
        tags=["orders"],
        summary="Place up to 100 orders",
        openapi_extra=operation(
            request=models.NewBatch, answer=models.BatchAnswer, problems=(400, 413, 422, 503)
        ),
    )
    async def place_batch(request: Request) -> Response:
        """Not atomic: each item has its own status. An item's key is the batch's, a colon and its index."""
        account = account_of(venue, request, TRADE)
        parameters(request)
        return json_response(await entry.batch(account, decode_batch(await body_of(request))))

    @router.get(
        "/v1/orders",
        tags=["orders"],
        summary="Find orders",
        openapi_extra=operation(
            answer=models.OrderPage,
            more={},
            problems=(404, 422, 503),
            parameters=(
                query("client_order_id", "string", "The newest order with this id.", maxLength=64),
                query("idempotency_key", "string", "What became of the request with this key.", maxLength=64),
                query("status", "string", "Live and queued orders.", enum=["open"]),
                _SYMBOL,
                _LIMIT,
                _CURSOR,
            ),
        ),
    )
    async def find_orders(request: Request) -> Response:
        """By client_order_id or idempotency_key: one order. With status=open: a page."""
        account = account_of(venue, request, READ)
        values = parameters(
            request, "client_order_id", "idempotency_key", "status", "symbol", "limit", "cursor"
        )
        if "client_order_id" in values:
            return answer(await reads.by_client_order_id(account, values["client_order_id"]))
        if "idempotency_key" in values:
            return json_response(await reads.by_key_outcome(account, values["idempotency_key"]))
        if values.get("status", "open") != "open":
            raise Problem("invalid_parameter", "'status' may only be 'open'.", field="status", limit="open")
        limit = whole_number(values, "limit", PAGE_DEFAULT, PAGE_MAX)
        return answer(await reads.open_orders(account, values.get("symbol"), limit, values.get("cursor")))

    @router.get(
        "/v1/orders/{order_id}",
        tags=["orders"],
        summary="One order",
        openapi_extra=operation(answer=models.Order, problems=(404, 503), parameters=(ORDER_ID,)),
    )
    async def get_order(request: Request) -> Response:
        """The order as it stands; queued orders too."""
        account = account_of(venue, request, READ)
        parameters(request)
        return answer(await reads.order(account, request.path_params["order_id"]))

    @router.patch(
        "/v1/orders/{order_id}",
        tags=["orders"],
        summary="Amend an order",
        openapi_extra=operation(
            request=models.Amend,
            answer=models.Order,
            problems=(400, 404, 409, 413, 422, 503, 504),
            parameters=(ORDER_ID,),
        ),
    )
    async def amend_order(request: Request) -> Response:
        """A lower quantity keeps priority; a new price or a higher quantity loses it and may trade."""
        account = account_of(venue, request, TRADE)
        parameters(request)
        amend = decode_amend(await body_of(request))
        return json_response(await entry.amend(account, request.path_params["order_id"], amend))

    @router.delete(
        "/v1/orders",
        tags=["orders"],
        summary="Cancel all open orders",
        openapi_extra=operation(answer=models.MassCancelAnswer, problems=(422, 503), parameters=(_SYMBOL,)),
    )
    async def cancel_all(request: Request) -> Response:
        """Of one market, or of all when no symbol is given."""
        account = account_of(venue, request, TRADE)
        values = parameters(request, "symbol")
        return json_response(await entry.cancel_all(account, values.get("symbol")))


def _add_account(router: APIRouter, venue: Venue) -> None:
    reads = venue.reads

    @router.get(
        "/v1/balances",
        tags=["account"],
        summary="Balances",
        openapi_extra=operation(answer=models.Balances, problems=(503,)),
    )
    async def get_balances(request: Request) -> Response:
        """From the engine; while it is down from the rows, with their time."""
        account = account_of(venue, request, READ)
        parameters(request)
        return answer(await reads.balances(account))

    @router.get(
        "/v1/fills",
        tags=["account"],
        summary="Fills, newest first",
        openapi_extra=operation(
            answer=models.FillPage, problems=(422, 503), parameters=(_SYMBOL, _LIMIT, _CURSOR)
        ),
    )
    async def get_fills(request: Request) -> Response:
        """Both sides of every trade are fills, each with its own fee."""
        account = account_of(venue, request, READ)
        values = parameters(request, "symbol", "limit", "cursor")
        limit = whole_number(values, "limit", PAGE_DEFAULT, PAGE_MAX)
        return answer(await reads.fills(account, values.get("symbol"), limit, values.get("cursor")))

    @router.get(
        "/v1/limits", tags=["account"], summary="Limits", openapi_extra=operation(answer=models.Limits)
    )
    async def get_limits(request: Request) -> Response:
        """The bounds that a client meets."""
        account = account_of(venue, request, READ)
        parameters(request)
        return answer(
            {
                "account": account,
                "body_bytes_max": models.BODY_BYTES_MAX,
                "batch_orders_max": models.BATCH_MAX,
                "identifier_characters_max": models.IDENTIFIER_CHARACTERS_MAX,
                "page_max": PAGE_MAX,
                "requests_in_flight_max": IN_FLIGHT_MAX,
                "idempotency_keys_max": IDEMPOTENCY_QUOTA,
                "stream_requests_in_flight_max": REQUESTS_MAX,
            }
        )


def _add_markets(router: APIRouter, venue: Venue) -> None:
    mirror = venue.mirror

    def find(request: Request) -> Market:
        require_fresh(venue.link, mirror)
        name = request.path_params["symbol"]
        market = mirror.registry.markets_by_symbol.get(name.replace("-", "/", 1))
        if market is None:
            raise Problem("market_not_found", f"There is no market {name[:64]!r}.", field="symbol")
        return market

    @router.get(
        "/v1/markets",
        tags=["markets"],
        summary="All markets",
        openapi_extra=operation(answer=models.Markets, problems=(503,), secured=False),
    )
    async def get_markets(request: Request) -> Response:
        """Public."""
        require_fresh(venue.link, mirror)
        parameters(request)
        return answer({"markets": [market_document(market) for market in mirror.registry.markets.values()]})

    @router.get(
        "/v1/markets/{symbol}",
        tags=["markets"],
        summary="One market",
        openapi_extra=operation(
            answer=models.Market, problems=(404, 503), parameters=(_MARKET,), secured=False
        ),
    )
    async def get_market(request: Request) -> Response:
        """Public."""
        parameters(request)
        return answer(market_document(find(request)))

    @router.get(
        "/v1/markets/{symbol}/book",
        tags=["markets"],
        summary="The order book",
        openapi_extra=operation(
            answer=models.Book,
            problems=(404, 422, 503),
            secured=False,
            parameters=(_MARKET, query("levels", "integer", "A side.", minimum=1, maximum=LEVELS_MAX)),
        ),
    )
    async def get_book(request: Request) -> Response:
        """Public. The checksum is the CRC32C of the ten best levels of both sides."""
        market = find(request)
        levels = whole_number(parameters(request, "levels"), "levels", LEVELS_DEFAULT, LEVELS_MAX)
        channel = venue.hub.listening("book", market.number)
        document = mirror.book_document(market.number, levels)
        sequence = document.pop("engine_sequence")
        return answer(
            {
                "symbol": market.symbol,
                **document,
                "sequence": sequence,
                "channel_sequence": 0 if channel is None else channel.sequence,
            }
        )

    @router.get(
        "/v1/markets/{symbol}/trades",
        tags=["markets"],
        summary="The last trades, newest first",
        openapi_extra=operation(
            answer=models.Trades,
            problems=(404, 422, 503),
            secured=False,
            parameters=(_MARKET, query("limit", "integer", "How many.", minimum=1, maximum=TRADES_KEPT)),
        ),
    )
    async def get_trades(request: Request) -> Response:
        """Public."""
        market = find(request)
        limit = whole_number(parameters(request, "limit"), "limit", TRADES_DEFAULT, TRADES_KEPT)
        ring = mirror.trades[market.number]
        if ring.count < limit and not ring.complete:
            await venue.reads.complete(ring)
        trades = [trade_document(market, trade, iso(trade[5])) for trade in ring.newest(limit)]
        return answer({"symbol": market.symbol, "trades": trades, "as_of": iso(mirror.time_ns)})


def add_operations(router: APIRouter, venue: Venue) -> None:
    """Health, metrics and docs: on both listeners."""

    @router.get("/health", tags=["health"], summary="GREEN, YELLOW or RED",
                openapi_extra=operation(answer=models.Health, secured=False))  # fmt: skip
    async def get_health() -> Response:
        """Always 200; the status is in the body."""
        return answer(health(venue.link, venue.mirror, venue.watch))

    @router.get("/health/live", tags=["health"], summary="The process answers",
                openapi_extra=operation(secured=False))  # fmt: skip
    async def get_live() -> Response:
        """Never depends on anything else."""
        return answer({"status": "live"})

    @router.get("/health/ready", tags=["health"], summary="Orders can be traded or queued",
                openapi_extra=operation(problems=(503,), secured=False))  # fmt: skip
    async def get_ready() -> Response:
        """Fails only when neither trading nor queueing is possible."""
        if not ready(venue.link, venue.mirror, venue.watch):
            raise Problem("unavailable", "Neither the engine nor the queue can take an order.")
        return answer({"status": "ready"})

    @router.get(
        "/metrics", tags=["health"], summary="Prometheus metrics", openapi_extra=operation(secured=False)
    )
    async def get_metrics() -> Response:
        """Text exposition format."""
        venue.refresh_gauges()
        return Response(venue.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/docs", include_in_schema=False)
    async def get_docs() -> Response:
        return HTMLResponse(DOCS_PAGE)
