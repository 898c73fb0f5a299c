"""The engine's loop: one thread, one epoll, no work per command in Python.

One turn of the loop::

    read every socket that is ready, stamp, append, apply, hold        (a read is a group commit)
    one write for the whole turn
    what has become durable: ASSIGNED and EVENTS out, then the event segments

With few commands in the turn the loop does the sync itself (`LogWriter.wait`):
nothing else could use the time, and two thread switches are saved.  With many,
the sync thread works while the loop reads and applies the next group.
"""

import logging
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.runtime.checkpoints import Checkpointer
from api.runtime.connection import IN_FLIGHT_COMMANDS_MAX, Connection
from api.runtime.errors import Refused, WireError
from api.runtime.gate import Batch
from api.runtime.pipeline import DEFINITION, Halted, Pipeline
from api.runtime.queries import Queries
from api.runtime.stamp import scan_text, types_of
from api.runtime.wire import Buffer, Frame, Kind, encode_answer, encode_json
from engine.errors import InvariantViolation
from engine.types import CommandType
from persistence.errors import FormatError
from persistence.storage import AnyDisk
from persistence.text import TextTag, read_text
from recovery.definitions import parse_definition

CONNECTIONS_MAX = 256
HEARTBEAT_S = 0.25
INLINE_COMMANDS_MAX = 32
"""Turns with at most so many commands are synced by the loop itself."""
GOODBYE_S = 1.0
CHECKPOINT_STOP_S = 60.0
ROLES = frozenset(("gateway", "drainer", "admin", "bench"))
OWN_COMMANDS = 1 << CommandType.START | 1 << CommandType.TICK
"""Types of commands that only the engine process itself may log."""
DRAINED = 1 << CommandType.DRAINED

_log = logging.getLogger("holdfast.engine")


