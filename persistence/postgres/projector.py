"""The event log becomes rows: exactly once, in batches, behind a cursor.

One transaction a batch, in this order:

1. the cursor moves, by compare-and-set: a second projector waits here and then
   fails; a lower epoch fails; from here on the batch is ours or nobody's
2. definitions (assets, markets, accounts, keys, states), transactions
3. new orders (COPY), changes of older orders (UPDATE), trades (COPY)
4. balances (upsert), rejections (COPY)
5. submissions that these commands came from
6. the frames themselves into the outbox

A crash of either side anywhere leaves all of it or nothing. When the answer to
a COMMIT is lost, the cursor is read anew and says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog

from engine.types import EventFlag, EventType
from persistence.postgres import definitions
from persistence.postgres.copy import Columns, int8_value, text_value
from persistence.postgres.errors import CursorMoved, DatabaseUnavailable, EventGap, StaleEpoch
from persistence.postgres.fold import Batch, Orders, accepted_terms, fold
from persistence.postgres.frames import EventFrame
from persistence.postgres.pool import Connection, Pool, retry

BATCH_EVENTS_MAX = 65_536
"""Events a transaction; a single larger frame is one transaction of its own."""
WRITE_S_MAX = 30.0
"""Timeout of one statement here: no request waits for it."""
INT64_MAX = (1 << 63) - 1

_log = structlog.get_logger(__name__)

_ORDERS = Columns(
    "orders",
    {
        "order_id": "int8",
        "created_sequence": "int8",
        "updated_sequence": "int8",
        "priority": "int8",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
        "slot": "int8",
        "price": "int8",
        "quantity": "int8",
        "filled": "int8",
        "leaves": "int8",
        "cancelled": "int8",
        "account": "int4",
        "market": "int4",
        "side": "int2",
        "order_type": "int2",
        "time_in_force": "int2",
        "status": "int2",
        "reason": "int2",
        "post_only": "bool",
        "notional": "numeric",
        "fee": "numeric",
    },
    ["client_order_id", "idempotency_key"],
)

_TRADES = Columns(
    "trades",
    {
        "sequence": "int8",
        "number": "int4",
        "created_at": "timestamptz",
        "price": "int8",
        "quantity": "int8",
        "buy_order_id": "int8",
        "sell_order_id": "int8",
        "buy_fee": "int8",
        "sell_fee": "int8",
        "buy_account": "int4",
        "sell_account": "int4",
        "market": "int4",
        "taker_side": "int2",
    },
)

_REJECTIONS = Columns(
    "rejections",
    {
        "sequence": "int8",
        "created_at": "timestamptz",
        "price": "int8",
        "quantity": "int8",
        "account": "int8",
        "market": "int8",
        "slot": "int8",
        "command": "int2",
        "side": "int2",
        "reason": "int2",
    },
    ["order_id", "client_order_id", "idempotency_key"],
)

_CHANGE_ORDERS = """
UPDATE orders o SET
    filled = o.filled + c.filled, leaves = c.leaves, cancelled = c.cancelled,
    notional = o.notional + c.notional_high * 4294967296::numeric + c.notional_low,
    fee = o.fee + c.fee_high * 4294967296::numeric + c.fee_low,
    price = CASE WHEN c.price < 0 THEN o.price ELSE c.price END,
    quantity = CASE WHEN c.quantity < 0 THEN o.quantity ELSE c.quantity END,
    priority = CASE WHEN c.priority < 0 THEN o.priority ELSE c.priority END,
    reason = c.reason,
    status = CASE WHEN c.cancelled > 0 THEN 4 WHEN c.leaves = 0 THEN 2
                  WHEN o.filled + c.filled > 0 THEN 1 ELSE 0 END,
    updated_sequence = c.updated_sequence,
    updated_at = 'epoch'::timestamptz + (c.updated_ns / 1000) * interval '1 microsecond'
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::smallint[],
            $13::bigint[], $14::bigint[])
  AS c (order_id, filled, leaves, cancelled, notional_high, notional_low, fee_high, fee_low, price, quantity,
        priority, reason, updated_sequence, updated_ns)
