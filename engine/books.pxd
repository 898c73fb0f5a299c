# The books of all markets: orders in a pool, FIFO queues, price levels, and the two indexes.
#
#     ladder (a market's side)      level                 orders, oldest first
#     [key │ level] … [best] ──►  price, total, count ──► head ⇄ … ⇄ tail
#
# A ladder is a vector sorted by *key* (BUY: price, SELL: −price), so that the
# best price of either side is at its end.  Prices are any 63-bit integer; what
# lies between two of them costs nothing.  Near the touch, where books change,
# a search ends at once and little has to move.
#
# An order is two cache lines: the first has what the book reads to match and to
# cancel, the second what the ledger and the entry of an order read.  Links are
# slots (32 bits).  A resting order's price and market are its level's.
#
# Two sums of what rests on a side are kept apart for I6: `total` follows the
# levels, `resting` the orders.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memmove

from engine.index cimport (
    ABSENT, Index, hash_words, index_add, index_next, index_remove, index_reserve, index_start,
)
from engine.int128 cimport likely, unlikely
from engine.memory cimport memory_grow
from engine.slots cimport Slots, slots_any, slots_free, slots_grow, slots_release, slots_take
from engine.types cimport NO_SLOT, SIDE_BUY

cdef enum:
    NO_LINK = 0xFFFFFFFF

cdef extern from *:
    """
    #define HOLDFAST_QUEUED ((uint64_t)1 << 62)
    """
    uint64_t QUEUED "HOLDFAST_QUEUED"

cdef struct Order:
    # first line: the book
    uint64_t order_id       # 0: the slot is free
    int64_t leaves
    int64_t quantity
    int64_t filled
    uint64_t priority
    uint32_t next
    uint32_t prev
    uint32_t level
    uint32_t slot
    uint32_t account
    uint8_t side
    uint8_t is_named        # has a client id
    uint8_t flags
    uint8_t holds_nothing   # MARKET BUY without a price
    # second line: the money, and what only entry and dump read
    int64_t hold
    uint32_t base           # balance of the account in the base asset
    uint32_t quote          # the same in the quote asset
    uint32_t residue
    int32_t maker_ppm
    int32_t taker_ppm
    uint32_t market
    int64_t price
    uint64_t client_id_lo
    uint64_t client_id_hi
    uint8_t order_type
    uint8_t time_in_force
    uint8_t spare[6]

cdef struct Level:
    int64_t price
    int64_t total
    uint32_t head
    uint32_t tail
    uint32_t count
    uint32_t ladder
    uint64_t last           # priority of the tail: appending need not wait for it

cdef struct Rung:
    int64_t key
    uint32_t level
    uint32_t spare

cdef struct Ladder:
    Rung* rungs
    uint64_t capacity
    int64_t total           # Σ Level.total
    int64_t resting         # Σ Order.leaves
    uint32_t count
    uint32_t spare

cdef struct Books:
    Order* orders
    uint64_t orders_capacity
    Slots slots
    uint64_t live
    Level* levels
    uint64_t levels_capacity
    uint32_t levels_used
    uint32_t levels_free    # linked by `head`
    Ladder* ladders         # market × 2 + side
    uint64_t ladders_capacity
    Index by_price          # (ladder, price) → level
    Index clients           # (account, client id) → slot
    Index queued            # QUEUED order id → slot


cdef inline int64_t key_of(uint8_t side, int64_t price) noexcept nogil:
    return price if side == SIDE_BUY else -price


cdef inline uint32_t ladder_position(const Ladder* ladder, int64_t key) noexcept nogil:
    """Number of rungs below `key`: steps that double from the best end, then halves."""
    cdef uint32_t high = ladder.count
    cdef uint32_t low = high
    cdef uint32_t step = 1
    cdef uint32_t middle
    while low > 0 and ladder.rungs[low - 1].key >= key:
        high = low - 1
        low = high - step if high > step else 0
        step *= 2
    # Rungs below `low` are below the key, those from `high` on are not.
    while low < high:
        middle = low + (high - low) // 2
        if ladder.rungs[middle].key < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline uint32_t level_hash(uint32_t ladder, int64_t price) noexcept nogil:
    """One multiplication: prices are few and near, and this is looked up for each order."""
    return <uint32_t>((<uint64_t>price + (<uint64_t>ladder << 40)) * <uint64_t>0x9E3779B97F4A7C15 >> 32)


