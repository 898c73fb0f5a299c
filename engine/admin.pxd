# What runs the venue: assets, markets, accounts, money in and out, keys, states.
#
# Each function returns the reason of a rejection, or NONE when it was carried out.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.books cimport QUEUED, Books, Ladder
from engine.index cimport ABSENT, hash_words, index_add, index_next, index_reserve, index_start
from engine.int128 cimport add_overflows
from engine.ledger cimport Balance, balance_find, balance_open, balance_touch, ledger_reserve
from engine.memory cimport memory_grow
from engine.types cimport *
from engine.venue cimport Account, Asset, Market, Venue, emit, emit_admin


cdef inline uint8_t refuse_id(uint32_t wanted, uint32_t last, uint32_t bound) noexcept nogil:
    """Ids are dense from 1; 0 asks for the next."""
    if wanted and wanted <= last:
        return REASON_ALREADY_EXISTS
    if wanted > last + 1:
        return REASON_INVALID_IDENTIFIER
    if last >= bound:
        return REASON_LIMIT_REACHED
    return REASON_NONE


cdef inline uint8_t run_out_of_memory(Venue* venue) noexcept nogil:
    venue.is_out_of_memory = True
    return REASON_NONE


cdef inline uint8_t run_open_asset(Venue* venue, const Command* command) noexcept nogil:
    cdef uint8_t reason = refuse_id(command.asset, venue.assets_count, ASSETS_MAX)
    if reason != REASON_NONE:
        return reason
    if memory_grow(<void**>&venue.assets, &venue.assets_capacity, venue.assets_count + 2, sizeof(Asset)) < 0:
        return run_out_of_memory(venue)
    venue.assets_count += 1
    emit_admin(venue, EVENT_ASSET_OPENED, 0, venue.assets_count, 0, 0)
    return REASON_NONE


cdef inline int market_open(Venue* venue) noexcept nogil:
    """Room for one more market and its two ladders; 0, or -1 when there is no memory."""
    cdef Books* book = &venue.book
    cdef uint32_t number = venue.markets_count + 1
    if memory_grow(<void**>&venue.markets, &venue.markets_capacity, number + 1, sizeof(Market)) < 0:
        return -1
    if memory_grow(
        <void**>&book.ladders, &book.ladders_capacity, 2 * <uint64_t>number + 2, sizeof(Ladder)
    ) < 0:
        return -1
    if ledger_reserve(&venue.ledger, 1) < 0:
        return -1
    venue.markets_count = number
    return 0


cdef inline uint8_t run_open_market(Venue* venue, const Command* command) noexcept nogil:
    cdef uint32_t base = command.asset
    cdef uint32_t quote = command.slot
    cdef int64_t maker = command.trigger_price
    cdef int64_t taker = command.expire_time_ns
    cdef Market* market
    cdef uint8_t reason = refuse_id(command.market, venue.markets_count, MARKETS_MAX)
    if reason != REASON_NONE:
        return reason
    if base == 0 or base > venue.assets_count or quote == 0 or quote > venue.assets_count:
        return REASON_UNKNOWN_ASSET
    if base == quote:
        return REASON_INVALID_IDENTIFIER
    if command.price < 1 or command.quantity < 1:
        return REASON_INVALID_AMOUNT
    if taker < 0 or taker > PPM or maker < -taker or maker > PPM:
        return REASON_INVALID_FEE
    if market_open(venue) < 0:
        return run_out_of_memory(venue)
    market = &venue.markets[venue.markets_count]
    market.base_asset = base
    market.quote_asset = quote
    market.tick_atoms = command.price
    market.lot_atoms = command.quantity
    market.maker_ppm = <int>maker
    market.taker_ppm = <int>taker
    market.state = MARKET_STATE_OPEN
    market.fees = balance_open(&venue.ledger, FEE_ACCOUNT, quote)
    emit(
        venue, EVENT_MARKET_OPENED, 0, 0, quote, 0, base, venue.markets_count,
        command.price, command.quantity, maker, taker,
    )
    return REASON_NONE


cdef inline uint8_t run_open_account(Venue* venue, const Command* command) noexcept nogil:
    cdef uint8_t reason = refuse_id(command.account, venue.accounts_count - 1, ACCOUNTS_MAX)
    if reason != REASON_NONE:
        return reason
    if memory_grow(
        <void**>&venue.accounts, &venue.accounts_capacity, venue.accounts_count + 1, sizeof(Account)
    ) < 0:
        return run_out_of_memory(venue)
    venue.accounts_count += 1
    emit_admin(venue, EVENT_ACCOUNT_OPENED, venue.accounts_count - 1, 0, 0, 0)
    return REASON_NONE


