"""The asyncio client of the engine's wire: gateway, drainer, CLI and bench use it.

    link = EngineLink(socket_path, "gateway", subscribe=True, on_events=..., on_welcome=...)
    await link.start()
    answer = await link.submit(commands, text)

It keeps one connection and comes back by itself.  What was submitted in one
turn of the event loop travels as one SUBMIT (up to 4,096 commands), so that many
small requests cost the engine one log frame; each still gets its own answer.

Order of the calls: `on_welcome(dict)`, then `on_events(...)` for every frame in
sequence order, then `on_down(exception)`, then from the start.  An answer is
resolved after `on_events` saw the frame that carries it.
"""

import asyncio
import logging
import random
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from api.runtime.errors import LinkDown, Refused, WireError
from api.runtime.wire import (
    COMMANDS_MAX,
    PAYLOAD_OUT_MAX,
    SOCKET_BUFFER_BYTES,
    TEXT_BYTES_MAX,
    Buffer,
    Decoder,
    Frame,
    Kind,
    encode,
    encode_json,
)
from engine.types import COMMAND, EVENT

Events = npt.NDArray[np.void]
OnWelcome = Callable[[dict[str, Any]], None]
OnEvents = Callable[[int, int, int, int, Events, bytes], None]
OnDown = Callable[[Exception | None], None]

IN_FLIGHT_COMMANDS_MAX = 262_144
QUERIES_MAX = 10_000
CONNECT_TIMEOUT_S = 3.0
SILENCE_S = 3.0
"""Heartbeats come every 250 ms; without any for so long the connection is given up."""
BACKOFF_FIRST_S = 0.02
BACKOFF_LAST_S = 0.5

_log = logging.getLogger("holdfast.link")
_ENTRY = struct.Struct("<IHH")


@dataclass(slots=True, frozen=True)
class Answer:
    """What became of one `submit`, durable.

    Attributes
    ----------
    first_sequence : int
        Sequence of the first command; the others follow densely.
    count : int
        Commands.
    epoch : int
        Epoch of the engine that sequenced them.
    time_ns : int
        Logged time of the frame.
    events : EVENT[n]
        Events of these commands alone, in order; owned by the receiver.
    text : bytes
        The text area as submitted.
    """

    first_sequence: int
    count: int
    epoch: int
    time_ns: int
    events: Events
    text: bytes


@dataclass(slots=True)
class _Request:
    commands: bytes
    count: int
    text: bytes
    future: "asyncio.Future[Answer]"


def _rebased(text: bytes, offset: int) -> bytes:
    """`text` with `offset` added to the index of each entry."""
    if offset == 0 or not text:
        return text
    moved = bytearray(text)
    position = 0
    while position < len(moved):
        index, _, length = _ENTRY.unpack_from(moved, position)
        struct.pack_into("<I", moved, position, index + offset)
        position += _ENTRY.size + length
    return bytes(moved)


