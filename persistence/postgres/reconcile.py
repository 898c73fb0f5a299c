"""Compares the engine's state with the rows, at the same sequence (R6).

The engine says what is: a difference is reported, never papered over. Both
sides are sorted by key and compared field by field, so a missing row, a row too
many and a wrong value each show as what they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persistence.postgres.errors import ProjectionError
from persistence.postgres.pool import Connection, Pool
from persistence.postgres.projector import read_cursor

MISMATCHES_MAX = 1000
"""Reported at most; more than that says nothing new."""
READ_S_MAX = 120.0

_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "orders": (
        ("order_id",),
        (
            "slot",
            "account",
            "market",
            "side",
            "order_type",
            "time_in_force",
            "price",
            "quantity",
            "filled",
            "leaves",
            "priority",
        ),
        "SELECT order_id, slot, account, market, side, order_type, time_in_force, price, quantity, filled, "
        "leaves, priority FROM orders WHERE status < 2",
    ),
    "balances": (
        ("account", "asset"),
        ("available", "held"),
        "SELECT account, asset, available, held FROM balances WHERE available <> 0 OR held <> 0",
    ),
    "accounts": (("account",), ("state",), "SELECT account, state FROM accounts"),
    "markets": (
        ("market",),
        ("base_asset", "quote_asset", "state", "tick_atoms", "lot_atoms", "maker_fee_ppm", "taker_fee_ppm"),
        "SELECT market, base_asset, quote_asset, state, tick_atoms, lot_atoms, maker_fee_ppm, taker_fee_ppm "
        "FROM markets",
    ),
    "assets": (("asset",), (), "SELECT asset FROM assets"),
}
"""Section → key columns, compared columns, query."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One difference. `engine` or `database` is None where there is no such row."""

    section: str
    key: tuple[int, ...]
    field: str
    engine: int | None
    database: int | None


class NotAtSequence(ProjectionError):
    """Rows and dump are of different sequences; nothing was compared."""


async def reconcile(pool: Pool, sections: Mapping[str, NDArray[Any]]) -> list[Mismatch]:
    """Differences between a dump of the engine and the rows; empty if there are none.

    Parameters
    ----------
    sections : dict
        As `Engine.dump` gives them; the sequence is in `venue`.

    Raises
    ------
    NotAtSequence
        The cursor is not at the dump's sequence: catch up, or take another dump.
    """
    sequence = int(sections["venue"][0]["sequence"])
    mismatches: list[Mismatch] = []
    async with pool.transaction(isolation="repeatable_read", readonly=True) as connection:
        cursor = await read_cursor(connection)
        if cursor.sequence != sequence:
            raise NotAtSequence(
                f"the rows are at sequence {cursor.sequence}, the engine's state at {sequence}"
            )
        venue = sections["venue"][0]
        for name, mine, theirs in (
            ("epoch", venue["epoch"], cursor.epoch),
            ("state", venue["state"], cursor.venue_state),
            ("events", venue["events"], cursor.event_number),
            ("trades", venue["trades"], await connection.fetchval("SELECT count(*) FROM trades")),
        ):
            if int(mine) != theirs:
                mismatches.append(Mismatch("venue", (0,), name, int(mine), theirs))
        for section in _TABLES:
            mismatches += await _compare(connection, section, sections[section])
    return mismatches[:MISMATCHES_MAX]


async def _compare(connection: Connection, section: str, engine: NDArray[Any]) -> list[Mismatch]:
    keys, fields, query = _TABLES[section]
    columns = [*keys, *fields]
    rows = await connection.fetch(query, timeout=READ_S_MAX)
    database = np.array([tuple(row) for row in rows], np.int64).reshape(len(rows), len(columns))
    state = np.empty((len(engine), len(columns)), np.int64)
    for place, column in enumerate(columns):
        state[:, place] = engine[column]
    width = len(keys)
    theirs = {tuple(row[:width]): row for row in database.tolist()}
    found: list[Mismatch] = []
    for mine in state.tolist():
        key = tuple(mine[:width])
        row = theirs.pop(key, None)
        if row is None:
            found.append(Mismatch(section, key, "missing row", 1, None))
        elif row != mine:
            found += [
                Mismatch(section, key, column, a, b)
                for column, a, b in zip(columns, mine, row, strict=True)
                if a != b
            ]
        if len(found) >= MISMATCHES_MAX:
            return found
    return found + [Mismatch(section, key, "row too many", None, 1) for key in theirs]
