# Crossing: an order that takes meets the best opposite level, oldest order first.
#
# `money` says whether there is a ledger; it is a constant at each caller, so that
# the compiler makes the engine's matcher and the bare book's from the same text.
from libc.stdint cimport int64_t, uint8_t, uint32_t

from engine.books cimport (
    NO_LINK, Books, Ladder, Level, Order, book_append, book_forget, book_unlink, level_shrink,
)
from engine.int128 cimport unlikely
from engine.ledger cimport affordable, buy_hold, charge_fee, set_hold, settle
from engine.types cimport (
    EVENT_CANCELED, EVENT_FILL, EVENT_FLAG_BOOKED, EVENT_FLAG_TAKER, NO_SLOT,
    REASON_INSUFFICIENT_FUNDS, REASON_NONE, SIDE_BUY,
)
from engine.venue cimport Market, Venue, emit, violate

cdef extern from *:
    """
    #define HOLDFAST_ANY_KEY INT64_MIN
    """
    int64_t ANY_KEY "HOLDFAST_ANY_KEY"


cdef inline int64_t limit_key(uint8_t side, int64_t price) noexcept nogil:
    """The worst key of the opposite ladder that an order accepts; price 0: any."""
    if price == 0:
        return ANY_KEY
    return -price if side == SIDE_BUY else price


cdef inline bint would_cross(const Ladder* opposite, int64_t worst) noexcept nogil:
    return opposite.count != 0 and opposite.rungs[opposite.count - 1].key >= worst


cdef inline void check_order(Venue* venue, const Order* order, int64_t canceled) noexcept nogil:
    """I3: OrderQty = CumQty + LeavesQty + cancelled."""
    cdef int64_t delta = order.quantity - order.filled - order.leaves - canceled
    if unlikely(delta != 0):
        violate(venue, 3, order.account, 0, delta)


cdef inline int64_t hold_left(const Order* buyer, int64_t tick_atoms) noexcept nogil:
    """What a BUY must hold for what is left of it (0 without a price); not above what it held."""
    return <int64_t>buy_hold(
        buyer.maker_ppm, buyer.taker_ppm, buyer.residue, buyer.price * buyer.leaves * tick_atoms
    ) if not buyer.holds_nothing else 0


cdef inline bint can_fill_whole(Venue* venue, const Order* order, int64_t worst, bint money) noexcept nogil:
    """Whether a FOK finds its whole quantity at its limit or better.

    A BUY that holds nothing is counted maker by maker, from what is available at
    entry; all others by the levels' totals.
    """
    cdef Books* book = &venue.book
    cdef const Ladder* opposite = &book.ladders[order.market * 2 + (1 - order.side)]
    cdef Market* market = &venue.markets[order.market]
    cdef const Level* level
    cdef const Order* maker
    cdef Order trial = order[0]
    cdef int64_t available, notional, quantity
    cdef uint32_t at = opposite.count
    cdef uint32_t slot
    available = venue.ledger.balances[order.quote].available if money else 0
    while at > 0:
        at -= 1
        if opposite.rungs[at].key < worst:
            return False
        level = &book.levels[opposite.rungs[at].level]
        if not (money and order.holds_nothing):
            if level.total >= trial.leaves:
                return True
            trial.leaves -= level.total
            continue
        slot = level.head
        while slot != NO_LINK:
            maker = &book.orders[slot]
            quantity = trial.leaves if trial.leaves < maker.leaves else maker.leaves
            if affordable(
                available, level.price * market.tick_atoms, order.taker_ppm, trial.residue, quantity
            ) < quantity:
                return False
            notional = level.price * quantity * market.tick_atoms
            available -= notional + charge_fee(&trial, notional, order.taker_ppm)
            trial.leaves -= quantity
            if trial.leaves == 0:
                return True
            slot = maker.next
    return False