WHERE o.order_id = c.order_id AND o.status < 2"""

_CHANGED_FIELDS = (
    "order_id",
    "filled",
    "leaves",
    "cancelled",
    "notional_high",
    "notional_low",
    "fee_high",
    "fee_low",
    "price",
    "quantity",
    "priority",
    "reason",
    "updated_sequence",
    "updated_ns",
)

_OUTBOX_COLUMNS = (
    "event_number",
    "event_count",
    "epoch",
    "first_sequence",
    "last_sequence",
    "time_ns",
    "events",
    "text",
)

_UPSERT_BALANCES = """
INSERT INTO balances (account, asset, available, held, sequence)
SELECT * FROM unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (account, asset) DO UPDATE
    SET available = excluded.available, held = excluded.held, sequence = excluded.sequence"""

_RESOLVE = """
WITH given AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::smallint[])
        AS g (accepted_no, sequence, order_id, outcome, reason)
), before AS (
    SELECT s.accepted_no, s.state FROM submissions s JOIN given g USING (accepted_no)
     WHERE s.state <> 'DONE' ORDER BY s.accepted_no FOR UPDATE OF s
)
UPDATE submissions s
   SET state = 'DONE', sequence = g.sequence, outcome = g.outcome, reason = g.reason, resolved_at = now(),
       order_id = COALESCE(g.order_id,
           (SELECT o.order_id FROM orders o WHERE g.outcome = 'DUPLICATE' AND o.order_id = g.sequence),
           (SELECT f.order_id FROM submissions f
             WHERE g.outcome = 'DUPLICATE' AND f.sequence = g.sequence LIMIT 1))
  FROM given g JOIN before b USING (accepted_no)
 WHERE s.accepted_no = g.accepted_no
RETURNING b.accepted_no, b.state AS state_before"""

_OUTCOMES = {
    EventType.ACCEPTED: "ACCEPTED",
    EventType.CANCELED: "CANCELED",
    EventType.REJECTED: "REJECTED",
    EventType.DUPLICATE: "DUPLICATE",
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the rows are.

    `sequence` and `event_number` are the last ones written, `time_ns` their
    logged time, `venue_state` as of then.
    """

    sequence: int
    epoch: int
    event_number: int
    time_ns: int
    venue_state: int


async def read_cursor(connection: Connection) -> Cursor:
    """The cursor as this connection's transaction sees it."""
    row = await connection.fetchrow(
        "SELECT sequence, epoch, event_number, time_ns, venue_state FROM projection"
    )
    return Cursor(**dict(row))


