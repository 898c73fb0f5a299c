# The C spelling of types.py: enumerations and record structs.  A test holds
# the two against each other (names, values, sizes, offsets).
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    VERSION = 1
    RULES_VERSION = 1
    NO_SLOT = 0xFFFFFFFF
    FEE_ACCOUNT = 0
    PPM = 1000000
    IDEMPOTENCY_QUOTA = 1000000
    IDEMPOTENCY_TOTAL = 10000000
    ORDERS_MAX = 50000000
    MARKETS_MAX = 100000
    ACCOUNTS_MAX = 4000000
    ASSETS_MAX = 65536
    TRANSACTIONS_MAX = 10000000
    KEYS_MAX = 1000000

cdef enum CommandType:
    COMMAND_NEW = 1
    COMMAND_CANCEL = 2
    COMMAND_AMEND = 3
    COMMAND_OPEN_ASSET = 16
    COMMAND_OPEN_MARKET = 17
    COMMAND_OPEN_ACCOUNT = 18
    COMMAND_DEPOSIT = 19
    COMMAND_WITHDRAW = 20
    COMMAND_ADD_KEY = 21
    COMMAND_REVOKE_KEY = 22
    COMMAND_SET_MARKET_STATE = 23
    COMMAND_SET_VENUE_STATE = 24
    COMMAND_SET_ACCOUNT_STATE = 25
    COMMAND_START = 32
    COMMAND_DRAINED = 33
    COMMAND_TICK = 34

cdef enum EventType:
    EVENT_ACCEPTED = 1
    EVENT_REJECTED = 2
    EVENT_FILL = 3
    EVENT_RESTED = 4
    EVENT_CANCELED = 5
    EVENT_AMENDED = 6
    EVENT_UNBOOKED = 7
    EVENT_DUPLICATE = 8
    EVENT_BALANCE = 9
    EVENT_DEPOSITED = 10
    EVENT_WITHDRAWN = 11
    EVENT_ASSET_OPENED = 12
    EVENT_MARKET_OPENED = 13
    EVENT_ACCOUNT_OPENED = 14
    EVENT_KEY_ADDED = 15
    EVENT_KEY_REVOKED = 16
    EVENT_MARKET_STATE = 17
    EVENT_VENUE_STATE = 18
    EVENT_ACCOUNT_STATE = 19

cdef enum Side:
    SIDE_BUY = 0
    SIDE_SELL = 1

cdef enum OrderType:
    ORDER_TYPE_LIMIT = 0
    ORDER_TYPE_MARKET = 1

cdef enum TimeInForce:
    TIME_IN_FORCE_GTC = 0
    TIME_IN_FORCE_IOC = 1
    TIME_IN_FORCE_FOK = 2

cdef enum CommandFlag:
    COMMAND_FLAG_POST_ONLY = 1
    COMMAND_FLAG_LEAVES = 2
    COMMAND_FLAG_REDUCE = 4
    COMMAND_FLAG_REQUEUE = 8

cdef enum EventFlag:
    EVENT_FLAG_SELL = 1
    EVENT_FLAG_TAKER = 2
    EVENT_FLAG_BOOKED = 4

cdef enum VenueState:
    VENUE_STATE_RECOVERING = 0
    VENUE_STATE_DRAINING = 1
    VENUE_STATE_OPEN = 2
    VENUE_STATE_CANCEL_ONLY = 3
    VENUE_STATE_HALTED = 4

cdef enum MarketState:
    MARKET_STATE_OPEN = 0
    MARKET_STATE_POST_ONLY = 1
    MARKET_STATE_CANCEL_ONLY = 2
    MARKET_STATE_HALTED = 3

cdef enum AccountState:
    ACCOUNT_STATE_ACTIVE = 0
    ACCOUNT_STATE_SUSPENDED = 1

cdef enum Reason:
    REASON_NONE = 0
    REASON_UNKNOWN_COMMAND = 1
    REASON_UNKNOWN_MARKET = 2
    REASON_UNKNOWN_ACCOUNT = 3
    REASON_UNKNOWN_ASSET = 4
    REASON_INVALID_SIDE = 5
    REASON_INVALID_ORDER_TYPE = 6
    REASON_INVALID_TIME_IN_FORCE = 7
    REASON_INVALID_FLAGS = 8
    REASON_INVALID_PRICE = 9
    REASON_INVALID_QUANTITY = 10
    REASON_INVALID_AMOUNT = 11
    REASON_OVERFLOW = 12
    REASON_DUPLICATE_CLIENT_ORDER_ID = 13
    REASON_ALREADY_EXISTS = 14
    REASON_INVALID_STATE = 15
    REASON_INVALID_FEE = 16
    REASON_INVALID_IDENTIFIER = 17
    REASON_UNKNOWN_KEY = 18
    REASON_VENUE_HALTED = 32
    REASON_VENUE_DRAINING = 33
    REASON_VENUE_CANCEL_ONLY = 34
    REASON_MARKET_HALTED = 35
    REASON_MARKET_CANCEL_ONLY = 36
    REASON_MARKET_POST_ONLY = 37
    REASON_ACCOUNT_SUSPENDED = 38
    REASON_NOT_LIVE = 48
    REASON_NOT_OWNER = 49
    REASON_POST_ONLY_WOULD_CROSS = 50
    REASON_FOK_NOT_FILLABLE = 51
    REASON_IOC_REMAINDER = 52
    REASON_MARKET_REMAINDER = 53
    REASON_USER_REQUESTED = 54
    REASON_AMENDED_AWAY = 55
    REASON_INSUFFICIENT_FUNDS = 64
    REASON_BALANCE_OVERFLOW = 65
    REASON_IDEMPOTENCY_CONFLICT = 80
    REASON_IDEMPOTENCY_QUOTA = 81
    REASON_LIMIT_REACHED = 96

