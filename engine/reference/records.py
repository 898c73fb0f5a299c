"""The things of the venue, as plain Python objects: what a command, an order, a market is.

Integers are Python's own, so nothing here can wrap; what has to fit int64 is
refused by a rule (see README), not by the arithmetic.
"""

from dataclasses import dataclass
from typing import NamedTuple

from engine.types import INT64_MAX, NO_SLOT, QUEUED, CommandFlag, OrderType, Side, TimeInForce


class Command(NamedTuple):
    """One COMMAND record, its fields in the order of the record."""

    type: int
    version: int
    side: int
    order_type: int
    time_in_force: int
    self_trade: int
    flags: int
    sequence: int
    time_ns: int
    account: int
    market: int
    order_id: int
    slot: int
    asset: int
    price: int
    quantity: int
    client_id_lo: int
    client_id_hi: int
    key_lo: int
    key_hi: int
    body: int
    accepted_no: int
    trigger_price: int
    expire_time_ns: int

    @property
    def client_id(self) -> int:
        return self.client_id_hi << 64 | self.client_id_lo

    @property
    def key(self) -> int:
        return self.key_hi << 64 | self.key_lo


@dataclass(slots=True)
class Asset:
    asset: int
    net_deposits: int = 0


@dataclass(slots=True)
class Account:
    account: int
    state: int = 0


@dataclass(slots=True)
class Market:
    market: int
    base_asset: int
    quote_asset: int
    tick_atoms: int
    lot_atoms: int
    maker_fee_ppm: int
    taker_fee_ppm: int
    state: int = 0
    last_price: int = 0

    def notional(self, price: int, quantity: int) -> int:
        """Quote atoms that `quantity` lots cost at `price` ticks."""
        return price * quantity * self.tick_atoms

    def base_amount(self, quantity: int) -> int:
        """Base atoms in `quantity` lots."""
        return quantity * self.lot_atoms

    def overflows(self, price: int, quantity: int) -> bool:
        """Whether base amount, or notional where there is a price, exceeds int64."""
        return max(self.base_amount(quantity), self.notional(price, quantity)) > INT64_MAX


@dataclass(slots=True)
class Order:
    """A live order; `quantity` = `filled` + `leaves` + `canceled` always (I3)."""

    order_id: int
    slot: int
    account: int
    market: int
    side: int
    order_type: int
    time_in_force: int
    flags: int
    price: int
    quantity: int
    leaves: int
    client_id: int
    maker_fee_ppm: int
    taker_fee_ppm: int
    priority: int
    filled: int = 0
    canceled: int = 0
    hold: int = 0
    fee_residue: int = 0

    @property
    def is_buy(self) -> bool:
        return self.side == Side.BUY

    @property
    def is_post_only(self) -> bool:
        return bool(self.flags & CommandFlag.POST_ONLY)

    @property
    def has_limit(self) -> bool:
        """A limit price, or a MARKET order's worst price."""
        return self.price > 0

    @property
    def holds_nothing(self) -> bool:
        """A MARKET BUY without a price pays from `available` as it goes."""
        return self.is_buy and not self.has_limit

    @property
    def may_rest(self) -> bool:
        return self.order_type == OrderType.LIMIT and self.time_in_force == TimeInForce.GTC

    def accepts(self, price: int) -> bool:
        """Whether `price` is at the limit or better."""
        if not self.has_limit:
            return True
        return price <= self.price if self.is_buy else price >= self.price


@dataclass(slots=True)
class Transaction:
    """A deposit or withdrawal that was carried out."""

    transaction_id: int
    sequence: int
    quantity: int
    account: int
    asset: int
    type: int


@dataclass(slots=True)
class ApiKey:
    hash: tuple[int, int, int, int]
    account: int
    scopes: int
    expire_time_ns: int
    sequence: int
    revoked: int = 0


@dataclass(slots=True)
class IdempotencyEntry:
    account: int
    key: int
    body: int
    sequence: int
    time_ns: int


def new_order(command: Command, sequence: int, market: Market) -> Order:
    """The order that an accepted NEW makes; its slot is given when it gets one."""
    return Order(
        order_id=order_id_of(command, sequence),
        slot=NO_SLOT,
        account=command.account,
        market=command.market,
        side=command.side,
        order_type=command.order_type,
        time_in_force=command.time_in_force,
        flags=command.flags,
        price=command.price,
        quantity=command.quantity,
        leaves=command.quantity,
        client_id=command.client_id,
        maker_fee_ppm=market.maker_fee_ppm,
        taker_fee_ppm=market.taker_fee_ppm,
        priority=sequence,
    )


def order_id_of(command: Command, sequence: int) -> int:
    """The sequence of the NEW, or `QUEUED | accepted_no` when it came from the queue."""
    return QUEUED | command.accepted_no if command.accepted_no else sequence