class Projector:
    """Writes event frames as rows. One at a time for a database; the cursor sees to it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._cursor: Cursor | None = None

    async def cursor(self) -> Cursor:
        """The cursor as committed; reads the database."""

        self._cursor = await retry(self._read_cursor)
        return self._cursor

    async def _read_cursor(self) -> Cursor:
        async with self._pool.acquire() as connection:
            return await read_cursor(connection)

    async def apply(self, frames: Sequence[EventFrame]) -> Cursor:
        """Write frames in sequence order; on return they and the cursor are committed.

        Frames at or below the cursor are skipped, so that the same frames may be
        given again. Transient errors are tried again, F4's six times.

        Raises
        ------
        EventGap
            A frame does not continue the cursor, or contradicts the rows. Nothing of its batch was written.
        StaleEpoch
            A frame's epoch is lower than the cursor's.
        CursorMoved
            Another projector is writing.
        DatabaseUnavailable, DatabaseRefused
            Not written, or not known to be: `cursor()` tells.
        """

        async def once() -> Cursor:
            try:
                # Not `cursor()`: only the outermost caller retries.
                cursor = self._cursor or await self._read_cursor()
                for batch in _batches(cursor, frames):
                    cursor = self._cursor = await self._write(cursor, batch)
                return cursor
            except (DatabaseUnavailable, CursorMoved):
                self._cursor = None
                raise

        return await retry(once)

    async def prune_outbox(
        self, *, keep_s: float = 600.0, keep_s_max: float = 86_400.0, limit: int = 10_000
    ) -> int:
        """Delete outbox rows that every consumer has published, but for the last `keep_s`.

        A consumer that is stuck keeps them `keep_s_max` at most: then it has to
        take a new snapshot. Returns the number of deleted rows, at most `limit`.
        """

        async def work(connection: Connection) -> int:
            status = await connection.execute(
                """DELETE FROM outbox WHERE event_number IN (
                       SELECT event_number FROM outbox
                        WHERE written_at < now() - make_interval(secs => $1)
                          AND (event_number + event_count - 1 <= COALESCE(
                                   (SELECT min(event_number) FROM outbox_consumers), 9223372036854775807)
                               OR written_at < now() - make_interval(secs => $2))
                        ORDER BY event_number LIMIT $3)""",
                keep_s,
                keep_s_max,
                limit,
                timeout=WRITE_S_MAX,
            )
            return int(status.split()[-1])

        return await self._pool.run(work)

    async def _write(self, before: Cursor, frames: list[EventFrame]) -> Cursor:
        batch = fold(frames)
        last = frames[-1]
        states = batch.events[batch.events["type"] == EventType.VENUE_STATE]
        after = Cursor(
            sequence=last.last_sequence,
            epoch=last.epoch,
            event_number=last.event_number + len(last.events) - 1,
            time_ns=last.time_ns,
            venue_state=int(states[-1]["amount"]) if len(states) else before.venue_state,
        )
        async with self._pool.transaction() as connection:
            await _advance(connection, before, after)
            await definitions.write(connection, batch)
            await _write_orders(connection, batch)
            await _write_trades(connection, batch)
            await _write_balances(connection, batch)
            await _write_rejections(connection, batch)
            await _resolve_submissions(connection, batch)
            await _write_outbox(connection, frames)
        return after


def _batches(cursor: Cursor, frames: Sequence[EventFrame]) -> list[list[EventFrame]]:
    """What is past the cursor, checked to follow it without a gap, cut into transactions."""
    batches: list[list[EventFrame]] = []
    events = 0
    at = cursor
    for frame in frames:
        if frame.last_sequence <= cursor.sequence:
            continue
        if frame.first_sequence != at.sequence + 1 or frame.event_number != at.event_number + 1:
            raise EventGap(
                f"the next frame holds sequences {frame.first_sequence} to {frame.last_sequence} from event "
                f"{frame.event_number}; the rows end at sequence {at.sequence}, event {at.event_number}"
            )
        if frame.epoch < at.epoch:
            raise StaleEpoch(frame.epoch, at.epoch)
        at = replace(
            at,
            sequence=frame.last_sequence,
            epoch=frame.epoch,
            event_number=at.event_number + len(frame.events),
        )
        if not batches or events + len(frame.events) > BATCH_EVENTS_MAX:
            batches.append([])
            events = 0
        batches[-1].append(frame)
        events += len(frame.events)
    return batches


async def _advance(connection: Connection, before: Cursor, after: Cursor) -> None:
    moved = await connection.fetchval(
        """UPDATE projection SET sequence = $1, epoch = $2, event_number = $3, time_ns = $4, venue_state = $5,
                  updated_at = now()
            WHERE sequence = $6 AND event_number = $7 AND epoch <= $2 RETURNING true""",
        after.sequence,
        after.epoch,
        after.event_number,
        after.time_ns,
        after.venue_state,
        before.sequence,
        before.event_number,
    )
    if moved:
        return
    found = await read_cursor(connection)
    if found.epoch > after.epoch:
        raise StaleEpoch(after.epoch, found.epoch)
    raise CursorMoved(
        f"the cursor is at sequence {found.sequence}, not {before.sequence}: "
        "another projector is writing; stop one of them"
    )


async def _write_orders(connection: Connection, batch: Batch) -> None:
    orders = batch.orders
    new = orders.born >= 0
    if new.any():
        await _ORDERS.copy(connection, _new_orders(batch, orders, new))
    old = ~new
    expected = int(old.sum())
    if expected:
        arrays = [getattr(orders, name)[old].tolist() for name in _CHANGED_FIELDS]
        status = await connection.execute(_CHANGE_ORDERS, *arrays, timeout=WRITE_S_MAX)
        changed = int(status.split()[-1])
        if changed != expected:
            raise EventGap(
                f"events change {expected} orders of earlier batches, only {changed} of them are live rows; "
                "the rows are not of this event log"
            )


def _new_orders(batch: Batch, orders: Orders, new: Any) -> list[bytes]:
    born = orders.events[orders.born[new]]
    order_type, time_in_force, post_only = accepted_terms(born["amount"])
    filled, leaves, cancelled = orders.filled[new], orders.leaves[new], orders.cancelled[new]
    created = born["sequence"].astype(np.int64)
    client_ids, keys = batch.texts.client_order_ids, batch.texts.idempotency_keys
    tails = [text_value(client_ids.get(s)) + text_value(keys.get(s)) for s in created.tolist()]
    values = {
        "order_id": orders.order_id[new],
        "created_sequence": created,
        "updated_sequence": orders.updated_sequence[new],
        "priority": orders.priority[new],
        "created_at": orders.times[orders.born[new]],
        "updated_at": orders.updated_ns[new],
        "slot": born["slot"],
        "price": orders.price[new],
        "quantity": orders.quantity[new],
        "filled": filled,
        "leaves": leaves,
        "cancelled": cancelled,
        "account": born["account"],
        "market": born["market"],
        "side": born["flags"] & EventFlag.SELL,
        "order_type": order_type,
        "time_in_force": time_in_force,
        "status": np.where(cancelled > 0, 4, np.where(leaves == 0, 2, np.where(filled > 0, 1, 0))),
        "reason": orders.reason[new],
        "post_only": post_only,
        "notional": orders.total("notional")[new],
        "fee": orders.total("fee")[new],
    }
    return _ORDERS.rows(values, tails)


async def _write_trades(connection: Connection, batch: Batch) -> None:
    maker, taker = batch.trades.maker, batch.trades.taker
    if not len(maker):
        return
    taker_sells = (taker["flags"] & EventFlag.SELL) != 0

    def sides(name: str) -> tuple[Any, Any]:
        return np.where(taker_sells, maker[name], taker[name]), np.where(
            taker_sells, taker[name], maker[name]
        )

    buy_order_id, sell_order_id = sides("order_id")
    buy_fee, sell_fee = sides("amount")
    buy_account, sell_account = sides("account")
    values = {
        "sequence": maker["sequence"],
        "number": batch.trades.number,
        "created_at": batch.trades.times,
        "price": maker["price"],
        "quantity": maker["quantity"],
        "buy_order_id": buy_order_id,
        "sell_order_id": sell_order_id,
        "buy_fee": buy_fee,
        "sell_fee": sell_fee,
        "buy_account": buy_account,
        "sell_account": sell_account,
        "market": maker["market"],
        "taker_side": taker_sells,
    }
    await _TRADES.copy(connection, _TRADES.rows(values))


async def _write_balances(connection: Connection, batch: Batch) -> None:
    balances = batch.balances
    if len(balances):
        columns = ("account", "market", "price", "quantity", "sequence")
        await connection.execute(
            _UPSERT_BALANCES, *[balances[name].tolist() for name in columns], timeout=WRITE_S_MAX
        )


async def _write_rejections(connection: Connection, batch: Batch) -> None:
    events = batch.rejections
    if not len(events):
        return
    client_ids, keys = batch.texts.client_order_ids, batch.texts.idempotency_keys
    tails = [
        int8_value(order_id if 0 < order_id <= INT64_MAX else None)
        + text_value(client_ids.get(sequence))
        + text_value(keys.get(sequence))
        for order_id, sequence in zip(events["order_id"].tolist(), events["sequence"].tolist(), strict=True)
    ]
    values = {
        name: events[name]
        for name in ("sequence", "price", "quantity", "account", "market", "slot", "reason")
    }
    values |= {
        "created_at": batch.rejection_times,
        "command": events["amount"],
        "side": events["flags"] & EventFlag.SELL,
    }
    await _REJECTIONS.copy(connection, _REJECTIONS.rows(values, tails))


async def _resolve_submissions(connection: Connection, batch: Batch) -> None:
    """Give the submissions behind these commands their outcome.

    A DUPLICATE that names no first command (quantity 0) says only that the
    accepted_no was applied before; its outcome is in that earlier command's events.
    """
    if not batch.texts.submissions:
        return
    sequences = batch.events["sequence"]
    plain: list[tuple[int, int, int | None, str, int]] = []
    duplicates: list[tuple[int, int, int | None, str, int]] = []
    for sequence, number in batch.texts.submissions.items():
        index = int(np.searchsorted(sequences, sequence))
        if index == len(sequences) or int(sequences[index]) != sequence:
            raise EventGap(f"submission {number!r} was command {sequence}, which has no event")
        event = batch.events[index]
        outcome = _OUTCOMES.get(EventType(int(event["type"])))
        if outcome is None:
            raise EventGap(f"submission {number!r} was command {sequence}, whose first event is no outcome")
        order_id = int(event["order_id"])
        if outcome == "DUPLICATE":
            if int(event["quantity"]) > 0:
                duplicates.append((int(number), int(event["quantity"]), None, outcome, 0))
        else:
            named = order_id if 0 < order_id <= INT64_MAX else None
            plain.append((int(number), sequence, named, outcome, int(event["reason"])))
    # Apart, because a duplicate's first command may be among them.
    for rows in (plain, duplicates):
        if rows:
            resolved = await connection.fetch(
                _RESOLVE, *map(list, zip(*rows, strict=True)), timeout=WRITE_S_MAX
            )
            for row in resolved:
                if row["state_before"] in ("CANCELED", "EXPIRED"):
                    _log.error("submission_sequenced_after_it_ended", **dict(row))


async def _write_outbox(connection: Connection, frames: list[EventFrame]) -> None:
    records = [
        (
            frame.event_number,
            len(frame.events),
            frame.epoch,
            frame.first_sequence,
            frame.last_sequence,
            frame.time_ns,
            frame.events.tobytes(),
            bytes(frame.text),
        )
        for frame in frames
        if len(frame.events)
    ]
    if records:
        await connection.copy_records_to_table(
            "outbox",
            records=records,
            columns=_OUTBOX_COLUMNS,
            timeout=WRITE_S_MAX,
        )
