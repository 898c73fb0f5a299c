# The state as records of its sections, and back.
#
# Writers fill arrays of the right length, in canonical order where memory has
# it (orders) and in any order where a sort follows (see `core`).  Readers take
# arrays that `state.check` has passed, and return -1 when there is no memory.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from engine.admin cimport key_add, market_open, transaction_add
from engine.books cimport NO_LINK, Books, Ladder, Order, book_append, book_enter, book_reserve
from engine.idempotency cimport SeenKey, idempotency_push, idempotency_reserve, seen_at
from engine.index cimport ABSENT
from engine.ledger cimport Balance, balance_open, carry_hold, ledger_reserve
from engine.memory cimport memory_grow
from engine.slots cimport slots_claim, slots_grow
from engine.types cimport *
from engine.venue cimport Account, Asset, Market, Venue


cdef inline void write_venue(const Venue* venue, VenueRecord* record) noexcept nogil:
    record.sequence = venue.sequence
    record.time_ns = venue.time_ns
    record.epoch = venue.epoch
    record.accepted_no = venue.accepted_no
    record.events = venue.events_total
    record.trades = venue.trades
    record.rules_version = RULES_VERSION
    record.state = venue.state


cdef inline void read_venue(Venue* venue, const VenueRecord* record) noexcept nogil:
    venue.sequence = record.sequence
    venue.time_ns = record.time_ns
    venue.epoch = venue.epoch_before = record.epoch
    venue.accepted_no = record.accepted_no
    venue.events_total = record.events
    venue.trades = record.trades
    venue.state = record.state


cdef inline void write_market(const Market* market, uint32_t number, MarketRecord* record) noexcept nogil:
    record.market = number
    record.base_asset = market.base_asset
    record.quote_asset = market.quote_asset
    record.state = market.state
    record.tick_atoms = market.tick_atoms
    record.lot_atoms = market.lot_atoms
    record.maker_fee_ppm = market.maker_ppm
    record.taker_fee_ppm = market.taker_ppm
    record.last_price = market.last_price


cdef inline int read_market(Venue* venue, const MarketRecord* record) noexcept nogil:
    cdef Market* market
    if market_open(venue) < 0:
        return -1
    market = &venue.markets[venue.markets_count]
    market.base_asset = record.base_asset
    market.quote_asset = record.quote_asset
    market.state = record.state
    market.tick_atoms = record.tick_atoms
    market.lot_atoms = record.lot_atoms
    market.maker_ppm = record.maker_fee_ppm
    market.taker_ppm = record.taker_fee_ppm
    market.last_price = record.last_price
    market.fees = balance_open(&venue.ledger, FEE_ACCOUNT, record.quote_asset)
    return 0


cdef inline void write_balance(const Balance* balance, BalanceRecord* record) noexcept nogil:
    record.account = balance.account
    record.asset = balance.asset
    record.available = balance.available
    record.held = balance.held


cdef inline int read_balance(Venue* venue, const BalanceRecord* record) noexcept nogil:
    cdef Balance* balance
    if ledger_reserve(&venue.ledger, 1) < 0:
        return -1
    balance = &venue.ledger.balances[balance_open(&venue.ledger, record.account, record.asset)]
    balance.available = record.available
    balance.held = record.held
    return 0


cdef inline void write_order(const Order* order, OrderRecord* record) noexcept nogil:
    record.order_id = order.order_id
    record.slot = order.slot
    record.account = order.account
    record.market = order.market
    record.side = order.side
    record.order_type = order.order_type
    record.time_in_force = order.time_in_force
    record.flags = order.flags
    record.fee_residue = order.residue
    record.price = order.price
    record.quantity = order.quantity
    record.filled = order.filled
    record.leaves = order.leaves
    record.hold = order.hold
    record.priority = order.priority
    record.client_id_lo = order.client_id_lo
    record.client_id_hi = order.client_id_hi
    record.maker_fee_ppm = order.maker_ppm
    record.taker_fee_ppm = order.taker_ppm


cdef inline uint64_t write_orders(const Venue* venue, OrderRecord* records) noexcept nogil:
    """All resting orders in canonical order; returns how many."""
    cdef const Books* book = &venue.book
    cdef uint32_t ladder, at, slot
    cdef uint64_t count = 0
    for ladder in range(2, 2 * venue.markets_count + 2):
        at = book.ladders[ladder].count
        while at > 0:
            at -= 1
            slot = book.levels[book.ladders[ladder].rungs[at].level].head
            while slot != NO_LINK:
                write_order(&book.orders[slot], &records[count])
                count += 1
                slot = book.orders[slot].next
    return count