cdef inline TransactionRecord* transaction_find(
    const Venue* venue, uint64_t id_lo, uint64_t id_hi
) noexcept nogil:
    """The transaction with that id, or NULL."""
    cdef uint32_t hash = hash_words(id_lo, id_hi, 0)
    cdef uint64_t position = index_start(&venue.by_transaction, hash)
    cdef uint32_t number
    while True:
        number = index_next(&venue.by_transaction, hash, &position)
        if number == ABSENT:
            return NULL
        if venue.transactions[number].id_lo == id_lo and venue.transactions[number].id_hi == id_hi:
            return &venue.transactions[number]


cdef inline int transaction_add(Venue* venue, TransactionRecord record) noexcept nogil:
    """Keep a transaction that is new; 0, or -1 when there is no memory."""
    cdef uint32_t number = venue.transactions_count
    if memory_grow(
        <void**>&venue.transactions, &venue.transactions_capacity, number + 1, sizeof(TransactionRecord)
    ) < 0 or index_reserve(&venue.by_transaction, 1) < 0:
        return -1
    venue.transactions[number] = record
    venue.transactions_count += 1
    index_add(&venue.by_transaction, hash_words(record.id_lo, record.id_hi, 0), number)
    return 0


cdef inline uint8_t run_transfer(Venue* venue, const Command* command) noexcept nogil:
    """DEPOSIT and WITHDRAW, once for each transaction id."""
    cdef bint is_deposit = command.type == COMMAND_DEPOSIT
    cdef int64_t atoms = command.quantity if is_deposit else -command.quantity
    cdef uint32_t number
    cdef int64_t total
    cdef TransactionRecord record
    cdef const TransactionRecord* first
    cdef Balance* balance
    if not is_deposit and venue.state == VENUE_STATE_HALTED:
        return REASON_VENUE_HALTED
    if command.asset == 0 or command.asset > venue.assets_count:
        return REASON_UNKNOWN_ASSET
    if not command.client_id_lo | command.client_id_hi:
        return REASON_INVALID_IDENTIFIER
    first = transaction_find(venue, command.client_id_lo, command.client_id_hi)
    if first != NULL:
        emit_duplicate(venue, command, first.sequence)
        return REASON_NONE
    if command.quantity < 1:
        return REASON_INVALID_QUANTITY
    if venue.transactions_count >= TRANSACTIONS_MAX:
        return REASON_LIMIT_REACHED
    if is_deposit:
        if add_overflows(venue.assets[command.asset].net_deposits, atoms, &total):
            return REASON_BALANCE_OVERFLOW
    else:
        number = balance_find(&venue.ledger, command.account, command.asset)
        if number == ABSENT or venue.ledger.balances[number].available < command.quantity:
            return REASON_INSUFFICIENT_FUNDS
    record.id_lo = command.client_id_lo
    record.id_hi = command.client_id_hi
    record.sequence = venue.sequence
    record.quantity = command.quantity
    record.account = command.account
    record.asset = command.asset
    record.type = command.type
    record.spare_0 = 0
    record.spare_1 = record.spare_2 = 0
    if ledger_reserve(&venue.ledger, 1) < 0 or transaction_add(venue, record) < 0:
        return run_out_of_memory(venue)
    venue.asset = command.asset
    venue.assets[command.asset].net_deposits_before = venue.assets[command.asset].net_deposits
    venue.assets[command.asset].net_deposits += atoms
    number = balance_open(&venue.ledger, command.account, command.asset)
    balance = balance_touch(&venue.ledger, number, venue.sequence)
    balance.available += atoms
    emit_admin(
        venue, EVENT_DEPOSITED if is_deposit else EVENT_WITHDRAWN,
        command.account, command.asset, command.quantity, 0,
    )
    return REASON_NONE


cdef inline void emit_duplicate(Venue* venue, const Command* command, uint64_t first) noexcept nogil:
    cdef uint64_t order_id = 0
    if command.accepted_no and (command.type == COMMAND_NEW or command.type == COMMAND_CANCEL):
        order_id = QUEUED | command.accepted_no
    emit(
        venue, EVENT_DUPLICATE, 0, 0, NO_SLOT, order_id, command.account, command.market,
        0, <int64_t>first, 0, command.type,
    )


cdef inline uint32_t key_find(
    const Venue* venue, uint64_t hash_0, uint64_t hash_1, uint64_t hash_2, uint64_t hash_3
) noexcept nogil:
    """Number of the API key with that hash, or ABSENT."""
    cdef uint32_t hash = hash_words(hash_0, hash_1, hash_2)
    cdef uint64_t position = index_start(&venue.by_hash, hash)
    cdef uint32_t number
    cdef const KeyRecord* key
    while True:
        number = index_next(&venue.by_hash, hash, &position)
        if number == ABSENT:
            return ABSENT
        key = &venue.keys[number]
        if key.hash_0 == hash_0 and key.hash_1 == hash_1 and key.hash_2 == hash_2 and key.hash_3 == hash_3:
            return number