cdef inline void trade(
    Venue* venue, Market* market, Order* maker, Order* taker, int64_t price, int64_t quantity, bint money
) noexcept nogil:
    """One trade at the maker's price: quantities, money, the two fills, in that order."""
    cdef Books* book = &venue.book
    cdef int64_t notional, maker_fee, taker_fee, left, difference
    maker_fee = taker_fee = 0
    level_shrink(book, maker.level, quantity)
    book.ladders[venue.market * 2 + maker.side].resting -= maker.leaves
    maker.leaves -= quantity
    book.ladders[venue.market * 2 + maker.side].resting += maker.leaves
    maker.filled += quantity
    taker.leaves -= quantity
    taker.filled += quantity
    if money:
        notional = price * quantity * market.tick_atoms
        maker_fee = charge_fee(maker, notional, maker.maker_ppm)
        taker_fee = charge_fee(taker, notional, taker.taker_ppm)
        if taker.side == SIDE_BUY:
            left = hold_left(taker, market.tick_atoms)
            difference = settle(
                &venue.ledger, venue.sequence, market.fees, taker, maker,
                quantity * market.lot_atoms, notional, taker_fee, maker_fee, left,
            )
        else:
            left = hold_left(maker, market.tick_atoms)
            difference = settle(
                &venue.ledger, venue.sequence, market.fees, maker, taker,
                quantity * market.lot_atoms, notional, maker_fee, taker_fee, left,
            )
        if unlikely(difference != 0):
            violate(venue, 8, taker.account, market.quote_asset, difference)
    market.last_price = price
    venue.trades += 1
    emit(
        venue, EVENT_FILL, maker.side | EVENT_FLAG_BOOKED, REASON_NONE, maker.slot, maker.order_id,
        maker.account, venue.market, price, quantity, maker.leaves, maker_fee,
    )
    emit(
        venue, EVENT_FILL, taker.side | EVENT_FLAG_TAKER, REASON_NONE, taker.slot, taker.order_id,
        taker.account, venue.market, price, quantity, taker.leaves, taker_fee,
    )
    check_order(venue, maker, 0)
    check_order(venue, taker, 0)


cdef inline uint8_t match(Venue* venue, Order* taker, int64_t worst, bint money) noexcept nogil:
    """Trade while leaves last and the best opposite level is at the limit or better.

    Returns INSUFFICIENT_FUNDS when a BUY that holds nothing ran out of money, else NONE.
    """
    cdef Books* book = &venue.book
    cdef Ladder* opposite = &book.ladders[taker.market * 2 + (1 - taker.side)]
    cdef Market* market = &venue.markets[taker.market]
    cdef Level* level
    cdef Order* maker
    cdef int64_t quantity, most
    while taker.leaves > 0 and would_cross(opposite, worst):
        level = &book.levels[opposite.rungs[opposite.count - 1].level]
        maker = &book.orders[level.head]
        quantity = taker.leaves if taker.leaves < maker.leaves else maker.leaves
        most = quantity
        if money and taker.holds_nothing:
            quantity = affordable(
                venue.ledger.balances[taker.quote].available, level.price * market.tick_atoms,
                taker.taker_ppm, taker.residue, most,
            )
            if quantity == 0:
                return REASON_INSUFFICIENT_FUNDS
        trade(venue, market, maker, taker, level.price, quantity, money)
        if maker.leaves == 0:
            if unlikely(not book_unlink(book, maker)):
                violate(venue, 6, maker.account, venue.market, 0)
            book_forget(book, maker)
        if unlikely(quantity < most):
            return REASON_INSUFFICIENT_FUNDS
    return REASON_NONE


cdef inline void rest(Venue* venue, Order* order) noexcept nogil:
    """Put what is left of an order at the end of its level's queue."""
    if unlikely(not book_append(&venue.book, order)):
        violate(venue, 6, order.account, order.market, 0)


cdef inline void end_order(
    Venue* venue, Order* order, uint8_t reason, bint booked, bint money
) noexcept nogil:
    """Cancel what is left, release what is still held for it, forget the order."""
    cdef int64_t canceled = order.leaves
    cdef int64_t price = venue.book.levels[order.level].price if booked else order.price
    if booked:
        unbook(venue, order)
    order.leaves = 0
    check_order(venue, order, canceled)
    if money:
        set_hold(&venue.ledger, venue.sequence, order, 0)
    emit(
        venue, EVENT_CANCELED, order.side | (EVENT_FLAG_BOOKED if booked else 0), reason, order.slot,
        order.order_id, order.account, venue.market, price, canceled, 0, order.filled,
    )
    if order.slot != NO_SLOT:
        book_forget(&venue.book, order)


cdef inline void unbook(Venue* venue, Order* order) noexcept nogil:
    """Take a resting order out of the book, with all that is left of it."""
    cdef Books* book = &venue.book
    level_shrink(book, order.level, order.leaves)
    book.ladders[venue.market * 2 + order.side].resting -= order.leaves
    if unlikely(not book_unlink(book, order)):
        violate(venue, 6, order.account, venue.market, 0)
