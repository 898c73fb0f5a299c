"""HTTP on one connection, bounded: uvicorn's protocol with the limits that it lacks.

::

    connected ──▶ head ──▶ body ──▶ request complete ──▶ answered ──▶ head ...
        └───── at most 30 s ─────────────┘
               head at most 32 KiB

- A head (request line and headers) beyond `HEAD_BYTES_MAX` is refused with 431,
  also while it is still coming: what the parser keeps of it is bounded.
- A request that is not complete within `INCOMPLETE_S` is answered 408 and dropped.
- Beyond the listener's connections a new one is answered 503 at once.
- What is no HTTP is a 400 with a code, as every other refusal.  When it comes
  behind a complete request, that request still gets its own answer, and the
  connection ends after it: a 400 would have been taken for the answer.
"""

import asyncio
import resource
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.gateway.errors import Problem
from api.gateway.http import problem_outcome

HEAD_BYTES_MAX = 32 * 1024
INCOMPLETE_S = 30.0
CONNECTIONS_MAX = 4096
DESCRIPTORS_KEPT = 512
"""File descriptors that are no client's: listeners, engine, database, logs."""


def raise_descriptor_limit() -> None:
    """Let the process have a descriptor for each connection that it allows, if the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS_MAX + DESCRIPTORS_KEPT
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def connections_max() -> int:
    """Connections that one of the two listeners may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(CONNECTIONS_MAX, (soft - DESCRIPTORS_KEPT) // 2))


class BoundedHttp(HttpToolsProtocol):
    """One connection; see the module's head."""

    head_bytes_max = HEAD_BYTES_MAX
    incomplete_s = INCOMPLETE_S
    connections_max = CONNECTIONS_MAX

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._incomplete: asyncio.TimerHandle | None = None
        self._idle = True
        """Between requests."""
        self._in_head = True
        self._began = False
        """A head began in the bytes that are being parsed."""
        self._head_bytes = 0
        """Of this head: what the parser has handed over."""
        self._unparsed_bytes = 0
        """Of this head: whole reads that did not end it, an upper bound of what the parser keeps."""
        self._refusal: Problem | None = None
        self._broken = False
        """Nothing more is read; what was asked before is answered."""
        self._upgraded = False

    # Connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            limit = str(self.connections_max)
            self._refuse(Problem("overloaded", f"The listener has {limit} connections.", limit=limit))
            return
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        was_in_head, self._began = self._in_head, False
        super().data_received(data)
        if self._broken or self._upgraded:
            return
        if was_in_head and self._in_head and not self._began:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.head_bytes_max:
                self._refuse(self._head_too_large())
                return
        # Line ends between requests end uvicorn's keep-alive timer: then this one takes over.
        if not self._idle or self.cycle is None or self.cycle.response_complete:
            self._expect()

    def handle_websocket_upgrade(self) -> None:
        self._upgraded = True
        self._complete()
        super().handle_websocket_upgrade()

    # Parser callbacks.

    def on_message_begin(self) -> None:
        self._idle, self._in_head, self._began = False, True, True
        self._head_bytes = self._unparsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._idle = self._in_head = True
        self._unparsed_bytes = 0
        self._complete()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if self._broken and last:
            self.transport.close()

    # Bounds.

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.head_bytes_max:
            self._refusal = self._head_too_large()
            raise httptools.HttpParserError("head too large")

    def _head_too_large(self) -> Problem:
        limit = str(self.head_bytes_max)
        return Problem("headers_too_large", f"URL and headers may have {limit} bytes.", limit=limit)

    def _expect(self) -> None:
        """From now on the request must be complete within `incomplete_s`."""
        if self._incomplete is None:
            self._incomplete = self.loop.call_later(self.incomplete_s, self._late)

    def _complete(self) -> None:
        if self._incomplete is not None:
            self._incomplete.cancel()
            self._incomplete = None

    def _late(self) -> None:
        self._incomplete = None
        if self.transport.is_closing() or self._broken:
            return
        if self.flow.read_paused:
            # We are the ones who do not read.
            self._expect()
            return
        limit = f"{self.incomplete_s:g} s"
        self._refuse(Problem("request_timeout", f"The request was not complete after {limit}.", limit=limit))

    # Refusals.

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP."""
        self._refuse(self._refusal or Problem("malformed_request", "This is no HTTP/1.1 request."))

    def _refuse(self, problem: Problem) -> None:
        """Read no more; answer with `problem`, unless requests before it wait for their answers."""
        self._broken = True
        self._complete()
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0].more_body:
            # It is the newest, and will never be complete; one before it is being answered.
            self.pipeline.popleft()
            return
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            return
        if cycle is None or not cycle.response_started or not cycle.more_body:
            self.transport.write(_response(problem))
        if cycle is not None:
            # Whoever waits for the rest of the body learns that it will not come.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()


def _response(problem: Problem) -> bytes:
    outcome = problem_outcome(problem)
    lines = [STATUS_LINE[outcome.status]]
    for name, value in outcome.headers():
        lines.append(name + b": " + value + b"\r\n")
    lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(outcome.body))
    return b"".join(lines) + outcome.body
