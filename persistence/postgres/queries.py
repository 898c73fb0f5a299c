"""What the gateway reads: rows as the last committed batch left them.

Integers as stored (ticks, lots, atoms); the gateway formats them. Pages go by
sequence, newest first: the next page starts below the last row's `cursor`.

An order is read together with its fills, and balances with their sequence, in
one snapshot: between two statements the projector may commit.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from typing import Any

from engine.types import QUEUED, CommandType, Reason
from persistence.identity import public_order_id
from persistence.postgres.pool import Connection, Pool

PAGE_MAX = 1000
FILLS_MAX = 100
"""Fills read with an order; pages of fills have the rest."""


class OrderStatus(IntEnum):
    """FIX OrdStatus (tag 39)."""

    NEW = 0
    PARTIALLY_FILLED = 1
    FILLED = 2
    CANCELED = 4
    REJECTED = 8


@dataclass(frozen=True, slots=True)
class FillRow:
    """One side of a trade."""

    trade_id: str
    sequence: int
    number: int
    created_at: datetime
    market: int
    account: int
    order_id: int
    slot: int
    side: int
    price: int
    quantity: int
    fee: int
    taker: bool

    @property
    def public_order_id(self) -> str:
        """The text of its order."""
        return public_order_id(self.order_id, self.slot)


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order's last known state.

    A rejected one has `order_type`, `time_in_force` and `post_only` None: the
    core does not say what it refused to read.
    """

    order_id: int
    slot: int
    account: int
    market: int
    side: int
    order_type: int | None
    time_in_force: int | None
    post_only: bool | None
    status: OrderStatus
    reason: int
    price: int
    quantity: int
    filled: int
    leaves: int
    cancelled: int
    notional: int
    fee: int
    client_order_id: str | None
    idempotency_key: str | None
    created_sequence: int
    updated_sequence: int
    created_at: datetime
    updated_at: datetime
    priority: int
    fills: tuple[FillRow, ...] = ()
    """The first `FILLS_MAX`, oldest first, of the same moment as the rest."""

    @property
    def public_id(self) -> str:
        """The text that clients use."""
        return public_order_id(self.order_id, self.slot)


