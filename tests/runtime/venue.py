"""A real engine process on a directory, and commands that keep it busy."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from api.runtime.link import EngineLink
from api.runtime.paths import engine_socket
from engine import commands as make
from persistence.text import TextBuilder, TextTag

ROOT = Path(__file__).parent.parent.parent
READY_S = 30.0


class EngineUnderTest:
    """`python -m api.runtime.engine_process` as a child."""

    def __init__(self, data: Path, *arguments: str, wrapper: Sequence[str] = ()) -> None:
        self.data = data
        self._arguments = arguments
        self._wrapper = wrapper
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.stderr"

    def start(self, *, wait: bool = True) -> "EngineUnderTest":
        command = [sys.executable, "-m", "api.runtime.engine_process"]
        if self._wrapper:
            command = [sys.executable, "-m", "tests.runtime.run_engine", *self._wrapper, "--"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.data), *self._arguments], cwd=ROOT, stderr=log
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            code = self.process.poll()
            if code is not None:
                raise AssertionError(f"engine ended with {code} before it was ready:\n{self.log.read_text()}")
            try:
                content = json.loads((self.data / "run" / "engine.json").read_bytes())
            except FileNotFoundError:
                content = {}
            if content.get("pid") == self.process.pid:
                return content
            time.sleep(0.01)
        raise AssertionError("engine was not ready in time")

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def wait(self) -> int:
        return self.process.wait(60)

    def __enter__(self) -> "EngineUnderTest":
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def report(self) -> dict[str, Any]:
        """The newest recovery report."""
        newest = max((self.data / "reports").glob("recovery-*.json"), key=lambda path: path.name[-11:])
        return json.loads(newest.read_bytes())

    async def link(self, role: str = "bench", **options: Any) -> EngineLink:
        link = EngineLink(engine_socket(self.data), role, **options)
        await link.start()
        if not await link.wait_connected(READY_S):
            raise AssertionError(f"no link:\n{self.log.read_text()}")
        return link


def setup_commands() -> tuple[npt.NDArray[np.void], bytes]:
    """Two assets, a market, two funded accounts; with their definitions."""
    text = TextBuilder()
    definitions = [
        {"symbol": "BTC", "decimals": 8},
        {"symbol": "USDT", "decimals": 6},
        {"symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "tick_size": "0.01", "lot_size": "0.00001"},
        {"name": "alice"},
        {"name": "bob"},
    ]
    for index, definition in enumerate(definitions):
        text.add(index, TextTag.DEFINITION, json.dumps(definition).encode())
    commands = np.concatenate(
        [
            make.open_asset(),
            make.open_asset(),
            make.open_market(
                base_asset=1, quote_asset=2, tick_atoms=1, lot_atoms=1, maker_fee_ppm=100, taker_fee_ppm=200
            ),
            make.open_account(),
            make.open_account(),
            make.deposit(account=1, asset=1, quantity=10**15, transaction_id=1),
            make.deposit(account=1, asset=2, quantity=10**15, transaction_id=2),
            make.deposit(account=2, asset=1, quantity=10**15, transaction_id=3),
            make.deposit(account=2, asset=2, quantity=10**15, transaction_id=4),
        ]
    )
    return commands, bytes(text)


def random_orders(random: np.random.Generator, count: int) -> npt.NDArray[np.void]:
    """Orders around 1,000, about half of which trade."""
    return make.new(
        account=random.integers(1, 3, count),
        market=1,
        side=random.integers(0, 2, count),
        price=random.integers(980, 1021, count),
        quantity=random.integers(1, 50, count),
    )


def checkpoints(data: Path) -> list[Path]:
    return sorted((data / "checkpoints").glob("*.checkpoint"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
