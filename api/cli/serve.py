"""`holdfast serve`: PostgreSQL, engine, projector and gateway under one supervisor.

Exit codes: 0 stopped when asked; 1 a process does not start; 2 wrong usage or
an address in use; 73 another venue runs in this directory.
"""

import argparse
import asyncio
import contextlib
import itertools
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from api.demo import DemoError, seed
from api.gateway.process import PENDING_TTL_S, bind, parse_address
from api.runtime import logs
from api.runtime.paths import engine_socket, run_directory
from api.runtime.specs import STOP_GATEWAY, STOP_POSTGRES, engine_spec, projector_spec, read_status
from persistence.errors import LockHeld, StorageError
from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.errors import EmbeddedError
from persistence.storage import AnyLock, Disk
from recovery.supervisor import CRASHES_MAX, HEALTH_TIMEOUT_S, ProcessSpec, StartFailed, Supervisor, take_lock

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_LOCKED = 73
HTTP_DEFAULT = "127.0.0.1:8400"
ADMIN_DEFAULT = "127.0.0.1:8401"
GATEWAY_STOP_S = 20.0
CONNECT_S = 0.5
FIRST_CLEAR_S = 10.0
CLEAR_S = 0.5


def postgres_spec(postgres: EmbeddedPostgres) -> ProcessSpec:
    """The embedded PostgreSQL, under the same supervision as the rest."""

    def is_ready(pid: int) -> bool:
        try:
            lines = (postgres.directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    # At first a server of an earlier venue may still be writing its checkpoint; later there is none to
    # wait for, and the other processes are not to wait for this one.
    patience = itertools.chain((FIRST_CLEAR_S,), itertools.repeat(CLEAR_S))

    def before_start() -> None:
        postgres.prepare()
        postgres.clear_stale(time.monotonic() + next(patience))

    return ProcessSpec(
        "postgres",
        tuple(postgres.command(die_with_parent=signal.SIGINT)),
        ready=is_ready,
        healthy=lambda pid: postgres.answers(HEALTH_TIMEOUT_S),
        stop_signal=signal.SIGINT,
        stop_rank=STOP_POSTGRES,
        death_signal=signal.SIGINT,
        before_start=before_start,
    )


def gateway_spec(data: Path, http: str, admin: str, dsn: str, pending_ttl_s: float) -> ProcessSpec:
    """The gateway; it counts as healthy while its listener takes connections."""

    def is_healthy(pid: int) -> bool:
        host, _, port = read_status(data, "gateway").get("url", "").removeprefix("http://").rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as connection:
            connection.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
            return connection.recv(12).endswith(b" 200")

    argv = ("--data", str(data), "--http", http, "--admin", admin, "--dsn", dsn)
    return ProcessSpec(
        "gateway",
        (sys.executable, "-m", "api.gateway.process", *argv, "--pending-ttl", str(pending_ttl_s)),
        ready=lambda pid: read_status(data, "gateway").get("pid") == pid,
        healthy=is_healthy,
        stop_s=GATEWAY_STOP_S,
        stop_rank=STOP_GATEWAY,
    )


def settle_addresses(*addresses: tuple[str, int]) -> list[str]:
    """Each as HOST:PORT with a real port: one that the kernel chose must survive a restart of the gateway.

    All listen at the same time, so that two which overlap are refused like one that is in use.
    """
    settled = []
    with contextlib.ExitStack() as probes:
        for address in addresses:
            host, port = probes.enter_context(bind(address)).getsockname()[:2]
            settled.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return settled


def specs_of(options: argparse.Namespace, http: str, admin: str) -> list[ProcessSpec]:
    """All processes in the order of start."""
    data: Path = options.data
    specs: list[ProcessSpec] = []
    dsn = options.dsn
    if dsn is None:
        postgres = EmbeddedPostgres(data / "postgres")
        dsn = postgres.dsn
        specs.append(postgres_spec(postgres))
    engine = engine_spec(data, database=True)
    if options.engine_restart_delay:
        engine = replace(
            engine, restart_s=options.engine_restart_delay, restart_s_max=options.engine_restart_delay
        )
    specs += [
        engine,
        projector_spec(data, dsn),
        gateway_spec(data, http, admin, dsn, options.pending_ttl),
    ]
    return [replace(spec, crashes_max=options.crash_limit) for spec in specs]


def announce(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Say where the venue is: one line of JSON, or a few for people."""
    gateway = read_status(options.data, "gateway")
    ready: dict[str, Any] = {
        "url": gateway["url"],
        "admin_url": gateway["admin_url"],
        "keys": keys,
        "data": str(options.data),
    }
    if options.json:
        print(orjson.dumps(ready).decode(), flush=True)
        return
    lines = [
        "",
        f"  Holdfast is up   {ready['url']}",
        f"  API docs         {ready['url']}/docs",
        f"  admin            {ready['admin_url']}/docs",
        f"  data             {ready['data']}",
    ]
    lines += [f"  key of {name:<9} {token}" for name, token in keys.items()]
    print("\n".join([*lines, "", "  Ctrl-C stops it.", ""]), flush=True)


def serve(options: argparse.Namespace) -> int:
    """Run until asked to stop."""
    with contextlib.ExitStack() as cleanup:
        try:
            options.data.mkdir(parents=True, exist_ok=True)
            options.data = options.data.resolve()
            run_directory(options.data)
            # The lock comes first: the addresses of a venue that runs here already are in use as well.
            lock = take_lock(Disk(), options.data)
            cleanup.callback(lock.release)
            return run(options, lock)
        except LockHeld as error:
            print(f"holdfast: another venue runs in this directory: {error}", file=sys.stderr)
            return EXIT_LOCKED
        except (StartFailed, EmbeddedError, StorageError, DemoError, OSError) as error:
            print(f"holdfast: {error}", file=sys.stderr)
            return EXIT_FAILED


def run(options: argparse.Namespace, lock: AnyLock) -> int:
    """Run under the directory's lock; the exit code."""
    try:
        http, admin = settle_addresses(options.http, options.admin)
    except OSError as error:
        print(
            f"holdfast: cannot listen: {error}; choose other addresses with --http and --admin",
            file=sys.stderr,
        )
        return EXIT_USAGE
    with Supervisor(specs_of(options, http, admin), Disk(), options.data, lock) as supervisor:
        keys = asyncio.run(seed(engine_socket(options.data), options.data)) if options.demo else {}
        announce(options, keys)
        supervisor.run()
    return 0


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="holdfast serve", description="Run a whole venue until Ctrl-C.")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="its directory; made when missing"
    )
    parser.add_argument("--http", type=parse_address, default=HTTP_DEFAULT, metavar="HOST:PORT",
                        help="public listener (default %(default)s; port 0: any)")  # fmt: skip
    parser.add_argument("--admin", type=parse_address, default=ADMIN_DEFAULT, metavar="HOST:PORT",
                        help="admin listener (default %(default)s)")  # fmt: skip
    parser.add_argument("--dsn", help="a PostgreSQL to use instead of the embedded one")
    parser.add_argument("--demo", action="store_true", help="demo markets, funded accounts and keys")
    parser.add_argument("--json", action="store_true", help="print one line of JSON when ready")
    parser.add_argument("--pending-ttl", type=float, default=PENDING_TTL_S, metavar="SECONDS",
                        help="how long a queued order waits (default %(default)s)")  # fmt: skip
    parser.add_argument("--engine-restart-delay", type=float, default=0.0, metavar="SECONDS",
                        help="for drills: wait so long before a dead engine is restarted")  # fmt: skip
    parser.add_argument("--crash-limit", type=int, default=CRASHES_MAX, metavar="N",
                        help="crashes within a minute before a pause (default %(default)s)")  # fmt: skip
    options = parser.parse_args(list(argv))
    if options.crash_limit < 1 or options.engine_restart_delay < 0 or options.pending_ttl <= 0:
        parser.error("--crash-limit is at least 1, --engine-restart-delay at least 0, --pending-ttl above 0")
    if options.http == options.admin and options.http[1]:
        parser.error("--http and --admin are the same address; give each its own")
    logs.configure("supervisor")
    # SIGTERM stops cleanly also while the processes are still starting.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return serve(options)
    except KeyboardInterrupt:
        return 0
