"""Process start to OPEN with 100,000 resting orders and as many logged commands.

Two starts of a real engine process on a directory left by SIGKILL: from the log
alone, and from a checkpoint.  Baseline: replay of the same commands by the
pure-Python twin.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from api.runtime.paths import engine_socket
from bench.durable import Client, _stream, engine_process
from bench.measure import Figure
from engine import commands as make
from engine.reference import Engine as Twin

RESTING = 100_000
TWIN_SAMPLE = 10_000
ACCOUNT_FUNDS = 1 << 60


def run() -> list[Figure]:
    setup = np.concatenate(
        [
            make.open_asset(),
            make.open_asset(),
            make.open_market(base_asset=1, quote_asset=2, tick_atoms=1, lot_atoms=1),
            make.open_account(),
            make.deposit(account=1, asset=2, quantity=ACCOUNT_FUNDS, transaction_id=1),
        ]
    )
    resting = make.new(
        account=1, market=1, side=0, price=[1_000 + index % 5_000 for index in range(RESTING)], quantity=10
    )
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=".") as temporary:
        data = Path(temporary) / "venue"
        with engine_process(data) as pid:
            client = Client(engine_socket(data))
            _stream(client, setup)
            _stream(client, resting)
            client.close()
            os.kill(pid, signal.SIGKILL)
        from_log = _start(data)
        # The clean stop of that start took a checkpoint.
        from_checkpoint = _start(data)
    twin = Twin()
    twin.apply(setup)
    began = time.perf_counter()
    twin.apply(resting[:TWIN_SAMPLE])
    twin_seconds = (time.perf_counter() - began) * RESTING / TWIN_SAMPLE
    return [
        Figure(
            "start to OPEN, 100,000 resting orders, log alone",
            from_log,
            "s",
            twin_seconds,
            "replay by the twin",
            "",
        ),
        Figure(
            "start to OPEN, 100,000 resting orders, checkpoint",
            from_checkpoint,
            "s",
            twin_seconds,
            "replay by the twin",
            "1,000,000 in ≤ 2 s",
        ),
    ]


def _start(data: Path) -> float:
    (data / "run" / "engine.json").unlink(missing_ok=True)
    began = time.perf_counter()
    with engine_process(data):
        seconds = time.perf_counter() - began
        ready = orjson.loads((data / "run" / "engine.json").read_bytes())
        if ready.get("venue_state") not in (None, "OPEN", 2):
            raise RuntimeError(f"the engine is not OPEN: {ready}")
    return seconds
