"""Commands a second through `apply`, driven from Python in batches, events written.

The flow is the generator's (seeded): the peer table's mix of new orders, cancels,
aggressive orders and modifies.  With the recorded `mixed` files at hand,
`make oracle` rates the same `apply` on them.  Baseline: the pure-Python twin on a
prefix of the same commands.
"""

from __future__ import annotations

import gc
import time

import numpy as np
from numpy.typing import NDArray

from api.flow import venue
from api.flow.generator import synthetic_flow
from bench.measure import Figure
from engine import Engine
from engine.book import Book
from engine.reference import Engine as Twin

COMMANDS = 1_000_000
TWIN_COMMANDS = 20_000
BATCH = 4096
ROUNDS = 3


def run() -> list[Figure]:
    setup, flow = flow_commands(COMMANDS)
    twin = _rate(Twin, setup, flow[:TWIN_COMMANDS], rounds=1)
    everything = _rate(Engine, setup, flow, rounds=ROUNDS)
    book = _rate(Book, setup, flow, rounds=ROUNDS)
    return [
        Figure("book alone", book, "commands/s", twin, "the twin", "≤ 40 ns", {"ns": 1e9 / book}),
        Figure(
            "book + ledger + invariants + idempotency",
            everything,
            "commands/s",
            twin,
            "the twin",
            "≤ 80 ns",
            {"ns": 1e9 / everything},
        ),
    ]


def flow_commands(count: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """COMMAND records that open a venue, and `count` of seeded flow on it."""
    return venue.setup(), synthetic_flow(count, seed=23).commands(0, count)


def _rate(kind: type, setup: NDArray[np.void], flow: NDArray[np.void], *, rounds: int) -> float:
    """Best commands/s of `rounds` runs, each on a new engine."""
    best = 0.0
    for _ in range(rounds):
        engine = kind()
        engine.apply(setup)
        gc.collect()
        began = time.perf_counter()
        for start in range(0, len(flow), BATCH):
            engine.apply(flow[start : start + BATCH])
        best = max(best, len(flow) / (time.perf_counter() - began))
    return best
