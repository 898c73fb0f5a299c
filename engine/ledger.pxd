# Money: available and held per (account, asset), holds, fees, settlement.
#
# An order keeps the numbers of its two balances, so that a maker's are reached
# without a lookup.  The first posting of a command on a balance notes what it
# was before: the ground of the BALANCE events and of I1.
#
# `held` is moved by postings, `order_holds` by the orders: I4 compares them.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free

from engine.books cimport Order
from engine.index cimport ABSENT, Index, hash_words, index_add, index_next, index_reserve, index_start
from engine.int128 cimport i128, likely, multiply_overflows, unlikely
from engine.memory cimport memory_grow
from engine.types cimport PPM, SIDE_BUY

cdef struct Balance:
    int64_t available
    int64_t held
    int64_t order_holds
    int64_t available_before
    int64_t held_before
    uint64_t touched        # the last command that did
    uint32_t account
    uint32_t asset
    uint64_t spare

cdef struct Ledger:
    Balance* balances
    uint64_t balances_capacity
    uint32_t balances_used
    uint32_t touched_count
    uint32_t* touched       # numbers of balances, in order of first touch
    uint64_t touched_capacity
    Index by_owner          # (account, asset) → balance


cdef inline uint32_t balance_find(const Ledger* ledger, uint32_t account, uint32_t asset) noexcept nogil:
    """Number of a balance, or ABSENT."""
    cdef uint32_t hash = hash_words(account, asset, 0)
    cdef uint64_t position = index_start(&ledger.by_owner, hash)
    cdef uint32_t number
    while True:
        number = index_next(&ledger.by_owner, hash, &position)
        if number == ABSENT:
            return ABSENT
        if likely(ledger.balances[number].account == account and ledger.balances[number].asset == asset):
            return number


cdef inline uint32_t balance_open(Ledger* ledger, uint32_t account, uint32_t asset) noexcept nogil:
    """Number of a balance, opened at zero if need be; room was reserved."""
    cdef uint32_t number = balance_find(ledger, account, asset)
    cdef Balance* balance
    if likely(number != ABSENT):
        return number
    number = ledger.balances_used
    ledger.balances_used += 1
    balance = &ledger.balances[number]
    balance.account = account
    balance.asset = asset
    index_add(&ledger.by_owner, hash_words(account, asset, 0), number)
    return number


cdef inline int ledger_reserve(Ledger* ledger, uint32_t more) noexcept nogil:
    """Make room to open and to touch `more` balances; 0, or -1 when there is no memory.

    A command touches each balance once at most, so that room to touch them all is enough.
    """
    cdef uint64_t needed = <uint64_t>ledger.balances_used + more
    if unlikely(needed > ledger.balances_capacity):
        if memory_grow(<void**>&ledger.balances, &ledger.balances_capacity, needed, sizeof(Balance)) < 0:
            return -1
    if unlikely(needed > ledger.touched_capacity):
        if memory_grow(<void**>&ledger.touched, &ledger.touched_capacity, needed, sizeof(uint32_t)) < 0:
            return -1
    return index_reserve(&ledger.by_owner, more)


cdef inline Balance* balance_touch(Ledger* ledger, uint32_t number, uint64_t sequence) noexcept nogil:
    """A balance that is about to be posted on."""
    cdef Balance* balance = &ledger.balances[number]
    if balance.touched != sequence:
        balance.touched = sequence
        balance.available_before = balance.available
        balance.held_before = balance.held
        ledger.touched[ledger.touched_count] = number
        ledger.touched_count += 1
    return balance


cdef inline int64_t ceil_ppm(i128 exact) noexcept nogil:
    """Millionths rounded up to whole atoms; the result fits int64."""
    cdef int64_t small = <int64_t>exact
    cdef int64_t whole
    cdef i128 wide
    if likely(small == exact):
        whole = small // PPM
        return whole + (small > whole * PPM)
    wide = exact // PPM
    return <int64_t>(wide + (exact > wide * PPM))


cdef inline int64_t charge_fee(Order* order, int64_t notional, int32_t ppm) noexcept nogil:
    """The fee of one fill: the ceiling of the order's exact sum, less what was charged."""
    cdef i128 exact
    cdef int64_t fee
    if ppm == 0:
        return 0  # −residue rounds up to zero and stays.
    exact = <i128>notional * ppm - order.residue
    fee = ceil_ppm(exact)
    order.residue = <uint32_t>(<i128>fee * PPM - exact)
    return fee


