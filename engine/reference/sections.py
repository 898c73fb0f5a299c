"""The state as arrays and back: one function a section each way.

The order of the records is `engine.state`'s, shared with the core; here is only
which field of which object goes where.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import state
from engine.reference.records import Account, ApiKey, Asset, IdempotencyEntry, Market, Order, Transaction
from engine.reference.venue import Venue
from engine.types import RULES_VERSION, SECTIONS

Section = NDArray[np.void]
Record = dict[str, int]

_WORD = (1 << 64) - 1


def dump(venue: Venue) -> dict[str, Section]:
    """Every section, in canonical order."""
    records = {
        "venue": [_venue(venue)],
        "assets": [_asset(asset) for asset in venue.ledger.assets.values()],
        "markets": [_market(market) for market in venue.markets.values()],
        "accounts": [_account(account) for account in venue.accounts.values()],
        "balances": [_balance(venue, *names) for names in venue.ledger.balances],
        "orders": [_order(order) for order in venue.orders.by_slot.values()],
        "transactions": [_transaction(transaction) for transaction in venue.transactions.values()],
        "keys": [_key(key) for key in venue.keys.values()],
        "idempotency": [_idempotency(entry) for entry in venue.idempotency.entries],
    }
    records["balances"] = [each for each in records["balances"] if each["available"] or each["held"]]
    return {name: state.sort(name, _array(name, records[name])) for name in SECTIONS}


def load(arrays: Mapping[str, Section]) -> Venue:
    """The venue that was dumped; the arrays have passed `state.check`."""
    venue = Venue()
    _load_venue(venue, arrays["venue"][0])
    for asset in _rows(arrays, "assets"):
        venue.ledger.assets[asset["asset"]] = Asset(asset["asset"], asset["net_deposits"])
    for market in _rows(arrays, "markets"):
        venue.open_market(_load_market(market))
    for account in _rows(arrays, "accounts"):
        venue.accounts[account["account"]] = Account(account["account"], account["state"])
    for each in _rows(arrays, "balances"):
        balance = venue.ledger.balances[each["account"], each["asset"]]
        balance.available, balance.held = each["available"], each["held"]
    _load_orders(venue, [_load_order(order) for order in _rows(arrays, "orders")])
    for each in _rows(arrays, "transactions"):
        transaction = _load_transaction(each)
        venue.transactions[transaction.transaction_id] = transaction
    for each in _rows(arrays, "keys"):
        key = _load_key(each)
        venue.keys[key.hash] = key
    for each in _rows(arrays, "idempotency"):
        venue.idempotency.keep(_load_idempotency(each))
    venue.start_journal()
    return venue


def _array(name: str, records: list[Record]) -> Section:
    """Records as an array; fields not named are zero."""
    dtype = SECTIONS[name]
    section: Section = np.zeros(len(records), dtype)
    for field in records[0] if records else ():
        section[field] = [record[field] for record in records]
    return section


def _rows(arrays: Mapping[str, Section], name: str) -> list[dict[str, Any]]:
    fields = SECTIONS[name].names or ()
    return [dict(zip(fields, row, strict=True)) for row in arrays[name].tolist()]


def _split(field: str, value: int) -> Record:
    """A 128-bit value as two words."""
    return {f"{field}_lo": value & _WORD, f"{field}_hi": value >> 64}


def _join(record: Record, field: str) -> int:
    return record[f"{field}_hi"] << 64 | record[f"{field}_lo"]


def _venue(venue: Venue) -> Record:
    return {
        "sequence": venue.sequence,
        "time_ns": venue.time_ns,
        "epoch": venue.epoch,
        "accepted_no": venue.accepted_no,
        "events": venue.events,
        "trades": venue.trades,
        "rules_version": RULES_VERSION,
        "state": venue.state,
    }


def _load_venue(venue: Venue, record: Any) -> None:
    venue.sequence = int(record["sequence"])
    venue.time_ns = int(record["time_ns"])
    venue.epoch = int(record["epoch"])
    venue.accepted_no = int(record["accepted_no"])
    venue.events = int(record["events"])
    venue.trades = int(record["trades"])
    venue.state = int(record["state"])


def _asset(asset: Asset) -> Record:
    return {"asset": asset.asset, "net_deposits": asset.net_deposits}


def _market(market: Market) -> Record:
    return {
        "market": market.market,
        "base_asset": market.base_asset,
        "quote_asset": market.quote_asset,
        "state": market.state,
        "tick_atoms": market.tick_atoms,
        "lot_atoms": market.lot_atoms,
        "maker_fee_ppm": market.maker_fee_ppm,
        "taker_fee_ppm": market.taker_fee_ppm,
        "last_price": market.last_price,
    }


def _load_market(record: Record) -> Market:
    fields = Market.__dataclass_fields__
    return Market(**{field: record[field] for field in fields})


def _account(account: Account) -> Record:
    return {"account": account.account, "state": account.state}


def _balance(venue: Venue, account: int, asset: int) -> Record:
    balance = venue.ledger.balances[account, asset]
    return {"account": account, "asset": asset, "available": balance.available, "held": balance.held}


_ORDER_FIELDS = (
    "order_id",
    "slot",
    "account",
    "market",
    "side",
    "order_type",
    "time_in_force",
    "flags",
    "fee_residue",
    "price",
    "quantity",
    "filled",
    "leaves",
    "hold",
    "priority",
    "maker_fee_ppm",
    "taker_fee_ppm",
)


def order_record(order: Order) -> np.void:
    """One ORDER record."""
    record: np.void = _array("orders", [_order(order)])[0]
    return record


def seen_record(entry: IdempotencyEntry) -> np.void:
    """One IDEMPOTENCY record."""
    record: np.void = _array("idempotency", [_idempotency(entry)])[0]
    return record


def _order(order: Order) -> Record:
    fields = {field: getattr(order, field) for field in _ORDER_FIELDS}
    return fields | _split("client_id", order.client_id)


def _load_order(record: Record) -> Order:
    fields = {field: record[field] for field in _ORDER_FIELDS}
    return Order(**fields, client_id=_join(record, "client_id"))


def _load_orders(venue: Venue, orders: list[Order]) -> None:
    """Canonical order is price-time order, so that appending rebuilds each queue."""
    venue.orders.restore(orders)
    for order in orders:
        market = venue.markets[order.market]
        venue.books[order.market].add(order)
        venue.ledger.restore_hold(order, market)


def _transaction(transaction: Transaction) -> Record:
    return {
        "sequence": transaction.sequence,
        "quantity": transaction.quantity,
        "account": transaction.account,
        "asset": transaction.asset,
        "type": transaction.type,
    } | _split("id", transaction.transaction_id)


def _load_transaction(record: Record) -> Transaction:
    fields = ("sequence", "quantity", "account", "asset", "type")
    return Transaction(_join(record, "id"), **{field: record[field] for field in fields})


def _key(key: ApiKey) -> Record:
    words = {f"hash_{index}": word for index, word in enumerate(key.hash)}
    return words | {
        "account": key.account,
        "scopes": key.scopes,
        "expire_time_ns": key.expire_time_ns,
        "sequence": key.sequence,
        "revoked": key.revoked,
    }


def _load_key(record: Record) -> ApiKey:
    words = (record["hash_0"], record["hash_1"], record["hash_2"], record["hash_3"])
    fields = ("account", "scopes", "expire_time_ns", "sequence", "revoked")
    return ApiKey(words, **{field: record[field] for field in fields})


def _idempotency(entry: IdempotencyEntry) -> Record:
    return {
        "body": entry.body,
        "sequence": entry.sequence,
        "time_ns": entry.time_ns,
        "account": entry.account,
    } | _split("key", entry.key)


def _load_idempotency(record: Record) -> IdempotencyEntry:
    return IdempotencyEntry(
        account=record["account"],
        key=_join(record, "key"),
        body=record["body"],
        sequence=record["sequence"],
        time_ns=record["time_ns"],
    )