cdef inline int key_add(Venue* venue, KeyRecord record) noexcept nogil:
    """Keep an API key that is new; 0, or -1 when there is no memory."""
    cdef uint32_t number = venue.keys_count
    if memory_grow(
        <void**>&venue.keys, &venue.keys_capacity, number + 1, sizeof(KeyRecord)
    ) < 0 or index_reserve(&venue.by_hash, 1) < 0:
        return -1
    venue.keys[number] = record
    venue.keys_count += 1
    index_add(&venue.by_hash, hash_words(record.hash_0, record.hash_1, record.hash_2), number)
    return 0


cdef inline void emit_key(Venue* venue, uint8_t type, const KeyRecord* key) noexcept nogil:
    emit(
        venue, type, 0, 0, NO_SLOT, key.hash_0, key.account, key.scopes,
        <int64_t>key.hash_1, <int64_t>key.hash_2, <int64_t>key.hash_3, key.expire_time_ns,
    )


cdef inline uint8_t run_add_key(Venue* venue, const Command* command) noexcept nogil:
    cdef KeyRecord record
    record.hash_0 = command.client_id_lo
    record.hash_1 = command.client_id_hi
    record.hash_2 = command.key_lo
    record.hash_3 = command.key_hi
    if not record.hash_0 | record.hash_1 | record.hash_2 | record.hash_3:
        return REASON_INVALID_IDENTIFIER
    if key_find(venue, record.hash_0, record.hash_1, record.hash_2, record.hash_3) != ABSENT:
        return REASON_ALREADY_EXISTS
    if command.account >= venue.accounts_count:
        return REASON_UNKNOWN_ACCOUNT
    if command.asset == 0 or command.expire_time_ns < 0:
        return REASON_INVALID_AMOUNT
    if venue.keys_count >= KEYS_MAX:
        return REASON_LIMIT_REACHED
    record.account = command.account
    record.scopes = command.asset
    record.expire_time_ns = command.expire_time_ns
    record.sequence = venue.sequence
    record.revoked = 0
    if key_add(venue, record) < 0:
        return run_out_of_memory(venue)
    emit_key(venue, EVENT_KEY_ADDED, &record)
    return REASON_NONE


cdef inline uint8_t run_revoke_key(Venue* venue, const Command* command) noexcept nogil:
    cdef KeyRecord* key
    cdef uint32_t number = key_find(
        venue, command.client_id_lo, command.client_id_hi, command.key_lo, command.key_hi
    )
    if number == ABSENT:
        return REASON_UNKNOWN_KEY
    key = &venue.keys[number]
    if key.revoked == 0:
        key.revoked = venue.sequence
    emit_key(venue, EVENT_KEY_REVOKED, key)
    return REASON_NONE


cdef inline uint8_t run_set_market_state(Venue* venue, const Command* command) noexcept nogil:
    if command.market == 0 or command.market > venue.markets_count:
        return REASON_UNKNOWN_MARKET
    if command.quantity < MARKET_STATE_OPEN or command.quantity > MARKET_STATE_HALTED:
        return REASON_INVALID_STATE
    venue.markets[command.market].state = <uint32_t>command.quantity
    emit_admin(venue, EVENT_MARKET_STATE, 0, command.market, 0, command.quantity)
    return REASON_NONE


cdef inline uint8_t run_set_account_state(Venue* venue, const Command* command) noexcept nogil:
    if command.account == FEE_ACCOUNT or command.account >= venue.accounts_count:
        return REASON_UNKNOWN_ACCOUNT
    if command.quantity != ACCOUNT_STATE_ACTIVE and command.quantity != ACCOUNT_STATE_SUSPENDED:
        return REASON_INVALID_STATE
    venue.accounts[command.account].state = <uint32_t>command.quantity
    emit_admin(venue, EVENT_ACCOUNT_STATE, command.account, 0, 0, command.quantity)
    return REASON_NONE


cdef inline void enter_state(Venue* venue, uint32_t state) noexcept nogil:
    venue.state = state
    emit_admin(venue, EVENT_VENUE_STATE, 0, 0, <int64_t>venue.epoch, state)


cdef inline uint8_t run_set_venue_state(Venue* venue, const Command* command) noexcept nogil:
    if command.quantity < VENUE_STATE_OPEN or command.quantity > VENUE_STATE_HALTED:
        return REASON_INVALID_STATE
    enter_state(venue, <uint32_t>command.quantity)
    return REASON_NONE


cdef inline uint8_t run_start(Venue* venue, const Command* command) noexcept nogil:
    """Another process takes over, with a higher epoch."""
    if command.quantity <= <int64_t>venue.epoch:
        return REASON_INVALID_STATE
    venue.epoch = <uint64_t>command.quantity
    if venue.state != VENUE_STATE_HALTED and venue.state != VENUE_STATE_CANCEL_ONLY:
        venue.state = VENUE_STATE_DRAINING
    enter_state(venue, venue.state)
    return REASON_NONE


cdef inline uint8_t run_drained(Venue* venue, const Command* command) noexcept nogil:
    if venue.state != VENUE_STATE_DRAINING:
        return REASON_INVALID_STATE
    enter_state(venue, VENUE_STATE_OPEN)
    return REASON_NONE