@dataclass(frozen=True, slots=True)
class TradeRow:
    """A trade, as the public sees it; `taker_side` is the aggressor's."""

    trade_id: str
    sequence: int
    number: int
    created_at: datetime
    market: int
    price: int
    quantity: int
    taker_side: int


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """One asset of an account, atoms."""

    account: int
    asset: int
    available: int
    held: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A command that the core refused."""

    sequence: int
    created_at: datetime
    command: int
    account: int
    market: int
    order_id: int | None
    slot: int
    side: int
    price: int
    quantity: int
    reason: int
    client_order_id: str | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class AsOf:
    """What the rows are the state after."""

    sequence: int
    epoch: int
    time_ns: int
    venue_state: int
    updated_at: datetime


_ORDER_COLUMNS = (
    "order_id, slot, account, market, side, order_type, time_in_force, post_only, status, reason, price, "
    "quantity, filled, leaves, cancelled, notional, fee, client_order_id, idempotency_key, created_sequence, "
    "updated_sequence, created_at, updated_at, priority"
)
_REJECTION_COLUMNS = (
    "sequence, created_at, command, account, market, order_id, slot, side, price, quantity, reason, "
    "client_order_id, idempotency_key"
)
_FILL_COLUMNS = (
    "f.trade_id, f.sequence, f.number, f.created_at, f.market, f.account, f.order_id, o.slot, f.side, "
    "f.price, f.quantity, f.fee, f.taker"
)
_TRADE_COLUMNS = "trade_id, sequence, number, created_at, market, price, quantity, taker_side"
_AS_OF = "SELECT sequence, epoch, time_ns, venue_state, updated_at FROM projection"
_NEWEST = (1 << 63) - 1
_NAMES_NOTHING = ", ".join(
    str(int(reason))
    for reason in (Reason.VENUE_DRAINING, Reason.IDEMPOTENCY_CONFLICT, Reason.DUPLICATE_CLIENT_ORDER_ID)
)
"""Refusals that leave the names in the request to the order that had, or will have, them."""


class Queries:
    """Reads. Each raises DatabaseUnavailable or DatabaseRefused; none is retried."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def as_of(self) -> AsOf:
        """How far the rows are."""
        rows = await self._fetch(_AS_OF)
        return AsOf(**dict(rows[0]))

    async def order(self, order_id: int) -> OrderRow | None:
        """By id; a rejected one too."""
        return await self._order("order_id = $1", order_id)

    async def order_by_client_id(self, account: int, client_order_id: str) -> OrderRow | None:
        """The newest order under a client order id; not a refusal because that id, or the key, was taken."""
        return await self._order("account = $1 AND client_order_id = $2", account, client_order_id)

    async def order_by_key(self, account: int, idempotency_key: str) -> OrderRow | None:
        """The newest order under an idempotency key. A refusal by VENUE_DRAINING does not use up its key."""
        return await self._order("account = $1 AND idempotency_key = $2", account, idempotency_key)

    async def orders(self, order_ids: Sequence[int]) -> list[OrderRow]:
        """Orders by their ids, at most `PAGE_MAX`; rejected ones are left out."""
        _page(len(order_ids))
        async with self._snapshot() as connection:
            rows = await connection.fetch(
                f"SELECT {_ORDER_COLUMNS} FROM orders WHERE order_id = ANY($1::bigint[])", list(order_ids)
            )
            return await _with_fills(connection, [_order_row(row) for row in rows])

    async def rejection(self, sequence: int) -> Rejection | None:
        """The refusal of the command with this sequence, of any type."""
        rows = await self._fetch(f"SELECT {_REJECTION_COLUMNS} FROM rejections WHERE sequence = $1", sequence)
        return Rejection(**dict(rows[0])) if rows else None

    async def rejection_by_key(self, account: int, idempotency_key: str) -> Rejection | None:
        """The newest refusal under a key, of any command but those that do not use it up."""
        rows = await self._fetch(
            f"""SELECT {_REJECTION_COLUMNS} FROM rejections
                 WHERE account = $1 AND idempotency_key = $2 AND reason <> $3
                 ORDER BY sequence DESC LIMIT 1""",
            account,
            idempotency_key,
            int(Reason.VENUE_DRAINING),
        )
        return Rejection(**dict(rows[0])) if rows else None

    async def open_orders(
        self, account: int, *, market: int | None = None, before: int = _NEWEST, limit: int = 100
    ) -> list[OrderRow]:
        """Live orders that did not come from the queue, created before `before`, newest first."""
        return await self._orders(
            """WHERE account = $1 AND status < 2 AND created_sequence < $2 AND order_id < $3
                 AND ($4::integer IS NULL OR market = $4)
               ORDER BY created_sequence DESC LIMIT $5""",
            account,
            before,
            QUEUED,
            market,
            _page(limit),
        )

    async def open_queued_orders(
        self, account: int, *, market: int | None = None, after: int = 0, limit: int = 100
    ) -> list[OrderRow]:
        """Live orders that came from the queue, past its number `after`, oldest number first."""
        return await self._orders(
            """WHERE account = $1 AND status < 2 AND order_id > $2
                 AND ($3::integer IS NULL OR market = $3)
               ORDER BY order_id LIMIT $4""",
            account,
            QUEUED | after,
            market,
            _page(limit),
        )

    async def waiting_by_client_id(self, account: int, client_order_id: str) -> int | None:
        """The newest waiting submission of an order with a client order id: its number."""
        rows = await self._fetch(
            """SELECT accepted_no FROM submissions
                WHERE account = $1 AND resolved_at IS NULL AND kind = 'order'
                  AND request ->> 'client_order_id' = $2
                ORDER BY accepted_no DESC LIMIT 1""",
            account,
            client_order_id,
        )
        return int(rows[0][0]) if rows else None

    async def fills(
        self, account: int, *, before: tuple[int, int, int] = (_NEWEST, 0, 0), limit: int = 100
    ) -> list[FillRow]:
        """An account's fills below `before` (sequence, number, side), newest first."""
        rows = await self._fetch(
            f"""SELECT {_FILL_COLUMNS} FROM (
                    SELECT * FROM fills
                     WHERE account = $1 AND sequence <= $2 AND (sequence, number, side) < ($2, $3, $4)
                     ORDER BY sequence DESC, number DESC, side DESC LIMIT $5) f
                  JOIN orders o USING (order_id)
                 ORDER BY f.sequence DESC, f.number DESC, f.side DESC""",
            account,
            *before,
            _page(limit),
        )
        return [FillRow(**dict(row)) for row in rows]

    async def trades(
        self, market: int, *, before: tuple[int, int] = (_NEWEST, 0), limit: int = 100
    ) -> list[TradeRow]:
        """A market's trades below `before` (sequence, number), newest first."""
        rows = await self._fetch(
            f"""SELECT {_TRADE_COLUMNS} FROM trades WHERE market = $1 AND (sequence, number) < ($2, $3)
                 ORDER BY sequence DESC, number DESC LIMIT $4""",
            market,
            *before,
            _page(limit),
        )
        return [TradeRow(**dict(row)) for row in rows]

    async def balances(self, account: int) -> tuple[list[BalanceRow], AsOf]:
        """An account's balances by asset, and what they are the state after."""
        async with self._snapshot() as connection:
            rows = await connection.fetch(
                """SELECT account, asset, available, held, sequence FROM balances
                    WHERE account = $1 ORDER BY asset""",
                account,
            )
            cursor = await connection.fetchrow(_AS_OF)
        return [BalanceRow(**dict(row)) for row in rows], AsOf(**dict(cursor))

    async def _order(self, where: str, *arguments: Any) -> OrderRow | None:
        async with self._snapshot() as connection:
            rows = await connection.fetch(
                f"SELECT {_ORDER_COLUMNS} FROM orders WHERE {where} ORDER BY created_sequence DESC LIMIT 1",
                *arguments,
            )
            refused = await connection.fetch(
                f"""SELECT {_REJECTION_COLUMNS} FROM rejections
                     WHERE {where} AND command = {int(CommandType.NEW)} AND reason NOT IN ({_NAMES_NOTHING})
                     ORDER BY sequence DESC LIMIT 1""",
                *arguments,
            )
            if refused and (not rows or refused[0]["sequence"] > rows[0]["created_sequence"]):
                return _rejected(refused[0])
            orders = await _with_fills(connection, [_order_row(row) for row in rows])
        return orders[0] if orders else None

    async def _orders(self, clause: str, *arguments: Any) -> list[OrderRow]:
        async with self._snapshot() as connection:
            rows = await connection.fetch(f"SELECT {_ORDER_COLUMNS} FROM orders {clause}", *arguments)
            return await _with_fills(connection, [_order_row(row) for row in rows])

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """Statements inside see one state of the rows."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        async with self._pool.acquire() as connection:
            return list(await connection.fetch(query, *arguments))


async def _with_fills(connection: Connection, rows: list[OrderRow]) -> list[OrderRow]:
    """Each order with its first `FILLS_MAX` fills, oldest first."""
    traded = [row.order_id for row in rows if row.filled]
    fills: dict[int, list[FillRow]] = {}
    if traded:
        for record in await connection.fetch(
            f"""SELECT {_FILL_COLUMNS} FROM orders o CROSS JOIN LATERAL (
                    SELECT * FROM fills WHERE fills.order_id = o.order_id
                     ORDER BY sequence, number LIMIT {FILLS_MAX}) f
                 WHERE o.order_id = ANY($1::bigint[])
                 ORDER BY f.order_id, f.sequence, f.number""",
            traded,
        ):
            fill = FillRow(**dict(record))
            fills.setdefault(fill.order_id, []).append(fill)
    return [replace(row, fills=tuple(fills[row.order_id])) if row.order_id in fills else row for row in rows]


def _page(limit: int) -> int:
    if not 0 < limit <= PAGE_MAX:
        raise ValueError(f"a page of {limit} rows; 1 to {PAGE_MAX}")
    return limit


def _order_row(row: Any) -> OrderRow:
    values = dict(row)
    values.update(
        status=OrderStatus(values["status"]), notional=int(values["notional"]), fee=int(values["fee"])
    )
    return OrderRow(**values)


def _rejected(row: Any) -> OrderRow:
    values = dict(row)
    sequence, at = values.pop("sequence"), values.pop("created_at")
    del values["command"]
    values["order_id"] = values["order_id"] or sequence
    return OrderRow(
        **values,
        order_type=None,
        time_in_force=None,
        post_only=None,
        status=OrderStatus.REJECTED,
        filled=0,
        leaves=0,
        cancelled=0,
        notional=0,
        fee=0,
        created_sequence=sequence,
        updated_sequence=sequence,
        created_at=at,
        updated_at=at,
        priority=sequence,
    )
