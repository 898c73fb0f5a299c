"""Plain ASGI: read a bounded body, answer JSON.

Order entry and cancel bypass FastAPI's routing and middleware, which cost four
times what the order itself costs; these few functions are what they need of it.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from api.gateway.errors import RETRY_AFTER_S, GatewayError, Problem
from api.gateway.models import BODY_BYTES_MAX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")
PROBLEM_JSON = (b"content-type", b"application/problem+json")
REPLAYED = (b"idempotent-replayed", b"true")
RETRY_AFTER = (b"retry-after", str(RETRY_AFTER_S).encode())

REQUEST_S = 30.0
"""How long a request may take, from its last byte to its answer (SPEC F6)."""


class ClientLeft(GatewayError):
    """The connection ended before the body was complete: nobody waits for an answer."""


class Outcome(NamedTuple):
    """An answer that is ready to be sent, by REST or over the stream."""

    status: int
    body: bytes
    replayed: bool = False
    problem: bool = False
    retry: bool = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Its HTTP headers but for the length."""
        headers = [PROBLEM_JSON if self.problem else JSON]
        if self.replayed:
            headers.append(REPLAYED)
        if self.retry:
            headers.append(RETRY_AFTER)
        return headers


def problem_outcome(problem: Problem, *, replayed: bool = False) -> Outcome:
    """The answer for a problem."""
    return Outcome(problem.status, problem.body(), replayed, problem=True, retry=problem.retry)


def late_outcome(*, safe: bool) -> Outcome:
    """The answer of a request that took too long.

    Parameters
    ----------
    safe : bool
        It changes nothing, so that asking again is all there is to it.
    """
    if safe:
        return problem_outcome(Problem("unavailable", f"No answer within {REQUEST_S:.0f} s; try again."))
    detail = f"No answer within {REQUEST_S:.0f} s; ask again with the same key."
    return problem_outcome(Problem("outcome_unknown", detail))


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def body_too_large() -> Problem:
    """The problem of a body beyond the bound."""
    limit = str(BODY_BYTES_MAX)
    return Problem("body_too_large", f"The body may have at most {limit} bytes.", field="body", limit=limit)


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body, at most 64 KiB.

    Raises
    ------
    Problem
        body_too_large, as soon as that is known.
    ClientLeft
        The rest will not come; what did is not the request.
    """
    length = header(scope, b"content-length")
    if length is not None and (not length.isdigit() or int(length) > BODY_BYTES_MAX):
        raise body_too_large()
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft("the connection ended within the body")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise body_too_large()
        more = message.get("more_body", False)
    return body


async def send_outcome(send: Send, outcome: Outcome) -> None:
    """Send an answer."""
    headers = outcome.headers()
    headers.append((b"content-length", str(len(outcome.body)).encode()))
    if outcome.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": outcome.status, "headers": headers})
    await send({"type": "http.response.body", "body": outcome.body})
