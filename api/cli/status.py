"""`holdfast status`: what the processes of a venue are doing, asked from outside.

Exit codes: 0 the venue runs, 3 it does not.
"""

import argparse
import asyncio
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from api.runtime.errors import RuntimeFault
from api.runtime.link import EngineLink
from api.runtime.paths import engine_socket
from api.runtime.specs import read_status
from engine.types import VenueState

EXIT_DOWN = 3
ASK_S = 1.0


def is_alive(pid: int | None) -> bool:
    """Whether a process with this id exists."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def ask_engine(data: Path) -> dict[str, Any]:
    """The engine's own figures; empty when it does not answer."""
    link = EngineLink(engine_socket(data), "admin")
    await link.start()
    try:
        if not await link.wait_connected(ASK_S):
            return {}
        return await asyncio.wait_for(link.query("status"), ASK_S)
    except (RuntimeFault, TimeoutError):
        return {}
    finally:
        await link.close()


def ask_gateway(url: str | None) -> dict[str, Any]:
    """The gateway's health document; empty when it does not answer."""
    if url is None:
        return {}
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=ASK_S) as response:
            document = orjson.loads(response.read())
    except (OSError, urllib.error.URLError, orjson.JSONDecodeError):
        return {}
    return document if isinstance(document, dict) else {}


def collect(data: Path) -> dict[str, Any]:
    """Everything that is known of the venue in `data`."""
    supervisor = read_status(data, "supervisor")
    running = is_alive(supervisor.get("pid"))
    gateway = read_status(data, "gateway") if running else {}
    health = ask_gateway(gateway.get("url"))
    engine = asyncio.run(ask_engine(data)) if running else {}
    processes = dict(supervisor.get("processes", {})) if running else {}
    return {
        "data": str(data),
        "running": running,
        "pid": supervisor.get("pid") if running else None,
        "url": gateway.get("url"),
        "admin_url": gateway.get("admin_url"),
        "processes": processes,
        "epoch": engine.get("epoch", health.get("epoch")),
        "sequence": engine.get("sequence", health.get("sequence")),
        "durable_sequence": engine.get("durable_sequence"),
        "state": VenueState(int(engine["venue_state"])).name if engine else "DOWN",
        "health": health.get("status", "RED"),
    }


def show(status: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"venue      {status['data']}  {'running' if status['running'] else 'not running'}",
        f"state      {status['state']}   health {status['health']}",
        f"epoch      {status['epoch']}",
        f"sequence   {status['sequence']}   durable {status['durable_sequence']}",
        f"listens    {status['url']}   admin {status['admin_url']}",
    ]
    for name, process in status["processes"].items():
        lines.append(
            f"{name:<10} pid {process['pid']!s:<8} {process['state']:<10} restarts {process['restarts']}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="holdfast status", description="How a venue is.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the venue's directory")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))
    status = collect(options.data.resolve())
    print(orjson.dumps(status).decode() if options.json else show(status))
    return 0 if status["running"] else EXIT_DOWN
