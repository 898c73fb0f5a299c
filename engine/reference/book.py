"""The book of one market: price levels in a SortedDict, orders of a level in arrival order.

A level keeps its orders in a dict by order id.  Dicts keep insertion order, so
the first is the oldest: time priority, with removal from the middle in O(1).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sortedcontainers import SortedDict

from engine.reference.journal import Journal
from engine.reference.records import Order
from engine.types import Side


@dataclass(slots=True)
class Level:
    """All resting orders of one side at one price."""

    price: int
    total: int = 0
    """Σ LeavesQty, moved by the book; I6 compares it with the orders."""
    orders: dict[int, Order] = field(default_factory=dict)

    @property
    def head(self) -> Order:
        return next(iter(self.orders.values()))


class Book:
    """Price-time priority: best price first, oldest first within a price."""

    def __init__(self, market: int, journal: Journal) -> None:
        self.market = market
        self.sides: tuple[SortedDict, SortedDict] = (SortedDict(), SortedDict())
        self._journal = journal

    def levels(self, side: int) -> Iterator[Level]:
        """Levels of `side`, the best price first."""
        prices = self.sides[side]
        return iter(reversed(prices.values()) if side == Side.BUY else prices.values())

    def best(self, side: int) -> Level | None:
        """Highest bid or lowest ask."""
        prices = self.sides[side]
        if not prices:
            return None
        level: Level = prices.peekitem(-1 if side == Side.BUY else 0)[1]
        return level

    def orders(self, side: int) -> Iterator[Order]:
        """Orders of `side` in the order in which they would trade."""
        for level in self.levels(side):
            yield from level.orders.values()

    def add(self, order: Order) -> None:
        """Put the order at the tail of the queue of its price."""
        prices = self.sides[order.side]
        level = prices.get(order.price)
        if level is None:
            level = prices[order.price] = Level(order.price)
        level.orders[order.order_id] = order
        level.total += order.leaves
        self._touch(order)

    def remove(self, order: Order) -> None:
        """Take the order out, wherever it stands in its queue."""
        prices = self.sides[order.side]
        level = prices[order.price]
        del level.orders[order.order_id]
        level.total -= order.leaves
        if not level.orders:
            del prices[order.price]
        self._touch(order)

    def shrink(self, order: Order, quantity: int) -> None:
        """Note that the order will lose `quantity` of its leaves and keep its place."""
        self.sides[order.side][order.price].total -= quantity
        self._touch(order)

    def _touch(self, order: Order) -> None:
        self._journal.levels.add((self.market, order.side, order.price))
