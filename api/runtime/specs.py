"""How the supervisor runs the engine and the projector: program, readiness, health, exit codes.

Order of a clean stop: gateway (`STOP_GATEWAY`), engine, projector once it has
caught up, PostgreSQL.
"""

import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from api.runtime import engine_process, projector_process
from api.runtime.errors import WireError
from api.runtime.paths import engine_socket
from api.runtime.wire import PAYLOAD_OUT_MAX, Decoder, Kind, encode_json
from recovery.supervisor import HEALTH_TIMEOUT_S, ProcessSpec

STOP_GATEWAY = 1
STOP_ENGINE = 2
STOP_PROJECTOR = 3
STOP_POSTGRES = 4
ENGINE_READY_S = 600.0
"""Recovery of a long log counts as starting, not as hanging."""
ENGINE_STOP_S = 120.0
"""The last checkpoint is taken in this time."""
PROJECTOR_STOP_S = 20.0
PROJECTOR_SILENT_S = 10.0


def engine_spec(data: Path, *, database: bool, arguments: tuple[str, ...] = ()) -> ProcessSpec:
    """The engine on `data`.

    Parameters
    ----------
    database : bool
        False adds ``--no-database``: the venue opens without waiting for the drainer.
    arguments : tuple of str
        More of the command line (``--checkpoint-seconds`` and the like).
    """
    options = ("--data", str(data), *(() if database else ("--no-database",)), *arguments)
    return ProcessSpec(
        "engine",
        (sys.executable, "-m", "api.runtime.engine_process", *options),
        ready=lambda pid: read_status(data, "engine").get("pid") == pid,
        healthy=lambda pid: engine_answers(data),
        ready_s=ENGINE_READY_S,
        stop_signal=signal.SIGTERM,
        stop_s=ENGINE_STOP_S,
        stop_rank=STOP_ENGINE,
        stays_down=frozenset((engine_process.EXIT_REFUSED, engine_process.EXIT_LOCKED)),
    )


def projector_spec(data: Path, dsn: str) -> ProcessSpec:
    """The projector of `data` into the database at `dsn`."""
    return ProcessSpec(
        "projector",
        (sys.executable, "-m", "api.runtime.projector_process", "--data", str(data), "--dsn", dsn),
        ready=lambda pid: read_status(data, "projector").get("pid") == pid,
        healthy=lambda pid: _is_fresh(data / "run" / "projector.json"),
        stop_s=PROJECTOR_STOP_S,
        stop_rank=STOP_PROJECTOR,
        stays_down=frozenset((projector_process.EXIT_REFUSED,)),
    )


def read_status(data: Path, name: str) -> dict[str, Any]:
    """What `run/<name>.json` says; empty when it is not there or not whole."""
    try:
        content = orjson.loads((data / "run" / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def engine_answers(data: Path, timeout_s: float = HEALTH_TIMEOUT_S) -> bool:
    """Whether the engine's loop takes a connection and says WELCOME within `timeout_s`."""
    path = read_status(data, "engine").get("socket") or str(engine_socket(data))
    deadline = time.monotonic() + timeout_s
    decoder = Decoder(PAYLOAD_OUT_MAX)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout_s)
            connection.connect(path)
            hello = encode_json(Kind.HELLO, {"role": "admin", "version": 1, "subscribe": False})
            connection.sendall(b"".join(hello))
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                count = connection.recv_into(decoder.get_buffer())
                decoder.received(count)
                if any(frame.kind == Kind.WELCOME for frame in decoder.frames()):
                    return True
                if count == 0:
                    return False
        except (OSError, WireError):
            return False
    return False


def _is_fresh(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < PROJECTOR_SILENT_S
