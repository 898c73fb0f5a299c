"""What the gateway knows of the venue, from WELCOME and the events after it.

Everything here can be lost: a new connection brings a new WELCOME.  Events
come in sequence order, once, and only when they are durable, so what is shown
was never taken back.  One pass over a frame folds it into the registry, keys,
books, trades and orders, then each channel that somebody listens to gets at
most one message a frame (trades and orders: one each).

An order from before the last WELCOME has no view here.  When somebody listens
to its account, what happens to it is `wanted`: `reads` builds its state from
the row and the events since, and then publishes it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from api.gateway.balances import BalanceCache
from api.gateway.books import BOOKED, WINDOW_LEVELS, BookMirror, TradeRing, trade_document
from api.gateway.clock import iso
from api.gateway.hub import Channel, Hub
from api.gateway.keys import Key, Keys
from api.gateway.metrics import Metrics
from api.gateway.orders import (
    ACCEPTED,
    AMENDED,
    CANCELED,
    CLIENT_ORDER_ID,
    FILL,
    SELL,
    SIDE_TEXTS,
    TAKER,
    OrderView,
    Row,
)
from api.gateway.recent import RecentOrders
from api.gateway.registry import Registry
from api.identity import words_hash
from engine.types import AccountState, EventType, MarketState, VenueState
from persistence.identity import public_order_id
from persistence.text import TextTag, read_text

BALANCE = int(EventType.BALANCE)
WANTED_MAX = 10_000
"""Orders from before the WELCOME whose state is still to be published."""


class Mirror:
    """Registry, keys, books, trades and recent orders of one venue."""

    def __init__(self, metrics: Metrics, hub: Hub) -> None:
        self.registry = Registry()
        self.keys = Keys()
        self.orders = RecentOrders()
        self.wanted: dict[int, int] = {}
        """order_id → account of orders without a view that somebody should hear of."""
        self.balances = BalanceCache()
        self.books: dict[int, BookMirror] = {}
        self.trades: dict[int, TradeRing] = {}
        self.sequence = 0
        """Last released sequence seen."""
        self.epoch = 0
        self.time_ns = 0
        """Logged time of what was seen last."""
        self.venue_state = VenueState.RECOVERING
        self.loaded = False
        """Whether any WELCOME ever came."""
        self._metrics = metrics
        self._hub = hub
        self._handlers: dict[int, Callable[[Row, dict[str, Any]], None]] = {
            int(EventType.ASSET_OPENED): self._asset_opened,
            int(EventType.MARKET_OPENED): self._market_opened,
            int(EventType.ACCOUNT_OPENED): self._account_opened,
            int(EventType.KEY_ADDED): self._key_added,
            int(EventType.KEY_REVOKED): self._key_revoked,
            int(EventType.MARKET_STATE): self._market_state,
            int(EventType.VENUE_STATE): self._venue_state,
            int(EventType.ACCOUNT_STATE): self._account_state,
        }

    # The engine came up.

    def on_welcome(self, welcome: dict[str, Any]) -> None:
        """Load the snapshot that begins a connection."""
        sequence, epoch = int(welcome["sequence"]), int(welcome["epoch"])
        missed = self.loaded and sequence != self.sequence
        if missed:
            # What the cached orders became, and the trades between, stand in PostgreSQL.
            self.balances.clear()
            self._metrics.books_gaps.inc()
        if missed or not self.loaded:
            self.orders.restart(sequence)
            self.wanted.clear()
        changed = epoch != self.epoch
        self.registry.load(welcome["definitions"])
        self.keys.load(welcome["keys"])
        for number, state in welcome["market_states"].items():
            self.registry.markets[int(number)].state = MarketState(int(state))
        for number, price in welcome["last_prices"].items():
            self.registry.markets[int(number)].last_price = int(price)
        self.books = {number: BookMirror(market) for number, market in self.registry.markets.items()}
        for number, levels in welcome["books"].items():
            self.books[int(number)].load(levels["bids"], levels["asks"])
        known = {} if missed else self.trades
        self.trades = {
            number: TradeRing(market, sequence) for number, market in self.registry.markets.items()
        }
        for number, ring in known.items():
            if number in self.trades:
                self.trades[number] = ring
                ring.market = self.registry.markets[number]
        self.sequence, self.epoch = sequence, epoch
        self.time_ns = int(welcome["time_ns"])
        self.venue_state = VenueState(int(welcome["venue_state"]))
        self.loaded = True
        if changed:
            self._hub.announce_epoch(epoch)
        if missed:
            self._hub.announce_gap(epoch, sequence)
        for channel in self._hub.active("book"):
            channel.publish("snapshot", self.book_snapshot(channel.key))
        self._hub.check_keys()

    # Events.

    def on_events(
        self, epoch: int, first: int, last: int, time_ns: int, events: npt.NDArray[np.void], text: bytes
    ) -> None:
        """Fold one frame."""
        client_ids: dict[int, str] = {}
        definitions: dict[int, dict[str, Any]] = {}
        for index, tag, value in read_text(text):
            if tag == CLIENT_ORDER_ID:
                client_ids[first + index] = value.decode()
            elif tag == TextTag.DEFINITION:
                definitions[first + index] = orjson.loads(value)
        frame = _Frame(self, time_ns)
        trade_sequence = trade = 0
        orders = self.orders
        for row in events.tolist():
            kind = row[0]
            if row[2] & BOOKED:
                book = self.books[row[8]]
                book.fold(row)
                frame.books[row[8]] = book
            if kind == BALANCE:
                self.balances.fold(row)
                frame.balance(row)
            elif kind == FILL:
                taker = row[2] & TAKER
                if not taker:
                    # The maker's FILL comes first; both sides share the trade's number.
                    trade = trade + 1 if row[5] == trade_sequence else 1
                    trade_sequence = row[5]
                trade_id = f"{row[5]}-{trade}"
                view = orders.get(row[6])
                if view is not None:
                    view.fold(row, time_ns, trade_id)
                    frame.order(view)
                else:
                    orders.unseen(row, time_ns, trade_id)
                    frame.unseen(row)
                frame.fill(row, trade_id)
                if taker:
                    self.registry.markets[row[8]].last_price = row[9]
                    self.trades[row[8]].add(trade_id, row[9], row[10], row[2] & SELL, row[5], time_ns)
                    frame.trade(row[8])
            elif kind == ACCEPTED:
                view = OrderView(row, time_ns, client_ids.get(row[5]))
                orders.add(view)
                frame.order(view)
            elif kind in (CANCELED, AMENDED):
                view = orders.get(row[6])
                if view is not None:
                    view.fold(row, time_ns)
                    frame.order(view)
                else:
                    orders.unseen(row, time_ns)
                    frame.unseen(row)
            else:
                handler = self._handlers.get(kind)
                if handler is not None:
                    handler(row, definitions.get(row[5], {}))
        self.sequence, self.time_ns = last, time_ns
        frame.publish()

    def book_document(self, market: int, levels: int) -> dict[str, Any]:
        """Snapshot of a book."""
        book = self.books[market]
        return {
            "bids": book.levels(0, levels),
            "asks": book.levels(1, levels),
            "engine_sequence": self.sequence,
            "epoch": self.epoch,
            "checksum": book.checksum(),
            "as_of": iso(self.time_ns),
        }

    def book_snapshot(self, market: int) -> dict[str, Any]:
        """What a subscriber of a book starts from; the next delta is against it."""
        self.books[market].show()
        return self.book_document(market, WINDOW_LEVELS)

    def publish_order(self, view: OrderView) -> None:
        """Tell those who listen to its account what an order is now."""
        channel = self._hub.listening("orders", view.account)
        if channel is not None:
            channel.publish("order", {"order": view.document(self.registry.markets[view.market])})

    def want(self, order_id: int, account: int) -> None:
        """Have the state of an order without a view published, if there is room."""
        if order_id not in self.wanted and len(self.wanted) >= WANTED_MAX:
            channel = self._hub.listening("orders", account)
            if channel is not None:
                channel.skip()
            return
        self.wanted[order_id] = account

    def _asset_opened(self, row: Row, definition: dict[str, Any]) -> None:
        self.registry.add_asset(row[8], definition)

    def _market_opened(self, row: Row, definition: dict[str, Any]) -> None:
        number = row[8]
        self.registry.add_market(
            number,
            definition,
            base=row[7],
            quote=row[4],
            tick_atoms=row[9],
            lot_atoms=row[10],
            maker_fee_ppm=row[11],
            taker_fee_ppm=row[12],
        )
        self.books[number] = BookMirror(self.registry.markets[number])
        self.trades[number] = TradeRing(self.registry.markets[number], row[5])

    def _account_opened(self, row: Row, definition: dict[str, Any]) -> None:
        self.registry.add_account(row[7], definition)

    def _key_added(self, row: Row, _: dict[str, Any]) -> None:
        digest = words_hash((row[6], row[9], row[10], row[11]))
        self.keys.add(Key(digest, row[7], row[8], row[12], False))

    def _key_revoked(self, row: Row, _: dict[str, Any]) -> None:
        digest = words_hash((row[6], row[9], row[10], row[11]))
        self.keys.revoke(digest)
        self._hub.check_keys((digest,))

    def _market_state(self, row: Row, _: dict[str, Any]) -> None:
        self.registry.markets[row[8]].state = MarketState(row[12])

    def _venue_state(self, row: Row, _: dict[str, Any]) -> None:
        self.venue_state = VenueState(row[12])

    def _account_state(self, row: Row, _: dict[str, Any]) -> None:
        self.registry.accounts[row[7]].state = AccountState(row[12])

    @property
    def hub(self) -> Hub:
        """Where it publishes."""
        return self._hub


class _Frame:
    """What one frame changed for those who listen."""

    __slots__ = ("_balances", "_fills", "_hub", "_mirror", "_orders", "_time_ns", "_trades", "books")

    def __init__(self, mirror: Mirror, time_ns: int) -> None:
        self._mirror = mirror
        self._hub = mirror.hub
        self._time_ns = time_ns
        self._orders: dict[int, tuple[Channel, OrderView]] = {}
        self._balances: dict[tuple[int, int], tuple[Channel, Row]] = {}
        self._fills: list[tuple[Channel, Row, str]] = []
        self._trades: dict[int, int] = {}
        self.books: dict[int, BookMirror] = {}

    def order(self, view: OrderView) -> None:
        channel = self._hub.listening("orders", view.account)
        if channel is not None:
            self._orders[view.order_id] = (channel, view)

    def unseen(self, row: Row) -> None:
        if self._hub.listening("orders", row[7]) is not None:
            self._mirror.want(row[6], row[7])

    def balance(self, row: Row) -> None:
        channel = self._hub.listening("balances", row[7])
        if channel is not None:
            self._balances[(row[7], row[8])] = (channel, row)

    def fill(self, row: Row, trade_id: str) -> None:
        channel = self._hub.listening("fills", row[7])
        if channel is not None:
            self._fills.append((channel, row, trade_id))

    def trade(self, market: int) -> None:
        if self._hub.listening("trades", market) is not None:
            self._trades[market] = self._trades.get(market, 0) + 1

    def publish(self) -> None:
        registry, time_text = self._mirror.registry, iso(self._time_ns)
        for channel, view in self._orders.values():
            channel.publish("order", {"order": view.document(registry.markets[view.market])})
        for channel, row, trade_id in self._fills:
            market = registry.markets[row[8]]
            channel.publish(
                "fill",
                {"fill": fill_document_of_event(registry, row, trade_id, time_text), "symbol": market.symbol},
            )
        for channel, row in self._balances.values():
            asset = registry.assets[row[8]]
            channel.publish(
                "balance",
                {
                    "asset": asset.symbol,
                    "available": asset.amount_text(row[9]),
                    "held": asset.amount_text(row[10]),
                    "engine_sequence": row[5],
                },
            )
        for number, count in self._trades.items():
            channel_of_trades = self._hub.listening("trades", number)
            ring = self._mirror.trades[number]
            if channel_of_trades is not None:
                for trade in reversed(ring.newest(count)):
                    channel_of_trades.publish(
                        "trade", {"trade": trade_document(ring.market, trade, time_text)}
                    )
        for book in self.books.values():
            self._publish_book(book, time_text)

    def _publish_book(self, book: BookMirror, time_text: str) -> None:
        channel = self._hub.listening("book", book.market.number)
        if channel is None:
            book.pass_over()
            return
        bids, asks = book.delta()
        if not bids and not asks:
            return
        channel.publish(
            "delta",
            {
                "bids": bids,
                "asks": asks,
                "engine_sequence": self._mirror.sequence,
                "epoch": self._mirror.epoch,
                "checksum": book.checksum(),
                "as_of": time_text,
            },
        )


def fill_document_of_event(registry: Registry, row: Row, trade_id: str, time_text: str) -> dict[str, Any]:
    """A FILL event as the API shows it."""
    market = registry.markets[row[8]]
    return {
        "trade_id": trade_id,
        "price": market.price_text(row[9]),
        "quantity": market.quantity_text(row[10]),
        "fee": market.quote.amount_text(row[12]),
        "liquidity": "taker" if row[2] & TAKER else "maker",
        "order_id": public_order_id(row[6], row[4]),
        "symbol": market.symbol,
        "side": SIDE_TEXTS[row[2] & SELL],
        "sequence": row[5],
        "time": time_text,
    }
