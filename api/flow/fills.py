"""From events back to rows: fills in the file's own ids, the mixed checksum, the report text.

`sequence - first_sequence` is the row of a command, and an order's id is the
sequence of the NEW that made it, hence also a row.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api.flow.flow import Column, Flow
from api.flow.formats import Trades
from engine.types import CommandType, EventFlag, EventType

_FNV_PRIME = 0x100000001B3
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Fills:
    """Trades with both orders, a row each."""

    row: Column
    maker: Column
    taker: Column
    price: Column
    quantity: Column
    taker_buys: Column

    def __len__(self) -> int:
        return len(self.row)


def fills_of(flow: Flow, events: NDArray[np.void], first_sequence: int) -> Fills:
    """The trades among `events`: each is the maker's FILL, then the taker's."""
    fills = events[events["type"] == EventType.FILL]
    makers, takers = fills[0::2], fills[1::2]
    return Fills(
        row=_row(takers["sequence"], first_sequence),
        maker=flow.order[_row(makers["order_id"], first_sequence)],
        taker=flow.order[_row(takers["order_id"], first_sequence)],
        price=takers["price"].copy(),
        quantity=takers["quantity"].copy(),
        taker_buys=(takers["flags"] & EventFlag.SELL) == 0,
    )


def joined(parts: Iterable[Fills]) -> Fills:
    """Fills of successive batches as one."""
    columns = zip(*((p.row, p.maker, p.taker, p.price, p.quantity, p.taker_buys) for p in parts), strict=True)
    return Fills(*(np.concatenate(column) for column in columns))


def as_trades(flow: Flow, fills: Fills) -> Trades:
    """In the columns of a trades file."""
    maker, taker = fills.maker.astype(np.int64), fills.taker.astype(np.int64)
    return Trades(
        number=flow.number[fills.row],
        buy=np.where(fills.taker_buys, taker, maker),
        sell=np.where(fills.taker_buys, maker, taker),
        price=fills.price,
        quantity=fills.quantity,
        buy_aggressor=fills.taker_buys,
    )


def checksum(fills: Fills) -> int:
    """FNV-like sum over the trades in order, in 64 bits that wrap."""
    maker, taker = fills.maker.astype(np.uint64), fills.taker.astype(np.uint64)
    price, quantity = fills.price.astype(np.uint64), fills.quantity.astype(np.uint64)
    words = (maker << np.uint64(32)) ^ taker ^ (price << np.uint64(13)) ^ (quantity << np.uint64(50))
    total = 0
    for word in words.tolist():
        total = total * _FNV_PRIME & _WORD ^ word
    return total


def report_lines(flow: Flow, events: NDArray[np.void], first_sequence: int) -> list[str]:
    """The report text of whole commands, a line each, sorted by (sequence, kind), stable.

    ``0,seq,side,id,px,qty`` accepted, ``1,seq,px,qty,maker,taker`` trade,
    ``2,seq,side,id,px`` cancelled, ``3,seq,side,id,px,qty`` modified,
    ``4,seq,id`` cancel and ``5,seq,id`` modify refused.
    """
    kind, amount = events["type"], events["amount"]
    is_taker = (kind == EventType.FILL) & (events["flags"] & EventFlag.TAKER != 0)
    is_maker = (kind == EventType.FILL) & ~is_taker
    refused = kind == EventType.REJECTED
    line = np.full(len(events), -1, np.int8)
    line[kind == EventType.ACCEPTED] = 0
    line[is_taker] = 1
    line[kind == EventType.CANCELED] = 2
    line[kind == EventType.AMENDED] = 3
    line[refused & (amount == CommandType.CANCEL)] = 4
    line[refused & (amount == CommandType.AMEND)] = 5

    row = _row(events["sequence"], first_sequence)
    number = flow.number[row]
    side = (events["flags"] & EventFlag.SELL).astype(np.int64)
    named = kind != EventType.REJECTED
    order = flow.order[row]
    order[named] = _order_names(flow, events, named, first_sequence)
    maker = np.zeros(len(events), np.uint64)
    maker[is_taker] = order[is_maker]
    price, quantity, leaves = events["price"], events["quantity"], events["leaves"]

    lines = np.empty(len(events), object)
    for which, template, columns in (
        (0, "0,%d,%d,%d,%d,%d", (number, side, order, price, quantity)),
        (1, "1,%d,%d,%d,%d,%d", (number, price, quantity, maker, order)),
        (2, "2,%d,%d,%d,%d", (number, side, order, price)),
        (3, "3,%d,%d,%d,%d,%d", (number, side, order, price, leaves)),
        (4, "4,%d,%d", (number, order)),
        (5, "5,%d,%d", (number, order)),
    ):
        mine = line == which
        values = zip(*(column[mine].tolist() for column in columns), strict=True)
        lines[mine] = [template % value for value in values]
    kept = np.flatnonzero(line >= 0)
    text: list[str] = lines[kept[np.lexsort((line[kept], row[kept]))]].tolist()
    return text


class ReportHash:
    """SHA-256 of report lines joined by newlines, fed in parts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._separator = ""
        self.lines = 0

    def feed(self, lines: list[str]) -> None:
        if lines:
            self._digest.update((self._separator + "\n".join(lines)).encode("ascii"))
            self._separator = "\n"
            self.lines += len(lines)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _row(sequence: Column, first_sequence: int) -> NDArray[np.int64]:
    return sequence.astype(np.int64) - first_sequence


def _order_names(flow: Flow, events: NDArray[np.void], named: Column, first_sequence: int) -> Column:
    """The file's ids of the orders that events are about; balances are about none."""
    order_id = events["order_id"][named]
    about_order = order_id != 0
    names = np.zeros(len(order_id), np.uint64)
    names[about_order] = flow.order[_row(order_id[about_order], first_sequence)]
    return names
