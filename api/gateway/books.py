"""Market data mirrored from the events: L2 books and the last trades.

A book is rebuilt from events alone (engine/README.md, "Events"): what is
BOOKED adds, subtracts or moves quantity at a price.  The checksum of a book is
the CRC32C of the ASCII text of its ten best bids, then its ten best asks, each
``price:quantity;`` as the API prints them.
"""

from collections import deque
from typing import Any

from sortedcontainers import SortedDict

from api.gateway.orders import ACCEPTED, AMENDED, CANCELED, FILL, RESTED, SELL, UNBOOKED, Row
from api.gateway.registry import Market
from engine.types import EventFlag
from persistence.crc32c import crc32c

BOOKED = int(EventFlag.BOOKED)
CHECKSUM_LEVELS = 10
TRADES_KEPT = 1_000
LEVELS_MAX = 1_000
WINDOW_LEVELS = 100
"""Levels a side that the channel shows: a subscriber has exactly these."""

Window = dict[int, tuple[int, int]]
"""Key in the side (ascending from the best) → quantity, orders."""


class BookMirror:
    """One market's levels: price → [quantity, orders], per side; keys ascend from the best."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._sides: tuple[SortedDict, SortedDict] = (SortedDict(), SortedDict())
        self._changed: tuple[set[int], set[int]] = (set(), set())
        self._shown: tuple[Window, Window] = ({}, {})

    def load(self, bids: list[list[int]], asks: list[list[int]]) -> None:
        """Replace the book by a snapshot of [price, quantity, orders] levels."""
        for side, levels in enumerate((bids, asks)):
            self._sides[side].clear()
            for price, quantity, orders in levels:
                self._sides[side][self._key(side, price)] = [quantity, orders]
        self.show()

    @staticmethod
    def _key(side: int, price: int) -> int:
        return price if side else -price

    def fold(self, event: Row) -> None:
        """Apply one event whose BOOKED flag is set."""
        kind = event[0]
        if kind in (ACCEPTED, RESTED):
            quantity, orders = event[11], 1
        elif kind == FILL:
            quantity, orders = -event[10], 0 if event[11] else -1
        elif kind in (CANCELED, UNBOOKED):
            quantity, orders = -event[10], -1
        elif kind == AMENDED:
            quantity, orders = -event[12], 0
        else:
            return
        side, price = event[2] & SELL, event[9]
        levels, key = self._sides[side], self._key(side, price)
        level = levels.get(key)
        if level is None:
            levels[key] = [quantity, orders]
        else:
            level[0] += quantity
            level[1] += orders
            if level[1] <= 0:
                del levels[key]
        self._changed[side].add(key)

    # What the channel shows.

    def _window(self, side: int) -> Window:
        levels = self._sides[side]
        return {key: (levels[key][0], levels[key][1]) for key in levels.islice(0, WINDOW_LEVELS)}

    def show(self) -> None:
        """Begin to show: what subscribers have is the best `WINDOW_LEVELS` of now."""
        self._shown = (self._window(0), self._window(1))
        for changed in self._changed:
            changed.clear()

    def pass_over(self) -> None:
        """Nobody is shown what changed."""
        for changed in self._changed:
            changed.clear()

    def delta(self) -> tuple[list[tuple[str, str, int]], list[tuple[str, str, int]]]:
        """Per side the levels in which the window differs from what was shown, best first; "0", 0: gone.

        A level that leaves the window because better ones came is gone, and one
        that enters because better ones went is there: whoever applies every
        delta to the snapshot has the best `WINDOW_LEVELS`, no more and no less.
        """
        return (self._side_delta(0), self._side_delta(1))

    def _side_delta(self, side: int) -> list[tuple[str, str, int]]:
        changed, shown = self._changed[side], self._shown[side]
        if not changed or (len(shown) == WINDOW_LEVELS and min(changed) > next(reversed(shown))):
            changed.clear()
            return []
        changed.clear()
        window = self._window(side)
        self._shown = (window, self._shown[1]) if side == 0 else (self._shown[0], window)
        price_text, quantity_text = self.market.price_text, self.market.quantity_text
        rows: list[tuple[str, str, int]] = []
        for key in sorted(shown.keys() | window.keys()):
            level = window.get(key)
            if level is None:
                rows.append((price_text(abs(key)), "0", 0))
            elif level != shown.get(key):
                rows.append((price_text(abs(key)), quantity_text(level[0]), level[1]))
        return rows

    def levels(self, side: int, count: int) -> list[tuple[str, str, int]]:
        """The best `count` levels as texts."""
        price_text, quantity_text = self.market.price_text, self.market.quantity_text
        return [
            (price_text(abs(key)), quantity_text(level[0]), level[1])
            for key, level in zip(
                self._sides[side].islice(0, count), self._sides[side].values(), strict=False
            )
        ]

    def checksum(self) -> int:
        """CRC32C of the best ten levels of both sides."""
        text = "".join(
            f"{price}:{quantity};"
            for side in (0, 1)
            for price, quantity, _ in self.levels(side, CHECKSUM_LEVELS)
        )
        return crc32c(text.encode())


class TradeRing:
    """The last trades of a market, bounded.

    Parameters
    ----------
    since : int
        Sequence after which every trade was seen; the rows have to be asked for those before.
    """

    def __init__(self, market: Market, since: int = 0) -> None:
        self.market = market
        self.since = since
        self._trades: deque[tuple[str, int, int, int, int, int]] = deque(maxlen=TRADES_KEPT)
        self.complete = False
        """Whether the trades from before this gateway listened are in it."""

    def add(
        self, trade_id: str, price: int, quantity: int, taker_side: int, sequence: int, time_ns: int
    ) -> None:
        """A trade happened."""
        self._trades.append((trade_id, price, quantity, taker_side, sequence, time_ns))

    @property
    def count(self) -> int:
        """How many are kept."""
        return len(self._trades)

    def fill(self, older: list[tuple[str, int, int, int, int, int]]) -> None:
        """Put trades from before this gateway listened (oldest first) in front, once."""
        first = self._trades[0][4] if self._trades else None
        seen = list(self._trades)
        self._trades.clear()
        self._trades.extend(trade for trade in older if first is None or trade[4] < first)
        self._trades.extend(seen)
        self.complete = True

    def newest(self, count: int) -> list[tuple[str, int, int, int, int, int]]:
        """The last `count`, newest first."""
        return [self._trades[-1 - i] for i in range(min(count, len(self._trades)))]


def trade_document(
    market: Market, trade: tuple[str, int, int, int, int, int], time_text: str
) -> dict[str, Any]:
    """A public trade's JSON."""
    trade_id, price, quantity, side, sequence, _ = trade
    return {
        "trade_id": trade_id,
        "price": market.price_text(price),
        "quantity": market.quantity_text(quantity),
        "side": "sell" if side else "buy",
        "time": time_text,
        "sequence": sequence,
    }
