"""What clients ask: orders, fills, balances, trades.

An order that this gateway saw lately is in the mirror.  Everything else is
rows, after waiting (at most a second) until they hold what this gateway has
seen released, so that a client reads its own writes.  Queued orders are rows
of the submissions queue.
"""

import re
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import orjson

from api.gateway.batcher import Reply
from api.gateway.clock import datetime_ns, iso
from api.gateway.errors import Problem
from api.gateway.http import Outcome
from api.gateway.mirror import Mirror
from api.gateway.orders import (
    FILLS_KEPT,
    REASON_TEXTS,
    REJECTED,
    SIDE_TEXTS,
    TIME_IN_FORCE_TEXTS,
    TYPE_TEXTS,
)
from api.gateway.registry import Market
from api.gateway.validation import market_of, order_name
from api.gateway.watch import ProjectionWatch
from api.identity import digest_pair
from api.runtime.errors import RuntimeFault
from api.runtime.link import EngineLink
from engine.types import EVENT, QUEUED
from persistence.identity import public_order_id
from persistence.postgres.errors import DatabaseError
from persistence.postgres.queries import FillRow, OrderRow, OrderStatus, Queries
from persistence.postgres.submissions import Queued, Submissions

_FIRST_PAGE = "q0"
_CURSOR = re.compile(r"([qs])([0-9]{1,18})")
_FILL_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,9})-([01])")
_WAITING = ("QUEUED", "CLAIMED")
T = TypeVar("T")


def time_text(time: datetime) -> str:
    """A row's time as the API prints it."""
    return iso(datetime_ns(time))


async def from_database(rows: Awaitable[T]) -> T:
    """Rows, or the problem that there are none to be had."""
    try:
        return await rows
    except DatabaseError as error:
        raise Problem("unavailable", "The database cannot be reached; try again.") from error