cdef inline i128 buy_hold(
    int32_t maker_ppm, int32_t taker_ppm, uint32_t residue, int64_t notional
) noexcept nogil:
    """What a BUY must hold for LeavesQty worth `notional` at its limit."""
    cdef int32_t rate = maker_ppm if maker_ppm > taker_ppm else taker_ppm
    cdef i128 exact
    if rate == 0:
        return notional  # The taker's rate is never below zero, hence neither is the larger one.
    exact = <i128>notional * rate - residue
    return <i128>notional + ceil_ppm(exact)


cdef inline bint overflows(
    int64_t tick_atoms, int64_t lot_atoms, int64_t price, int64_t quantity
) noexcept nogil:
    """Whether the base amount, or the notional at the price, does not fit int64."""
    cdef int64_t amount
    return (
        multiply_overflows(quantity, lot_atoms, &amount)
        or multiply_overflows(price, quantity, &amount)
        or multiply_overflows(amount, tick_atoms, &amount)
    )


cdef inline int64_t affordable(
    int64_t available, int64_t unit, int32_t ppm, uint32_t residue, int64_t most
) noexcept nogil:
    """Largest quantity, at most `most`, that costs at most `available` with its fee.

    q × unit × (1 + ppm/PPM) − residue/PPM ≤ available, rounded up on the left.
    """
    cdef i128 means = <i128>available * PPM + residue
    cdef i128 cost = <i128>unit * (PPM + ppm)
    cdef i128 quantity
    # `unit × most` fits int64, so cost × most fits 128 bits; no division when all is affordable.
    if cost * most <= means:
        return most
    quantity = means // cost
    return <int64_t>quantity


cdef inline void set_hold(Ledger* ledger, uint64_t sequence, Order* order, int64_t hold) noexcept nogil:
    """Move what an order holds from what it was to `hold`, against `available`."""
    cdef uint32_t which = order.quote if order.side == SIDE_BUY else order.base
    cdef Balance* balance = balance_touch(ledger, which, sequence)
    cdef int64_t more = hold - order.hold
    balance.available -= more
    balance.held += more
    carry_hold(balance, order, hold)


cdef inline void carry_hold(Balance* balance, Order* order, int64_t hold) noexcept nogil:
    """The orders' half of I4."""
    balance.order_holds -= order.hold
    order.hold = hold
    balance.order_holds += order.hold


cdef inline int64_t settle(
    Ledger* ledger,
    uint64_t sequence,
    uint32_t fees,
    Order* buyer,
    Order* seller,
    int64_t base_amount,
    int64_t notional,
    int64_t buyer_fee,
    int64_t seller_fee,
    int64_t buyer_hold,
) noexcept nogil:
    """Post one trade; returns what the buyer paid less what all others received (I8: 0).

    The sums come from the balances before and after, not from the arguments.
    """
    cdef Balance* balance
    cdef int64_t paid, received, before, pays
    balance = balance_touch(ledger, buyer.quote, sequence)
    before = balance.available + balance.held
    pays = notional + buyer_fee
    if buyer.holds_nothing:
        balance.available -= pays
    else:
        balance.held -= buyer.hold - buyer_hold
        balance.available += buyer.hold - buyer_hold - pays
        carry_hold(balance, buyer, buyer_hold)
    paid = before - balance.available - balance.held

    balance = balance_touch(ledger, buyer.base, sequence)
    balance.available += base_amount

    balance = balance_touch(ledger, seller.base, sequence)
    balance.held -= base_amount
    carry_hold(balance, seller, seller.hold - base_amount)

    balance = balance_touch(ledger, seller.quote, sequence)
    before = balance.available
    balance.available += notional - seller_fee
    received = balance.available - before

    balance = balance_touch(ledger, fees, sequence)
    before = balance.available
    balance.available += buyer_fee + seller_fee
    return paid - received - (balance.available - before)


cdef inline void ledger_free(Ledger* ledger) noexcept nogil:
    free(ledger.balances)
    free(ledger.touched)
    free(ledger.by_owner.entries)
