"""The vocabulary of the core: commands in, events out, the sections of its state.

Every record is fixed size, little endian, a multiple of 32 bytes, and is the
same bytes in four places: a C struct (`types.pxd`), a numpy dtype (here), a
row in a log or event frame, a row of a checkpoint.  `tests/unit/engine`
holds the two spellings against each other.

COMMAND, 128 bytes (which field means what for which command: see README)::

      0  u8  type            16  i64 time_ns       64 u64 client_id_lo   104 u64 accepted_no
      1  u8  version         24  u32 account       72 u64 client_id_hi   112 i64 trigger_price
      2  u8  side            28  u32 market        80 u64 key_lo         120 i64 expire_time_ns
      3  u8  order_type      32  u64 order_id      88 u64 key_hi
      4  u8  time_in_force   40  u32 slot          96 u64 body
      5  u8  self_trade      44  u32 asset
      6  u16 flags           48  i64 price
      8  u64 sequence        56  i64 quantity

EVENT, 64 bytes::

      0  u8  type            8  u64 sequence       32  i64 price
      1  u8  version        16  u64 order_id       40  i64 quantity
      2  u8  flags          24  u32 account        48  i64 leaves
      3  u8  reason         28  u32 market         56  i64 amount
      4  u32 slot
"""

from enum import IntEnum, IntFlag

import numpy as np

VERSION = 1
RULES_VERSION = 1

NO_SLOT = 0xFFFFFFFF
"""`slot` of an order that never rested, or of a name that carries no slot."""

QUEUED = 1 << 62
"""Bit of `order_id` that marks an order born from the submissions queue."""

FEE_ACCOUNT = 0
"""The venue's own account: fees collect there; nobody trades on it."""

INT64_MAX = (1 << 63) - 1
PPM = 1_000_000
"""Fee rates are parts per million of the notional."""

IDEMPOTENCY_WINDOW_NS = 24 * 3600 * 1_000_000_000
IDEMPOTENCY_QUOTA = 1_000_000
"""Keys one account may hold at a time."""
IDEMPOTENCY_TOTAL = 10_000_000
"""Keys all accounts may hold together."""
ORDERS_MAX = 50_000_000
MARKETS_MAX = 100_000
ACCOUNTS_MAX = 4_000_000
ASSETS_MAX = 65_536
TRANSACTIONS_MAX = 10_000_000
KEYS_MAX = 1_000_000


class CommandType(IntEnum):
    NEW = 1
    CANCEL = 2
    AMEND = 3
    OPEN_ASSET = 16
    OPEN_MARKET = 17
    OPEN_ACCOUNT = 18
    DEPOSIT = 19
    WITHDRAW = 20
    ADD_KEY = 21
    REVOKE_KEY = 22
    SET_MARKET_STATE = 23
    SET_VENUE_STATE = 24
    SET_ACCOUNT_STATE = 25
    START = 32
    DRAINED = 33
    TICK = 34


class EventType(IntEnum):
    ACCEPTED = 1
    REJECTED = 2
    FILL = 3
    RESTED = 4
    CANCELED = 5
    AMENDED = 6
    UNBOOKED = 7
    DUPLICATE = 8
    BALANCE = 9
    DEPOSITED = 10
    WITHDRAWN = 11
    ASSET_OPENED = 12
    MARKET_OPENED = 13
    ACCOUNT_OPENED = 14
    KEY_ADDED = 15
    KEY_REVOKED = 16
    MARKET_STATE = 17
    VENUE_STATE = 18
    ACCOUNT_STATE = 19


class Side(IntEnum):
    BUY = 0
    SELL = 1


class OrderType(IntEnum):
    LIMIT = 0
    MARKET = 1


class TimeInForce(IntEnum):
    GTC = 0
    IOC = 1
    FOK = 2


class CommandFlag(IntFlag):
    POST_ONLY = 1
    """NEW: reject rather than take."""
    LEAVES = 2
    """AMEND: `quantity` names the new LeavesQty, not the new OrderQty."""
    REDUCE = 4
    """AMEND: `quantity` names how much to take off LeavesQty."""
    REQUEUE = 8
    """AMEND: priority is lost whatever changes."""


