"""Builds COMMAND records: one function a command type, fields by name.

Each argument is a scalar or an array; arrays must agree in length, scalars are
spread over it, and the result has that length (1 if all are scalars).  128-bit
names (`client_id`, `key`, `transaction_id`) are an int, an unsigned integer
array (upper half zero) or a sequence of ints.

Nothing is judged here but what a field can hold: the core answers for the rest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.types import COMMAND, NO_SLOT, VERSION, CommandType, OrderType, TimeInForce

Commands = NDArray[np.void]
Wide = int | Sequence[int] | NDArray[Any]
_WORD = (1 << 64) - 1


def _halves(value: Wide) -> tuple[ArrayLike, ArrayLike]:
    """Lower and upper 64 bits of a 128-bit name."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        return value.astype(np.uint64), 0
    if isinstance(value, int | np.integer):
        wide = int(value)
        if not 0 <= wide < 1 << 128:
            raise OverflowError(f"{wide} does not fit 128 bits")
        return wide & _WORD, wide >> 64
    pairs = [_halves(int(item)) for item in value]
    lower = np.array([pair[0] for pair in pairs], dtype=np.uint64)
    return lower, np.array([pair[1] for pair in pairs], dtype=np.uint64)


def _build(kind: CommandType, **fields: ArrayLike) -> Commands:
    """Lay the fields out in records of one command type."""
    shape = np.broadcast_shapes((1,), *(np.shape(value) for value in fields.values()))
    if len(shape) != 1:
        raise ValueError(f"fields are scalars or one-dimensional, got shape {shape}")
    records = np.zeros(shape, dtype=COMMAND)
    records["type"] = kind
    records["version"] = VERSION
    for name, value in fields.items():
        records[name] = value
    return records