cdef inline int read_order(Venue* venue, const OrderRecord* record) noexcept nogil:
    """Rest one order in the slot that it had; its level's older orders are in already."""
    cdef Order* order
    if book_reserve(&venue.book, record.market * 2 + record.side) < 0 or ledger_reserve(&venue.ledger, 2) < 0:
        return -1
    slots_claim(&venue.book.slots, record.slot)
    order = &venue.book.orders[record.slot]
    order.order_id = record.order_id
    order.slot = record.slot
    order.account = record.account
    order.market = record.market
    order.side = record.side
    order.order_type = record.order_type
    order.time_in_force = record.time_in_force
    order.flags = <unsigned char>record.flags
    order.residue = record.fee_residue
    order.price = record.price
    order.quantity = record.quantity
    order.filled = record.filled
    order.leaves = record.leaves
    order.hold = 0
    order.priority = record.priority
    order.client_id_lo = record.client_id_lo
    order.client_id_hi = record.client_id_hi
    order.is_named = (record.client_id_lo | record.client_id_hi) != 0
    order.holds_nothing = False
    order.maker_ppm = record.maker_fee_ppm
    order.taker_ppm = record.taker_fee_ppm
    order.base = balance_open(&venue.ledger, record.account, venue.markets[record.market].base_asset)
    order.quote = balance_open(&venue.ledger, record.account, venue.markets[record.market].quote_asset)
    carry_hold(
        &venue.ledger.balances[order.quote if record.side == SIDE_BUY else order.base], order, record.hold
    )
    book_enter(&venue.book, order)
    book_append(&venue.book, order)
    return 0


cdef inline bint same_level(const OrderRecord* first, const OrderRecord* second) noexcept nogil:
    return first.market == second.market and first.side == second.side and first.price == second.price


cdef inline int read_orders(Venue* venue, const OrderRecord* records, uint64_t count) noexcept nogil:
    """Rest all orders, the worst level first: each new level is then the best of its ladder."""
    cdef Books* book = &venue.book
    cdef uint64_t end = count
    cdef uint64_t start, at
    cdef uint64_t slots = 0
    for at in range(count):
        if records[at].slot >= slots:
            slots = <uint64_t>records[at].slot + 1
    if slots:
        if memory_grow(<void**>&book.orders, &book.orders_capacity, slots, sizeof(Order)) < 0:
            return -1
        if slots_grow(&book.slots, <uint32_t>book.orders_capacity) < 0:
            return -1
    while end > 0:
        start = end - 1
        while start > 0 and same_level(&records[start - 1], &records[start]):
            start -= 1
        for at in range(start, end):
            if read_order(venue, &records[at]) < 0:
                return -1
        end = start
    return 0


cdef inline void write_seen(const SeenKey* seen, IdempotencyRecord* record) noexcept nogil:
    record.key_lo = seen.key_lo
    record.key_hi = seen.key_hi
    record.body = seen.body
    record.sequence = seen.sequence
    record.time_ns = seen.time_ns
    record.account = seen.account


cdef inline int read_seen(Venue* venue, const IdempotencyRecord* record) noexcept nogil:
    cdef SeenKey seen
    if idempotency_reserve(&venue.idempotency) < 0:
        return -1
    seen.key_lo = record.key_lo
    seen.key_hi = record.key_hi
    seen.body = record.body
    seen.sequence = record.sequence
    seen.time_ns = record.time_ns
    seen.account = record.account
    seen.spare = 0
    idempotency_push(&venue.idempotency, seen)
    venue.accounts[record.account].keys += 1
    return 0


cdef inline int read_accounts(Venue* venue, const AccountRecord* records, uint64_t count) noexcept nogil:
    cdef uint64_t at
    if memory_grow(<void**>&venue.accounts, &venue.accounts_capacity, count, sizeof(Account)) < 0:
        return -1
    for at in range(count):
        venue.accounts[at].state = records[at].state
    venue.accounts_count = <uint32_t>count
    return 0


cdef inline int read_assets(Venue* venue, const AssetRecord* records, uint64_t count) noexcept nogil:
    cdef uint64_t at
    if memory_grow(<void**>&venue.assets, &venue.assets_capacity, count + 2, sizeof(Asset)) < 0:
        return -1
    for at in range(count):
        venue.assets[at + 1].net_deposits = records[at].net_deposits
    venue.assets_count = <uint32_t>count
    return 0