class EventFlag(IntFlag):
    SELL = 1
    """The order's side; clear for BUY."""
    TAKER = 2
    """FILL: this side was the aggressor."""
    BOOKED = 4
    """The book changed at `price`: see the event table in README."""


class VenueState(IntEnum):
    RECOVERING = 0
    DRAINING = 1
    OPEN = 2
    CANCEL_ONLY = 3
    HALTED = 4


class MarketState(IntEnum):
    OPEN = 0
    POST_ONLY = 1
    CANCEL_ONLY = 2
    HALTED = 3


class AccountState(IntEnum):
    ACTIVE = 0
    SUSPENDED = 1


class Reason(IntEnum):
    """Why; one published enumeration, a range for each subsystem."""

    NONE = 0
    # The command itself.
    UNKNOWN_COMMAND = 1
    UNKNOWN_MARKET = 2
    UNKNOWN_ACCOUNT = 3
    UNKNOWN_ASSET = 4
    INVALID_SIDE = 5
    INVALID_ORDER_TYPE = 6
    INVALID_TIME_IN_FORCE = 7
    INVALID_FLAGS = 8
    INVALID_PRICE = 9
    INVALID_QUANTITY = 10
    INVALID_AMOUNT = 11
    OVERFLOW = 12
    DUPLICATE_CLIENT_ORDER_ID = 13
    ALREADY_EXISTS = 14
    INVALID_STATE = 15
    INVALID_FEE = 16
    INVALID_IDENTIFIER = 17
    UNKNOWN_KEY = 18
    # Trading states.
    VENUE_HALTED = 32
    VENUE_DRAINING = 33
    VENUE_CANCEL_ONLY = 34
    MARKET_HALTED = 35
    MARKET_CANCEL_ONLY = 36
    MARKET_POST_ONLY = 37
    ACCOUNT_SUSPENDED = 38
    # The order.
    NOT_LIVE = 48
    NOT_OWNER = 49
    POST_ONLY_WOULD_CROSS = 50
    FOK_NOT_FILLABLE = 51
    IOC_REMAINDER = 52
    MARKET_REMAINDER = 53
    USER_REQUESTED = 54
    AMENDED_AWAY = 55
    # The ledger.
    INSUFFICIENT_FUNDS = 64
    BALANCE_OVERFLOW = 65
    # Idempotency.
    IDEMPOTENCY_CONFLICT = 80
    IDEMPOTENCY_QUOTA = 81
    # Bounds of the venue.
    LIMIT_REACHED = 96


def _record(size: int, fields: list[tuple[str, str]]) -> np.dtype:
    dtype = np.dtype([(name, "<" + kind) for name, kind in fields])
    if dtype.itemsize != size:
        raise TypeError(f"record of {dtype.itemsize} bytes, {size} expected")
    return dtype


COMMAND = _record(
    128,
    [
        ("type", "u1"),
        ("version", "u1"),
        ("side", "u1"),
        ("order_type", "u1"),
        ("time_in_force", "u1"),
        ("self_trade", "u1"),
        ("flags", "u2"),
        ("sequence", "u8"),
        ("time_ns", "i8"),
        ("account", "u4"),
        ("market", "u4"),
        ("order_id", "u8"),
        ("slot", "u4"),
        ("asset", "u4"),
        ("price", "i8"),
        ("quantity", "i8"),
        ("client_id_lo", "u8"),
        ("client_id_hi", "u8"),
        ("key_lo", "u8"),
        ("key_hi", "u8"),
        ("body", "u8"),
        ("accepted_no", "u8"),
        ("trigger_price", "i8"),
        ("expire_time_ns", "i8"),
    ],
)

EVENT = _record(
    64,
    [
        ("type", "u1"),
        ("version", "u1"),
        ("flags", "u1"),
        ("reason", "u1"),
        ("slot", "u4"),
        ("sequence", "u8"),
        ("order_id", "u8"),
        ("account", "u4"),
        ("market", "u4"),
        ("price", "i8"),
        ("quantity", "i8"),
        ("leaves", "i8"),
        ("amount", "i8"),
    ],
)

# The sections of the state, in the order in which they are dumped and hashed.