def new(
    *,
    account: ArrayLike,
    market: ArrayLike,
    side: ArrayLike,
    quantity: ArrayLike,
    price: ArrayLike = 0,
    order_type: ArrayLike = OrderType.LIMIT,
    time_in_force: ArrayLike = TimeInForce.GTC,
    flags: ArrayLike = 0,
    client_id: Wide = 0,
    key: Wide = 0,
    body: ArrayLike = 0,
    accepted_no: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """NEW: a new order; `price` of a MARKET is its worst price, 0 for none."""
    client_id_lo, client_id_hi = _halves(client_id)
    key_lo, key_hi = _halves(key)
    return _build(
        CommandType.NEW,
        account=account,
        market=market,
        side=side,
        quantity=quantity,
        price=price,
        order_type=order_type,
        time_in_force=time_in_force,
        flags=flags,
        client_id_lo=client_id_lo,
        client_id_hi=client_id_hi,
        key_lo=key_lo,
        key_hi=key_hi,
        body=body,
        accepted_no=accepted_no,
        sequence=sequence,
        time_ns=time_ns,
    )


def cancel(
    *,
    account: ArrayLike,
    order_id: ArrayLike = 0,
    slot: ArrayLike = NO_SLOT,
    client_id: Wide = 0,
    key: Wide = 0,
    body: ArrayLike = 0,
    accepted_no: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """CANCEL the order named by `order_id` and `slot`, or by `client_id`."""
    client_id_lo, client_id_hi = _halves(client_id)
    key_lo, key_hi = _halves(key)
    return _build(
        CommandType.CANCEL,
        account=account,
        order_id=order_id,
        slot=slot,
        client_id_lo=client_id_lo,
        client_id_hi=client_id_hi,
        key_lo=key_lo,
        key_hi=key_hi,
        body=body,
        accepted_no=accepted_no,
        sequence=sequence,
        time_ns=time_ns,
    )


def amend(
    *,
    account: ArrayLike,
    order_id: ArrayLike = 0,
    slot: ArrayLike = NO_SLOT,
    client_id: Wide = 0,
    price: ArrayLike = 0,
    quantity: ArrayLike = 0,
    flags: ArrayLike = 0,
    key: Wide = 0,
    body: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """AMEND: a new price and quantity, each kept if 0; `flags` say what quantity names."""
    client_id_lo, client_id_hi = _halves(client_id)
    key_lo, key_hi = _halves(key)
    return _build(
        CommandType.AMEND,
        account=account,
        order_id=order_id,
        slot=slot,
        client_id_lo=client_id_lo,
        client_id_hi=client_id_hi,
        price=price,
        quantity=quantity,
        flags=flags,
        key_lo=key_lo,
        key_hi=key_hi,
        body=body,
        sequence=sequence,
        time_ns=time_ns,
    )


def open_asset(*, asset: ArrayLike = 0, sequence: ArrayLike = 0, time_ns: ArrayLike = 0) -> Commands:
    """OPEN_ASSET: 0 for the next id."""
    return _build(CommandType.OPEN_ASSET, asset=asset, sequence=sequence, time_ns=time_ns)


def open_market(
    *,
    base_asset: ArrayLike,
    quote_asset: ArrayLike,
    tick_atoms: ArrayLike,
    lot_atoms: ArrayLike,
    maker_fee_ppm: ArrayLike = 0,
    taker_fee_ppm: ArrayLike = 0,
    market: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """OPEN_MARKET: `tick_atoms` quote atoms a tick × lot, `lot_atoms` base atoms a lot."""
    return _build(
        CommandType.OPEN_MARKET,
        market=market,
        asset=base_asset,
        slot=quote_asset,
        price=tick_atoms,
        quantity=lot_atoms,
        trigger_price=maker_fee_ppm,
        expire_time_ns=taker_fee_ppm,
        sequence=sequence,
        time_ns=time_ns,
    )


def open_account(*, account: ArrayLike = 0, sequence: ArrayLike = 0, time_ns: ArrayLike = 0) -> Commands:
    """OPEN_ACCOUNT: 0 for the next id."""
    return _build(CommandType.OPEN_ACCOUNT, account=account, sequence=sequence, time_ns=time_ns)


def _transfer(
    kind: CommandType,
    account: ArrayLike,
    asset: ArrayLike,
    quantity: ArrayLike,
    transaction_id: Wide,
    key: Wide,
    body: ArrayLike,
    sequence: ArrayLike,
    time_ns: ArrayLike,
) -> Commands:
    client_id_lo, client_id_hi = _halves(transaction_id)
    key_lo, key_hi = _halves(key)
    return _build(
        kind,
        account=account,
        asset=asset,
        quantity=quantity,
        client_id_lo=client_id_lo,
        client_id_hi=client_id_hi,
        key_lo=key_lo,
        key_hi=key_hi,
        body=body,
        sequence=sequence,
        time_ns=time_ns,
    )


def deposit(
    *,
    account: ArrayLike,
    asset: ArrayLike,
    quantity: ArrayLike,
    transaction_id: Wide,
    key: Wide = 0,
    body: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """DEPOSIT `quantity` atoms, once for each `transaction_id`."""
    return _transfer(
        CommandType.DEPOSIT, account, asset, quantity, transaction_id, key, body, sequence, time_ns
    )


def withdraw(
    *,
    account: ArrayLike,
    asset: ArrayLike,
    quantity: ArrayLike,
    transaction_id: Wide,
    key: Wide = 0,
    body: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """WITHDRAW `quantity` atoms, once for each `transaction_id`."""
    return _transfer(
        CommandType.WITHDRAW, account, asset, quantity, transaction_id, key, body, sequence, time_ns
    )


def _words(key_hash: bytes) -> tuple[int, int, int, int]:
    """The four little-endian words of a 32-byte hash."""
    if len(key_hash) != 32:
        raise ValueError(f"a key's hash has 32 bytes, got {len(key_hash)}")
    first, second, third, fourth = (int.from_bytes(key_hash[at : at + 8], "little") for at in (0, 8, 16, 24))
    return first, second, third, fourth


def add_key(
    *,
    key_hash: bytes,
    scopes: ArrayLike,
    account: ArrayLike = 0,
    expire_time_ns: ArrayLike = 0,
    sequence: ArrayLike = 0,
    time_ns: ArrayLike = 0,
) -> Commands:
    """ADD_KEY: the hash of an API key, its account (0: none), scopes and expiry (0: never)."""
    client_id_lo, client_id_hi, key_lo, key_hi = _words(key_hash)
    return _build(
        CommandType.ADD_KEY,
        client_id_lo=client_id_lo,
        client_id_hi=client_id_hi,
        key_lo=key_lo,
        key_hi=key_hi,
        account=account,
        asset=scopes,
        expire_time_ns=expire_time_ns,
        sequence=sequence,
        time_ns=time_ns,
    )


def revoke_key(*, key_hash: bytes, sequence: ArrayLike = 0, time_ns: ArrayLike = 0) -> Commands:
    """REVOKE_KEY: the key is refused from here on."""
    client_id_lo, client_id_hi, key_lo, key_hi = _words(key_hash)
    return _build(
        CommandType.REVOKE_KEY,
        client_id_lo=client_id_lo,
        client_id_hi=client_id_hi,
        key_lo=key_lo,
        key_hi=key_hi,
        sequence=sequence,
        time_ns=time_ns,
    )


def set_market_state(
    *, market: ArrayLike, state: ArrayLike, sequence: ArrayLike = 0, time_ns: ArrayLike = 0
) -> Commands:
    """SET_MARKET_STATE: a MarketState."""
    return _build(
        CommandType.SET_MARKET_STATE, market=market, quantity=state, sequence=sequence, time_ns=time_ns
    )


def set_venue_state(*, state: ArrayLike, sequence: ArrayLike = 0, time_ns: ArrayLike = 0) -> Commands:
    """SET_VENUE_STATE: VenueState OPEN, CANCEL_ONLY or HALTED."""
    return _build(CommandType.SET_VENUE_STATE, quantity=state, sequence=sequence, time_ns=time_ns)


def set_account_state(
    *, account: ArrayLike, state: ArrayLike, sequence: ArrayLike = 0, time_ns: ArrayLike = 0
) -> Commands:
    """SET_ACCOUNT_STATE: an AccountState."""
    return _build(
        CommandType.SET_ACCOUNT_STATE, account=account, quantity=state, sequence=sequence, time_ns=time_ns
    )


def start(*, epoch: ArrayLike, sequence: ArrayLike = 0, time_ns: ArrayLike = 0) -> Commands:
    """START: a process takes over under a new epoch."""
    return _build(CommandType.START, quantity=epoch, sequence=sequence, time_ns=time_ns)


def drained(*, sequence: ArrayLike = 0, time_ns: ArrayLike = 0) -> Commands:
    """DRAINED: the queue of submissions is empty."""
    return _build(CommandType.DRAINED, sequence=sequence, time_ns=time_ns)


def tick(*, time_ns: ArrayLike, sequence: ArrayLike = 0) -> Commands:
    """TICK: time passed, nothing else."""
    return _build(CommandType.TICK, sequence=sequence, time_ns=time_ns)
