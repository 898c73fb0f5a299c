# The full sweep: every balance, every queue, summed anew.  O(state).
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from engine.books cimport NO_LINK, Books, Ladder, Level, Order, key_of, level_find
from engine.int128 cimport i128
from engine.invariants cimport check_market
from engine.ledger cimport Balance, buy_hold
from engine.matcher cimport check_order
from engine.types cimport SIDE_BUY
from engine.venue cimport Market, Venue, violate


cdef inline void sweep_level(
    Venue* venue, uint32_t ladder, uint32_t number, int64_t* holds, uint64_t* walked
) noexcept nogil:
    """I3, I4 and I6 along one queue; adds its orders' holds and their number."""
    cdef Books* book = &venue.book
    cdef const Level* level = &book.levels[number]
    cdef const Market* market = &venue.markets[ladder >> 1]
    cdef const Order* order
    cdef uint32_t slot = level.head
    cdef uint32_t before = NO_LINK
    cdef uint32_t orders = 0
    cdef uint64_t priority = 0
    cdef int64_t total = 0
    cdef i128 hold
    while slot != NO_LINK and orders < level.count:
        order = &book.orders[slot]
        if (
            order.order_id == 0 or order.slot != slot or order.prev != before or order.level != number
            or order.market * 2 + order.side != ladder or order.price != level.price
            or order.priority <= priority
        ):
            violate(venue, 6, order.account, order.market, 0)
            return
        check_order(venue, order, 0)
        if holds != NULL:
            hold = order.leaves * market.lot_atoms
            if order.side == SIDE_BUY:
                hold = buy_hold(
                    order.maker_ppm, order.taker_ppm, order.residue,
                    order.price * order.leaves * market.tick_atoms,
                )
            if hold != order.hold:
                violate(
                    venue, 4, order.account,
                    market.quote_asset if order.side == SIDE_BUY else market.base_asset,
                    <int64_t>(order.hold - hold),
                )
            holds[order.quote if order.side == SIDE_BUY else order.base] += order.hold
        total += order.leaves
        priority = order.priority
        before = slot
        orders += 1
        slot = order.next
    walked[0] += orders
    if (
        slot != NO_LINK or level.tail != before or level.last != priority
        or orders != level.count or total != level.total
    ):
        violate(venue, 6, 0, ladder >> 1, level.total - total)


cdef inline void sweep_books(Venue* venue, int64_t* holds) noexcept nogil:
    """I5 and I6: every ladder in order, every level on it, every order in one queue."""
    cdef Books* book = &venue.book
    cdef const Ladder* side
    cdef uint32_t ladder, at
    cdef uint64_t walked = 0
    cdef int64_t total
    for ladder in range(2, 2 * venue.markets_count + 2):
        side = &book.ladders[ladder]
        total = 0
        for at in range(side.count):
            if (
                (at and side.rungs[at].key <= side.rungs[at - 1].key)
                or side.rungs[at].key != key_of(ladder & 1, book.levels[side.rungs[at].level].price)
                or level_find(book, ladder, book.levels[side.rungs[at].level].price) != side.rungs[at].level
                or book.levels[side.rungs[at].level].count == 0
            ):
                violate(venue, 6, 0, ladder >> 1, 0)
                return
            sweep_level(venue, ladder, side.rungs[at].level, holds, &walked)
            total += book.levels[side.rungs[at].level].total
        if total != side.total:
            violate(venue, 6, 0, ladder >> 1, side.total - total)
        if ladder & 1:
            check_market(venue, ladder >> 1)
    if walked != book.live:
        violate(venue, 6, 0, 0, <int64_t>(book.live - walked))


cdef inline void sweep_ledger(Venue* venue, const int64_t* holds, i128* sums) noexcept nogil:
    """I1, I2 and I4: every balance."""
    cdef const Balance* balance
    cdef uint32_t number
    for number in range(venue.ledger.balances_used):
        balance = &venue.ledger.balances[number]
        sums[balance.asset] += balance.available
        sums[balance.asset] += balance.held
        if balance.available < 0:
            violate(venue, 2, balance.account, balance.asset, balance.available)
        if balance.held < 0:
            violate(venue, 2, balance.account, balance.asset, balance.held)
        if balance.held != holds[number] or balance.held != balance.order_holds:
            violate(venue, 4, balance.account, balance.asset, balance.held - holds[number])
    for number in range(1, venue.assets_count + 1):
        if sums[number] != venue.assets[number].net_deposits:
            violate(venue, 1, 0, number, <int64_t>(sums[number] - venue.assets[number].net_deposits))


cdef inline int sweep(Venue* venue) noexcept nogil:
    """All of it; what is found is in `venue.violation`. 0, or -1 when there is no memory."""
    cdef int64_t* holds = <int64_t*>calloc(venue.ledger.balances_used + 1, sizeof(int64_t))
    cdef i128* sums = <i128*>calloc(venue.assets_count + 1, sizeof(i128))
    if holds != NULL and sums != NULL:
        sweep_books(venue, holds)
        sweep_ledger(venue, holds, sums)
    free(holds)
    free(sums)
    return 0 if holds != NULL and sums != NULL else -1
