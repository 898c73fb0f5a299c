"""Requests to COMMAND records: the meaning of each field is judged here.

A record is packed by `struct`, not through numpy: one order at a time is what
arrives, and a structured scalar costs ten times as much.  What comes out is
`Command`: the 128 bytes and the texts that travel beside them.
"""

import struct
from typing import NamedTuple

from api import decimals
from api.gateway.errors import Problem
from api.gateway.models import Amend, BatchItem, NewOrder
from api.gateway.registry import Asset, Market, Registry
from api.identity import body_digest, digest_pair
from engine.types import COMMAND, NO_SLOT, VERSION, CommandFlag, CommandType
from persistence.errors import FormatError
from persistence.identity import parse_order_id
from persistence.text import TextTag

_RECORD = struct.Struct("<BBBBBBHQqIIQIIqqQQQQQQqq")
if _RECORD.size != COMMAND.itemsize:
    raise TypeError(f"COMMAND is {COMMAND.itemsize} bytes, packed {_RECORD.size}")

SIDES = {"buy": 0, "sell": 1}
ORDER_TYPES = {"limit": 0, "market": 1}
TIMES_IN_FORCE = {"gtc": 0, "ioc": 1, "fok": 2, "GTC": 0, "IOC": 1, "FOK": 2}
INT64_MAX_TEXT = "9223372036854775807"

CLIENT_ORDER_ID = int(TextTag.CLIENT_ORDER_ID)
IDEMPOTENCY_KEY = int(TextTag.IDEMPOTENCY_KEY)


class Command(NamedTuple):
    """A COMMAND that has no sequence yet, and its texts."""

    record: bytes
    texts: tuple[tuple[int, bytes], ...]
    account: int
    key: str | None
    body: int
    short_lived: bool = False
    """MARKET, IOC and FOK: a queue may keep it for seconds only."""


def pack(
    kind: int,
    *,
    side: int = 0,
    order_type: int = 0,
    time_in_force: int = 0,
    flags: int = 0,
    account: int = 0,
    market: int = 0,
    order_id: int = 0,
    slot: int = 0,
    asset: int = 0,
    price: int = 0,
    quantity: int = 0,
    client_id: tuple[int, int] = (0, 0),
    key: tuple[int, int] = (0, 0),
    body: int = 0,
    trigger_price: int = 0,
    expire_time_ns: int = 0,
) -> bytes:
    """The 128 bytes of a COMMAND."""
    return _RECORD.pack(
        kind,
        VERSION,
        side,
        order_type,
        time_in_force,
        0,
        flags,
        0,
        0,
        account,
        market,
        order_id,
        slot,
        asset,
        price,
        quantity,
        *client_id,
        *key,
        body,
        0,
        trigger_price,
        expire_time_ns,
    )


def check_identifier(text: str, field: str) -> None:
    """Identifiers are printable ASCII, so that one text has one spelling in every log and row."""
    if not (text.isascii() and text.isprintable()):
        raise Problem(
            "invalid_value",
            f"{field!r} may have printable ASCII characters only.",
            field=field,
            limit="ASCII 32-126",
        )


def _decimal_problem(
    error: decimals.DecimalError, field: str, text: str, unit: str, decimals_max: int
) -> Problem:
    kind = error.kind
    if kind == decimals.MALFORMED:
        return Problem(
            "malformed_decimal", f"{field!r} is {text!r}: digits with at most one point.", field=field
        )
    if kind in (decimals.NEGATIVE, decimals.ZERO):
        return Problem(kind, f"{field!r} is {text!r}; it must be at least {unit}.", field=field, limit=unit)
    if kind == decimals.TOO_PRECISE:
        limit = str(decimals_max)
        return Problem(
            "too_precise",
            f"{field!r} is {text!r}; at most {limit} decimals are kept.",
            field=field,
            limit=limit,
        )
    if kind == decimals.OVERFLOW:
        detail = f"{field!r} is {text!r}; at most 2^63 - 1 steps of {unit}."
        return Problem("overflow", detail, field=field, limit=INT64_MAX_TEXT)
    code = "wrong_tick" if field.endswith("price") else "wrong_lot"
    return Problem(code, f"{field!r} is {text!r}; it must be a multiple of {unit}.", field=field, limit=unit)


def price_ticks(market: Market, text: str, field: str = "price") -> int:
    """A price in ticks."""
    try:
        return decimals.to_units(text, market.price_unit, market.price_scale)
    except decimals.DecimalError as error:
        raise _decimal_problem(error, field, text, market.tick_size, market.price_scale) from error


