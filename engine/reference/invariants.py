"""I1 to I8, after each command on what it touched, and on everything in the full sweep.

Each check compares two numbers that are kept apart: postings against orders,
level totals against queues, one side of a trade against the other.
"""

from collections import Counter
from itertools import pairwise

from engine.errors import InvariantViolation
from engine.reference.book import Book, Level
from engine.reference.fees import hold_of
from engine.reference.ledger import held_asset
from engine.reference.venue import Venue
from engine.types import Side


def check_touched(venue: Venue) -> None:
    """Check what the last command touched, by its journal.

    Raises
    ------
    InvariantViolation
        The first one seen, in the order I1 to I8.
    """
    journal, ledger = venue.journal, venue.ledger
    if not (journal.balances or journal.orders or journal.levels):
        return
    change: Counter[int] = Counter()
    for (account, asset), (available, held) in journal.balances.items():
        balance = ledger.balances[account, asset]
        change[asset] += balance.available + balance.held - available - held
    for asset in change | journal.deposited:
        _equal(venue, "I1", change[asset], journal.deposited.get(asset, 0), asset=asset)
    for account, asset in journal.balances:
        _check_balance(venue, account, asset)
    for order in journal.orders.values():
        parts = order.filled + order.leaves + order.canceled
        _equal(venue, "I3", parts, order.quantity, account=order.account, asset=order.market)
    for market in {market for market, _, _ in journal.levels}:
        _check_uncrossed(venue, venue.books[market])
    for market, side, price in journal.levels:
        level = venue.books[market].sides[side].get(price)
        if level is not None:
            _check_level(venue, market, level)
    for trade in journal.trades:
        _equal(venue, "I8", trade.buyer_pays, trade.seller_gets + trade.buyer_fee + trade.seller_fee)


def sweep(venue: Venue) -> None:
    """Check everything, with the holds and totals summed anew.

    Raises
    ------
    InvariantViolation
        The first one seen.
    """
    ledger = venue.ledger
    totals: Counter[int] = Counter()
    for (account, asset), balance in ledger.balances.items():
        totals[asset] += balance.available + balance.held
        _check_balance(venue, account, asset)
    for asset, record in ledger.assets.items():
        _equal(venue, "I1", totals[asset], record.net_deposits, asset=asset)
    _check_holds(venue)
    resting = 0
    for book in venue.books.values():
        _check_uncrossed(venue, book)
        for side in Side:
            for level in book.levels(side):
                _check_level(venue, book.market, level)
                resting += len(level.orders)
    _equal(venue, "I6", resting, len(venue.orders))


def _check_holds(venue: Venue) -> None:
    """I3 and I4 from the orders alone."""
    holds: Counter[tuple[int, int]] = Counter()
    for order in venue.orders.by_slot.values():
        market = venue.markets[order.market]
        parts = order.filled + order.leaves + order.canceled
        _equal(venue, "I3", parts, order.quantity, account=order.account, asset=order.market)
        asset = held_asset(order, market)
        wanted = hold_of(order, market, order.price, order.leaves)
        _equal(venue, "I4", order.hold, wanted, account=order.account, asset=asset)
        holds[order.account, asset] += order.hold
    for (account, asset), balance in venue.ledger.balances.items():
        _equal(venue, "I4", balance.held, holds[account, asset], account=account, asset=asset)


def _check_balance(venue: Venue, account: int, asset: int) -> None:
    balance = venue.ledger.balances[account, asset]
    _equal(venue, "I2", min(balance.available, balance.held, 0), 0, account=account, asset=asset)
    held_by_orders = venue.ledger.order_holds[account, asset]
    _equal(venue, "I4", balance.held, held_by_orders, account=account, asset=asset)


def _check_uncrossed(venue: Venue, book: Book) -> None:
    bid, ask = book.best(Side.BUY), book.best(Side.SELL)
    if bid is not None and ask is not None:
        _equal(venue, "I5", max(bid.price - ask.price + 1, 0), 0, asset=book.market)


def _check_level(venue: Venue, market: int, level: Level) -> None:
    queue = list(level.orders.values())
    _equal(venue, "I6", level.total, sum(order.leaves for order in queue), asset=market)
    for order in queue:
        _equal(venue, "I6", order.price, level.price, account=order.account, asset=market)
    for older, younger in pairwise(queue):
        if older.priority >= younger.priority:
            raise InvariantViolation(
                "I6", venue.sequence, younger.account, market, older.priority - younger.priority
            )


def _equal(venue: Venue, invariant: str, left: int, right: int, *, account: int = 0, asset: int = 0) -> None:
    if left != right:
        raise InvariantViolation(invariant, venue.sequence, account, asset, left - right)
