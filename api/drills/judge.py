"""Was anything lost, doubled, or silently changed?

Four witnesses that share no code path with the answers: the clients' synced
journals, PostgreSQL's rows, the event log, and the twin, which replays the whole
command log apart and must reach the hash of the recovered engine (SPEC R2, R3).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import asyncpg
import numpy as np

from api.drills.journal import Acknowledgement
from api.drills.report import DrillReport
from api.drills.venue import Venue, VenueError
from engine import Engine
from engine.reference import Engine as Twin
from engine.types import QUEUED, EventType
from persistence.events import EventReader
from persistence.identity import parse_order_id
from persistence.log import scan
from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.pool import Pool
from persistence.postgres.reconcile import reconcile
from persistence.storage import Disk
from persistence.text import TextTag, read_text
from recovery.restart import recover

SETTLED_SECONDS = 60.0
FINAL = {"FILLED": 2, "CANCELED": 4}


async def judge(venue: Venue, acknowledgements: list[Acknowledgement], report: DrillReport) -> None:
    """Hold every acknowledgement against rows and logs; stops the venue on the way."""
    postgres = EmbeddedPostgres(venue.data / "postgres")
    connection = await asyncpg.connect(postgres.dsn)
    try:
        report.figures["queue drained and rows caught up, s"] = await _settle(venue, connection)
        await _check_rows(connection, acknowledgements, report)
    finally:
        await connection.close()
    code = await venue.stop()
    report.check("the venue stopped cleanly", code == 0, f"exit code {code}")
    _check_event_log(venue, acknowledgements, report)
    await _check_state(venue, postgres, report)


async def _settle(venue: Venue, connection: asyncpg.Connection) -> float:
    """Wait until nothing is queued and the rows are at the engine's last sequence."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLED_SECONDS:
        waiting = await connection.fetchval(
            "SELECT count(*) FROM submissions WHERE state IN ('QUEUED', 'CLAIMED')"
        )
        cursor = await connection.fetchval("SELECT sequence FROM projection")
        status = await venue.status()
        if waiting == 0 and cursor == status["sequence"] and status["state"] == "OPEN":
            return round(time.monotonic() - began, 2)
        await asyncio.sleep(0.1)
    raise VenueError(
        f"not settled within {SETTLED_SECONDS:.0f} s: {waiting} waiting, rows at {cursor}, {status}"
    )


async def _check_rows(
    connection: asyncpg.Connection, acknowledgements: list[Acknowledgement], report: DrillReport
) -> None:
    accounts = {
        row["name"]: row["account"] for row in await connection.fetch("SELECT account, name FROM accounts")
    }
    orders: dict[tuple[int, str], list[asyncpg.Record]] = {}
    by_id: dict[int, asyncpg.Record] = {}
    by_sequence: dict[int, asyncpg.Record] = {}
    for row in await connection.fetch(
        "SELECT order_id, account, idempotency_key, status, created_sequence FROM orders"
    ):
        by_id[row["order_id"]] = by_sequence[row["created_sequence"]] = row
        if row["idempotency_key"] is not None:
            orders.setdefault((row["account"], row["idempotency_key"]), []).append(row)
    submissions = {row["accepted_no"]: row for row in await connection.fetch("SELECT * FROM submissions")}
    trades = {row["trade_id"] for row in await connection.fetch("SELECT trade_id FROM trades")}

    lost: list[str] = []
    unresolved: list[str] = []
    reverted: list[str] = []
    for line in acknowledgements:
        order_id, _ = parse_order_id(line.order_id)
        if line.code == 202:
            submission = submissions.get(parse_order_id(line.queued_as)[0] & ~QUEUED)
            if submission is None or submission["kind"] != line.kind:
                lost.append(f"{line.key}: {line.queued_as} is not in the queue")
            elif submission["state"] not in ("DONE", "CANCELED", "EXPIRED"):
                unresolved.append(f"{line.key}: {submission['state']}")
            elif (
                submission["kind"] == "order"
                and submission["outcome"] in ("ACCEPTED", "DUPLICATE")
                and submission["order_id"] not in by_id
                and submission["sequence"] not in by_sequence
            ):
                lost.append(f"{line.key}: {submission['outcome']} as {submission['sequence']}, no order")
            elif line.kind == "cancel" and not _is_over(order_id, by_id, by_sequence, submissions):
                lost.append(f"{line.key}: the cancel of {line.order_id} left it live")
            continue
        if line.kind == "order":
            found = orders.get((accounts[line.account], line.key), [])
            if [row["order_id"] for row in found] != [order_id]:
                lost.append(f"{line.key}: acknowledged as {line.order_id}, rows {found}")
        elif order_id not in by_id and order_id & QUEUED == 0:
            lost.append(f"{line.key}: {line.order_id} has no row")
        row = by_id.get(order_id)
        if row is not None and line.status in FINAL and row["status"] != FINAL[line.status]:
            reverted.append(f"{line.key}: told {line.status}, row says {row['status']}")
        lost.extend(f"{line.key}: trade {trade}" for trade in line.trades if trade not in trades)
    doubled = [f"{key}: {len(rows)} rows" for key, rows in orders.items() if len(rows) > 1]

    told = Counter("order" if line.kind == "order" else "cancel" for line in acknowledgements)
    report.figures |= {
        "acknowledged orders": told["order"],
        "acknowledged cancels": told["cancel"],
        "lost": len(lost),
        "doubled": len(doubled),
        "orders in the database": len(by_id),
        "trades": len(trades),
    }
    report.check("0 acknowledgements lost", not lost, lost[:5] or 0)
    report.check("0 orders doubled", not doubled, doubled[:5] or 0)
    report.check("every queued submission reached a terminal state", not unresolved, unresolved[:5] or 0)
    report.check("no final state was taken back", not reverted, reverted[:5] or 0)