def quantity_lots(market: Market, text: str, field: str = "quantity") -> int:
    """A quantity in lots."""
    try:
        return decimals.to_units(text, market.lot_atoms, market.base.decimals)
    except decimals.DecimalError as error:
        raise _decimal_problem(error, field, text, market.lot_size, market.base.decimals) from error


def amount_atoms(asset: Asset, text: str, field: str = "amount") -> int:
    """An amount in atoms."""
    try:
        return decimals.to_units(text, 1, asset.decimals)
    except decimals.DecimalError as error:
        raise _decimal_problem(error, field, text, asset.amount_text(1), asset.decimals) from error


def market_of(registry: Registry, symbol: str, field: str = "symbol") -> Market:
    """The market of a symbol (the hyphen of paths is accepted too)."""
    market = registry.markets_by_symbol.get(symbol) or registry.markets_by_symbol.get(
        symbol.replace("-", "/", 1)
    )
    if market is None:
        raise Problem(
            "unknown_symbol",
            f"{field!r} is {symbol[:64]!r}; there is no such market, see GET /v1/markets.",
            field=field,
        )
    return market


def order_name(text: str) -> tuple[int, int]:
    """Order id and slot of a public name; anything else names no order."""
    try:
        return parse_order_id(text)
    except FormatError as error:
        raise Problem("order_not_found", f"There is no order {text[:64]!r}.", field="order_id") from error


def new_command(registry: Registry, account: int, order: NewOrder | BatchItem, key: str) -> Command:
    """NEW for an order of `account` under `key`."""
    market = market_of(registry, order.symbol)
    check_identifier(key, "idempotency_key")
    side = SIDES[order.side]
    order_type = ORDER_TYPES[order.type]
    time_in_force = TIMES_IN_FORCE[order.time_in_force]
    quantity = quantity_lots(market, order.quantity)
    price = 0
    if order.price is not None:
        price = price_ticks(market, order.price)
    elif order_type == 0:
        raise Problem("missing_field", "'price' is required for a limit order.", field="price")
    flags = 0
    if order.post_only:
        if order_type == 1 or time_in_force != 0:
            detail = "'post_only' goes with limit orders that are GTC only."
            raise Problem("invalid_flags", detail, field="post_only", limit="limit, GTC")
        flags = int(CommandFlag.POST_ONLY)
    texts: tuple[tuple[int, bytes], ...] = ((IDEMPOTENCY_KEY, key.encode()),)
    client_id = (0, 0)
    if order.client_order_id is not None:
        check_identifier(order.client_order_id, "client_order_id")
        client_id = digest_pair(order.client_order_id)
        texts = ((CLIENT_ORDER_ID, order.client_order_id.encode()), *texts)
    body = body_digest(
        CommandType.NEW,
        side=side,
        order_type=order_type,
        time_in_force=time_in_force,
        flags=flags,
        market=market.number,
        price=price,
        quantity=quantity,
        client_id=client_id,
    )
    record = pack(
        CommandType.NEW,
        side=side,
        order_type=order_type,
        time_in_force=time_in_force,
        flags=flags,
        account=account,
        market=market.number,
        slot=NO_SLOT,
        price=price,
        quantity=quantity,
        client_id=client_id,
        key=digest_pair(key),
        body=body,
    )
    return Command(record, texts, account, key, body, order_type == 1 or time_in_force != 0)


def cancel_command(account: int, order_id: int, slot: int) -> Command:
    """CANCEL by name.  It has no idempotency key: cancelling twice is harmless."""
    record = pack(CommandType.CANCEL, account=account, order_id=order_id, slot=slot)
    body = body_digest(CommandType.CANCEL, order_id=order_id)
    return Command(record, (), account, None, body)


def amend_command(market: Market, account: int, order_id: int, slot: int, amend: Amend) -> Command:
    """AMEND by name: the new price, the new OrderQty, or both."""
    if amend.price is None and amend.quantity is None:
        raise Problem("missing_field", "'price' or 'quantity' is required.", field="price")
    price = 0 if amend.price is None else price_ticks(market, amend.price)
    quantity = 0 if amend.quantity is None else quantity_lots(market, amend.quantity)
    texts: tuple[tuple[int, bytes], ...] = ()
    key = (0, 0)
    if amend.idempotency_key is not None:
        check_identifier(amend.idempotency_key, "idempotency_key")
        key = digest_pair(amend.idempotency_key)
        texts = ((IDEMPOTENCY_KEY, amend.idempotency_key.encode()),)
    body = body_digest(CommandType.AMEND, order_id=order_id, price=price, quantity=quantity)
    record = pack(
        CommandType.AMEND,
        account=account,
        order_id=order_id,
        slot=slot,
        price=price,
        quantity=quantity,
        key=key,
        body=body,
    )
    return Command(record, texts, account, amend.idempotency_key, body)
