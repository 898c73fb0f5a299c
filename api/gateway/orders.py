"""Orders as clients see them: folded from events, bounded in number.

`OrderView` is one order; `fold` moves it by one event.  `OrderCache` keeps the
most recently touched ones that this gateway saw being accepted.  It is a
cache: whatever it does not hold is read from PostgreSQL.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from api.decimals import to_units
from api.gateway.clock import iso
from api.gateway.registry import Market
from engine.types import CommandFlag, EventFlag, EventType, Reason
from persistence.identity import public_order_id
from persistence.text import TextTag

ORDERS_KEPT = 200_000
FILLS_KEPT = 100
"""Fills shown with an order; the rest is in GET /v1/fills."""

SIDE_TEXTS = ("buy", "sell")
TYPE_TEXTS = ("limit", "market")
TIME_IN_FORCE_TEXTS = ("GTC", "IOC", "FOK")

ACCEPTED = int(EventType.ACCEPTED)
REJECTED = int(EventType.REJECTED)
FILL = int(EventType.FILL)
RESTED = int(EventType.RESTED)
CANCELED = int(EventType.CANCELED)
AMENDED = int(EventType.AMENDED)
UNBOOKED = int(EventType.UNBOOKED)
DUPLICATE = int(EventType.DUPLICATE)
SELL = int(EventFlag.SELL)
TAKER = int(EventFlag.TAKER)
POST_ONLY = int(CommandFlag.POST_ONLY)
CLIENT_ORDER_ID = int(TextTag.CLIENT_ORDER_ID)

REASON_TEXTS = {int(reason): reason.name for reason in Reason}
REASON_TEXTS[int(Reason.NOT_OWNER)] = Reason.NOT_LIVE.name
"""As clients read them: another account's order is not to be told from one that is not live."""

Row = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int]
"""An EVENT as a tuple: type, version, flags, reason, slot, sequence, order_id, account, market,
price, quantity, leaves, amount."""


class OrderView:
    """One order's state; prices in ticks, quantities in lots, fees in quote atoms."""

    __slots__ = (
        "account",
        "client_order_id",
        "created_ns",
        "created_sequence",
        "filled",
        "fills",
        "leaves",
        "market",
        "notional",
        "order_id",
        "order_type",
        "post_only",
        "price",
        "quantity",
        "reason",
        "sequence",
        "side",
        "slot",
        "status",
        "time_in_force",
        "updated_ns",
    )

    def __init__(self, event: Row, time_ns: int, client_order_id: str | None) -> None:
        _, _, flags, _, slot, sequence, order_id, account, market, price, quantity, leaves, amount = event
        self.order_id = order_id
        self.slot = slot
        self.account = account
        self.market = market
        self.side = flags & SELL
        self.order_type = amount & 0xFF
        self.time_in_force = (amount >> 8) & 0xFF
        self.post_only = bool((amount >> 32) & POST_ONLY)
        self.price = price
        self.quantity = quantity
        self.leaves = leaves
        self.filled = 0
        self.notional = 0
        self.status = "NEW"
        self.reason: str | None = None
        self.client_order_id = client_order_id
        self.fills: list[tuple[str, int, int, int, bool]] = []
        self.created_ns = self.updated_ns = time_ns
        self.created_sequence = self.sequence = sequence

    @property
    def live(self) -> bool:
        """Whether it can still trade."""
        return self.status in ("NEW", "PARTIALLY_FILLED")

    def fold(self, event: Row, time_ns: int, trade_id: str = "") -> None:
        """Move by one event of this order."""
        kind = event[0]
        self.sequence = event[5]
        self.updated_ns = time_ns
        if kind == FILL:
            price, quantity = event[9], event[10]
            self.filled += quantity
            self.leaves = event[11]
            self.notional += price * quantity
            self.status = "PARTIALLY_FILLED" if self.leaves else "FILLED"
            if len(self.fills) < FILLS_KEPT:
                self.fills.append((trade_id, price, quantity, event[12], bool(event[2] & TAKER)))
        elif kind == CANCELED:
            self.leaves = 0
            self.status = "CANCELED"
            self.reason = REASON_TEXTS[event[3]]
        elif kind == AMENDED:
            self.price, self.quantity, self.leaves = event[9], event[10], event[11]

    def document(self, market: Market) -> dict[str, Any]:
        """The order's JSON."""
        price_text, quantity_text = market.price_text, market.quantity_text
        return {
            "order_id": public_order_id(self.order_id, self.slot),
            "client_order_id": self.client_order_id,
            "symbol": market.symbol,
            "side": SIDE_TEXTS[self.side],
            "type": TYPE_TEXTS[self.order_type],
            "time_in_force": TIME_IN_FORCE_TEXTS[self.time_in_force],
            "status": self.status,
            "quantity": quantity_text(self.quantity),
            "price": price_text(self.price) if self.price else None,
            "filled_quantity": quantity_text(self.filled),
            "remaining_quantity": quantity_text(self.leaves),
            "average_price": market.average_text(self.notional, self.filled) if self.filled else None,
            "fills": [
                {
                    "trade_id": trade_id,
                    "price": price_text(price),
                    "quantity": quantity_text(quantity),
                    "fee": market.quote.amount_text(fee),
                    "liquidity": "taker" if taker else "maker",
                }
                for trade_id, price, quantity, fee, taker in self.fills
            ],
            "reason": self.reason,
            "created_at": iso(self.created_ns),
            "updated_at": iso(self.updated_ns),
            "sequence": self.sequence,
            "post_only": self.post_only,
        }


