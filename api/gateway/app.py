"""The two ASGI applications: public and admin.

Order entry, cancel and the stream are plain functions in front of FastAPI's
routing; everything else is FastAPI's.  Both share the venue: authentication,
limits and metrics are the same code.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.gateway.admin import admin_router
from api.gateway.entry import Finish, fault_problem
from api.gateway.errors import Problem
from api.gateway.http import (
    REQUEST_S,
    AsgiApp,
    ClientLeft,
    Message,
    Outcome,
    Receive,
    Scope,
    Send,
    header,
    late_outcome,
    problem_outcome,
    read_body,
    send_outcome,
)
from api.gateway.keys import TRADE
from api.gateway.models import decode_order
from api.gateway.openapi import merge
from api.gateway.routes import json_response, public_router
from api.gateway.stream import serve_stream
from api.gateway.venue import Venue
from api.runtime.errors import RuntimeFault
from persistence.postgres.errors import DatabaseError

API_VERSION = "1"
ORDERS = "/v1/orders"
ORDER_PREFIX = "/v1/orders/"

_log = logging.getLogger("holdfast.app")


def account_for_trading(venue: Venue, scope: Scope) -> int:
    """The caller's account, for plain ASGI."""
    key = venue.mirror.keys.authenticate(header(scope, b"authorization"), TRADE)
    if key.account == 0:
        raise Problem("forbidden", "This API key belongs to no account.", field="Authorization")
    return key.account


def no_parameters(scope: Scope) -> None:
    """Order entry has none; a name that was meant to say something must not be passed over."""
    name = next((name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), True)), None)
    if name is not None:
        raise Problem("unknown_field", f"{name[:64]!r} is not a parameter of this route.", field=name[:64])


def resolve(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    """Hand an outcome to the request that waits, if it still does."""
    if not future.done():
        future.set_result(outcome)


async def outcome_within(begin: Callable[[Finish], None], request_s: float = REQUEST_S) -> Outcome:
    """The outcome of what `begin` starts, or after `request_s` that it is not known.

    What comes later finds nobody here; its effects stand, and its key tells of them.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()
    late = loop.call_later(request_s, lambda: resolve(future, late_outcome(safe=False)))
    try:
        begin(lambda outcome: resolve(future, outcome))
        return await future
    finally:
        late.cancel()


async def post_order(venue: Venue, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/orders."""
    began = time.perf_counter()
    try:
        account = account_for_trading(venue, scope)
        if scope["query_string"]:
            no_parameters(scope)
        order = decode_order(await read_body(scope, receive))
        outcome = await outcome_within(lambda done: venue.entry.place(account, order, done))
    except Problem as problem:
        outcome = problem_outcome(problem)
    except ClientLeft:
        return
    except Exception:
        outcome = failed()
    venue.metrics.rest_latency.observe(time.perf_counter() - began)
    venue.metrics.count("POST /v1/orders", outcome.status)
    await send_outcome(send, outcome)


async def delete_order(venue: Venue, scope: Scope, receive: Receive, send: Send) -> None:
    """DELETE /v1/orders/{order_id}."""
    try:
        account = account_for_trading(venue, scope)
        if scope["query_string"]:
            no_parameters(scope)
        public_id = scope["path"][len(ORDER_PREFIX) :]
        outcome = await outcome_within(lambda done: venue.entry.cancel(account, public_id, done))
    except Problem as problem:
        outcome = problem_outcome(problem)
    except Exception:
        outcome = failed()
    venue.metrics.count("DELETE /v1/orders/{order_id}", outcome.status)
    await send_outcome(send, outcome)


def failed() -> Outcome:
    """The answer for the exception at hand, which is a bug of ours."""
    _log.exception("a request failed")
    return problem_outcome(Problem("internal", "The request failed inside the gateway."))


async def refuse_stream(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that is asked for elsewhere: a problem instead of the handshake."""
    await receive()  # websocket.connect
    outcome = problem_outcome(Problem("route_not_found", f"WebSocket {scope['path'][:200]}."))
    await send(
        {
            "type": "websocket.http.response.start",
            "status": outcome.status,
            "headers": outcome.headers(),
        }
    )
    await send({"type": "websocket.http.response.body", "body": outcome.body})


def fast_paths(venue: Venue, rest: AsgiApp) -> AsgiApp:
    """Order entry, cancel and stream in front of `rest`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            method, path = scope["method"], scope["path"]
            if method == "POST" and path == ORDERS:
                return await post_order(venue, scope, receive, send)
            if method == "DELETE" and path.startswith(ORDER_PREFIX):
                return await delete_order(venue, scope, receive, send)
        elif kind == "websocket":
            if scope["path"] == "/v1/stream":
                return await serve_stream(venue, scope, receive, send)
            return await refuse_stream(scope, receive, send)
        return await rest(scope, receive, send)

    return app


def within(rest: AsgiApp, request_s: float = REQUEST_S) -> AsgiApp:
    """Answer for `rest` when it takes too long, unless it has begun to answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await rest(scope, receive, send)
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(request_s) as deadline:
                await rest(scope, receive, sending)
        except TimeoutError:
            if begun or not deadline.expired():
                raise
            await send_outcome(send, late_outcome(safe=scope["method"] in ("GET", "HEAD", "OPTIONS")))
        return None

    return app


def counted(venue: Venue, rest: AsgiApp) -> AsgiApp:
    """Count what FastAPI answers, by route template."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await rest(scope, receive, send)

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                name = getattr(route, "path", "unknown")
                venue.metrics.count(f"{scope['method']} {name}", message["status"])
            await send(message)

        return await rest(scope, receive, counting)

    return app


async def _on_problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return json_response(problem_outcome(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = "method_not_allowed" if error.status_code == 405 else "route_not_found"
    response = json_response(problem_outcome(Problem(code, f"{request.method} {request.url.path[:200]}.")))
    response.headers.update(error.headers or {})
    return response


async def _on_fault(_: Request, error: Exception) -> Response:
    if not isinstance(error, RuntimeFault):
        raise error
    return json_response(problem_outcome(fault_problem(error)))


async def _on_database(_: Request, error: Exception) -> Response:
    _log.warning("database: %s", error)
    return json_response(
        problem_outcome(Problem("unavailable", "The database cannot be reached; try again."))
    )


async def _on_disconnect(request: Request, _: Exception) -> Response:
    """Nobody reads this answer; without a handler the departure would be logged as our error."""
    _log.info("the client left: %s %s", request.method, request.url.path[:200])
    return Response(status_code=400)


async def _on_error(_: Request, error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    return json_response(problem_outcome(Problem("internal", "The request failed inside the gateway.")))


def _application(title: str, router: APIRouter, *, with_entry: bool) -> FastAPI:
    app = FastAPI(title=title, version=API_VERSION, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(router)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RuntimeFault, _on_fault)
    app.add_exception_handler(DatabaseError, _on_database)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_error)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            plain = get_openapi(title=title, version=API_VERSION, routes=app.routes)
            app.openapi_schema = merge(plain, with_entry=with_entry)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


def public_app(venue: Venue) -> AsgiApp:
    """The public listener."""
    app = _application("Holdfast", public_router(venue), with_entry=True)
    return fast_paths(venue, counted(venue, within(app)))


def admin_app(venue: Venue) -> AsgiApp:
    """The admin listener."""
    app = _application("Holdfast admin", admin_router(venue), with_entry=False)
    return counted(venue, within(app))
