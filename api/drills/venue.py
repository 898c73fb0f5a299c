"""A venue under drill: started, asked and killed from outside, as an operator would."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

READY_SECONDS = 60.0
STOP_SECONDS = 60.0


class VenueError(Exception):
    """The venue under drill did not do what the drill needs to go on."""


class Venue:
    """`holdfast serve … --demo --json` in a process of its own."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self.ready: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def keys(self) -> dict[str, str]:
        return dict(self.ready["keys"])

    async def start(self) -> float:
        """Start and wait for the line that says it is ready; seconds it took."""
        self.data.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        log = os.open(self.data / "serve.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "api.cli", "serve"),
                *("--data", str(self.data), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
                *("--demo", "--json", *self._arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        finally:
            os.close(log)
        if self._process.stdout is None:
            raise VenueError("the venue was started without a pipe for its first line")
        line = await asyncio.wait_for(self._process.stdout.readline(), READY_SECONDS)
        if not line:
            code = await self._process.wait()
            raise VenueError(f"serve ended with exit code {code}; see {self.data / 'serve.log'}")
        self.ready = orjson.loads(line)
        return time.monotonic() - began

    async def status(self) -> dict[str, Any]:
        """What `holdfast status --json` says."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api.cli", "status", "--data", str(self.data), "--json"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
        return dict(orjson.loads(out))

    async def pid(self, name: str) -> int:
        return int((await self.status())["processes"][name]["pid"])

    async def wait_open(self, *, after_epoch: int = 0, seconds: float = 60.0) -> float:
        """Wait until an engine of a later epoch is OPEN; seconds it took."""
        began = time.monotonic()
        async with aiohttp.ClientSession() as session:
            while time.monotonic() - began < seconds:
                try:
                    async with session.get(
                        self.url + "/health", timeout=aiohttp.ClientTimeout(total=1)
                    ) as response:
                        health = await response.json()
                        if health.get("venue_state") == "OPEN" and health["epoch"] > after_epoch:
                            return time.monotonic() - began
                except (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.02)
        raise VenueError(f"not OPEN again within {seconds:.0f} s; see {self.data / 'serve.log'}")

    async def stop(self) -> int:
        """Ctrl-C; the exit code."""
        if self._process is None:
            raise VenueError("not started")
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)

    async def abandon(self) -> None:
        """However the drill ended, leave no process behind."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
