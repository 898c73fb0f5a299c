"""The gateway process: two listeners, public and admin, on one loop.

    python -m api.gateway.process --data DIR --http HOST:PORT --admin HOST:PORT --dsn DSN

Port 0 lets the kernel choose.  Writes DIR/run/gateway.json when it listens.
SIGTERM and SIGINT: stop accepting, answer what is in flight, exit 0.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
import uvloop

from api.gateway.app import admin_app, public_app
from api.gateway.models import BODY_BYTES_MAX
from api.gateway.protocol import BoundedHttp, connections_max, raise_descriptor_limit
from api.gateway.venue import Venue
from api.runtime.logs import configure
from api.runtime.paths import engine_socket, run_directory, write_status

PENDING_TTL_S = 300.0
KEEP_ALIVE_S = 65
SHUTDOWN_S = 10
BACKLOG = 1024

_log = logging.getLogger("holdfast.gateway")


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to the process: there are two of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def bind(address: tuple[str, int]) -> socket.socket:
    """A listening socket."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # Two sockets may be bound to one address; only the second one that listens is refused.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """http://host:port of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listener_of(app: object) -> Listener:
    """A server as measured best: httptools (bounded), sans-io WebSocket, no deflate, no access log."""
    return Listener(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=BoundedHttp,
            ws="websockets-sansio",
            ws_max_size=BODY_BYTES_MAX,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=BACKLOG,
        )
    )


async def run(arguments: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    data = Path(arguments.data)
    venue = Venue(engine_socket(data), arguments.dsn, pending_ttl_s=arguments.pending_ttl)
    public_socket, admin_socket = bind(arguments.http), bind(arguments.admin)
    await venue.start()
    servers = [listener_of(public_app(venue)), listener_of(admin_app(venue))]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, (public_socket, admin_socket), strict=True)
    ]
    # What exists by now lives as long as the process; scanning it again costs latency.
    gc.collect()
    gc.freeze()
    while not all(server.started for server in servers):
        if any(task.done() for task in tasks):
            break
        await asyncio.sleep(0.01)
    else:
        state = {
            "pid": os.getpid(),
            "url": url_of(public_socket),
            "admin_url": url_of(admin_socket),
            "started_at": time.time(),
        }
        write_status(run_directory(data) / "gateway.json", state)
        _log.info("listening on %s and %s", state["url"], state["admin_url"])
    try:
        await asyncio.gather(*tasks)
    finally:
        await venue.close()
        for listener in (public_socket, admin_socket):
            listener.close()


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m api.gateway.process", description="The gateway of a venue."
    )
    parser.add_argument("--data", required=True, help="the venue's directory")
    parser.add_argument(
        "--http", required=True, type=parse_address, metavar="HOST:PORT", help="public listener"
    )
    parser.add_argument(
        "--admin", required=True, type=parse_address, metavar="HOST:PORT", help="admin listener"
    )
    parser.add_argument("--dsn", required=True, help="PostgreSQL")
    parser.add_argument("--pending-ttl", type=float, default=PENDING_TTL_S, metavar="SECONDS",
                        help="how long a queued order waits (default %(default)s)")  # fmt: skip
    arguments = parser.parse_args(argv)
    configure("gateway")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    raise_descriptor_limit()
    BoundedHttp.connections_max = connections_max()
    try:
        uvloop.run(run(arguments))
    except OSError as error:
        _log.error("cannot listen: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
