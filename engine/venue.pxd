# Everything that `apply` can see, in one struct; and how events are written.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from engine.books cimport Books, Order, book_free, book_init
from engine.idempotency cimport Idempotency, idempotency_free
from engine.index cimport Index
from engine.int128 cimport unlikely
from engine.ledger cimport Ledger, ledger_free
from engine.memory cimport memory_grow
from engine.types cimport NO_SLOT, VENUE_STATE_OPEN, VERSION, Event, KeyRecord, TransactionRecord

cdef struct Market:
    int64_t tick_atoms
    int64_t lot_atoms
    int64_t last_price
    int32_t maker_ppm
    int32_t taker_ppm
    uint32_t base_asset
    uint32_t quote_asset
    uint32_t fees           # balance of the fee account in the quote asset
    uint32_t state

cdef struct Account:
    uint32_t state
    uint32_t keys           # idempotency keys held

cdef struct Asset:
    int64_t net_deposits
    int64_t net_deposits_before

cdef struct Violation:
    uint8_t invariant       # 0: none; 5 for I5
    uint32_t account
    uint32_t asset
    uint64_t sequence
    int64_t delta

cdef struct Venue:
    uint64_t sequence
    int64_t time_ns
    uint64_t epoch
    uint64_t epoch_before
    uint64_t accepted_no
    uint64_t events_total
    uint64_t trades
    uint32_t state

    Books book
    Ledger ledger
    Idempotency idempotency
    Market* markets         # 1 … markets_count
    uint64_t markets_capacity
    uint32_t markets_count
    Account* accounts       # 0 … accounts_count − 1
    uint64_t accounts_capacity
    uint32_t accounts_count
    Asset* assets           # 1 … assets_count
    uint64_t assets_capacity
    uint32_t assets_count
    TransactionRecord* transactions
    uint64_t transactions_capacity
    uint32_t transactions_count
    Index by_transaction
    KeyRecord* keys
    uint64_t keys_capacity
    uint32_t keys_count
    Index by_hash

    # The batch: events so far, in a buffer that the owner of the venue provides.
    Event* events
    uint64_t events_count
    uint64_t events_capacity
    int (*grow_events)(void*) noexcept nogil
    void* owner

    # The command that runs.
    uint32_t market         # whose book or money it touches, 0 for none
    uint32_t asset          # of a deposit or withdrawal, 0 for none
    uint8_t is_out_of_memory
    Violation violation
    Order taker             # one that never rests
    Event nowhere           # where events go when there is no memory


cdef inline void violate(
    Venue* venue, uint8_t invariant, uint32_t account, uint32_t asset, int64_t delta
) noexcept nogil:
    """Note the first violation; the batch ends after this command."""
    if venue.violation.invariant == 0:
        venue.violation.invariant = invariant
        venue.violation.account = account
        venue.violation.asset = asset
        venue.violation.sequence = venue.sequence
        venue.violation.delta = delta


cdef inline void emit(
    Venue* venue,
    uint8_t type,
    uint8_t flags,
    uint8_t reason,
    uint32_t slot,
    uint64_t order_id,
    uint32_t account,
    uint32_t market,
    int64_t price,
    int64_t quantity,
    int64_t leaves,
    int64_t amount,
) noexcept nogil:
    """Write one event."""
    cdef Event* event
    if unlikely(venue.events_count == venue.events_capacity) and venue.grow_events(venue.owner) < 0:
        venue.is_out_of_memory = True
        event = &venue.nowhere
    else:
        event = &venue.events[venue.events_count]
        venue.events_count += 1
    event.type = type
    event.version = VERSION
    event.flags = flags
    event.reason = reason
    event.slot = slot
    event.sequence = venue.sequence
    event.order_id = order_id
    event.account = account
    event.market = market
    event.price = price
    event.quantity = quantity
    event.leaves = leaves
    event.amount = amount


cdef inline void emit_order(
    Venue* venue,
    uint8_t type,
    uint8_t flags,
    uint8_t reason,
    const Order* order,
    int64_t quantity,
    int64_t leaves,
    int64_t amount,
) noexcept nogil:
    """Write an event about an order at its own price."""
    emit(
        venue, type, flags | order.side, reason, order.slot, order.order_id,
        order.account, order.market, order.price, quantity, leaves, amount,
    )


cdef inline void emit_admin(
    Venue* venue, uint8_t type, uint32_t account, uint32_t market, int64_t quantity, int64_t amount
) noexcept nogil:
    """Write an event about something other than an order."""
    emit(venue, type, 0, 0, NO_SLOT, 0, account, market, 0, quantity, 0, amount)


cdef inline int venue_init(Venue* venue) noexcept nogil:
    """An empty venue, in memory that is all zero: OPEN, with the fee account only; 0, or -1."""
    book_init(&venue.book)
    venue.state = VENUE_STATE_OPEN
    if memory_grow(<void**>&venue.accounts, &venue.accounts_capacity, 1, sizeof(Account)) < 0:
        return -1
    venue.accounts_count = 1
    return 0


cdef inline void venue_free(Venue* venue) noexcept nogil:
    book_free(&venue.book)
    ledger_free(&venue.ledger)
    idempotency_free(&venue.idempotency)
    free(venue.markets)
    free(venue.accounts)
    free(venue.assets)
    free(venue.transactions)
    free(venue.by_transaction.entries)
    free(venue.keys)
    free(venue.by_hash.entries)
