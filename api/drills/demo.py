"""Drill `demo`: deposit → trade → kill -9 → PENDING_SUBMISSION → recovery → drained → reconcile.

Trades recorded AAPL flow through the API where it is at hand, else flow from our
own generator.  The state hash "before" is the twin's, which replays the log apart
up to the last command before the restart; "after" is what recovery reported.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from api.drills.crash import NO_COOLDOWN, kill_under_load, load
from api.drills.judge import judge
from api.drills.report import DrillReport
from api.drills.venue import Venue, VenueError
from engine.reference import Engine as Twin
from persistence.log import scan
from persistence.storage import Disk

FLOW_ROWS = 3_000
DEPOSIT = "1000000"
BEFORE_KILL_SECONDS = 1.0
AFTER_KILL_SECONDS = 1.0


async def demo(arguments: argparse.Namespace, data: Path) -> DrillReport:
    rng = random.Random(arguments.seed)
    report = DrillReport("demo", arguments.seed, f"holdfast drill demo --seed {arguments.seed}")
    venue = Venue(data, *NO_COOLDOWN)
    try:
        report.figures["start to ready, s"] = round(await venue.start(), 2)
        await _deposit(venue, report)
        await _trade(venue, arguments.recorded, report)
        async with load(venue, rng, arguments.traders, data / "journals") as running:
            await asyncio.sleep(BEFORE_KILL_SECONDS)
            in_flight, downtime = await kill_under_load(venue, running.gauge)
            await asyncio.sleep(AFTER_KILL_SECONDS)
        queued = running.gauge.queued
        report.figures |= {
            "requests in flight at the kill": in_flight,
            "acknowledged live": running.gauge.live,
            "acknowledged PENDING_SUBMISSION": queued,
            "downtime, kill to OPEN, s": round(downtime, 2),
        }
        report.check("submissions were answered 202 PENDING_SUBMISSION", queued > 0, queued)
        await judge(venue, running.acknowledgements, report)
        _compare_hashes(data, report)
    finally:
        await venue.abandon()
    return report


async def _deposit(venue: Venue, report: DrillReport) -> None:
    """One deposit, sent twice: the second is a no-op (SPEC L3)."""
    headers = {"Authorization": f"Bearer {venue.keys['alice']}"}
    admin = {"Authorization": f"Bearer {venue.keys['admin']}"}
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        async def usdt() -> float:
            async with session.get(f"{venue.url}/v1/balances", headers=headers) as response:
                balances = (await response.json())["balances"]
            return next(float(row["available"]) for row in balances if row["asset"] == "USDT")

        async with session.get(f"{venue.url}/v1/limits", headers=headers) as response:
            account = (await response.json())["account"]
        before = await usdt()
        body = {"account": account, "asset": "USDT", "amount": DEPOSIT, "transaction_id": "demo-deposit"}
        for _ in range(2):
            url = f"{venue.ready['admin_url']}/v1/admin/deposits"
            async with session.post(url, json=body, headers=admin):
                pass
        gained = await usdt() - before
    report.check("a deposit sent twice is booked once", gained == float(DEPOSIT), f"{gained:,.0f} USDT")


async def _trade(venue: Venue, recorded: Path, report: DrillReport) -> None:
    """Recorded flow through the API."""
    file = recorded / "lobster" / "AAPL_input.csv.zst"
    source = [str(file)] if file.exists() else ["--generate"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", "flow", *source),
        *("--url", venue.url, "--data", str(venue.data), "--limit", str(FLOW_ROWS), "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    if process.returncode != 0:
        raise VenueError(f"flow ended with exit code {process.returncode}: {out.decode()}")
    flow: dict[str, Any] = orjson.loads(out)
    report.figures |= {
        "flow": "recorded AAPL" if file.exists() else "generated",
        "flow, requests": flow["requests"],
        "flow, trades": flow["trades"],
        "flow, requests/s": round(flow["rate"]),
    }
    report.check("the flow traded", flow["trades"] > 0, flow["trades"])


def _compare_hashes(data: Path, report: DrillReport) -> None:
    """The twin up to the crash against what the restart after it reported."""
    restarts = [
        orjson.loads(path.read_bytes()) for path in sorted((data / "reports").glob("recovery-*.json"))
    ]
    after_kill = next(restart for restart in restarts if restart["epoch"] == 2)
    twin = Twin()
    for frame in scan(Disk(), data / "log").frames(1):
        if frame.first_sequence > after_kill["sequence"]:
            break
        twin.apply(frame.commands)
    report.figures |= {
        "replayed commands": after_kill["replayed"],
        "state hash before (the twin, to the last command before the restart)": twin.state_hash().hex()[:32],
        "state hash after (as recovered)": after_kill["state_hash"][:32],
    }
    report.check(
        "state hash before = after",
        twin.sequence == after_kill["sequence"] and twin.state_hash().hex() == after_kill["state_hash"],
        f"sequence {twin.sequence} and {after_kill['sequence']}",
    )
