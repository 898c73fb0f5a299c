"""What clients ask: orders, fills, balances, trades.

An order that this gateway saw lately is in the mirror.  Everything else is
rows, and the rows may be behind.  `recent` says from which sequence on rows and
memory together leave nothing out; when the rows are not there yet, they are
waited for, at most a second.  After that the answer is 503: never "no such
order", and never a page that is silently short.  Queued orders are rows of the
submissions queue, which gateways write themselves.

An order's fills, and what it was asked with, stand in its row alone.  While
rows are too far behind (a gateway restarted while the projector stands still)
the engine's event log has the order as it was made, which is enough as long as
nothing happened to it since, or only what this gateway saw.
"""

import re
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import orjson

from api.gateway.batcher import Reply
from api.gateway.books import TRADES_KEPT, TradeRing
from api.gateway.clock import datetime_ns, iso
from api.gateway.errors import Problem
from api.gateway.http import Outcome
from api.gateway.mirror import Mirror
from api.gateway.orders import (
    ACCEPTED,
    AMENDED,
    CANCELED,
    CLIENT_ORDER_ID,
    FILL,
    POST_ONLY,
    REASON_TEXTS,
    REJECTED,
    SELL,
    SIDE_TEXTS,
    TAKER,
    UNBOOKED,
    OrderView,
    Row,
    view_of_command,
)
from api.gateway.registry import Market
from api.gateway.validation import market_of, order_name
from api.gateway.watch import ProjectionWatch
from api.identity import digest_pair
from api.runtime.errors import RuntimeFault
from api.runtime.link import EngineLink
from engine.types import EVENT, IDEMPOTENCY_WINDOW_NS, NO_SLOT, QUEUED, CommandType, VenueState
from persistence.identity import public_order_id
from persistence.postgres.errors import DatabaseError
from persistence.postgres.queries import FillRow, OrderRow, OrderStatus, Queries
from persistence.postgres.submissions import Queued, Submissions