cdef inline uint32_t level_find(const Books* book, uint32_t ladder, int64_t price) noexcept nogil:
    """The level at a price, or ABSENT."""
    cdef uint32_t hash = level_hash(ladder, price)
    cdef uint64_t position = index_start(&book.by_price, hash)
    cdef uint32_t number
    while True:
        number = index_next(&book.by_price, hash, &position)
        if number == ABSENT:
            return ABSENT
        if likely(book.levels[number].price == price and book.levels[number].ladder == ladder):
            return number


cdef inline uint32_t level_open(Books* book, uint32_t ladder, int64_t price) noexcept nogil:
    """Put a new, empty level on the ladder; room was reserved."""
    cdef Ladder* side = &book.ladders[ladder]
    cdef uint32_t number = book.levels_free
    cdef int64_t key = key_of(ladder & 1, price)
    cdef uint32_t at = ladder_position(side, key)
    cdef Level* level
    if number != NO_LINK:
        book.levels_free = book.levels[number].head
    else:
        number = book.levels_used
        book.levels_used += 1
    level = &book.levels[number]
    level.price = price
    level.total = 0
    level.head = level.tail = NO_LINK
    level.count = 0
    level.ladder = ladder
    level.last = 0
    memmove(&side.rungs[at + 1], &side.rungs[at], (side.count - at) * sizeof(Rung))
    side.rungs[at].key = key
    side.rungs[at].level = number
    side.count += 1
    index_add(&book.by_price, level_hash(ladder, price), number)
    return number


cdef inline void level_close(Books* book, uint32_t number) noexcept nogil:
    """Take an empty level off its ladder."""
    cdef Level* level = &book.levels[number]
    cdef Ladder* side = &book.ladders[level.ladder]
    cdef uint32_t at = ladder_position(side, key_of(level.ladder & 1, level.price))
    index_remove(&book.by_price, level_hash(level.ladder, level.price), number)
    side.count -= 1
    memmove(&side.rungs[at], &side.rungs[at + 1], (side.count - at) * sizeof(Rung))
    level.head = book.levels_free
    level.ladder = NO_LINK
    book.levels_free = number


cdef inline int book_reserve(Books* book, uint32_t ladder) noexcept nogil:
    """Make room for one more order, resting on a level of its own; 0, or -1."""
    cdef Ladder* side = &book.ladders[ladder]
    if unlikely(not slots_any(&book.slots)):
        if memory_grow(
            <void**>&book.orders, &book.orders_capacity, book.orders_capacity + 1, sizeof(Order)
        ) < 0:
            return -1
        if slots_grow(&book.slots, <uint32_t>book.orders_capacity) < 0:
            return -1
    if unlikely(book.levels_free == NO_LINK and book.levels_used == book.levels_capacity):
        if memory_grow(<void**>&book.levels, &book.levels_capacity, book.levels_used + 1, sizeof(Level)) < 0:
            return -1
    if unlikely(side.count == side.capacity):
        if memory_grow(<void**>&side.rungs, &side.capacity, side.count + 1, sizeof(Rung)) < 0:
            return -1
    if index_reserve(&book.by_price, 1) < 0 or index_reserve(&book.clients, 1) < 0:
        return -1
    return index_reserve(&book.queued, 1)


cdef inline bint book_append(Books* book, Order* order) noexcept nogil:
    """Rest an order at the end of its level's queue; False when priority would not rise (I6)."""
    cdef uint32_t ladder = order.market * 2 + order.side
    cdef uint32_t number = level_find(book, ladder, order.price)
    cdef Level* level
    cdef bint rises
    if number == ABSENT:
        number = level_open(book, ladder, order.price)
    level = &book.levels[number]
    order.level = number
    order.next = NO_LINK
    order.prev = level.tail
    if level.tail == NO_LINK:
        level.head = order.slot
    else:
        book.orders[level.tail].next = order.slot
    rises = level.last < order.priority
    level.last = order.priority
    level.tail = order.slot
    level.count += 1
    level.total += order.leaves
    book.ladders[ladder].total += order.leaves
    book.ladders[ladder].resting += order.leaves
    return rises