cdef struct Command:
    uint8_t type
    uint8_t version
    uint8_t side
    uint8_t order_type
    uint8_t time_in_force
    uint8_t self_trade
    uint16_t flags
    uint64_t sequence
    int64_t time_ns
    uint32_t account
    uint32_t market
    uint64_t order_id
    uint32_t slot
    uint32_t asset
    int64_t price
    int64_t quantity
    uint64_t client_id_lo
    uint64_t client_id_hi
    uint64_t key_lo
    uint64_t key_hi
    uint64_t body
    uint64_t accepted_no
    int64_t trigger_price
    int64_t expire_time_ns

cdef struct Event:
    uint8_t type
    uint8_t version
    uint8_t flags
    uint8_t reason
    uint32_t slot
    uint64_t sequence
    uint64_t order_id
    uint32_t account
    uint32_t market
    int64_t price
    int64_t quantity
    int64_t leaves
    int64_t amount

# The sections of the state.

cdef struct VenueRecord:
    uint64_t sequence
    int64_t time_ns
    uint64_t epoch
    uint64_t accepted_no
    uint64_t events
    uint64_t trades
    uint32_t rules_version
    uint32_t state
    uint64_t spare_0
    uint64_t spare_1
    uint64_t spare_2
    uint64_t spare_3
    uint64_t spare_4

cdef struct AssetRecord:
    uint32_t asset
    uint32_t spare_0
    int64_t net_deposits
    uint64_t spare_1
    uint64_t spare_2

cdef struct MarketRecord:
    uint32_t market
    uint32_t base_asset
    uint32_t quote_asset
    uint32_t state
    int64_t tick_atoms
    int64_t lot_atoms
    int32_t maker_fee_ppm
    int32_t taker_fee_ppm
    int64_t last_price
    uint64_t spare_0
    uint64_t spare_1
    uint64_t spare_2
    uint64_t spare_3
    uint64_t spare_4
    uint64_t spare_5

cdef struct AccountRecord:
    uint32_t account
    uint32_t state
    uint64_t spare_0
    uint64_t spare_1
    uint64_t spare_2

cdef struct BalanceRecord:
    uint32_t account
    uint32_t asset
    int64_t available
    int64_t held
    uint64_t spare_0

cdef struct OrderRecord:
    uint64_t order_id
    uint32_t slot
    uint32_t account
    uint32_t market
    uint8_t side
    uint8_t order_type
    uint8_t time_in_force
    uint8_t self_trade
    uint16_t flags
    uint16_t spare_0
    uint32_t fee_residue
    int64_t price
    int64_t quantity
    int64_t filled
    int64_t leaves
    int64_t hold
    uint64_t priority
    uint64_t client_id_lo
    uint64_t client_id_hi
    int32_t maker_fee_ppm
    int32_t taker_fee_ppm
    int64_t trigger_price
    int64_t expire_time_ns
    uint64_t spare_1
    uint64_t spare_2
    uint64_t spare_3
    uint64_t spare_4
    uint64_t spare_5

cdef struct TransactionRecord:
    uint64_t id_lo
    uint64_t id_hi
    uint64_t sequence
    int64_t quantity
    uint32_t account
    uint32_t asset
    uint32_t type
    uint32_t spare_0
    uint64_t spare_1
    uint64_t spare_2

cdef struct KeyRecord:
    uint64_t hash_0
    uint64_t hash_1
    uint64_t hash_2
    uint64_t hash_3
    uint32_t account
    uint32_t scopes
    int64_t expire_time_ns
    uint64_t sequence
    uint64_t revoked

cdef struct IdempotencyRecord:
    uint64_t key_lo
    uint64_t key_hi
    uint64_t body
    uint64_t sequence
    int64_t time_ns
    uint32_t account
    uint32_t spare_0
    uint64_t spare_1
    uint64_t spare_2

cdef struct LevelRecord:
    int64_t price
    int64_t quantity
    int64_t orders
