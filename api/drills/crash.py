"""Drill `crash`: SIGKILL the engine under load, again and again, on one data directory.

A kill counts only if requests were in flight at that moment.  Each trader keeps a
synced journal of what it was told; at the end every line of it is held against
the recovered engine, the event log and PostgreSQL (`judge`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from api.drills.journal import Acknowledgement, Journal
from api.drills.judge import judge
from api.drills.load import Gauge, Trader
from api.drills.report import DrillReport
from api.drills.venue import Venue

TRADING_ACCOUNTS = ("alice", "bob", "carol", "dave")
SETTLE_SECONDS = 60.0
# The drill crashes the engine more often than backoff and cooldown would let it.
NO_COOLDOWN = ("--crash-limit", "1000000", "--engine-restart-delay", "0.1")


@dataclass(slots=True)
class Load:
    """Traders at work and what they were told."""

    gauge: Gauge
    journals: list[Journal]

    @property
    def acknowledgements(self) -> list[Acknowledgement]:
        return [line for journal in self.journals for line in journal.acknowledgements]


@contextlib.asynccontextmanager
async def load(venue: Venue, rng: random.Random, traders: int, journals: Path) -> AsyncIterator[Load]:
    """Traders that work until the block ends and each has its last answer."""
    gauge = Gauge()
    stop = asyncio.Event()
    journals.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        kept: list[Journal] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            tasks = []
            for number in range(traders):
                account = TRADING_ACCOUNTS[number % len(TRADING_ACCOUNTS)]
                name = f"{account}-{rng.getrandbits(32):08x}-{number}"
                journal = stack.enter_context(Journal(journals / f"{name}.jsonl"))
                kept.append(journal)
                trader = Trader(
                    session,
                    venue.url,
                    account=account,
                    token=venue.keys[account],
                    name=name,
                    rng=random.Random(rng.getrandbits(64)),
                    journal=journal,
                    gauge=gauge,
                )
                tasks.append(asyncio.create_task(trader.run(stop)))
            try:
                yield Load(gauge, kept)
            finally:
                stop.set()
                done, pending = await asyncio.wait(tasks, timeout=SETTLE_SECONDS)
                for task in pending:
                    task.cancel()
            for task in done:
                task.result()
            if pending:
                raise TimeoutError(f"{len(pending)} traders had no definite answer after {SETTLE_SECONDS} s")


async def kill_under_load(venue: Venue, gauge: Gauge) -> tuple[int, float]:
    """SIGKILL the engine while requests are in flight; how many were, and seconds to OPEN."""
    status = await venue.status()
    pid, epoch = int(status["processes"]["engine"]["pid"]), int(status["epoch"])
    while gauge.in_flight == 0:
        await asyncio.sleep(0)
    in_flight = gauge.in_flight
    os.kill(pid, signal.SIGKILL)
    return in_flight, await venue.wait_open(after_epoch=epoch)


async def crash(arguments: argparse.Namespace, data: Path) -> DrillReport:
    rng = random.Random(arguments.seed)
    kills: int = arguments.kills
    report = DrillReport(
        "crash", arguments.seed, f"holdfast drill crash --kills {kills} --seed {arguments.seed}"
    )
    venue = Venue(data, *NO_COOLDOWN)
    try:
        report.figures["start, s"] = round(await venue.start(), 2)
        in_flight: list[int] = []
        downtimes: list[float] = []
        began = time.monotonic()
        async with load(venue, rng, arguments.traders, data / "journals") as running:
            for _ in range(kills):
                await asyncio.sleep(rng.uniform(0.1, 1.0))
                count, seconds = await kill_under_load(venue, running.gauge)
                in_flight.append(count)
                downtimes.append(seconds)
            await asyncio.sleep(0.5)
        gauge = running.gauge
        report.figures |= {
            "kills under load": kills,
            "requests in flight at a kill, least": min(in_flight, default=0),
            "load, s": round(time.monotonic() - began, 1),
            "acknowledged live": gauge.live,
            "acknowledged PENDING_SUBMISSION": gauge.queued,
            "refused": gauge.refused,
            "retries by clients": gauge.retries,
            "kill to OPEN, s, median": round(sorted(downtimes)[len(downtimes) // 2], 2),
            "kill to OPEN, s, worst": round(max(downtimes), 2),
        }
        report.check("every kill had requests in flight", min(in_flight) > 0, in_flight)
        report.check("orders were acknowledged live", gauge.live > 0, gauge.live)
        report.check("orders were acknowledged PENDING_SUBMISSION", gauge.queued > 0, gauge.queued)
        report.check("engine restart within 10 s", max(downtimes) < 10, round(max(downtimes), 2))
        await judge(venue, running.acknowledgements, report)
    finally:
        await venue.abandon()
    return report
