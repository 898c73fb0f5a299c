# NEW, CANCEL, AMEND: the rules in the order in which README checks them, then the deed.
#
# Each function returns the reason of a rejection, or NONE when it was carried out.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine.books cimport (
    QUEUED, Books, Order, book_enter, book_find_client, book_find_id, book_forget, book_reserve,
    level_shrink,
)
from engine.index cimport ABSENT
from engine.int128 cimport add_overflows, i128, unlikely
from engine.ledger cimport balance_find, balance_open, buy_hold, ledger_reserve, overflows, set_hold
from engine.matcher cimport (
    can_fill_whole, check_order, end_order, limit_key, match, rest, unbook, would_cross,
)
from engine.slots cimport slots_take
from engine.types cimport *
from engine.venue cimport Market, Venue, emit_order

cdef enum:
    AMEND_FLAGS = COMMAND_FLAG_LEAVES | COMMAND_FLAG_REDUCE | COMMAND_FLAG_REQUEUE


cdef inline uint64_t id_of(const Venue* venue, const Command* command) noexcept nogil:
    """The id that a NEW has, or would have."""
    return QUEUED | command.accepted_no if command.accepted_no else venue.sequence


cdef inline uint8_t refuse_venue(const Venue* venue, const Command* command, bint queued) noexcept nogil:
    """What the states of venue and account forbid."""
    if venue.state != VENUE_STATE_OPEN:
        if venue.state == VENUE_STATE_HALTED:
            return REASON_VENUE_HALTED
        if venue.state == VENUE_STATE_DRAINING and not queued:
            return REASON_VENUE_DRAINING
        if venue.state == VENUE_STATE_CANCEL_ONLY:
            return REASON_VENUE_CANCEL_ONLY
    if venue.accounts[command.account].state == ACCOUNT_STATE_SUSPENDED:
        return REASON_ACCOUNT_SUSPENDED
    return REASON_NONE


cdef inline uint8_t refuse_market(const Venue* venue, const Command* command) noexcept nogil:
    """What the market forbids a NEW."""
    cdef uint32_t state
    if command.market == 0 or command.market > venue.markets_count:
        return REASON_UNKNOWN_MARKET
    state = venue.markets[command.market].state
    if state != MARKET_STATE_OPEN:
        if state == MARKET_STATE_HALTED:
            return REASON_MARKET_HALTED
        if state == MARKET_STATE_CANCEL_ONLY:
            return REASON_MARKET_CANCEL_ONLY
        if not command.flags & COMMAND_FLAG_POST_ONLY:
            return REASON_MARKET_POST_ONLY
    return REASON_NONE


cdef inline uint8_t refuse_fields(const Venue* venue, const Command* command) noexcept nogil:
    """What is wrong with the fields of a NEW."""
    cdef const Market* market = &venue.markets[command.market]
    cdef bint rests = command.order_type == ORDER_TYPE_LIMIT and command.time_in_force == TIME_IN_FORCE_GTC
    if command.side > SIDE_SELL:
        return REASON_INVALID_SIDE
    if command.order_type > ORDER_TYPE_MARKET:
        return REASON_INVALID_ORDER_TYPE
    if command.time_in_force > TIME_IN_FORCE_FOK:
        return REASON_INVALID_TIME_IN_FORCE
    if command.flags & ~COMMAND_FLAG_POST_ONLY:
        return REASON_INVALID_FLAGS
    if command.flags & COMMAND_FLAG_POST_ONLY and not rests:
        return REASON_INVALID_FLAGS
    if command.self_trade or command.trigger_price or command.expire_time_ns:
        return REASON_INVALID_FLAGS
    if command.quantity < 1:
        return REASON_INVALID_QUANTITY
    if command.price < (0 if command.order_type == ORDER_TYPE_MARKET else 1):
        return REASON_INVALID_PRICE
    if overflows(market.tick_atoms, market.lot_atoms, command.price, command.quantity):
        return REASON_OVERFLOW
    if command.client_id_lo | command.client_id_hi and book_find_client(
        &venue.book, command.account, command.client_id_lo, command.client_id_hi
    ) != ABSENT:
        return REASON_DUPLICATE_CLIENT_ORDER_ID
    if venue.book.live >= ORDERS_MAX:
        return REASON_LIMIT_REACHED
    return REASON_NONE


