"""Crossing: an order that takes meets the best opposite level, oldest order first."""

from engine.reference.book import Book
from engine.reference.events import Events
from engine.reference.fees import affordable, fee_of, hold_of
from engine.reference.records import Market, Order
from engine.reference.venue import Venue
from engine.types import Reason


def would_cross(book: Book, order: Order) -> bool:
    """Whether the best opposite price is at the order's limit or better."""
    best = book.best(1 - order.side)
    return best is not None and order.accepts(best.price)


def can_fill_whole(venue: Venue, order: Order) -> bool:
    """Whether a FOK finds its whole quantity, with the arithmetic of the match itself."""
    market = venue.markets[order.market]
    available = venue.ledger.available(order.account, market.quote_asset)
    residue = order.fee_residue
    left = order.leaves
    for maker in venue.books[order.market].orders(1 - order.side):
        if not order.accepts(maker.price):
            return False
        quantity = min(left, maker.leaves)
        if order.holds_nothing:
            if affordable(available, maker.price, order.taker_fee_ppm, residue, market) < quantity:
                return False
            notional = market.notional(maker.price, quantity)
            fee, residue = fee_of(notional, order.taker_fee_ppm, residue)
            available -= notional + fee
        left -= quantity
        if left == 0:
            return True
    return False


def match(venue: Venue, taker: Order, events: Events) -> Reason:
    """Trade while leaves last and the best opposite level is at the limit or better.

    Returns
    -------
    Reason
        INSUFFICIENT_FUNDS when a MARKET BUY without a price ran out of money, else NONE.
    """
    market = venue.markets[taker.market]
    book = venue.books[taker.market]
    while taker.leaves > 0 and would_cross(book, taker):
        level = book.best(1 - taker.side)
        if level is None:
            break
        maker = level.head
        wanted = quantity = min(taker.leaves, maker.leaves)
        if taker.holds_nothing:
            available = venue.ledger.available(taker.account, market.quote_asset)
            most = affordable(available, maker.price, taker.taker_fee_ppm, taker.fee_residue, market)
            quantity = min(wanted, most)
        if quantity > 0:
            _trade(venue, market, maker, taker, quantity, events)
        if quantity < wanted:
            return Reason.INSUFFICIENT_FUNDS
    return Reason.NONE


def _trade(venue: Venue, market: Market, maker: Order, taker: Order, quantity: int, events: Events) -> None:
    """One trade, at the maker's price: the fees, the book, the money, the two fills."""
    price = maker.price
    notional = market.notional(price, quantity)
    maker_fee, maker.fee_residue = fee_of(notional, maker.maker_fee_ppm, maker.fee_residue)
    taker_fee, taker.fee_residue = fee_of(notional, taker.taker_fee_ppm, taker.fee_residue)

    book = venue.books[market.market]
    book.shrink(maker, quantity)
    for order in (maker, taker):
        order.leaves -= quantity
        order.filled += quantity
        venue.journal.orders[order.order_id] = order

    buyer, seller = (taker, maker) if taker.is_buy else (maker, taker)
    fees = (taker_fee, maker_fee) if taker.is_buy else (maker_fee, taker_fee)
    holds = (
        hold_of(buyer, market, buyer.price, buyer.leaves),
        hold_of(seller, market, seller.price, seller.leaves),
    )
    venue.ledger.settle(market, buyer, seller, quantity, notional, fees, holds)
    market.last_price = price
    venue.trades += 1

    if maker.leaves == 0:
        book.remove(maker)
    events.fill(maker, price, quantity, maker_fee, taker=False)
    events.fill(taker, price, quantity, taker_fee, taker=True)
    if maker.leaves == 0:
        venue.orders.remove(maker)