def view_of_command(events: Iterable[Row], time_ns: int, client_order_id: str | None) -> OrderView | None:
    """The order that a NEW made, as of that command; None when it was not accepted."""
    view: OrderView | None = None
    trade = 0
    for event in events:
        kind = event[0]
        if kind == ACCEPTED:
            view = OrderView(event, time_ns, client_order_id)
        elif kind == FILL and view is not None:
            if event[2] & TAKER:
                trade += 1
                view.fold(event, time_ns, f"{event[5]}-{trade}")
        elif kind == CANCELED and view is not None and event[6] == view.order_id:
            view.fold(event, time_ns)
    return view


def document_as_of(
    document: dict[str, Any], market: Market, events: list[Row], sequence: int, time_ns: int
) -> dict[str, Any]:
    """An order's later document, taken back to what it was after an AMEND of it.

    Price, quantity and what was left come from the amend's events, the fills
    until then from the document; when it does not show all of them,
    `average_price` is None.
    """
    amended = next((event for event in events if event[0] == AMENDED), None)
    if amended is None:
        return document  # It ended the order: nothing came after.
    quantity, leaves = amended[10], amended[11]
    for event in events:
        if event[0] == FILL and event[6] == amended[6]:
            leaves = event[11]
    filled = quantity - leaves
    fills = [fill for fill in document["fills"] if int(fill["trade_id"].partition("-")[0]) <= sequence]
    lots = [to_units(fill["quantity"], market.lot_atoms, market.base.decimals) for fill in fills]
    ticks = [to_units(fill["price"], market.price_unit, market.price_scale) for fill in fills]
    notional = sum(lot * tick for lot, tick in zip(lots, ticks, strict=True))
    return {
        **document,
        "status": "NEW" if not filled else "PARTIALLY_FILLED" if leaves else "FILLED",
        "reason": None,
        "price": market.price_text(amended[9]),
        "quantity": market.quantity_text(quantity),
        "filled_quantity": market.quantity_text(filled),
        "remaining_quantity": market.quantity_text(leaves),
        "average_price": market.average_text(notional, filled) if filled and sum(lots) == filled else None,
        "fills": fills,
        "updated_at": iso(time_ns),
        "sequence": sequence,
    }


class OrderCache:
    """The most recently touched orders, at most `ORDERS_KEPT`."""

    def __init__(self, orders_max: int = ORDERS_KEPT) -> None:
        if orders_max < 1:
            raise ValueError(f"a cache of {orders_max} orders")
        self._orders: OrderedDict[int, OrderView] = OrderedDict()
        self._orders_max = orders_max

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, view: OrderView) -> None:
        """Keep a new order, dropping the one that was touched least recently."""
        self._orders[view.order_id] = view
        if len(self._orders) > self._orders_max:
            self._orders.popitem(last=False)

    def get(self, order_id: int) -> OrderView | None:
        """The order, when it is kept."""
        view = self._orders.get(order_id)
        if view is not None:
            self._orders.move_to_end(order_id)
        return view

    def created_after(self, account: int, sequence: int) -> list[OrderView]:
        """Kept orders of an account that were accepted after `sequence`, newest first; O(kept)."""
        found = [v for v in self._orders.values() if v.account == account and v.created_sequence > sequence]
        return sorted(found, key=lambda view: -view.created_sequence)

    def clear(self) -> None:
        """Forget all: events were missed."""
        self._orders.clear()