VENUE = _record(
    96,
    [
        ("sequence", "u8"),
        ("time_ns", "i8"),
        ("epoch", "u8"),
        ("accepted_no", "u8"),
        ("events", "u8"),
        ("trades", "u8"),
        ("rules_version", "u4"),
        ("state", "u4"),
        ("spare_0", "u8"),
        ("spare_1", "u8"),
        ("spare_2", "u8"),
        ("spare_3", "u8"),
        ("spare_4", "u8"),
    ],
)

ASSET = _record(
    32,
    [("asset", "u4"), ("spare_0", "u4"), ("net_deposits", "i8"), ("spare_1", "u8"), ("spare_2", "u8")],
)

MARKET = _record(
    96,
    [
        ("market", "u4"),
        ("base_asset", "u4"),
        ("quote_asset", "u4"),
        ("state", "u4"),
        ("tick_atoms", "i8"),
        ("lot_atoms", "i8"),
        ("maker_fee_ppm", "i4"),
        ("taker_fee_ppm", "i4"),
        ("last_price", "i8"),
        ("spare_0", "u8"),
        ("spare_1", "u8"),
        ("spare_2", "u8"),
        ("spare_3", "u8"),
        ("spare_4", "u8"),
        ("spare_5", "u8"),
    ],
)

ACCOUNT = _record(
    32,
    [("account", "u4"), ("state", "u4"), ("spare_0", "u8"), ("spare_1", "u8"), ("spare_2", "u8")],
)

BALANCE = _record(
    32,
    [("account", "u4"), ("asset", "u4"), ("available", "i8"), ("held", "i8"), ("spare_0", "u8")],
)

ORDER = _record(
    160,
    [
        ("order_id", "u8"),
        ("slot", "u4"),
        ("account", "u4"),
        ("market", "u4"),
        ("side", "u1"),
        ("order_type", "u1"),
        ("time_in_force", "u1"),
        ("self_trade", "u1"),
        ("flags", "u2"),
        ("spare_0", "u2"),
        ("fee_residue", "u4"),
        ("price", "i8"),
        ("quantity", "i8"),
        ("filled", "i8"),
        ("leaves", "i8"),
        ("hold", "i8"),
        ("priority", "u8"),
        ("client_id_lo", "u8"),
        ("client_id_hi", "u8"),
        ("maker_fee_ppm", "i4"),
        ("taker_fee_ppm", "i4"),
        ("trigger_price", "i8"),
        ("expire_time_ns", "i8"),
        ("spare_1", "u8"),
        ("spare_2", "u8"),
        ("spare_3", "u8"),
        ("spare_4", "u8"),
        ("spare_5", "u8"),
    ],
)

TRANSACTION = _record(
    64,
    [
        ("id_lo", "u8"),
        ("id_hi", "u8"),
        ("sequence", "u8"),
        ("quantity", "i8"),
        ("account", "u4"),
        ("asset", "u4"),
        ("type", "u4"),
        ("spare_0", "u4"),
        ("spare_1", "u8"),
        ("spare_2", "u8"),
    ],
)

KEY = _record(
    64,
    [
        ("hash_0", "u8"),
        ("hash_1", "u8"),
        ("hash_2", "u8"),
        ("hash_3", "u8"),
        ("account", "u4"),
        ("scopes", "u4"),
        ("expire_time_ns", "i8"),
        ("sequence", "u8"),
        ("revoked", "u8"),
    ],
)

IDEMPOTENCY = _record(
    64,
    [
        ("key_lo", "u8"),
        ("key_hi", "u8"),
        ("body", "u8"),
        ("sequence", "u8"),
        ("time_ns", "i8"),
        ("account", "u4"),
        ("spare_0", "u4"),
        ("spare_1", "u8"),
        ("spare_2", "u8"),
    ],
)

SECTIONS: dict[str, np.dtype] = {
    "venue": VENUE,
    "assets": ASSET,
    "markets": MARKET,
    "accounts": ACCOUNT,
    "balances": BALANCE,
    "orders": ORDER,
    "transactions": TRANSACTION,
    "keys": KEY,
    "idempotency": IDEMPOTENCY,
}
"""Name of each section of the state → record; `dump` and `state_hash` go in this order."""

LEVEL = np.dtype([("price", "<i8"), ("quantity", "<i8"), ("orders", "<i8")])
"""One price of `depth`: ticks, Σ LeavesQty in lots, how many orders."""
