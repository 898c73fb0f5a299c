"""What the client hands out: immutable, decimal numbers as `Decimal`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


@dataclass(frozen=True, slots=True)
class Fill:
    """One fill of one order; the fields after `liquidity` are absent inside an `Order`."""

    trade_id: str
    price: Decimal
    quantity: Decimal
    fee: Decimal
    liquidity: str
    order_id: str | None = None
    symbol: str | None = None
    side: str | None = None
    sequence: int | None = None
    time: str | None = None

    @classmethod
    def parse(cls, row: dict[str, Any]) -> "Fill":
        """From the API's JSON."""
        return cls(
            row["trade_id"],
            Decimal(row["price"]),
            Decimal(row["quantity"]),
            Decimal(row["fee"]),
            row["liquidity"],
            row.get("order_id"),
            row.get("symbol"),
            row.get("side"),
            row.get("sequence"),
            row.get("time"),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stood when it was answered."""

    order_id: str
    client_order_id: str | None
    symbol: str
    side: str
    type: str | None
    time_in_force: str | None
    status: str
    quantity: Decimal
    price: Decimal | None
    filled_quantity: Decimal
    remaining_quantity: Decimal
    average_price: Decimal | None
    fills: tuple[Fill, ...]
    reason: str | None
    created_at: str
    updated_at: str
    sequence: int | None
    replayed: bool = False
    """The venue had seen the request before, and this is its answer."""

    @classmethod
    def parse(cls, row: dict[str, Any], *, replayed: bool = False) -> "Order":
        """From the API's JSON."""
        return cls(
            row["order_id"],
            row["client_order_id"],
            row["symbol"],
            row["side"],
            row["type"],
            row["time_in_force"],
            row["status"],
            Decimal(row["quantity"]),
            _decimal(row["price"]),
            Decimal(row["filled_quantity"]),
            Decimal(row["remaining_quantity"]),
            _decimal(row["average_price"]),
            tuple(Fill.parse(fill) for fill in row["fills"]),
            row["reason"],
            row["created_at"],
            row["updated_at"],
            row["sequence"],
            replayed,
        )

    @property
    def pending(self) -> bool:
        """Queued while the engine is down."""
        return self.status == "PENDING_SUBMISSION"

    @property
    def live(self) -> bool:
        """Can still trade."""
        return self.status in ("NEW", "PARTIALLY_FILLED")


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has of one asset."""

    asset: str
    available: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Book:
    """Levels as (price, quantity, orders), best first."""

    symbol: str
    bids: tuple[tuple[Decimal, Decimal, int], ...]
    asks: tuple[tuple[Decimal, Decimal, int], ...]
    sequence: int
    epoch: int
    checksum: int

    @classmethod
    def parse(cls, row: dict[str, Any]) -> "Book":
        """From the API's JSON."""
        bids, asks = (
            tuple((Decimal(price), Decimal(quantity), count) for price, quantity, count in row[side])
            for side in ("bids", "asks")
        )
        return cls(row["symbol"], bids, asks, row["sequence"], row["epoch"], row["checksum"])


@dataclass(frozen=True, slots=True)
class Trade:
    """A public trade; `side` is the aggressor's."""

    trade_id: str
    price: Decimal
    quantity: Decimal
    side: str
    time: str
    sequence: int

    @classmethod
    def parse(cls, row: dict[str, Any]) -> "Trade":
        """From the API's JSON."""
        price, quantity = Decimal(row["price"]), Decimal(row["quantity"])
        return cls(row["trade_id"], price, quantity, row["side"], row["time"], row["sequence"])
