"""What the venue trades and who trades there: the mirror of the definitions.

The names and decimals of assets, markets and accounts are text in the log; the
engine sends all of them in WELCOME and each new one with its event.  The
numbers of a market in API terms: a price is `ticks × price_unit` at
`price_scale` decimals, a quantity `lots × lot_atoms` at the base's decimals.

A log may hold a market whose sizes cannot be told in these terms.  It is
quarantined: known by its number, so that its events find it, and by no name, so
that nobody trades it here.  All other markets go on.
"""

import logging
from dataclasses import dataclass
from typing import Any

from api.decimals import DecimalError, from_units, scale_of, to_units
from engine.types import AccountState, MarketState

_log = logging.getLogger("holdfast.registry")


@dataclass(slots=True)
class Asset:
    """An asset; amounts are atoms of 10**-decimals."""

    number: int
    symbol: str
    decimals: int

    def amount_text(self, atoms: int) -> str:
        """Decimal text of an amount."""
        return from_units(atoms, 1, self.decimals)


@dataclass(slots=True)
class Market:
    """A market with what its texts need."""

    number: int
    symbol: str
    base: Asset
    quote: Asset
    tick_size: str
    lot_size: str
    tick_atoms: int
    lot_atoms: int
    maker_fee_ppm: int
    taker_fee_ppm: int
    price_unit: int
    price_scale: int
    price_decimals: int
    lot_decimals: int
    state: MarketState = MarketState.OPEN
    last_price: int = 0

    @property
    def path_name(self) -> str:
        """The symbol as paths spell it."""
        return self.symbol.replace("/", "-")

    def price_text(self, ticks: int) -> str:
        """Decimal text of a price."""
        return from_units(ticks, self.price_unit, self.price_scale, self.price_decimals)

    def quantity_text(self, lots: int) -> str:
        """Decimal text of a quantity."""
        return from_units(lots, self.lot_atoms, self.base.decimals, self.lot_decimals)

    def average_text(self, notional: int, filled: int) -> str:
        """Decimal text of notional / filled, half to even at `price_scale`."""
        value, rest = divmod(notional * self.price_unit, filled)
        if 2 * rest > filled or (2 * rest == filled and value & 1):
            value += 1
        return from_units(value, 1, self.price_scale, self.price_decimals)


@dataclass(slots=True)
class Account:
    """An account's name and state."""

    number: int
    name: str
    state: AccountState = AccountState.ACTIVE


def build_market(
    definition: dict[str, Any],
    number: int,
    base: Asset,
    quote: Asset,
    *,
    tick_atoms: int,
    lot_atoms: int,
    maker_fee_ppm: int,
    taker_fee_ppm: int,
) -> Market:
    """A market from its definition and the core's numbers; without names its number stands in.

    Raises
    ------
    DecimalError
        A tick is no whole number of quote atoms that 63 bits can hold.
    """
    tick_size, lot_size = str(definition.get("tick_size", "1")), str(definition.get("lot_size", "1"))
    price_scale = max(quote.decimals, scale_of(tick_size))
    return Market(
        number,
        str(definition.get("symbol", f"MARKET{number}")),
        base,
        quote,
        tick_size,
        lot_size,
        tick_atoms,
        lot_atoms,
        maker_fee_ppm,
        taker_fee_ppm,
        price_unit=to_units(tick_size, 1, price_scale),
        price_scale=price_scale,
        price_decimals=scale_of(tick_size),
        lot_decimals=scale_of(lot_size),
    )


def quarantined_market(
    definition: dict[str, Any],
    number: int,
    base: Asset,
    quote: Asset,
    *,
    tick_atoms: int,
    lot_atoms: int,
    maker_fee_ppm: int,
    taker_fee_ppm: int,
) -> Market:
    """The same for sizes that cannot be told: prices in ticks, a number for a name."""
    return Market(
        number,
        f"MARKET{number}",
        base,
        quote,
        str(definition.get("tick_size", "1")),
        str(definition.get("lot_size", "1")),
        tick_atoms,
        lot_atoms,
        maker_fee_ppm,
        taker_fee_ppm,
        price_unit=1,
        price_scale=0,
        price_decimals=0,
        lot_decimals=0,
    )


class Registry:
    """Assets, markets and accounts, by number and by name."""

    def __init__(self) -> None:
        self.assets: dict[int, Asset] = {}
        self.assets_by_symbol: dict[str, Asset] = {}
        self.markets: dict[int, Market] = {}
        self.markets_by_symbol: dict[str, Market] = {}
        self.accounts: dict[int, Account] = {}
        self.accounts_by_name: dict[str, Account] = {}

    def load(self, definitions: dict[str, Any]) -> None:
        """Replace everything by what WELCOME says."""
        for table in (self.assets, self.markets, self.accounts):
            table.clear()
        for names in (self.assets_by_symbol, self.markets_by_symbol, self.accounts_by_name):
            names.clear()
        for row in definitions["assets"]:
            self.add_asset(int(row["asset"]), row)
        for row in definitions["markets"]:
            self.add_market(
                int(row["market"]),
                row,
                base=int(row["base_asset"]),
                quote=int(row["quote_asset"]),
                tick_atoms=int(row["tick_atoms"]),
                lot_atoms=int(row["lot_atoms"]),
                maker_fee_ppm=int(row["maker_fee_ppm"]),
                taker_fee_ppm=int(row["taker_fee_ppm"]),
            )
        for row in definitions["accounts"]:
            self.add_account(int(row["account"]), row)
            self.accounts[int(row["account"])].state = AccountState(int(row.get("state", 0)))

    def add_asset(self, number: int, definition: dict[str, Any]) -> None:
        """An asset was opened."""
        symbol = str(definition.get("symbol", f"ASSET{number}"))
        asset = Asset(number, symbol, int(definition.get("decimals", 0)))
        self.assets[number] = self.assets_by_symbol[asset.symbol] = asset

    def add_market(
        self,
        number: int,
        definition: dict[str, Any],
        *,
        base: int,
        quote: int,
        tick_atoms: int,
        lot_atoms: int,
        maker_fee_ppm: int,
        taker_fee_ppm: int,
    ) -> None:
        """A market was opened; one that cannot be represented is quarantined."""
        numbers = {
            "tick_atoms": tick_atoms,
            "lot_atoms": lot_atoms,
            "maker_fee_ppm": maker_fee_ppm,
            "taker_fee_ppm": taker_fee_ppm,
        }
        base_asset, quote_asset = self.assets[base], self.assets[quote]
        try:
            market = build_market(definition, number, base_asset, quote_asset, **numbers)
        except (DecimalError, ValueError) as error:
            _log.error("market %d is quarantined: %r cannot be represented: %s", number, definition, error)
            self.markets[number] = quarantined_market(definition, number, base_asset, quote_asset, **numbers)
            return
        self.markets[number] = self.markets_by_symbol[market.symbol] = market

    def add_account(self, number: int, definition: dict[str, Any]) -> None:
        """An account was opened."""
        account = Account(number, str(definition.get("name", number)))
        self.accounts[number] = self.accounts_by_name[account.name] = account