cdef inline uint8_t run_new(Venue* venue, const Command* command, bint money) noexcept nogil:
    """Accept an order, match it, rest or cancel what is left."""
    cdef Books* book = &venue.book
    cdef const Market* market
    cdef uint8_t reason
    cdef bint crosses, holds_nothing
    cdef int64_t worst, available
    cdef i128 hold = 0
    cdef uint32_t balance
    reason = refuse_venue(venue, command, command.accepted_no != 0) if money else REASON_NONE
    if reason == REASON_NONE:
        reason = refuse_market(venue, command)
    if reason == REASON_NONE:
        reason = refuse_fields(venue, command)
    if reason != REASON_NONE:
        return reason
    worst = limit_key(command.side, command.price)
    crosses = would_cross(&book.ladders[command.market * 2 + (1 - command.side)], worst)
    if command.flags & COMMAND_FLAG_POST_ONLY and crosses:
        return REASON_POST_ONLY_WOULD_CROSS
    if money:
        market = &venue.markets[command.market]
        holds_nothing = command.price == 0 and command.side == SIDE_BUY
        available = 0
        balance = balance_find(
            &venue.ledger, command.account,
            market.quote_asset if command.side == SIDE_BUY else market.base_asset,
        )
        if balance != ABSENT:
            available = venue.ledger.balances[balance].available
        if command.side != SIDE_BUY:
            hold = command.quantity * market.lot_atoms
        elif not holds_nothing:
            hold = buy_hold(
                market.maker_ppm, market.taker_ppm, 0, command.price * command.quantity * market.tick_atoms
            )
        if hold > available:
            return REASON_INSUFFICIENT_FUNDS
    if unlikely(
        book_reserve(book, command.market * 2 + command.side) < 0
        or (money and ledger_reserve(&venue.ledger, 2) < 0)
    ):
        venue.is_out_of_memory = True
        return REASON_NONE
    accept(venue, command, <int64_t>hold, worst, crosses, money)
    return REASON_NONE


cdef inline Order* enter(Venue* venue, const Command* command, bint money) noexcept nogil:
    """The record of a new order: in the pool if it may rest, else in the venue's one draft."""
    cdef const Market* market = &venue.markets[command.market]
    cdef Order* order = &venue.taker
    cdef uint32_t slot = NO_SLOT
    if command.order_type == ORDER_TYPE_LIMIT and command.time_in_force == TIME_IN_FORCE_GTC:
        slot = slots_take(&venue.book.slots)
        order = &venue.book.orders[slot]
    order.slot = slot
    order.order_id = id_of(venue, command)
    order.leaves = order.quantity = command.quantity
    order.filled = 0
    order.priority = venue.sequence
    order.hold = 0
    order.account = command.account
    order.market = command.market
    order.residue = 0
    order.side = command.side
    order.price = command.price
    order.flags = <uint8_t>command.flags
    order.order_type = command.order_type
    order.time_in_force = command.time_in_force
    order.holds_nothing = command.price == 0 and command.side == SIDE_BUY
    order.client_id_lo = command.client_id_lo
    order.client_id_hi = command.client_id_hi
    order.is_named = (command.client_id_lo | command.client_id_hi) != 0
    order.maker_ppm = market.maker_ppm
    order.taker_ppm = market.taker_ppm
    if money:
        order.base = balance_open(&venue.ledger, command.account, market.base_asset)
        order.quote = balance_open(&venue.ledger, command.account, market.quote_asset)
    if slot != NO_SLOT:
        book_enter(&venue.book, order)
    return order


