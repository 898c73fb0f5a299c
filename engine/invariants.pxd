# The checks after each command, on what it touched; never compiled out.
#
# I3, the neighbours of I6 and I8 are checked where they happen (`matcher`); this
# is the end of a command, which knows the balances it touched and its market.
# What is compared is kept by different hands: see the table in README.
from libc.stdint cimport int64_t, uint32_t

from engine.books cimport Ladder
from engine.int128 cimport unlikely
from engine.ledger cimport Balance
from engine.types cimport EVENT_BALANCE, NO_SLOT
from engine.venue cimport Asset, Market, Venue, emit, violate


cdef inline void check_market(Venue* venue, uint32_t number) noexcept nogil:
    """I5 and the sums of I6 on both sides of a market's book."""
    cdef const Ladder* bids = &venue.book.ladders[number * 2]
    cdef const Ladder* asks = &venue.book.ladders[number * 2 + 1]
    cdef int64_t gap
    if bids.count and asks.count:
        # An ask's key is its price negated.
        gap = -asks.rungs[asks.count - 1].key - bids.rungs[bids.count - 1].key
        if unlikely(gap <= 0):
            violate(venue, 5, 0, number, gap)
    if unlikely(bids.total != bids.resting):
        violate(venue, 6, 0, number, bids.total - bids.resting)
    if unlikely(asks.total != asks.resting):
        violate(venue, 6, 0, number, asks.total - asks.resting)


cdef inline void close_balances(Venue* venue) noexcept nogil:
    """Write the BALANCE events; I1, I2 and I4 on each balance that was touched.

    A command moves at most two assets: those of its market, or the one that is
    deposited or withdrawn.
    """
    cdef uint32_t base, quote, at
    cdef int64_t base_change, quote_change, change, expected
    cdef const Balance* balance
    base = quote = 0
    base_change = quote_change = expected = 0
    if venue.market:
        base = venue.markets[venue.market].base_asset
        quote = venue.markets[venue.market].quote_asset
    elif venue.asset:
        base = venue.asset
        expected = venue.assets[base].net_deposits - venue.assets[base].net_deposits_before
    for at in range(venue.ledger.touched_count):
        balance = &venue.ledger.balances[venue.ledger.touched[at]]
        change = (
            balance.available - balance.available_before + (balance.held - balance.held_before)
        )
        if balance.asset == quote:
            quote_change += change
        elif balance.asset == base:
            base_change += change
        else:
            violate(venue, 1, balance.account, balance.asset, change)
        if unlikely(balance.available < 0):
            violate(venue, 2, balance.account, balance.asset, balance.available)
        if unlikely(balance.held < 0):
            violate(venue, 2, balance.account, balance.asset, balance.held)
        if unlikely(balance.held != balance.order_holds):
            violate(venue, 4, balance.account, balance.asset, balance.held - balance.order_holds)
        if balance.available != balance.available_before or balance.held != balance.held_before:
            emit(
                venue, EVENT_BALANCE, 0, 0, NO_SLOT, 0, balance.account, balance.asset,
                balance.available, balance.held, 0, 0,
            )
    if unlikely(base_change != expected):
        violate(venue, 1, 0, base, base_change - expected)
    if unlikely(quote_change != 0):
        violate(venue, 1, 0, quote, quote_change)


cdef inline void close_command(Venue* venue, bint money) noexcept nogil:
    """The end of a command: its BALANCE events and all that must hold after it."""
    if money:
        if venue.ledger.touched_count:
            close_balances(venue)
        if unlikely(venue.epoch < venue.epoch_before):
            violate(venue, 9, 0, 0, <int64_t>(venue.epoch - venue.epoch_before))
        venue.epoch_before = venue.epoch
    if venue.market:
        check_market(venue, venue.market)
