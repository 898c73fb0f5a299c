"""Durable commands through the Unix socket of a real engine process.

A blocking client of the wire: what it measures is the engine, not an event loop.
Baselines, in the same run and on the same disk: a bare `pwrite` + `fdatasync` of
4 KiB into a zero-filled file (latency), and the same `apply` without a log (rate).
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api.runtime.paths import engine_socket
from api.runtime.wire import (
    PAYLOAD_OUT_MAX,
    SOCKET_BUFFER_BYTES,
    Decoder,
    Frame,
    Kind,
    encode,
    encode_json,
    records_buffer,
)
from bench.core import flow_commands
from bench.measure import Figure, percentiles
from engine import Engine

FRAME_COMMANDS = 512
FRAMES_IN_FLIGHT = 8
COMMANDS = 2_000_000
SINGLES = 4_000
TURN = 100
SYNC_BYTES = 4096
TIMEOUT_S = 30


class Client:
    """One blocking connection to the engine, thin, so that what is measured is the engine."""

    def __init__(self, path: Path | str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The client's own buffer bounds what lies on the way to the engine: as in `api.runtime.link`.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        # The kernel's timeouts; Python's own would poll before each call.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", TIMEOUT_S, 0))
        self._socket.connect(str(path))
        self._decoder = Decoder(PAYLOAD_OUT_MAX)
        self._correlation = 0
        self._socket.sendall(
            b"".join(encode_json(Kind.HELLO, {"role": "bench", "version": 1, "subscribe": False}))
        )
        while Kind.WELCOME not in [frame.kind for frame in self._received()]:
            continue

    def submit(self, commands: NDArray[np.void]) -> None:
        self._correlation += 1
        body = records_buffer(commands)
        for part in encode(Kind.SUBMIT, body, correlation=self._correlation, count=len(commands)):
            self._socket.sendall(part)

    def answered(self) -> int:
        """Block until something came; how many commands it answered."""
        answered = 0
        for frame in self._received():
            if frame.kind == Kind.ASSIGNED:
                answered += frame.count
            elif frame.kind == Kind.REFUSED:
                raise RuntimeError(f"refused: {frame.json()}")
        return answered

    def close(self) -> None:
        self._socket.close()

    def _received(self) -> Iterator[Frame]:
        count = self._socket.recv_into(self._decoder.get_buffer())
        if count == 0:
            raise RuntimeError("the engine closed the connection")
        self._decoder.received(count)
        return self._decoder.frames()


@contextmanager
def engine_process(data: Path) -> Iterator[int]:
    """A real engine on `data`, without a database; its pid."""
    data.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "api.runtime.engine_process", "--data", str(data), "--no-database"],
        stderr=subprocess.DEVNULL,
    )
    try:
        began = time.monotonic()
        while not (data / "run" / "engine.json").exists():
            if process.poll() is not None or time.monotonic() - began > 60:
                raise RuntimeError(f"the engine did not start (exit code {process.poll()})")
            time.sleep(0.005)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def run() -> list[Figure]:
    setup, flow = flow_commands(COMMANDS)
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=".") as temporary:
        data = Path(temporary)
        with engine_process(data / "venue"):
            client = Client(engine_socket(data / "venue"))
            try:
                _stream(client, setup)
                singles, syncs = _one_in_flight(client, flow[:SINGLES], data / "sync")
                rate = _stream(client, flow[SINGLES:])
            finally:
                client.close()
    bare_p50, bare_p99 = percentiles(syncs, 50, 99)
    p50, p99 = percentiles(singles, 50, 99)
    apply_rate = _apply_rate(setup, flow)
    return [
        Figure(
            "durable command, one in flight, p50", p50 * 1e6, "µs", bare_p50 * 1e6, "bare sync p50", "≤ 1.5 ×"
        ),
        Figure(
            "durable command, one in flight, p99", p99 * 1e6, "µs", bare_p99 * 1e6, "bare sync p99", "≤ 2 ×"
        ),
        Figure(
            "durable commands through the socket",
            rate,
            "commands/s",
            apply_rate,
            "apply without log or socket",
            "≥ 2 M/s",
            {"in flight": FRAME_COMMANDS * FRAMES_IN_FLIGHT},
        ),
    ]


def _one_in_flight(client: Client, commands: NDArray[np.void], path: Path) -> tuple[list[float], list[float]]:
    """Seconds of each durable command, and of as many bare syncs.

    They take turns, so that both meet the same disk and the same neighbours.
    """
    block = os.urandom(SYNC_BYTES)
    singles: list[float] = []
    syncs: list[float] = []
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        os.write(fd, bytes(SYNC_BYTES * len(commands)))
        os.fsync(fd)
        for start in range(0, len(commands), TURN):
            for index in range(start, min(start + TURN, len(commands))):
                began = time.perf_counter()
                client.submit(commands[index : index + 1])
                while not client.answered():
                    continue
                singles.append(time.perf_counter() - began)
            for index in range(start, min(start + TURN, len(commands))):
                began = time.perf_counter()
                os.pwrite(fd, block, index * SYNC_BYTES)
                os.fdatasync(fd)
                syncs.append(time.perf_counter() - began)
    finally:
        os.close(fd)
    return singles, syncs


def _stream(client: Client, commands: NDArray[np.void]) -> float:
    """Keep `FRAMES_IN_FLIGHT` frames under way; commands/s."""
    began = time.perf_counter()
    sent = answered = 0
    window = FRAME_COMMANDS * FRAMES_IN_FLIGHT
    while answered < len(commands):
        while sent < len(commands) and sent - answered < window:
            client.submit(commands[sent : sent + FRAME_COMMANDS])
            sent += min(FRAME_COMMANDS, len(commands) - sent)
        answered += client.answered()
    return len(commands) / (time.perf_counter() - began)


def _apply_rate(setup: NDArray[np.void], flow: NDArray[np.void]) -> float:
    engine = Engine()
    engine.apply(setup)
    began = time.perf_counter()
    for start in range(0, len(flow), FRAME_COMMANDS):
        engine.apply(flow[start : start + FRAME_COMMANDS])
    return len(flow) / (time.perf_counter() - began)