cdef inline void accept(
    Venue* venue, const Command* command, int64_t hold, int64_t worst, bint crosses, bint money
) noexcept nogil:
    """The order is in: hold, match, and what becomes of the rest."""
    cdef Books* book = &venue.book
    cdef Order* order = enter(venue, command, money)
    cdef uint8_t reason
    cdef bint rests_whole = order.slot != NO_SLOT and not crosses
    venue.market = command.market
    if money:
        set_hold(&venue.ledger, venue.sequence, order, hold)
    emit_order(
        venue, EVENT_ACCEPTED, EVENT_FLAG_BOOKED if rests_whole else 0, REASON_NONE, order,
        order.quantity, order.leaves,
        order.order_type | <int64_t>order.time_in_force << 8 | <int64_t>command.flags << 32,
    )
    if rests_whole:
        rest(venue, order)
        check_order(venue, order, 0)
        return
    if order.time_in_force == TIME_IN_FORCE_FOK and not can_fill_whole(venue, order, worst, money):
        end_order(venue, order, REASON_FOK_NOT_FILLABLE, False, money)
        return
    reason = match(venue, order, worst, money)
    if order.leaves == 0:
        if order.slot != NO_SLOT:
            book_forget(book, order)
    elif order.slot != NO_SLOT:
        rest(venue, order)
        emit_order(venue, EVENT_RESTED, EVENT_FLAG_BOOKED, REASON_NONE, order, order.leaves, order.leaves, 0)
    elif reason != REASON_NONE:
        end_order(venue, order, reason, False, money)
    elif order.order_type == ORDER_TYPE_MARKET:
        end_order(venue, order, REASON_MARKET_REMAINDER, False, money)
    else:
        end_order(venue, order, REASON_IOC_REMAINDER, False, money)


cdef inline uint8_t find_named(const Venue* venue, const Command* command, uint32_t* slot) noexcept nogil:
    """The live order that a CANCEL or AMEND names and its account owns."""
    if command.order_id:
        slot[0] = book_find_id(&venue.book, command.order_id, command.slot)
    elif command.client_id_lo | command.client_id_hi:
        slot[0] = book_find_client(
            &venue.book, command.account, command.client_id_lo, command.client_id_hi
        )
    else:
        return REASON_INVALID_IDENTIFIER
    if slot[0] == ABSENT:
        return REASON_NOT_LIVE
    if venue.book.orders[slot[0]].account != command.account:
        return REASON_NOT_OWNER
    return REASON_NONE


cdef inline uint8_t run_cancel(Venue* venue, const Command* command, bint money) noexcept nogil:
    """Take a resting order out of the book and release its hold."""
    cdef uint32_t slot, market
    cdef uint8_t reason
    cdef Order* order
    if venue.state == VENUE_STATE_HALTED:
        return REASON_VENUE_HALTED
    reason = find_named(venue, command, &slot)
    if reason != REASON_NONE:
        return reason
    order = &venue.book.orders[slot]
    market = venue.book.levels[order.level].ladder >> 1
    if venue.markets[market].state == MARKET_STATE_HALTED:
        return REASON_MARKET_HALTED
    venue.market = market
    end_order(venue, order, REASON_USER_REQUESTED, True, money)
    return REASON_NONE


cdef inline uint8_t refuse_amend(const Venue* venue, const Command* command, uint32_t state) noexcept nogil:
    """What the market's state forbids, and what is wrong with the fields of an AMEND."""
    cdef uint16_t flags = command.flags
    if state == MARKET_STATE_HALTED:
        return REASON_MARKET_HALTED
    if state == MARKET_STATE_CANCEL_ONLY:
        return REASON_MARKET_CANCEL_ONLY
    if flags & ~AMEND_FLAGS or (flags & COMMAND_FLAG_LEAVES and flags & COMMAND_FLAG_REDUCE):
        return REASON_INVALID_FLAGS
    if command.price < 0:
        return REASON_INVALID_PRICE
    if command.quantity < 0 or (command.quantity == 0 and flags & COMMAND_FLAG_REDUCE):
        return REASON_INVALID_QUANTITY
    if command.price == 0 and command.quantity == 0 and not flags & COMMAND_FLAG_REQUEUE:
        return REASON_INVALID_QUANTITY
    return REASON_NONE


cdef inline int64_t new_leaves(const Order* order, const Command* command) noexcept nogil:
    if command.quantity == 0:
        return order.leaves
    if command.flags & COMMAND_FLAG_LEAVES:
        return command.quantity
    if command.flags & COMMAND_FLAG_REDUCE:
        return order.leaves - command.quantity
    return command.quantity - order.filled


