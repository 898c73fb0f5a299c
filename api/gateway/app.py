"""The two ASGI applications: public and admin.

Order entry, cancel and the stream are plain functions in front of FastAPI's
routing; everything else is FastAPI's.  Both share the venue: authentication,
limits and metrics are the same code.
"""

import asyncio
import logging
import time
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.gateway.admin import admin_router
from api.gateway.entry import fault_problem
from api.gateway.errors import Problem
from api.gateway.http import (
    AsgiApp,
    Message,
    Outcome,
    Receive,
    Scope,
    Send,
    header,
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


def resolve(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    """Hand an outcome to the request that waits, if it still does."""
    if not future.done():
        future.set_result(outcome)


async def post_order(venue: Venue, scope: Scope, receive: Receive, send: Send) -> None:
    """POST /v1/orders."""
    began = time.perf_counter()
    try:
        account = account_for_trading(venue, scope)
        order = decode_order(await read_body(scope, receive))
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        venue.entry.place(account, order, lambda outcome: resolve(future, outcome))
        outcome = await future
    except Problem as problem:
        outcome = problem_outcome(problem)
    venue.metrics.rest_latency.observe(time.perf_counter() - began)
    venue.metrics.count("POST /v1/orders", outcome.status)
    await send_outcome(send, outcome)


async def delete_order(venue: Venue, scope: Scope, receive: Receive, send: Send) -> None:
    """DELETE /v1/orders/{order_id}."""
    try:
        account = account_for_trading(venue, scope)
        public_id = scope["path"][len(ORDER_PREFIX) :]
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        venue.entry.cancel(account, public_id, lambda outcome: resolve(future, outcome))
        outcome = await future
    except Problem as problem:
        outcome = problem_outcome(problem)
    venue.metrics.count("DELETE /v1/orders/{order_id}", outcome.status)
    await send_outcome(send, outcome)


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
        elif kind == "websocket" and scope["path"] == "/v1/stream":
            return await serve_stream(venue, scope, receive, send)
        return await rest(scope, receive, send)

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
    return fast_paths(venue, counted(venue, app))


def admin_app(venue: Venue) -> AsgiApp:
    """The admin listener."""
    return counted(venue, _application("Holdfast admin", admin_router(venue), with_entry=False))
