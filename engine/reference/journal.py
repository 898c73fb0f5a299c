"""What one command touched: the ground of its BALANCE events and of its invariant checks."""

from dataclasses import dataclass, field

from engine.reference.records import Order


@dataclass(slots=True, frozen=True)
class Trade:
    """The money of one trade, as it was posted (I8)."""

    buyer_pays: int
    seller_gets: int
    buyer_fee: int
    seller_fee: int


@dataclass(slots=True)
class Journal:
    """Emptied before each command; filled by the ledger, the book and the matcher."""

    balances: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """(account, asset) → (available, held) before the command, in order of first touch."""
    levels: set[tuple[int, int, int]] = field(default_factory=set)
    """(market, side, price) of the levels that changed."""
    orders: dict[int, Order] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    deposited: dict[int, int] = field(default_factory=dict)
    """asset → deposits − withdrawals of the command."""