cdef inline void level_shrink(Books* book, uint32_t number, int64_t quantity) noexcept nogil:
    """Take `quantity` off a level's total: the levels' half of I6."""
    cdef Level* level = &book.levels[number]
    level.total -= quantity
    book.ladders[level.ladder].total -= quantity


cdef inline bint book_unlink(Books* book, Order* order) noexcept nogil:
    """Take an order out of its queue, its level's total being adjusted already.

    Returns False when its neighbours are out of order (I6).
    """
    cdef Level* level = &book.levels[order.level]
    cdef bint ordered = True
    cdef uint64_t before = 0
    if order.prev == NO_LINK:
        level.head = order.next
    else:
        before = book.orders[order.prev].priority
        ordered = before < order.priority
        book.orders[order.prev].next = order.next
    if order.next == NO_LINK:
        level.tail = order.prev
        level.last = before
    else:
        ordered = ordered and order.priority < book.orders[order.next].priority
        book.orders[order.next].prev = order.prev
    level.count -= 1
    if level.count == 0:
        level_close(book, order.level)
    return ordered


cdef inline uint32_t client_hash(const Order* order) noexcept nogil:
    return hash_words(order.client_id_lo, order.client_id_hi, order.account)


cdef inline uint32_t book_find_client(
    const Books* book, uint32_t account, uint64_t client_id_lo, uint64_t client_id_hi
) noexcept nogil:
    """Slot of an account's live order with that client id, or ABSENT."""
    cdef uint32_t hash = hash_words(client_id_lo, client_id_hi, account)
    cdef uint64_t position = index_start(&book.clients, hash)
    cdef uint32_t slot
    cdef const Order* order
    while True:
        slot = index_next(&book.clients, hash, &position)
        if slot == ABSENT:
            return ABSENT
        order = &book.orders[slot]
        if likely(
            order.client_id_lo == client_id_lo
            and order.client_id_hi == client_id_hi
            and order.account == account
        ):
            return slot


cdef inline uint32_t book_find_id(const Books* book, uint64_t order_id, uint32_t slot) noexcept nogil:
    """Slot of the live order with that id, or ABSENT; without a slot only QUEUED ids are found."""
    cdef uint32_t hash
    cdef uint64_t position
    if likely(slot != NO_SLOT):
        if slot < book.orders_capacity and book.orders[slot].order_id == order_id:
            return slot
        return ABSENT
    if not order_id & QUEUED:
        return ABSENT
    hash = hash_words(order_id, 0, 0)
    position = index_start(&book.queued, hash)
    while True:
        slot = index_next(&book.queued, hash, &position)
        if slot == ABSENT or book.orders[slot].order_id == order_id:
            return slot


cdef inline void book_enter(Books* book, Order* order) noexcept nogil:
    """An order with a slot becomes live: it can be named."""
    book.live += 1
    if order.is_named:
        index_add(&book.clients, client_hash(order), order.slot)
    if unlikely(order.order_id & QUEUED):
        index_add(&book.queued, hash_words(order.order_id, 0, 0), order.slot)


cdef inline void book_forget(Books* book, Order* order) noexcept nogil:
    """A live order is done: its slot and its names are free again."""
    if order.is_named:
        index_remove(&book.clients, client_hash(order), order.slot)
    if unlikely(order.order_id & QUEUED):
        index_remove(&book.queued, hash_words(order.order_id, 0, 0), order.slot)
    order.order_id = 0
    slots_release(&book.slots, order.slot)
    book.live -= 1


cdef inline void book_init(Books* book) noexcept nogil:
    book.levels_free = NO_LINK


cdef inline void book_free(Books* book) noexcept nogil:
    cdef uint64_t at
    for at in range(book.ladders_capacity):
        free(book.ladders[at].rungs)
    free(book.ladders)
    free(book.levels)
    free(book.orders)
    free(book.by_price.entries)
    free(book.clients.entries)
    free(book.queued.entries)
    slots_free(&book.slots)