cdef inline uint8_t run_amend(Venue* venue, const Command* command, bint money) noexcept nogil:
    """Change price or quantity; what asks for more of the book goes to the back, and may trade."""
    cdef uint32_t slot
    cdef uint8_t reason
    cdef Order* order
    cdef int64_t price, leaves, quantity
    reason = refuse_venue(venue, command, False) if money else REASON_NONE
    if reason == REASON_NONE:
        reason = find_named(venue, command, &slot)
    if reason != REASON_NONE:
        return reason
    order = &venue.book.orders[slot]
    reason = refuse_amend(venue, command, venue.markets[order.market].state)
    if reason != REASON_NONE:
        return reason
    price = command.price if command.price else order.price
    leaves = new_leaves(order, command)
    if add_overflows(order.filled, leaves, &quantity):
        return REASON_OVERFLOW
    if leaves <= 0:
        venue.market = order.market
        end_order(venue, order, REASON_AMENDED_AWAY, True, money)
        return REASON_NONE
    if price == order.price and leaves <= order.leaves and not command.flags & COMMAND_FLAG_REQUEUE:
        reduce_in_place(venue, order, leaves, money)
        return REASON_NONE
    return requeue(venue, order, price, leaves, money)


cdef inline void reduce_in_place(Venue* venue, Order* order, int64_t leaves, bint money) noexcept nogil:
    """Less at the same price: priority is kept."""
    cdef const Market* market = &venue.markets[order.market]
    cdef int64_t taken_off = order.leaves - leaves
    venue.market = order.market
    level_shrink(&venue.book, order.level, taken_off)
    venue.book.ladders[order.market * 2 + order.side].resting += leaves - order.leaves
    order.leaves = leaves
    order.quantity = order.filled + leaves
    if money:
        set_hold(&venue.ledger, venue.sequence, order, <int64_t>hold_at(order, market, order.price, leaves))
    check_order(venue, order, 0)
    emit_order(
        venue, EVENT_AMENDED, EVENT_FLAG_BOOKED, REASON_NONE, order, order.quantity, leaves, taken_off
    )


cdef inline i128 hold_at(
    const Order* order, const Market* market, int64_t price, int64_t leaves
) noexcept nogil:
    """What a resting order must hold for `leaves` at `price`."""
    if order.side != SIDE_BUY:
        return leaves * market.lot_atoms
    return buy_hold(order.maker_ppm, order.taker_ppm, order.residue, price * leaves * market.tick_atoms)


cdef inline uint8_t requeue(
    Venue* venue, Order* order, int64_t price, int64_t leaves, bint money
) noexcept nogil:
    """Another price or more: to the back of the queue, after trading what crosses."""
    cdef const Market* market = &venue.markets[order.market]
    cdef int64_t quantity = order.filled + leaves
    cdef int64_t worst = limit_key(order.side, price)
    cdef uint32_t slot = order.slot
    cdef i128 hold = 0
    cdef i128 means
    if overflows(market.tick_atoms, market.lot_atoms, price, quantity):
        return REASON_OVERFLOW
    if would_cross(&venue.book.ladders[order.market * 2 + (1 - order.side)], worst):
        if order.flags & COMMAND_FLAG_POST_ONLY:
            return REASON_POST_ONLY_WOULD_CROSS
        if market.state == MARKET_STATE_POST_ONLY:
            return REASON_MARKET_POST_ONLY
    if money:
        hold = hold_at(order, market, price, leaves)
        means = venue.ledger.balances[order.quote if order.side == SIDE_BUY else order.base].available
        if hold > means + order.hold:
            return REASON_INSUFFICIENT_FUNDS
    if unlikely(book_reserve(&venue.book, order.market * 2 + order.side) < 0):
        venue.is_out_of_memory = True
        return REASON_NONE
    order = &venue.book.orders[slot]  # Making room may have moved the pool.
    venue.market = order.market
    unbook(venue, order)
    emit_order(venue, EVENT_UNBOOKED, EVENT_FLAG_BOOKED, REASON_NONE, order, order.leaves, 0, 0)
    order.price = price
    order.quantity = quantity
    order.leaves = leaves
    order.priority = venue.sequence
    if money:
        set_hold(&venue.ledger, venue.sequence, order, <int64_t>hold)
    emit_order(venue, EVENT_AMENDED, 0, REASON_NONE, order, quantity, leaves, 0)
    match(venue, order, worst, money)
    check_order(venue, order, 0)
    if order.leaves == 0:
        book_forget(&venue.book, order)
    else:
        rest(venue, order)
        emit_order(venue, EVENT_RESTED, EVENT_FLAG_BOOKED, REASON_NONE, order, order.leaves, order.leaves, 0)
    return REASON_NONE