class EngineLink:
    """A connection to the engine that comes back.

    Parameters
    ----------
    socket_path : Path or str
        See `api.runtime.paths.engine_socket`.
    role : str
        ``gateway``, ``drainer``, ``admin`` or ``bench``.
    subscribe : bool
        Receive all events, and the snapshot (definitions, keys, books) in WELCOME.
    on_welcome, on_events, on_down : callables
        Called in the event loop; they must not block.  See the module's head.
    """

    def __init__(
        self,
        socket_path: Path | str,
        role: str,
        *,
        subscribe: bool = False,
        on_welcome: OnWelcome | None = None,
        on_events: OnEvents | None = None,
        on_down: OnDown | None = None,
    ) -> None:
        self._path = str(socket_path)
        self._role = role
        self._subscribe = subscribe
        self._on_welcome = on_welcome
        self._on_events = on_events
        self._on_down = on_down
        self._protocol: _Protocol | None = None
        self._task: asyncio.Task[None] | None = None
        self._outbox: deque[_Request] = deque()
        self._flush_due = False
        self._correlation = 0
        self._groups: dict[int, list[_Request]] = {}
        self._assigned: dict[int, list[_Request]] = {}
        self._queries: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._up = asyncio.Event()
        self.connected = False
        """WELCOME was received and the connection stands."""
        self.epoch = 0
        """The highest epoch seen; an engine with a lower one is superseded and not talked to."""
        self.venue_state = 0
        """`VenueState` as of the last WELCOME or HEARTBEAT."""
        self.heartbeat: dict[str, Any] = {}
        """The last HEARTBEAT."""
        self.heartbeat_at = 0.0
        """`time.monotonic()` of the last WELCOME or HEARTBEAT; 0.0 before the first."""
        self.in_flight = 0
        """Commands submitted and not answered."""

    async def start(self) -> None:
        """Begin connecting, in the background; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"link-{self._role}")

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether the link is up within `timeout_s`."""
        try:
            await asyncio.wait_for(self._up.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Give up the connection; what is in flight fails with LinkDown."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def submit(self, commands: npt.NDArray[np.void], text: Buffer = b"") -> "asyncio.Future[Answer]":
        """Send COMMAND[n], n in 1..4096, to be sequenced in order; copied before this returns.

        Parameters
        ----------
        commands : COMMAND[n]
            `sequence` and `time_ns` are stamped by the engine, whatever they hold.
        text : bytes
            Text area whose index counts from 0 within `commands`.

        Returns
        -------
        Future of Answer
            Fails with `LinkDown` (see its `sent`) or `Refused`.

        Raises
        ------
        ValueError
            Not 1..4096 COMMAND records, or more than 1 MiB of text.
        """
        if commands.dtype != COMMAND or commands.ndim != 1 or not 1 <= len(commands) <= COMMANDS_MAX:
            raise ValueError(f"submit takes COMMAND[1..{COMMANDS_MAX}], got {commands.dtype}{commands.shape}")
        if len(text) > TEXT_BYTES_MAX:
            raise ValueError(f"text of {len(text)} bytes, at most {TEXT_BYTES_MAX} go with one submit")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self.connected:
            future.set_exception(LinkDown("no connection to the engine", sent=False))
        elif self.in_flight + len(commands) > IN_FLIGHT_COMMANDS_MAX:
            future.set_exception(Refused("LINK_BUSY", f"{self.in_flight} commands are in flight"))
        else:
            self.in_flight += len(commands)
            self._outbox.append(_Request(commands.tobytes(), len(commands), bytes(text), future))
            self._schedule_flush()
        return future

    async def query(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Ask the engine; the answer is of a state that is durable.

        Raises
        ------
        LinkDown, Refused
        """
        if not self.connected or self._protocol is None:
            raise LinkDown("no connection to the engine", sent=False)
        if len(self._queries) >= QUERIES_MAX:
            raise Refused("LINK_BUSY", f"{len(self._queries)} queries are in flight")
        self._correlation += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        correlation = self._correlation
        self._queries[correlation] = future
        self._flush()
        self._protocol.write(encode_json(Kind.QUERY, {"what": what, **arguments}, correlation=correlation))
        try:
            return await future
        finally:
            self._queries.pop(correlation, None)

    # Writing.

    def _schedule_flush(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        protocol = self._protocol
        if protocol is None:
            return
        buffers: list[Buffer] = []
        while self._outbox and not protocol.paused:
            group = [self._outbox.popleft()]
            count, text_bytes = group[0].count, len(group[0].text)
            while self._outbox:
                request = self._outbox[0]
                if count + request.count > COMMANDS_MAX or text_bytes + len(request.text) > TEXT_BYTES_MAX:
                    break
                group.append(self._outbox.popleft())
                count += request.count
                text_bytes += len(request.text)
            self._correlation += 1
            self._groups[self._correlation] = group
            buffers += self._encode_group(group, count, self._correlation)
        if buffers:
            protocol.write(buffers)

    @staticmethod
    def _encode_group(group: list[_Request], count: int, correlation: int) -> list[Buffer]:
        if len(group) == 1:
            return encode(Kind.SUBMIT, group[0].commands, group[0].text, correlation=correlation, count=count)
        texts: list[bytes] = []
        offset = 0
        for request in group:
            texts.append(_rebased(request.text, offset))
            offset += request.count
        commands = b"".join([request.commands for request in group])
        return encode(Kind.SUBMIT, commands, b"".join(texts), correlation=correlation, count=count)

    # Reading; called by the protocol.

    def handle(self, frame: Frame) -> None:
        """One frame from the engine."""
        kind = frame.kind
        if kind == Kind.EVENTS:
            self._handle_events(frame)
        elif kind == Kind.ASSIGNED:
            group = self._groups.pop(frame.correlation, None)
            if group is None:
                raise WireError(f"ASSIGNED for correlation {frame.correlation}, which was not asked")
            self._assigned[frame.first_sequence] = group
        elif kind == Kind.HEARTBEAT:
            self.heartbeat = frame.json()
            self.heartbeat_at = time.monotonic()
            self.venue_state = self.heartbeat["venue_state"]
        elif kind == Kind.RESULT:
            query = self._queries.pop(frame.correlation, None)
            if query is not None and not query.done():
                query.set_result(frame.json())
        elif kind == Kind.REFUSED:
            self._handle_refused(frame)
        elif kind == Kind.WELCOME:
            self._handle_welcome(frame)
        else:
            raise WireError(f"a client does not expect {Kind(kind).name}")

    def _handle_events(self, frame: Frame) -> None:
        events = np.frombuffer(frame.payload, EVENT, frame.count).copy()
        if self._on_events is not None and self._subscribe:
            self._on_events(
                frame.epoch,
                frame.first_sequence,
                frame.last_sequence,
                frame.time_ns,
                events,
                bytes(frame.text()),
            )
        group = self._assigned.pop(frame.first_sequence, None)
        if group is None:
            return
        first = frame.first_sequence
        bounds = [0, len(events)]
        if len(group) > 1:
            counts = np.fromiter((request.count for request in group), np.uint64, len(group))
            starts = np.cumsum(counts) + np.uint64(first)
            bounds = [0, *np.searchsorted(events["sequence"], starts).tolist()]
        for index, request in enumerate(group):
            self.in_flight -= request.count
            if not request.future.done():
                part = events[bounds[index] : bounds[index + 1]]
                request.future.set_result(
                    Answer(first, request.count, frame.epoch, frame.time_ns, part, request.text)
                )
            first += request.count

    def _handle_refused(self, frame: Frame) -> None:
        body = frame.json()
        refusal = (str(body.get("code", "REFUSED")), str(body.get("message", "")))
        query = self._queries.pop(frame.correlation, None)
        if query is not None:
            if not query.done():
                query.set_exception(Refused(*refusal))
            return
        group = self._groups.pop(frame.correlation, None)
        if group is None:
            raise WireError(f"REFUSED for correlation {frame.correlation}, which was not asked")
        for request in group:
            self.in_flight -= request.count
            if not request.future.done():
                request.future.set_exception(Refused(*refusal))

    def _handle_welcome(self, frame: Frame) -> None:
        welcome = frame.json()
        epoch = int(welcome["epoch"])
        if epoch < self.epoch:
            raise WireError(f"engine of epoch {epoch} is superseded: epoch {self.epoch} was seen")
        self.epoch = epoch
        self.venue_state = int(welcome["venue_state"])
        self.heartbeat_at = time.monotonic()
        self.connected = True
        if self._on_welcome is not None:
            self._on_welcome(welcome)
        self._up.set()

    def resume(self) -> None:
        """The connection takes bytes again."""
        self._schedule_flush()

    # The connection's life.

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_FIRST_S
        while True:
            protocol = _Protocol(self)
            try:
                await asyncio.wait_for(
                    loop.create_unix_connection(_given(protocol), self._path), CONNECT_TIMEOUT_S
                )
            except OSError as error:
                _log.debug("engine not reachable at %s: %s", self._path, error)
            else:
                self._protocol = protocol
                protocol.write(
                    encode_json(Kind.HELLO, {"role": self._role, "version": 1, "subscribe": self._subscribe})
                )
                was_connected = False
                try:
                    was_connected = await self._watch(protocol)
                finally:
                    self._lost(protocol)
                if was_connected:
                    backoff_s = BACKOFF_FIRST_S
            await asyncio.sleep(backoff_s * (0.75 + random.random() / 2))
            backoff_s = min(backoff_s * 2, BACKOFF_LAST_S)

    async def _watch(self, protocol: "_Protocol") -> bool:
        """Until the connection is gone or silent; whether it ever came up."""
        opened_at = time.monotonic()
        was_connected = False
        while True:
            done, _ = await asyncio.wait([protocol.lost], timeout=SILENCE_S / 6)
            was_connected = was_connected or self.connected
            if done:
                return was_connected
            last = self.heartbeat_at if self.connected else opened_at
            if time.monotonic() - last > SILENCE_S:
                _log.warning("engine silent for %.1f s: connection given up", time.monotonic() - last)
                return was_connected

    def _lost(self, protocol: "_Protocol") -> None:
        protocol.abort()
        error = protocol.error
        was_connected = self.connected
        self._protocol = None
        self.connected = False
        self._up.clear()
        requests = [r for g in (*self._groups.values(), *self._assigned.values()) for r in g]
        for request in requests:
            if not request.future.done():
                request.future.set_exception(LinkDown(f"connection to the engine lost: {error}", sent=True))
        for request in self._outbox:
            if not request.future.done():
                request.future.set_exception(LinkDown("connection to the engine lost", sent=False))
        for query in self._queries.values():
            if not query.done():
                query.set_exception(LinkDown(f"connection to the engine lost: {error}", sent=True))
        self._groups.clear()
        self._assigned.clear()
        self._outbox.clear()
        self._queries.clear()
        self.in_flight = 0
        if was_connected and self._on_down is not None:
            self._on_down(error)


def _given(protocol: "_Protocol") -> Callable[[], "_Protocol"]:
    """The factory that asyncio wants, of a protocol that exists."""
    return lambda: protocol


class _Protocol(asyncio.BufferedProtocol):
    """asyncio's side of one connection: bytes to frames to `EngineLink.handle`."""

    def __init__(self, link: EngineLink) -> None:
        self._link = link
        self._decoder = Decoder(PAYLOAD_OUT_MAX)
        self._transport: asyncio.Transport | None = None
        self.paused = False
        self.error: Exception | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        # What lies on the way to the engine counts here: room for a few frames makes a larger group.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES
        )

    def write(self, buffers: list[Buffer]) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(buffers))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:
            return
        self._decoder.received(nbytes)
        try:
            for frame in self._decoder.frames():
                self._link.handle(frame)
        except (WireError, KeyError, ValueError) as error:
            _log.error("connection to the engine dropped: %s", error)
            self.error = error
            self.abort()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._link.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = self.error or exc
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)
