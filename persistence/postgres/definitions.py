"""The rare events: what exists, its names and states, deposits and withdrawals.

Names come from the text beside the command (tag 4, JSON). They are the venue's
own words, but the projector must not stop for one that is missing or odd: it
gets a name made from its number, and a log line.
"""

from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
import structlog

from engine.types import EventType
from persistence.postgres.fold import Batch
from persistence.postgres.pool import Connection

_log = structlog.get_logger(__name__)
Rows = list[tuple[Any, ...]]

_TIME = "'epoch'::timestamptz + (%s / 1000) * interval '1 microsecond'"

_STATEMENTS: dict[int, str] = {
    EventType.ASSET_OPENED: f"""
        INSERT INTO assets (asset, symbol, decimals, definition, opened_sequence, opened_at)
        VALUES ($1, $2, $3, $4, $5, {_TIME % "$6::bigint"})""",
    EventType.MARKET_OPENED: f"""
        INSERT INTO markets (market, symbol, base_asset, quote_asset, tick_size, lot_size, tick_atoms,
                             lot_atoms, maker_fee_ppm, taker_fee_ppm, state, definition,
                             opened_sequence, opened_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, {_TIME % "$13::bigint"})""",
    EventType.ACCOUNT_OPENED: f"""
        INSERT INTO accounts (account, name, state, definition, opened_sequence, opened_at)
        VALUES ($1, $2, 0, $3, $4, {_TIME % "$5::bigint"})""",
    EventType.KEY_ADDED: """
        INSERT INTO api_keys (hash, account, scopes, expire_time_ns, name, definition, added_sequence)
        VALUES ($1, $2, $3, $4, $5, $6, $7)""",
    EventType.KEY_REVOKED: "UPDATE api_keys SET revoked_sequence = $2 WHERE hash = $1",
    EventType.MARKET_STATE: "UPDATE markets SET state = $2 WHERE market = $1",
    EventType.ACCOUNT_STATE: "UPDATE accounts SET state = $2 WHERE account = $1",
    EventType.DEPOSITED: f"""
        INSERT INTO transactions (sequence, kind, account, asset, quantity, transaction_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, {_TIME % "$7::bigint"})""",
}
"""Asset to account order is what references need; WITHDRAWN shares DEPOSITED's."""


async def write(connection: Connection, batch: Batch) -> None:
    """Write the batch's definitions and transactions, in the order that references need."""
    by_kind: dict[int, Rows] = {kind: [] for kind in _STATEMENTS}
    for index, event in batch.definitions:
        kind = EventType(int(event["type"]))
        if kind == EventType.VENUE_STATE:
            continue  # Part of the cursor's row.
        row = _row(batch, kind, event, int(batch.times[index]))
        by_kind[EventType.DEPOSITED if kind == EventType.WITHDRAWN else kind].append(row)
    for statement, rows in zip(_STATEMENTS.values(), by_kind.values(), strict=True):
        if rows:
            await connection.executemany(statement, rows)


def _row(batch: Batch, kind: EventType, event: Any, time_ns: int) -> tuple[Any, ...]:
    sequence, account, market = int(event["sequence"]), int(event["account"]), int(event["market"])
    definition = _definition(batch, sequence)
    match kind:
        case EventType.ASSET_OPENED:
            decimals = definition.get("decimals")
            if not isinstance(decimals, int) or not 0 <= decimals <= 38:
                decimals = 0
            symbol = _name(definition, "symbol", f"ASSET{market}")
            return market, symbol, decimals, definition, sequence, time_ns
        case EventType.MARKET_OPENED:
            symbol = _name(definition, "symbol", f"MARKET{market}")
            sizes = _size(definition, "tick_size"), _size(definition, "lot_size")
            assets = account, int(event["slot"])
            terms = [int(event[name]) for name in ("price", "quantity", "leaves", "amount")]
            return market, symbol, *assets, *sizes, *terms, definition, sequence, time_ns
        case EventType.ACCOUNT_OPENED:
            return account, _name(definition, "name", f"account {account}"), definition, sequence, time_ns
        case EventType.KEY_ADDED:
            name = _name(definition, "name", "")
            return _hash(event), account, market, int(event["amount"]), name, definition, sequence
        case EventType.KEY_REVOKED:
            return _hash(event), sequence
        case EventType.MARKET_STATE:
            return market, int(event["amount"])
        case EventType.ACCOUNT_STATE:
            return account, int(event["amount"])
        case _:
            word = "DEPOSIT" if kind == EventType.DEPOSITED else "WITHDRAWAL"
            raw = batch.texts.transaction_ids.get(sequence)
            name_of = None if raw is None else _clean(raw).decode()
            return sequence, word, account, market, int(event["quantity"]), name_of, time_ns


def _hash(event: Any) -> bytes:
    raw: bytes = event.tobytes()
    return raw[16:24] + raw[32:56]


def _clean(raw: bytes) -> bytes:
    return raw.decode(errors="replace").replace("\0", "\ufffd").encode()


def _definition(batch: Batch, sequence: int) -> dict[str, Any]:
    raw = batch.texts.definitions.get(sequence)
    if raw is None:
        return {}
    try:
        # jsonb cannot hold NUL, however it is spelled.
        value = orjson.loads(_clean(raw).replace(b"\\u0000", b"\\ufffd"))
    except orjson.JSONDecodeError as error:
        _log.error("definition_not_json", sequence=sequence, error=str(error))
        return {}
    if not isinstance(value, dict):
        _log.error("definition_not_an_object", sequence=sequence)
        return {}
    return value


def _name(definition: dict[str, Any], field: str, otherwise: str) -> str:
    value = definition.get(field)
    return value if isinstance(value, str) and value else otherwise


def _size(definition: dict[str, Any], field: str) -> Decimal:
    try:
        value = Decimal(str(definition.get(field, "1")))
    except InvalidOperation:
        return Decimal(1)
    return value if value.is_finite() and value > 0 and abs(value.adjusted()) < 40 else Decimal(1)