class EngineServer:
    """Serves clients until `stop` is readable or an invariant breaks.

    Parameters
    ----------
    stop : int
        A descriptor that becomes readable when the process is asked to end.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        checkpointer: Checkpointer,
        disk: AnyDisk,
        data: Path,
        *,
        path: Path,
        instance: str,
        stop: int,
    ) -> None:
        self._pipeline = pipeline
        self._checkpointer = checkpointer
        self._queries = Queries(pipeline, disk, data / "events", self.status)
        self._instance = instance
        self._stop = stop
        self._connections: dict[int, Connection] = {}
        self._waiting_for_checkpoint: list[tuple[Connection, int]] = []
        self._poll = select.epoll()
        self._stopping = False
        self._is_any_paused = False
        self._turn_commands = 0
        self._listener = _listen(path)
        self._path = path
        self._dispatch: dict[int, Callable[[Connection, Frame], None]] = {
            Kind.HELLO: self._hello,
            Kind.SUBMIT: self._submit,
            Kind.QUERY: self._query,
        }

    def status(self) -> dict[str, Any]:
        """What HEARTBEAT says."""
        pipeline = self._pipeline
        return {
            "pid": os.getpid(),
            "instance": self._instance,
            "epoch": pipeline.epoch,
            "sequence": pipeline.gate.released_sequence,
            "applied_sequence": pipeline.sequence,
            "durable_sequence": pipeline.writer.durable_sequence,
            "event_number": pipeline.event_number - 1,
            "venue_state": int(pipeline.venue_state),
            "time_ns": time.time_ns(),
            "checkpoint_sequence": self._checkpointer.sequence,
            "checkpoint_age_s": round(self._checkpointer.age_s, 3),
            "connections": len(self._connections),
        }

    # The loop.

    def serve(self) -> None:
        """Until asked to stop; on return everything acknowledged is on disk and a checkpoint taken.

        Raises
        ------
        Halted
            An invariant broke: what was sound is released, the rest is told.
        LogFailed
            Nothing more was acknowledged.
        """
        poll, writer = self._poll, self._pipeline.writer
        listener, completion = self._listener.fileno(), writer.completion_fd
        poll.register(listener, select.EPOLLIN)
        poll.register(completion, select.EPOLLIN)
        poll.register(self._stop, select.EPOLLIN)
        heartbeat_at = time.monotonic()
        try:
            while not self._stopping:
                timeout = max(0.0, heartbeat_at + HEARTBEAT_S - time.monotonic())
                self._turn_commands = 0
                for descriptor, event in poll.poll(timeout, CONNECTIONS_MAX):
                    connection = self._connections.get(descriptor)
                    if connection is not None:
                        self._attend(connection, event)
                    elif descriptor == listener:
                        self._accept()
                    elif descriptor == self._stop:
                        self._stopping = True
                    elif self._is_checkpoint(descriptor):
                        self._checkpoint_done(self._checkpointer.finish())
                if self._turn_commands > INLINE_COMMANDS_MAX:
                    writer.commit()
                elif self._turn_commands:
                    writer.wait(self._pipeline.sequence)
                self._release(writer.collect())
                if time.monotonic() >= heartbeat_at + HEARTBEAT_S:
                    heartbeat_at = time.monotonic()
                    self._pipeline.events.check()
                    self._checkpointer.tell(self._pipeline.events.written_sequence)
                    self._heartbeat()
                    self._checkpoint_if_due()
            self._finish()
        except Halted as halted:
            self._say_halted(halted)
            raise

    def close(self) -> None:
        """Close every descriptor; end a running checkpoint."""
        self._checkpointer.abandon()
        for connection in list(self._connections.values()):
            self._drop(connection, "the engine ends")
        self._poll.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _release(self, durable: int) -> None:
        released = self._pipeline.release(durable)
        if not released:
            return
        self._send_out(released)
        self._pipeline.record(released)
        self._checkpointer.tell(self._pipeline.events.written_sequence)
        if self._is_any_paused:
            self._is_any_paused = False
            for connection in self._connections.values():
                self._set_interest(connection)

    def _send_out(self, released: list[Batch[object]]) -> None:
        subscribers = [c for c in self._connections.values() if c.subscribed]
        touched: dict[int, Connection] = {c.descriptor: c for c in subscribers}
        for batch in released:
            origin = batch.origin
            asker = origin if isinstance(origin, Connection) and not origin.closed else None
            if asker is not None:
                asker.in_flight -= batch.count
                touched[asker.descriptor] = asker
                self._send(asker, self._encode(batch, assigned=True))
            if subscribers:
                events = self._encode(batch, assigned=False)
                for subscriber in subscribers:
                    if subscriber is not asker:
                        self._send(subscriber, events)
        for connection in touched.values():
            self._flush(connection)
        if any(batch.venue_state is not None for batch in released):
            self._heartbeat()

    def _encode(self, batch: Batch[object], *, assigned: bool) -> list[Buffer]:
        frame = batch.frame
        return encode_answer(
            frame.body,
            frame.body_crc,
            assigned=assigned,
            correlation=batch.correlation,
            epoch=frame.epoch,
            first_sequence=frame.first_sequence,
            last_sequence=frame.last_sequence,
            events=frame.count,
            text_bytes=frame.text_bytes,
            time_ns=frame.time_ns,
        )

    def _heartbeat(self) -> None:
        frame = encode_json(Kind.HEARTBEAT, self.status(), epoch=self._pipeline.epoch)
        for connection in list(self._connections.values()):
            if connection.role:
                self._send(connection, frame)
                self._flush(connection)

    def _settle(self) -> None:
        """Everything applied is durable and released; blocks for at most a sync."""
        writer = self._pipeline.writer
        writer.wait(self._pipeline.sequence)
        self._release(writer.collect())

    # Connections.

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            _log.warning("connection refused: %d are open", CONNECTIONS_MAX)
            accepted.close()
            return
        connection = Connection(accepted)
        self._connections[connection.descriptor] = connection
        connection.interest = select.EPOLLIN
        self._poll.register(connection.descriptor, select.EPOLLIN)

    def _attend(self, connection: Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(connection)
        if connection.closed or not event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        if not connection.interest & select.EPOLLIN:
            if event & (select.EPOLLHUP | select.EPOLLERR):
                self._drop(connection, "peer gone")
            return
        is_alive = connection.receive()
        try:
            for frame in connection.decoder.frames():
                handler = self._dispatch.get(frame.kind)
                if handler is None:
                    raise WireError(f"the engine does not expect {Kind(frame.kind).name}")
                handler(connection, frame)
                if connection.descriptor not in self._connections:
                    return
        except WireError as error:
            self._drop(connection, str(error))
            return
        if not is_alive:
            self._drop(connection, "")
            return
        self._set_interest(connection)

    def _set_interest(self, connection: Connection) -> None:
        busy = connection.in_flight >= IN_FLIGHT_COMMANDS_MAX or self._pipeline.gate.is_full
        interest = (0 if busy else select.EPOLLIN) | (select.EPOLLOUT if connection.outbound_bytes else 0)
        self._is_any_paused |= busy
        if interest != connection.interest:
            connection.interest = interest
            self._poll.modify(connection.descriptor, interest)

    def _send(self, connection: Connection, buffers: list[Buffer]) -> None:
        if connection.closed:
            return
        try:
            connection.send(buffers)
        except WireError as error:
            self._drop(connection, str(error))

    def _flush(self, connection: Connection) -> None:
        if connection.closed:
            return
        if connection.flush():
            self._set_interest(connection)
        else:
            self._drop(connection, "")

    def _drop(self, connection: Connection, why: str) -> None:
        if why:
            _log.warning("connection of %s dropped: %s", connection.role or "an unknown client", why)
        if not connection.closed:
            self._poll.unregister(connection.descriptor)
            del self._connections[connection.descriptor]
            connection.close()

    def _refuse(self, connection: Connection, correlation: int, refusal: Refused) -> None:
        body = {"code": refusal.code, "message": refusal.message}
        self._send(connection, encode_json(Kind.REFUSED, body, correlation=correlation))
        self._flush(connection)

    # Frames.

    def _hello(self, connection: Connection, frame: Frame) -> None:
        hello = frame.json()
        if connection.role or hello.get("role") not in ROLES or hello.get("version") != 1:
            raise WireError(f"HELLO {hello}: one of {sorted(ROLES)} once, in version 1")
        self._settle()
        welcome = self._queries.welcome(bool(hello.get("subscribe")))
        connection.role = str(hello["role"])
        connection.subscribed = bool(hello.get("subscribe"))
        self._send(connection, encode_json(Kind.WELCOME, welcome, epoch=self._pipeline.epoch))
        self._flush(connection)

    def _submit(self, connection: Connection, frame: Frame) -> None:
        if not connection.role:
            raise WireError("SUBMIT before HELLO")
        text = bytes(frame.text()) if frame.text_bytes else b""
        tags = scan_text(text, frame.count) if text else 0
        records = frame.body
        types = types_of(records)
        try:
            _check(types, text, tags, connection.role)
        except Refused as refusal:
            self._refuse(connection, frame.correlation, refusal)
            return
        connection.in_flight += frame.count
        self._turn_commands += frame.count
        self._pipeline.submit(records, types, text, tags, connection, frame.correlation)

    def _query(self, connection: Connection, frame: Frame) -> None:
        if not connection.role:
            raise WireError("QUERY before HELLO")
        question = frame.json()
        self._settle()
        try:
            if question.get("what") == "checkpoint":
                self._start_checkpoint(connection, frame.correlation)
                return
            answer = self._queries.answer(question)
        except Refused as refusal:
            self._refuse(connection, frame.correlation, refusal)
            return
        self._send(connection, encode_json(Kind.RESULT, answer, correlation=frame.correlation))
        self._flush(connection)

    # Checkpoints.

    def _is_checkpoint(self, descriptor: int) -> bool:
        child = self._checkpointer.child
        return child is not None and child.report == descriptor

    def _start_checkpoint(self, connection: Connection | None = None, correlation: int = 0) -> None:
        if self._checkpointer.child is None:
            pipeline = self._pipeline
            child = self._checkpointer.start(pipeline.engine, pipeline.definitions, pipeline.time_ns)
            self._poll.register(child.report, select.EPOLLIN)
            self._checkpointer.tell(pipeline.events.written_sequence)
        if connection is not None:
            self._waiting_for_checkpoint.append((connection, correlation))

    def _checkpoint_if_due(self) -> None:
        if self._checkpointer.overdue():
            _log.error("the checkpoint process hung and was killed")
        if self._checkpointer.is_due(self._pipeline.sequence):
            self._start_checkpoint()

    def _checkpoint_done(self, report: dict[str, Any]) -> None:
        if "violation" in report:
            violation = InvariantViolation(*report["violation"])
            raise self._pipeline.halt(self._pipeline.gate.released_sequence + 1, violation)
        if "error" in report:
            _log.error("checkpoint of sequence %s failed: %s", report.get("sequence"), report["error"])
        else:
            _log.info("checkpoint of sequence %d in %.3f s", report["sequence"], report["seconds"])
        waiting, self._waiting_for_checkpoint = self._waiting_for_checkpoint, []
        for connection, correlation in waiting:
            if "error" in report:
                self._refuse(connection, correlation, Refused("CHECKPOINT_FAILED", str(report["error"])))
            else:
                self._send(connection, encode_json(Kind.RESULT, report, correlation=correlation))
                self._flush(connection)

    # The end.

    def _finish(self) -> None:
        """Release what was accepted, take a checkpoint, say goodbye."""
        self._settle()
        self._pipeline.events.drain()
        self._checkpointer.tell(self._pipeline.events.written_sequence)
        if self._checkpointer.child is not None:
            self._checkpoint_done(self._checkpointer.wait(CHECKPOINT_STOP_S))
        if self._pipeline.sequence > self._checkpointer.sequence:
            self._start_checkpoint()
            self._checkpoint_done(self._checkpointer.wait(CHECKPOINT_STOP_S))
        self._flush_all()

    def _say_halted(self, halted: Halted) -> None:
        self._send_out(halted.sound)
        self._pipeline.record(halted.sound)
        for batch in halted.voided:
            if isinstance(batch.origin, Connection) and not batch.origin.closed:
                self._refuse(batch.origin, batch.correlation, Refused("VENUE_HALTED", halted.cause))
        self._flush_all()

    def _flush_all(self) -> None:
        deadline = time.monotonic() + GOODBYE_S
        while time.monotonic() < deadline:
            waiting = [c for c in self._connections.values() if c.outbound_bytes]
            if not waiting:
                return
            select.select([], [c.descriptor for c in waiting], [], max(0.0, deadline - time.monotonic()))
            for connection in waiting:
                self._flush(connection)


def _check(types: int, text: bytes, tags: int, role: str) -> None:
    """Refuse what would poison the log; the core judges everything else."""
    if types & OWN_COMMANDS:
        raise Refused("BAD_REQUEST", "START and TICK are logged by the engine itself")
    if types & DRAINED and role != "drainer":
        raise Refused("BAD_REQUEST", f"DRAINED is not for a {role} to send")
    if tags < 0:
        raise Refused("BAD_REQUEST", "the text area is malformed")
    if tags & DEFINITION:
        try:
            for _, tag, value in read_text(text):
                if tag == TextTag.DEFINITION:
                    parse_definition(value)
        except FormatError as error:
            raise Refused("BAD_REQUEST", str(error)) from error


def _listen(path: Path) -> socket.socket:
    """A listening socket that only this user can reach."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = path.parent.stat()
    if status.st_uid != os.getuid():
        raise PermissionError(
            f"{path.parent} belongs to user {status.st_uid}; remove it, or use a shorter --data"
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