def _is_over(
    order_id: int,
    by_id: dict[int, asyncpg.Record],
    by_sequence: dict[int, asyncpg.Record],
    submissions: dict[int, asyncpg.Record],
) -> bool:
    """Whether an order is done: its row says so, or it never became one."""
    row = by_id.get(order_id)
    if row is None and order_id & QUEUED:
        # Sent before the crash and queued after it: the first one is the order.
        submission = submissions[order_id & ~QUEUED]
        row = by_sequence.get(submission["sequence"])
        if row is None:
            return submission["state"] in ("CANCELED", "EXPIRED") or submission["outcome"] == "REJECTED"
    return row is not None and row["status"] in FINAL.values()


def _check_event_log(venue: Venue, acknowledgements: list[Acknowledgement], report: DrillReport) -> None:
    """Each key was accepted once in the event log, whatever the rows say."""
    accepted: Counter[tuple[int, str]] = Counter()
    for frame in EventReader(Disk(), venue.data / "events").frames(0):
        keys = {
            frame.first_sequence + index: bytes(value).decode()
            for index, tag, value in read_text(frame.text)
            if tag == TextTag.IDEMPOTENCY_KEY
        }
        events = frame.events[frame.events["type"] == EventType.ACCEPTED]
        for sequence, account in zip(events["sequence"].tolist(), events["account"].tolist(), strict=True):
            if sequence in keys:
                accepted[account, keys[sequence]] += 1
    doubled = [key for key, count in accepted.items() if count > 1]
    known = {key for _, key in accepted}
    lost = [
        line.key
        for line in acknowledgements
        if line.kind == "order" and line.code == 201 and line.key not in known
    ]
    report.check("the event log accepted no key twice", not doubled, doubled[:5] or 0)
    report.check("the event log has every order acknowledged live", not lost, lost[:5] or 0)


async def _check_state(venue: Venue, postgres: EmbeddedPostgres, report: DrillReport) -> None:
    """The recovered engine against the twin's own replay, and against the rows."""
    recovered = recover(Disk(), venue.data, engine_class=Engine)
    recovered.events.close()
    recovered.lock.release()
    engine = recovered.engine
    twin = Twin()
    for frame in scan(Disk(), venue.data / "log").frames(1):
        twin.apply(frame.commands)
    report.figures |= {
        "commands in the log": twin.sequence,
        "state hash, recovered engine": engine.state_hash().hex()[:32],
        "state hash, the twin's replay of the whole log": twin.state_hash().hex()[:32],
    }
    report.check(
        "the twin's replay reaches the recovered state",
        engine.sequence == twin.sequence and engine.state_hash() == twin.state_hash(),
        f"sequence {engine.sequence} and {twin.sequence}",
    )
    sections = engine.dump()
    conserved, found = _conserved(sections)
    report.check("balances conserved: Σ balances = net deposits, per asset", conserved, found)
    postgres.start()
    try:
        async with Pool(postgres.dsn) as pool:
            mismatches = await reconcile(pool, sections)
    finally:
        postgres.stop()
    report.check("rows equal the engine's orders and balances", not mismatches, mismatches[:3] or 0)


def _conserved(sections: dict[str, Any]) -> tuple[bool, str]:
    balances = sections["balances"]
    for asset in sections["assets"]:
        mine = balances[balances["asset"] == asset["asset"]]
        total = sum(map(int, mine["available"])) + sum(map(int, mine["held"]))
        if total != int(asset["net_deposits"]):
            return False, f"asset {asset['asset']}: {total} held, {asset['net_deposits']} deposited"
    return True, f"{len(np.unique(balances['asset']))} assets, {len(balances)} balances"