_FIRST_PAGE = "q0"
_NEWEST = 10**18 - 1
_CURSOR = re.compile(r"([qs])([0-9]{1,18})")
_FILL_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,9})-([01])")
_WAITING = ("QUEUED", "CLAIMED")
_KEY_WINDOW = timedelta(microseconds=IDEMPOTENCY_WINDOW_NS // 1000)
_OF_AN_ORDER = (ACCEPTED, AMENDED, CANCELED, UNBOOKED)
_CHANGES = (AMENDED, CANCELED, FILL)
WANTED_AT_ONCE = 500
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


def behind() -> Problem:
    """The rows do not hold yet what was released."""
    return Problem("unavailable", "The rows are behind what the engine has released; try again.")


def view_of_row(row: OrderRow) -> OrderView:
    """An accepted order as its row has it."""
    flags = SELL if row.side else 0
    amount = (row.order_type or 0) | (row.time_in_force or 0) << 8 | (POST_ONLY << 32 if row.post_only else 0)
    made: Row = (
        ACCEPTED, 0, flags, 0, row.slot, row.created_sequence, row.order_id, row.account, row.market,
        row.price, row.quantity, row.leaves, amount,
    )  # fmt: skip
    view = OrderView(made, datetime_ns(row.created_at), row.client_order_id)
    view.filled, view.notional = row.filled, row.notional
    view.status = row.status.name
    view.reason = None if row.reason == 0 else REASON_TEXTS[row.reason]
    view.fills = [(fill.trade_id, fill.price, fill.quantity, fill.fee, fill.taker) for fill in row.fills]
    view.updated_ns, view.sequence = datetime_ns(row.updated_at), row.updated_sequence
    return view


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
        watch.after_each_look(self._publish_wanted)

    # One order.

    async def order(self, account: int, public_id: str) -> dict[str, Any]:
        """An order by its name.

        Raises
        ------
        Problem
            order_not_found also when it is another account's; unavailable.
        """
        order_id, slot = order_name(public_id)
        view = self._view(order_id)
        if view is None:
            if order_id & QUEUED:
                queued = await self._submission(order_id ^ QUEUED)
                if queued is None or queued.account != account:
                    raise _not_found(public_id)
                return await self._queued(queued)
            view = await self._find(order_id, slot)
        if view is None or view.account != account or public_order_id(order_id, view.slot) != public_id:
            raise _not_found(public_id)
        return self._document(view)

    def _view(self, order_id: int) -> OrderView | None:
        """What memory has; nothing when the rows know more than a gateway without an engine."""
        if not self._link.connected and self._watch.sequence > self._mirror.sequence:
            return None
        return self._mirror.orders.get(order_id)

    async def _rows_at(self) -> int:
        """What rows that are read from now on are at least the state after; far enough if that can be."""
        await self._watch.reach(self._mirror.orders.complete_from)
        return self._watch.sequence

    def _document(self, view: OrderView) -> dict[str, Any]:
        return view.document(self._market(view.market))

    async def _find(self, order_id: int, slot: int) -> OrderView | None:
        """An order that memory does not have; None when it was never accepted."""
        orders = self._mirror.orders
        rows_at = await self._rows_at()
        row = await from_database(self._queries.order(order_id))
        view = self._view(order_id)
        if view is not None:
            return view
        if row is not None:
            if row.status == OrderStatus.REJECTED:
                return None
            if row.status >= OrderStatus.FILLED or rows_at >= orders.complete_from:
                return self._folded(row)
        elif rows_at >= orders.complete_from:
            return None
        elif not order_id & QUEUED and (order_id <= rows_at or order_id > self._mirror.sequence):
            # Its name is the sequence that made it: the rows would have it, or nobody has yet.
            return None
        view = await self._from_engine(order_id, slot)
        if view is None:
            raise behind()
        return view

    def _folded(self, row: OrderRow) -> OrderView:
        """A row, and what happened since."""
        view = view_of_row(row)
        for event in self._mirror.orders.after(row.order_id, row.updated_sequence):
            view.fold(*event)
        return view

    def _current(self, row: OrderRow, rows_at: int) -> OrderView:
        """The order of a row that was read when rows were at least at `rows_at`."""
        view = self._view(row.order_id)
        if view is not None:
            return view
        if row.status < OrderStatus.FILLED and rows_at < self._mirror.orders.complete_from:
            raise behind()
        return self._folded(row)

    async def _made(self, order_id: int, sequence: int) -> OrderView | None:
        """An order as its own command left it, from the engine's event log.

        Parameters
        ----------
        sequence : int
            Of its command, or a guess.
        """
        try:
            reply, texts = await self.events_of(sequence)
        except RuntimeFault:
            # Not there, or not kept any more: then only the rows can tell.
            return None
        view = view_of_command(reply.events, reply.time_ns, texts.get(CLIENT_ORDER_ID))
        return view if view is not None and view.order_id == order_id else None

    async def _live(self, order_id: int, slot: int) -> dict[str, Any] | None:
        """A live order's numbers from the engine."""
        try:
            live = (await self._link.query("order", order_id=order_id, slot=slot))["order"]
        except RuntimeFault:
            return None
        return None if live is None else dict(live)

    async def _from_engine(self, order_id: int, slot: int) -> OrderView | None:
        """The order from the engine, if what it was made as and what was seen since is all there is."""
        sequence = order_id
        if order_id & QUEUED:
            live = await self._live(order_id, slot)
            if live is None:
                return None
            # An order that kept its priority has it from its own command.
            sequence = live["priority"]
        view = await self._made(order_id, sequence)
        if view is None or not view.live:
            return view
        live = await self._live(order_id, slot)
        for event in self._mirror.orders.after(order_id, view.sequence):
            row = event.row
            if row[0] == CANCELED and (row[10], row[12]) != (view.leaves, view.filled):
                return None
            view.fold(*event)
        if live is None:
            return None if view.live else view
        known = (view.price, view.quantity, view.filled, view.leaves)
        return view if known == (live["price"], live["quantity"], live["filled"], live["leaves"]) else None

    async def _queued(self, queued: Queued) -> dict[str, Any]:
        """A submission: as it waits, or what it became."""
        if queued.state in _WAITING:
            view = self._view(QUEUED | queued.accepted_no) if queued.kind == "order" else None
            if view is not None:
                return self._document(view)
            if self._drained:
                # It cannot wait: the rows do not know yet what it became.
                if queued.kind == "order":
                    view = await self._from_engine(QUEUED | queued.accepted_no, NO_SLOT)
                    if view is not None:
                        return self._document(view)
                if not await self._watch.reach(self._mirror.sequence):
                    raise behind()
                queued = await self._submission(queued.accepted_no) or queued
        name = f"q{queued.accepted_no}"
        document = self._waiting_document(queued)
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
            rows_at = await self._rows_at()
            row = await from_database(self._queries.order(queued.order_id))
            if row is not None and row.status == OrderStatus.REJECTED:
                return self._rejected_document(row)
            if row is not None:
                return self._document(self._current(row, rows_at))
        reason_code = queued.reason
        if queued.outcome == "DUPLICATE" and queued.sequence is not None:
            refused = await from_database(self._queries.rejection(queued.sequence))
            reason_code = refused.reason if refused is not None else reason_code
        document["status"] = "REJECTED"
        document["reason"] = REASON_TEXTS[reason_code]
        document["remaining_quantity"] = document["filled_quantity"]
        return document

    async def _submission(self, accepted_no: int) -> Queued | None:
        return await from_database(self._submissions.get(accepted_no))

    @property
    def _drained(self) -> bool:
        """Whether the engine has answered all of the queue."""
        state = self._mirror.venue_state
        return self._link.connected and state not in (VenueState.RECOVERING, VenueState.DRAINING)

    @staticmethod
    def _waiting_document(queued: Queued) -> dict[str, Any]:
        return {**queued.request, "order_id": queued.request["order_id"] or f"q{queued.accepted_no}"}

    def _row_document(self, row: OrderRow, rows_at: int) -> dict[str, Any]:
        if row.status == OrderStatus.REJECTED:
            return self._rejected_document(row)
        return self._document(self._current(row, rows_at))

    def _rejected_document(self, row: OrderRow) -> dict[str, Any]:
        """A refused order: the core does not say what it refused to read."""
        market = self._market(row.market)
        return {
            "order_id": row.public_id,
            "client_order_id": row.client_order_id,
            "symbol": market.symbol,
            "side": SIDE_TEXTS[row.side],
            "type": None,
            "time_in_force": None,
            "status": row.status.name,
            "quantity": market.quantity_text(row.quantity),
            "price": market.price_text(row.price) if row.price else None,
            "filled_quantity": market.quantity_text(0),
            "remaining_quantity": market.quantity_text(0),
            "average_price": None,
            "fills": [],
            "reason": REASON_TEXTS[row.reason],
            "created_at": time_text(row.created_at),
            "updated_at": time_text(row.updated_at),
            "sequence": row.updated_sequence,
            "post_only": False,
        }

    def _market(self, number: int) -> Market:
        market = self._mirror.registry.markets.get(number)
        if market is None:
            raise Problem("unavailable", "The gateway has not heard from the engine yet.")
        return market

    async def symbol_of(self, account: int, public_id: str) -> str:
        """The market of an order, which must be the account's; a live one needs no rows."""
        order_id, slot = order_name(public_id)
        if self._view(order_id) is None:
            live = await self._live(order_id, slot)
            if live is not None and live["account"] == account:
                return self._market(live["market"]).symbol
        return str((await self.order(account, public_id))["symbol"])

    async def changed(self, account: int, public_id: str, events: list[Row], time_ns: int) -> dict[str, Any]:
        """An order that a command of its owner has just changed or ended, with or without rows.

        Without them `average_price` and `fills` may lack what was traded before
        this gateway began: then `as_of` is the time that they are from.

        Parameters
        ----------
        events : list of Row
            Of the command, an AMENDED or CANCELED of the order among them.
        """
        order_id, _ = order_name(public_id)
        own = [event for event in events if event[6] == order_id and event[0] in _CHANGES]
        enough = self._view(order_id) or self._watch.sequence >= self._mirror.orders.complete_from
        if enough or not own:
            try:
                return await self.order(account, public_id)
            except Problem as problem:
                if problem.code != "unavailable" or not own:
                    raise
        made = await self._made(order_id, order_id)
        view = made or OrderView((ACCEPTED, *own[0][1:12], 0), time_ns, None)
        as_of = None if made else time_ns
        for event in own:
            if event[0] == FILL:
                number = sum(1 for each in events[: events.index(event) + 1] if each[2] & TAKER)
                view.fold(event, time_ns, f"{event[5]}-{number}")
                continue
            filled = event[12] if event[0] == CANCELED else event[10] - event[11]
            if filled != view.filled:
                as_of = as_of or view.updated_ns
                view.filled, view.status = filled, "PARTIALLY_FILLED"
            if event[0] == CANCELED:
                view.price, view.quantity = event[9], event[10] + filled
            view.fold(event, time_ns)
        document = self._document(view)
        if made is None:
            document |= {"type": None, "time_in_force": None}
        return document if as_of is None else {**document, "average_price": None, "as_of": iso(as_of)}

    async def by_client_order_id(self, account: int, client_order_id: str) -> dict[str, Any]:
        """The newest order with this client_order_id, queued ones included."""
        number = await from_database(self._queries.waiting_by_client_id(account, client_order_id))
        queued = None if number is None else await self._submission(number)
        if queued is not None:
            return await self._queued(queued)
        caught_up = await self._watch.reach(self._mirror.sequence)
        rows_at = self._watch.sequence
        row = await from_database(self._queries.order_by_client_id(account, client_order_id))
        since = (
            view
            for view in self._mirror.orders.created_after(account, rows_at)
            if view.client_order_id == client_order_id
        )
        view = next(since, None)
        if row is not None and (view is None or row.created_sequence > view.created_sequence):
            if row.status == OrderStatus.REJECTED:
                if caught_up:
                    return self._rejected_document(row)
            else:
                view = self._current(row, rows_at)
        # While an order with an id is live, no other with that id is accepted: it is the newest.
        if view is not None and (caught_up or view.live):
            return self._document(view)
        if not caught_up:
            raise behind()
        raise Problem(
            "order_not_found", "No order of this account has that client_order_id.", field="client_order_id"
        )

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
        if queued is None or queued.state in _WAITING:
            # The engine has what is younger than the window. Without it the rows have to be as new as can be.
            if as_of is None:
                await self._watch.reach(self._mirror.sequence)
            rows_at = await self._rows_at()
            row = await from_database(self._queries.order_by_key(account, key))
            if row is not None and (queued is None or row.created_at > queued.accepted_at - _KEY_WINDOW):
                # What waits under a key that was used is a repetition, and will be answered with this.
                return Outcome(200, orjson.dumps(self._row_document(row, rows_at)))
        if queued is not None:
            return Outcome(200, orjson.dumps(await self._queued(queued)))
        if as_of is None:
            detail = "The engine is down: whether it saw this key is known after its recovery."
            raise Problem("unknown_outcome", detail, field="idempotency_key")
        raise Problem("never_seen", "No request had this key.", field="idempotency_key", sequence=as_of)

    async def _outcome_of(self, account: int, sequence: int) -> dict[str, Any]:
        """An order, or what became of a request that is none (`openapi.RequestOutcome`)."""
        reply, texts = await self.events_of(sequence)
        first = reply.events[0]
        if first[0] in _OF_AN_ORDER:
            return await self.order(account, public_order_id(first[6], first[4]))
        refused = first[0] == REJECTED
        if refused and first[12] == CommandType.NEW and first[8] in self._mirror.registry.markets:
            return self._refused_document(first, reply.time_ns, texts.get(CLIENT_ORDER_ID))
        return {
            "status": "REJECTED" if refused else "DONE",
            "reason": REASON_TEXTS[first[3]] if refused else None,
            "sequence": sequence,
            "created_at": iso(reply.time_ns),
        }

    def _refused_document(self, event: Row, time_ns: int, client_order_id: str | None) -> dict[str, Any]:
        """The same as `_rejected_document`, from the event: it needs no rows."""
        market, at = self._market(event[8]), iso(time_ns)
        return {
            "order_id": public_order_id(event[6] or event[5], event[4]),
            "client_order_id": client_order_id,
            "symbol": market.symbol,
            "side": SIDE_TEXTS[event[2] & SELL],
            "type": None,
            "time_in_force": None,
            "status": "REJECTED",
            "quantity": market.quantity_text(event[10]),
            "price": market.price_text(event[9]) if event[9] else None,
            "filled_quantity": market.quantity_text(0),
            "remaining_quantity": market.quantity_text(0),
            "average_price": None,
            "fills": [],
            "reason": REASON_TEXTS[event[3]],
            "created_at": at,
            "updated_at": at,
            "sequence": event[5],
            "post_only": False,
        }

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
        """What came by the queue (waiting, then live), oldest number first; then the rest, newest first.

        An order of the queue keeps its number when it becomes live, and with it
        its place in the list: one that is taken between two pages is neither
        listed twice nor left out.
        """
        market = None if symbol is None else market_of(self._mirror.registry, symbol)
        match = _CURSOR.fullmatch(cursor or _FIRST_PAGE)
        if match is None:
            raise Problem("invalid_parameter", "'cursor' is no cursor of this list.", field="cursor")
        rows_at = await self._rows_at()
        part, position = match[1], int(match[2])
        orders: list[dict[str, Any]] = []
        next_cursor: str | None = None
        if part == "q":
            orders, next_cursor = await self._queue_page(account, market, limit, position, rows_at)
            position = _NEWEST
        if next_cursor is None:
            rest = limit - len(orders)
            if rest:
                more, next_cursor = await self._live_page(account, market, rest, position, rows_at)
                orders += more
            else:
                next_cursor = f"s{position}"
        if rows_at < self._mirror.orders.complete_from:
            raise behind()
        return {"orders": orders, "next_cursor": next_cursor}

    async def _queue_page(
        self, account: int, market: Market | None, limit: int, after: int, rows_at: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Orders of the queue past number `after`; None when there are no more."""
        # In this order: what is taken in between is in both, and would else be in neither.
        waiting = await from_database(self._submissions.list_open(account, after=after, limit=limit))
        if waiting and self._drained:
            if not await self._watch.reach(self._mirror.sequence):
                raise behind()
            waiting = await from_database(self._submissions.list_open(account, after=after, limit=limit))
        number = None if market is None else market.number
        rows = await from_database(
            self._queries.open_queued_orders(account, market=number, after=after, limit=limit)
        )
        found: dict[int, dict[str, Any] | None] = {}
        for queued in waiting:
            shown = queued.kind == "order" and market in (None, self._named(queued.request["symbol"]))
            found[queued.accepted_no] = self._waiting_document(queued) if shown else None
        for row in rows:
            view = self._current(row, rows_at)
            found[row.order_id ^ QUEUED] = self._document(view) if view.live else None
        for view in self._made_since(account, rows_at):
            if view.order_id & QUEUED and view.order_id ^ QUEUED > after:
                shown = view.live and market in (None, self._market(view.market))
                found[view.order_id ^ QUEUED] = self._document(view) if shown else None
        # Beyond the end of a list that is full there may be others.
        ends = [waiting[-1].accepted_no] if len(waiting) == limit else []
        ends += [rows[-1].order_id ^ QUEUED] if len(rows) == limit else []
        bound = min(ends) if ends else None
        numbers = sorted(n for n in found if bound is None or n <= bound)
        page: list[dict[str, Any]] = []
        for each in numbers:
            document = found[each]
            if document is not None:
                page.append(document)
            if len(page) == limit:
                return page, f"q{each}"
        return page, None if bound is None else f"q{bound}"

    async def _live_page(
        self, account: int, market: Market | None, limit: int, before: int, rows_at: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Live orders that did not come by the queue, made before sequence `before`."""
        number = None if market is None else market.number
        rows = await from_database(
            self._queries.open_orders(account, market=number, before=before, limit=limit)
        )
        found = {row.created_sequence: self._current(row, rows_at) for row in rows}
        for view in self._made_since(account, rows_at):
            wanted = market is None or view.market == market.number
            if wanted and not view.order_id & QUEUED and view.created_sequence < before:
                found[view.created_sequence] = view
        end = rows[-1].created_sequence if len(rows) == limit else 0
        page: list[dict[str, Any]] = []
        for sequence in sorted((each for each in found if each >= end), reverse=True):
            if found[sequence].live:
                page.append(self._document(found[sequence]))
            if len(page) == limit:
                return page, f"s{sequence}"
        return page, f"s{end}" if end else None

    def _made_since(self, account: int, rows_at: int) -> list[OrderView]:
        """What the rows may lack of an account's orders."""
        return self._mirror.orders.created_after(account, rows_at)

    def _named(self, symbol: str) -> Market | None:
        return self._mirror.registry.markets_by_symbol.get(symbol)

    async def fills(self, account: int, symbol: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
        """Fills, newest first; with a symbol a page may hold fewer than `limit`."""
        market = None if symbol is None else market_of(self._mirror.registry, symbol)
        before: dict[str, Any] = {}
        needed = self._mirror.sequence
        if cursor is not None:
            match = _FILL_CURSOR.fullmatch(cursor)
            if match is None:
                raise Problem("invalid_parameter", "'cursor' is no cursor of this list.", field="cursor")
            before["before"] = (int(match[1]), int(match[2]), int(match[3]))
            needed = min(needed, int(match[1]))
        if not await self._watch.reach(needed):
            raise behind()
        rows = await from_database(self._queries.fills(account, limit=limit, **before))
        next_cursor = f"{rows[-1].sequence}-{rows[-1].number}-{rows[-1].side}" if len(rows) == limit else None
        return {
            "fills": [
                self._fill_document(row) for row in rows if market is None or row.market == market.number
            ],
            "next_cursor": next_cursor,
        }

    def _fill_document(self, fill: FillRow) -> dict[str, Any]:
        market = self._market(fill.market)
        return {
            "trade_id": fill.trade_id,
            "price": market.price_text(fill.price),
            "quantity": market.quantity_text(fill.quantity),
            "fee": market.quote.amount_text(fill.fee),
            "liquidity": "taker" if fill.taker else "maker",
            "order_id": fill.public_order_id,
            "symbol": market.symbol,
            "side": SIDE_TEXTS[fill.side],
            "sequence": fill.sequence,
            "time": time_text(fill.created_at),
        }

    async def complete(self, ring: TradeRing) -> None:
        """Put the trades from before this gateway listened into a ring, once the rows have them all."""
        if not await self._watch.reach(ring.since):
            raise behind()
        rows = await from_database(self._queries.trades(ring.market.number, limit=TRADES_KEPT))
        ring.fill(
            [
                (
                    row.trade_id, row.price, row.quantity, row.taker_side, row.sequence,
                    datetime_ns(row.created_at),
                )
                for row in reversed(rows)
            ]
        )  # fmt: skip

    async def balances(self, account: int) -> dict[str, Any]:
        """Balances from the engine; while it is down from the rows, with their time."""
        cache, mirror = self._mirror.balances, self._mirror
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
            if known is None:
                # Events were missed, or the account was dropped, while the engine answered.
                raise Problem("unavailable", "The engine went away; try again.")
        if known is not None:
            amounts = {asset: (available, held) for asset, (available, held, _) in known.items()}
            return self._balances_document(amounts, mirror.sequence, iso(mirror.time_ns))
        stored, as_of = await from_database(self._queries.balances(account))
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
        row = await from_database(self._queries.order(queued.order_id))
        return None if row is None else row.public_id

    # For those who listen.

    async def _publish_wanted(self) -> bool:
        """Publish orders from before the WELCOME to which something happened; whether any are left."""
        mirror, orders = self._mirror, self._mirror.orders
        rows_at = self._watch.sequence
        if not mirror.wanted or not self._watch.up or rows_at < orders.complete_from:
            return bool(mirror.wanted)
        wanted = list(mirror.wanted)[:WANTED_AT_ONCE]
        try:
            rows = await self._queries.orders(wanted)
        except DatabaseError:
            return True
        if rows_at < orders.complete_from:
            return True
        for view in sorted((self._folded(row) for row in rows), key=lambda view: view.sequence):
            if mirror.wanted.pop(view.order_id, None) is not None:
                mirror.publish_order(view)
                if view.live and view.sequence <= mirror.sequence:
                    orders.adopt(view)
        for order_id in wanted:
            mirror.wanted.pop(order_id, None)
        return bool(mirror.wanted)


def _not_found(public_id: str) -> Problem:
    return Problem(
        "order_not_found", f"No order of this account has the id {public_id[:64]!r}.", field="order_id"
    )
