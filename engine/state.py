"""The canonical form of the state: order of each section, checks, the hash.

Shared by the core and the twin.  A state is a dict of one array a section, in
the order of `types.SECTIONS`, each sorted by its key, so that equal states are
equal bytes, whatever the memory of the engine that held them looked like.

    digest(section) = BLAKE2b-256(name, 0 byte, u64 count, record bytes)
    state hash      = BLAKE2b-256(digest of each section, in order)
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StateError
from engine.types import (
    ACCOUNTS_MAX,
    ASSETS_MAX,
    FEE_ACCOUNT,
    KEYS_MAX,
    MARKETS_MAX,
    ORDERS_MAX,
    PPM,
    QUEUED,
    RULES_VERSION,
    SECTIONS,
    TRANSACTIONS_MAX,
    AccountState,
    CommandFlag,
    CommandType,
    MarketState,
    OrderType,
    Side,
    TimeInForce,
    VenueState,
)

Section = NDArray[np.void]
Arrays = Mapping[str, Section]
Columns = list[NDArray[Any]]


def _price_key(orders: Section) -> NDArray[np.int64]:
    """Sorts the best price first on either side; prices are positive, so the sign is free."""
    price: NDArray[np.int64] = orders["price"]
    return np.where(orders["side"] == Side.BUY, -price, price)


# The columns that a section is sorted by, most significant first.
KEYS: dict[str, Callable[[Section], Columns]] = {
    "venue": lambda a: [a["sequence"]],
    "assets": lambda a: [a["asset"]],
    "markets": lambda a: [a["market"]],
    "accounts": lambda a: [a["account"]],
    "balances": lambda a: [a["account"], a["asset"]],
    "orders": lambda a: [a["market"], a["side"], _price_key(a), a["priority"]],
    "transactions": lambda a: [a["id_hi"], a["id_lo"]],
    "keys": lambda a: [a["hash_0"], a["hash_1"], a["hash_2"], a["hash_3"]],
    "idempotency": lambda a: [a["sequence"]],
}


def sort(name: str, section: Section) -> Section:
    """Bring the records of a section into canonical order (a copy)."""
    return section[np.lexsort(KEYS[name](section)[::-1])]


def section_digest(name: str, section: Section) -> bytes:
    """BLAKE2b-256 of one section: 32 bytes."""
    digest = hashlib.blake2b(digest_size=32)
    digest.update(name.encode("ascii") + b"\0" + len(section).to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(section).view(np.uint8).data)
    return digest.digest()


def state_hash(arrays: Arrays) -> bytes:
    """Hash of a dumped state: 32 bytes, independent of memory layout."""
    digest = hashlib.blake2b(digest_size=32)
    for name in SECTIONS:
        digest.update(section_digest(name, arrays[name]))
    return digest.digest()


def _increasing(columns: Columns) -> bool:
    """Whether the rows strictly increase, compared column by column."""
    undecided = np.ones(max(len(columns[0]) - 1, 0), dtype=bool)
    for column in columns:
        if np.any(undecided & (column[1:] < column[:-1])):
            return False
        undecided &= column[1:] == column[:-1]
    return not np.any(undecided)


def _unique(columns: Columns) -> bool:
    """Whether no two rows are equal."""
    order = np.lexsort(columns[::-1])
    return _increasing([column[order] for column in columns])


def _require(section: str, holds: Any, problem: str) -> None:
    """Raise StateError unless it holds for all records."""
    if not np.all(holds):
        raise StateError(section, problem)


def _dense(section: str, ids: NDArray[Any], first: int, bound: int) -> None:
    _require(section, ids == np.arange(first, first + len(ids)), "ids are not dense")
    _require(section, len(ids) - (1 - first) <= bound, "more records than the bound")


def check(arrays: Arrays) -> None:
    """Check that the arrays have the form of a state; the sums are the sweep's business.

    Types, canonical order, ids dense, references known, values in range,
    names unique.  O(n log n).

    Raises
    ------
    StateError
        With the first section and problem seen.
    """
    for name, dtype in SECTIONS.items():
        section = arrays.get(name)
        if section is None:
            raise StateError(name, "missing")
        if not isinstance(section, np.ndarray) or section.dtype != dtype or section.ndim != 1:
            raise StateError(name, "not an array of its record")
        for spare in (field for field in dtype.names or () if field.startswith("spare_")):
            _require(name, section[spare] == 0, f"{spare} is not zero")
    for name in set(arrays) - set(SECTIONS):
        raise StateError(name, "unknown section")
    _require("venue", len(arrays["venue"]) == 1, "not exactly one record")
    for name in SECTIONS:
        _require(name, _increasing(KEYS[name](arrays[name])), "not in canonical order")
    _check_venue(arrays)
    _check_ledger(arrays)
    _check_orders(arrays)
    _check_names(arrays)


def _check_venue(arrays: Arrays) -> None:
    venue, markets = arrays["venue"], arrays["markets"]
    _require("venue", venue["rules_version"] == RULES_VERSION, "of another rules version")
    _require("venue", np.isin(venue["state"], list(VenueState)), "unknown state")
    _require("venue", venue["time_ns"] >= 0, "time below zero")
    _require("venue", venue["accepted_no"] < QUEUED, "accepted_no out of range")
    _dense("assets", arrays["assets"]["asset"], 1, ASSETS_MAX)
    _dense("accounts", arrays["accounts"]["account"], FEE_ACCOUNT, ACCOUNTS_MAX)
    _require("accounts", len(arrays["accounts"]) > 0, "the fee account is missing")
    _require("accounts", np.isin(arrays["accounts"]["state"], list(AccountState)), "unknown state")
    _dense("markets", markets["market"], 1, MARKETS_MAX)
    _require("markets", np.isin(markets["state"], list(MarketState)), "unknown state")
    for field in ("base_asset", "quote_asset"):
        known = (markets[field] >= 1) & (markets[field] <= len(arrays["assets"]))
        _require("markets", known, f"unknown {field}")
    _require("markets", markets["base_asset"] != markets["quote_asset"], "base asset is quote asset")
    _require("markets", (markets["tick_atoms"] >= 1) & (markets["lot_atoms"] >= 1), "amounts below one")
    maker, taker = markets["maker_fee_ppm"].astype(np.int64), markets["taker_fee_ppm"].astype(np.int64)
    _require("markets", (taker >= 0) & (taker <= PPM) & (maker >= -taker) & (maker <= PPM), "fees")
    _require("markets", markets["last_price"] >= 0, "last price below zero")


def _check_ledger(arrays: Arrays) -> None:
    balances, transactions, keys = arrays["balances"], arrays["transactions"], arrays["keys"]
    sequence = arrays["venue"]["sequence"][0]
    assets, accounts = len(arrays["assets"]), len(arrays["accounts"])
    _require("balances", balances["account"] < accounts, "unknown account")
    _require("balances", (balances["asset"] >= 1) & (balances["asset"] <= assets), "unknown asset")
    _require("balances", (balances["available"] != 0) | (balances["held"] != 0), "a zero balance is kept")
    _require("transactions", len(transactions) <= TRANSACTIONS_MAX, "more records than the bound")
    _require("transactions", (transactions["id_lo"] != 0) | (transactions["id_hi"] != 0), "id zero")
    _require("transactions", transactions["quantity"] >= 1, "quantity below one")
    _require(
        "transactions", (transactions["sequence"] >= 1) & (transactions["sequence"] <= sequence), "sequence"
    )
    _require(
        "transactions", np.isin(transactions["type"], [CommandType.DEPOSIT, CommandType.WITHDRAW]), "type"
    )
    known = (transactions["account"] >= 1) & (transactions["account"] < accounts)
    _require("transactions", known, "unknown account")
    _require(
        "transactions", (transactions["asset"] >= 1) & (transactions["asset"] <= assets), "unknown asset"
    )
    _require("keys", len(keys) <= KEYS_MAX, "more records than the bound")
    _require("keys", keys["account"] < accounts, "unknown account")
    _require("keys", keys["scopes"] != 0, "no scopes")
    _require("keys", keys["expire_time_ns"] >= 0, "expiry below zero")
    _require("keys", (keys["sequence"] >= 1) & (keys["sequence"] <= sequence), "sequence")
    _require("keys", keys["revoked"] <= sequence, "revoked in the future")


def _check_orders(arrays: Arrays) -> None:
    orders = arrays["orders"]
    venue = arrays["venue"][0]
    _require("orders", len(orders) <= ORDERS_MAX, "more records than the bound")
    _require(
        "orders", (orders["market"] >= 1) & (orders["market"] <= len(arrays["markets"])), "unknown market"
    )
    known = (orders["account"] != FEE_ACCOUNT) & (orders["account"] < len(arrays["accounts"]))
    _require("orders", known, "unknown account")
    _require("orders", orders["side"] <= Side.SELL, "unknown side")
    _require("orders", orders["order_type"] == OrderType.LIMIT, "not a LIMIT order")
    _require("orders", orders["time_in_force"] == TimeInForce.GTC, "not GTC")
    _require("orders", orders["flags"] & ~np.uint16(CommandFlag.POST_ONLY) == 0, "unknown flags")
    for field in ("self_trade", "trigger_price", "expire_time_ns"):
        _require("orders", orders[field] == 0, f"{field} is not zero")
    _require("orders", (orders["price"] >= 1) & (orders["leaves"] >= 1), "price or leaves below one")
    _require("orders", (orders["filled"] >= 0) & (orders["hold"] >= 0), "filled or hold below zero")
    _require("orders", orders["fee_residue"] < PPM, "fee residue out of range")
    maker, taker = orders["maker_fee_ppm"].astype(np.int64), orders["taker_fee_ppm"].astype(np.int64)
    _require("orders", (taker >= 0) & (taker <= PPM) & (maker >= -taker) & (maker <= PPM), "fees")
    _require("orders", (orders["priority"] >= 1) & (orders["priority"] <= venue["sequence"]), "priority")
    queued = (orders["order_id"] & np.uint64(QUEUED)) != 0
    number = orders["order_id"] & ~np.uint64(QUEUED)
    _require("orders", number >= 1, "order_id zero")
    _require("orders", number <= np.where(queued, venue["accepted_no"], venue["sequence"]), "order_id")
    _require("orders", orders["slot"] < ORDERS_MAX, "slot out of range")
    for field in ("order_id", "slot", "priority"):
        _require("orders", _unique([orders[field]]), f"{field} twice")
    named = orders[(orders["client_id_lo"] != 0) | (orders["client_id_hi"] != 0)]
    names = [named["account"], named["client_id_lo"], named["client_id_hi"]]
    _require("orders", _unique(names), "client id twice")


def _check_names(arrays: Arrays) -> None:
    records, venue = arrays["idempotency"], arrays["venue"][0]
    _require("idempotency", (records["key_lo"] != 0) | (records["key_hi"] != 0), "key zero")
    known = (records["account"] >= 1) & (records["account"] < len(arrays["accounts"]))
    _require("idempotency", known, "unknown account")
    _require("idempotency", records["sequence"] <= venue["sequence"], "sequence")
    _require("idempotency", records["time_ns"][1:] >= records["time_ns"][:-1], "time falls")
    _require("idempotency", records["time_ns"] <= venue["time_ns"], "time after the venue's")
    _require("idempotency", _unique([records["account"], records["key_lo"], records["key_hi"]]), "key twice")