class Reads:
    """All questions of clients."""

    def __init__(
        self,
        link: EngineLink,
        mirror: Mirror,
        queries: Queries,
        submissions: Submissions,
        watch: ProjectionWatch,
    ) -> None:
        self._link = link
        self._mirror = mirror
        self._queries = queries
        self._submissions = submissions
        self._watch = watch

    # One order.

    async def order(self, account: int, public_id: str) -> dict[str, Any]:
        """An order by its name.

        Raises
        ------
        Problem
            order_not_found also when it is another account's; unavailable.
        """
        order_id, _ = order_name(public_id)
        view = self._mirror.orders.get(order_id)
        if view is not None:
            if view.account != account or public_order_id(order_id, view.slot) != public_id:
                raise _not_found(public_id)
            return view.document(self._mirror.registry.markets[view.market])
        if order_id & QUEUED:
            queued = await from_database(self._submissions.get(order_id ^ QUEUED))
            if queued is None or queued.account != account:
                raise _not_found(public_id)
            return await self._queued(queued)
        row = await self._row(order_id)
        if (
            row is None
            or row.account != account
            or row.public_id != public_id
            or row.status == OrderStatus.REJECTED
        ):
            raise _not_found(public_id)
        return await self._row_document(row)

    async def _row(self, order_id: int) -> OrderRow | None:
        await self._watch.reach(self._mirror.sequence)
        return await from_database(self._queries.order(order_id))

    async def _queued(self, queued: Queued) -> dict[str, Any]:
        """A submission: as it waits, or what it became."""
        name = f"q{queued.accepted_no}"
        document = {**queued.request, "order_id": queued.request["order_id"] or name}
        if queued.state in _WAITING:
            return document
        if queued.resolved_at is not None:
            document["updated_at"] = time_text(queued.resolved_at)
        document["sequence"] = queued.sequence
        if queued.state != "DONE":
            document["status"] = queued.state
            document["reason"] = "USER_REQUESTED" if queued.state == "CANCELED" else "PENDING_TTL"
            if "remaining_quantity" in document:
                document["remaining_quantity"] = document["filled_quantity"]
            return document
        if queued.kind == "cancel":
            reason = None if queued.reason == 0 else REASON_TEXTS[queued.reason]
            return {**document, "cancel_id": name, "status": queued.outcome, "reason": reason}
        if queued.order_id is not None and queued.outcome != "REJECTED":
            row = await self._row(queued.order_id)
            if row is not None:
                return await self._row_document(row)
        reason_code = queued.reason
        if queued.outcome == "DUPLICATE" and queued.sequence is not None:
            refused = await from_database(self._queries.rejection(queued.sequence))
            reason_code = refused.reason if refused is not None else reason_code
        document["status"] = "REJECTED"
        document["reason"] = REASON_TEXTS[reason_code]
        document["remaining_quantity"] = document["filled_quantity"]
        return document

    async def _row_document(self, row: OrderRow) -> dict[str, Any]:
        market = self._market(row.market)
        fills: list[FillRow] = []
        if row.filled:
            fills = await from_database(self._queries.fills_of_order(row.order_id, limit=FILLS_KEPT))
        return {
            "order_id": row.public_id,
            "client_order_id": row.client_order_id,
            "symbol": market.symbol,
            "side": SIDE_TEXTS[row.side],
            "type": None if row.order_type is None else TYPE_TEXTS[row.order_type],
            "time_in_force": None if row.time_in_force is None else TIME_IN_FORCE_TEXTS[row.time_in_force],
            "status": row.status.name,
            "quantity": market.quantity_text(row.quantity),
            "price": market.price_text(row.price) if row.price else None,
            "filled_quantity": market.quantity_text(row.filled),
            "remaining_quantity": market.quantity_text(row.leaves),
            "average_price": market.average_text(row.notional, row.filled) if row.filled else None,
            "fills": [self._fill_document(fill, short=True) for fill in fills],
            "reason": None if row.reason == 0 else REASON_TEXTS[row.reason],
            "created_at": time_text(row.created_at),
            "updated_at": time_text(row.updated_at),
            "sequence": row.updated_sequence,
            "post_only": bool(row.post_only),
        }

    def _market(self, number: int) -> Market:
        market = self._mirror.registry.markets.get(number)
        if market is None:
            raise Problem("unavailable", "The gateway has not heard from the engine yet.")
        return market

    async def symbol_of(self, account: int, public_id: str) -> str:
        """The market of an order, which must be the account's."""
        return str((await self.order(account, public_id))["symbol"])

    async def by_client_order_id(self, account: int, client_order_id: str) -> dict[str, Any]:
        """The newest order with this client_order_id, queued ones included."""
        await self._watch.reach(self._mirror.sequence)
        for queued in reversed(await from_database(self._submissions.list_open(account, limit=1000))):
            if queued.request.get("client_order_id") == client_order_id:
                return await self._queued(queued)
        row = await from_database(self._queries.order_by_client_id(account, client_order_id))
        if row is None:
            raise Problem(
                "order_not_found",
                "No order of this account has that client_order_id.",
                field="client_order_id",
            )
        return await self._row_document(row)

    # What became of a key (K4).

    async def by_key_outcome(self, account: int, key: str | None) -> Outcome:
        """Never seen, queued, live or done; "never seen" comes from a live engine only."""
        if key is None:
            raise Problem("unknown_outcome", "The request had no key to be found by.")
        as_of: int | None = None
        if self._link.connected:
            low, high = digest_pair(key)
            try:
                known = await self._link.query("key", account=account, key_lo=low, key_hi=high)
                if known["sequence"] is not None:
                    return Outcome(200, orjson.dumps(await self._outcome_of(account, int(known["sequence"]))))
                as_of = int(known["as_of"])
            except RuntimeFault:
                # The engine went away while it was asked: then the rows say what they can.
                as_of = None
        queued = await from_database(self._submissions.by_key(account, key))
        if queued is not None:
            return Outcome(200, orjson.dumps(await self._queued(queued)))
        await self._watch.reach(self._mirror.sequence)
        row = await from_database(self._queries.order_by_key(account, key))
        if row is not None:
            return Outcome(200, orjson.dumps(await self._row_document(row)))
        if as_of is None:
            detail = "The engine is down: whether it saw this key is known after its recovery."
            raise Problem("unknown_outcome", detail, field="idempotency_key")
        raise Problem("never_seen", "No request had this key.", field="idempotency_key", sequence=as_of)

    async def _outcome_of(self, account: int, sequence: int) -> dict[str, Any]:
        reply, _ = await self.events_of(sequence)
        first = reply.events[0]
        if first[0] != REJECTED and first[6]:
            return await self.order(account, public_order_id(first[6], first[4]))
        row = await self._rejected_row(sequence) if first[0] == REJECTED else None
        if row is not None:
            return await self._row_document(row)
        status = "REJECTED" if first[0] == REJECTED else "DONE"
        reason = REASON_TEXTS[first[3]] if first[0] == REJECTED else None
        return {"status": status, "reason": reason, "sequence": sequence, "created_at": iso(reply.time_ns)}

    async def _rejected_row(self, sequence: int) -> OrderRow | None:
        """A refused NEW as an order; None when its row is not to be had, or is another command's."""
        await self._watch.reach(sequence)
        row = await from_database(self._queries.order(sequence))
        return row if row is not None and row.market in self._mirror.registry.markets else None

    async def events_of(self, sequence: int) -> tuple[Reply, dict[int, str]]:
        """Events and texts of one command, from the engine's event log.

        Raises
        ------
        RuntimeFault
            The engine is not there, or does not keep them any more.
        """
        result = await self._link.query("events", sequence=sequence)
        rows = np.frombuffer(bytes.fromhex(result["events"]), EVENT).tolist()
        texts = {int(tag): bytes.fromhex(value).decode() for tag, value in result["text"]}
        return Reply(sequence, int(result["time_ns"]), rows), texts

    # Pages.

    async def open_orders(
        self, account: int, symbol: str | None, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """Queued orders, oldest first, then live ones, newest first."""
        market = None if symbol is None else market_of(self._mirror.registry, symbol)
        match = _CURSOR.fullmatch(cursor or _FIRST_PAGE)
        if match is None:
            raise Problem("invalid_parameter", "'cursor' is no cursor of this list.", field="cursor")
        complete = await self._watch.reach(self._mirror.sequence)
        orders: list[dict[str, Any]] = []
        part, position = match[1], int(match[2])
        if part == "q":
            waiting = await from_database(self._submissions.list_open(account, after=position, limit=limit))
            for queued in waiting:
                if queued.kind == "order" and (market is None or queued.request["symbol"] == market.symbol):
                    orders.append(await self._queued(queued))
            if len(waiting) == limit:
                return {"orders": orders, "next_cursor": f"q{waiting[-1].accepted_no}"}
            if not complete:
                # The rows lack what was released last; what this gateway saw stands in for it.
                orders += [
                    view.document(self._market(view.market))
                    for view in self._mirror.orders.created_after(account, self._watch.sequence)[:limit]
                    if view.live and (market is None or view.market == market.number)
                ][: max(0, limit - len(orders) - 1)]
        before = {"before": position} if part == "s" else {}
        rest = limit - len(orders)
        number = None if market is None else market.number
        rows = await from_database(self._queries.open_orders(account, market=number, limit=rest, **before))
        shown = {order["order_id"] for order in orders}
        for row in rows:
            view = self._mirror.orders.get(row.order_id)
            if row.public_id in shown:
                continue
            if view is None:
                orders.append(await self._row_document(row))
            elif view.live:
                orders.append(view.document(self._market(view.market)))
        next_cursor = f"s{rows[-1].created_sequence}" if len(rows) == rest else None
        return {"orders": orders, "next_cursor": next_cursor}

    async def fills(self, account: int, symbol: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
        """Fills, newest first; with a symbol a page may hold fewer than `limit`."""
        market = None if symbol is None else market_of(self._mirror.registry, symbol)
        before: dict[str, Any] = {}
        if cursor is not None:
            match = _FILL_CURSOR.fullmatch(cursor)
            if match is None:
                raise Problem("invalid_parameter", "'cursor' is no cursor of this list.", field="cursor")
            before["before"] = (int(match[1]), int(match[2]), int(match[3]))
        await self._watch.reach(self._mirror.sequence)
        rows = await from_database(self._queries.fills(account, limit=limit, **before))
        next_cursor = f"{rows[-1].sequence}-{rows[-1].number}-{rows[-1].side}" if len(rows) == limit else None
        return {
            "fills": [
                self._fill_document(row, short=False)
                for row in rows
                if market is None or row.market == market.number
            ],
            "next_cursor": next_cursor,
        }

    def _fill_document(self, fill: FillRow, *, short: bool) -> dict[str, Any]:
        market = self._market(fill.market)
        document = {
            "trade_id": fill.trade_id,
            "price": market.price_text(fill.price),
            "quantity": market.quantity_text(fill.quantity),
            "fee": market.quote.amount_text(fill.fee),
            "liquidity": "taker" if fill.taker else "maker",
        }
        if short:
            return document
        return {
            **document,
            "order_id": fill.public_order_id,
            "symbol": market.symbol,
            "side": SIDE_TEXTS[fill.side],
            "sequence": fill.sequence,
            "time": time_text(fill.created_at),
        }

    async def trades(self, market: int, count: int) -> list[tuple[str, int, int, int, int, int]]:
        """A market's last trades from the rows, oldest first."""
        rows = await from_database(self._queries.trades(market, limit=count))
        return [
            (
                row.trade_id, row.price, row.quantity, row.taker_side, row.sequence,
                datetime_ns(row.created_at),
            )
            for row in reversed(rows)
        ]  # fmt: skip

    async def balances(self, account: int) -> dict[str, Any]:
        """Balances from the engine; while it is down from the rows, with their time."""
        cache = self._mirror.balances
        known = cache.get(account)
        if known is None and self._link.connected:
            cache.watch(account)
            try:
                result = await self._link.query("balances", account=account)
            except RuntimeFault as fault:
                raise Problem("unavailable", "The engine went away; try again.") from fault
            rows = [(int(r["asset"]), int(r["available"]), int(r["held"])) for r in result["balances"]]
            cache.complete(account, int(result["sequence"]), rows)
            known = cache.get(account)
        if known is not None:
            amounts = {asset: (available, held) for asset, (available, held, _) in known.items()}
            return self._balances_document(amounts, self._mirror.sequence, iso(self._mirror.time_ns))
        stored = await from_database(self._queries.balances(account))
        as_of = await from_database(self._queries.as_of())
        amounts = {row.asset: (row.available, row.held) for row in stored}
        return self._balances_document(amounts, as_of.sequence, iso(as_of.time_ns))

    def _balances_document(
        self, amounts: dict[int, tuple[int, int]], sequence: int, as_of: str
    ) -> dict[str, Any]:
        assets = self._mirror.registry.assets
        return {
            "balances": [
                {
                    "asset": assets[number].symbol,
                    "available": assets[number].amount_text(available),
                    "held": assets[number].amount_text(held),
                }
                for number, (available, held) in sorted(amounts.items())
            ],
            "sequence": sequence,
            "as_of": as_of,
        }

    # For order entry.

    async def live_names(self, account: int, market: int | None) -> list[tuple[int, int]]:
        """(order_id, slot) of the account's live orders, from the engine; raises RuntimeFault."""
        result = await self._link.query("orders", account=account)
        return [
            (int(row["order_id"]), int(row["slot"]))
            for row in result["orders"]
            if market is None or int(row["market"]) == market
        ]

    async def cancel_waiting(self, account: int, accepted_no: int) -> bool:
        """Cancel a submission that nobody has claimed; whether that was possible.

        Raises
        ------
        DatabaseError
            Nobody can tell.
        """
        return await self._submissions.cancel(accepted_no, account)

    async def resolved_name(self, account: int, accepted_no: int) -> str | None:
        """The live order that a submission became; None when it ended in the queue.

        Raises
        ------
        Problem
            order_not_found, or queued_order while it is being handed over.
        """
        queued = await from_database(self._submissions.get(accepted_no))
        if queued is None or queued.account != account or queued.kind != "order":
            raise _not_found(f"q{accepted_no}")
        if queued.state in _WAITING:
            detail = "The order is being handed to the engine; cancel again in a moment."
            raise Problem("queued_order", detail, field="order_id")
        if queued.state != "DONE" or queued.order_id is None or queued.outcome == "REJECTED":
            return None
        row = await self._row(queued.order_id)
        return None if row is None else row.public_id


def _not_found(public_id: str) -> Problem:
    return Problem(
        "order_not_found", f"No order of this account has the id {public_id[:64]!r}.", field="order_id"
    )
